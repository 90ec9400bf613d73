"""Readings in the Open Charge Metering Format: keys, records, their order, and a meter that is fed with them."""

from penstock.core.errors import UsageError

try:
    import pyocmf  # noqa: F401  # what this package rests on
except ModuleNotFoundError:
    raise UsageError("this needs what reads OCMF", "run: pip install 'penstock[ocmf]'") from None

from penstock.gateways.ocmf.envelope import texts
from penstock.gateways.ocmf.key import OcmfKey
from penstock.gateways.ocmf.meter import OcmfMeter, OcmfSeal
from penstock.gateways.ocmf.readings import OcmfReadings
from penstock.gateways.ocmf.record import OcmfReading, OcmfRecord, verify

__all__ = ["OcmfKey", "OcmfMeter", "OcmfReading", "OcmfReadings", "OcmfRecord", "OcmfSeal", "texts", "verify"]
