"""A genuine record, and records of any content by keys of the tests' own."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from penstock.gateways.ocmf import OcmfKey

# A KEBA KCP30's own record, with a begin and an end.
KEBA = (
    'OCMF|{"FV":"1.0","GI":"KEBA_KCP30","GS":"17619300","GV":"2.8.5","PG":"T32","IS":false,"IL":"NONE","IF":['
    '"RFID_NONE","OCPP_NONE","ISO15118_NONE","PLMN_NONE"],"IT":"NONE","ID":"","RD":['
    '{"TM":"2019-08-13T10:03:15,000+0000 I","TX":"B","EF":"","ST":"G","RV":0.2596,"RI":"1-b:1.8.0","RU":"kWh"},'
    '{"TM":"2019-08-13T10:03:36,000+0000 R","TX":"E","EF":"","ST":"G","RV":0.2597,"RI":"1-b:1.8.0","RU":"kWh"}]}|'
    '{"SD":"304502200E2F107C987A300AC1695CA89EA149A8CDFA16188AF0A33EE64B67964AA943F9'
    '022100889A72B6D65364BEA8562E7F6A0253157ACFF84FE4929A93B5964D23C4265699"}'
)
KEBA_KEY = (
    "3059301306072A8648CE3D020106082A8648CE3D030107034200043AEEB45C392357820A58FDFB0857BD77ADA31585C61C430531DFA53B440AFB"
    "FDD95AC887C658EA55260F808F55CA948DF235C2108A0D6DC7D4AB1A5E1A7955BE"
)


@cache
def private(curve: str = "secp256r1", secret: int = 4711) -> ec.EllipticCurvePrivateKey:
    """A meter's private key on that curve."""
    curves = {
        "secp192r1": ec.SECP192R1(), "secp256k1": ec.SECP256K1(), "secp256r1": ec.SECP256R1(),
        "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1(), "brainpoolP256r1": ec.BrainpoolP256R1(),
        "brainpoolP384r1": ec.BrainpoolP384R1(), "secp224r1": ec.SECP224R1(),
    }  # fmt: skip
    return ec.derive_private_key(secret, curves[curve])


def der(curve: str = "secp256r1", secret: int = 4711) -> bytes:
    """Its public key."""
    return private(curve, secret).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key(curve: str = "secp256r1", secret: int = 4711) -> OcmfKey:
    """Its public key, as it is checked with."""
    return OcmfKey(der(curve, secret))


def sign(payload: str, curve: str = "secp256r1", digest: str = "SHA256") -> bytes:
    """The DER signature of a payload."""
    hash_ = {"SHA256": SHA256(), "SHA512": SHA512()}[digest]
    return private(curve).sign(payload.encode(), ec.ECDSA(hash_, deterministic_signing=True))


def text(payload: str | dict[str, Any], **signature: Any) -> str:
    """A record with a true signature on secp256r1, but for the fields of the signature section that are given."""
    said = payload if isinstance(payload, str) else json.dumps(payload)
    return f"OCMF|{said}|{json.dumps({'SD': sign(said).hex(), **signature})}"


def base64_of(payload: str) -> str:
    """Its signature in base64."""
    return base64.b64encode(sign(payload)).decode()


def payload(page: str, *rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The payload of a meter that is well."""
    return {"FV": "1.0", "GS": "4711", "PG": page, "RD": list(rows), **fields}


def row(kwh: Any, seconds: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A reading `seconds` after ten o'clock."""
    minutes, rest = divmod(seconds, 60)
    when = {"TM": f"2026-11-22T10:{minutes:02}:{rest:02},000+0100 S"}
    tx = {} if reason is None else {"TX": reason}
    return {**when, **tx, "RV": kwh, "RI": "1-b:1.8.0", "RU": "kWh", "EF": "", "ST": "G", **fields}


def record(page: str, kwh: Any, seconds: int = 0, reason: str | None = None, **fields: Any) -> str:
    """A record of one reading."""
    return text(payload(page, row(kwh, seconds, reason), **fields))
