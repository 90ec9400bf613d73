"""A meter that signs what it reads, at its own gateway and at the peer that is shown its records."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import BadReading, BadTerms, DeviceError, OutOfRange
from penstock.core.meter import Reading
from penstock.core.units import Instant, Quantity
from penstock.gateways.ocmf.key import OcmfKey
from penstock.gateways.ocmf.readings import OcmfReadings


class OcmfMeter:
    """The `Meter` whose readings come in as OCMF texts: its total is the register in whole Wh, rounded down.

    Where the register begins anew with each transaction (B2 and B3), each session needs a meter of its own.
    """

    __slots__ = ("_readings", "_watchers")

    def __init__(self, key: OcmfKey) -> None:
        self._readings = OcmfReadings(key)
        self._watchers: list[Callable[[Reading], None]] = []

    def feed(self, text: bytes | str) -> Reading:
        """Take the meter's next record, and tell the watchers.

        Raises:
            BadReading: as `OcmfReadings.check`. The reading before it stands, and nobody was told.
        """
        reading = self._readings.take(text).reading
        for on_reading in self._watchers:
            on_reading(reading)
        return reading

    def read(self) -> Reading:
        """The newest reading, with its record.

        Raises:
            DeviceError: no record has come yet.
        """
        newest = self._readings.newest
        if newest is None:
            raise DeviceError("the meter has signed nothing yet", "wait for its first record")
        return newest.reading

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` with each record that is taken."""
        self._watchers.append(on_reading)


class OcmfSeal:
    """The `Seal` of a session whose supplier's meter signs OCMF: what is announced is what the meter signed.

    What was announced may be repeated with its record, as it is after a lost link and at the end.
    """

    __slots__ = ("_base", "_readings")

    def __init__(self, key: OcmfKey) -> None:
        self._readings = OcmfReadings(key, every=False)
        self._base: Quantity | None = None

    @classmethod
    def named(cls, meter: str) -> OcmfSeal:
        """The seal of the meter that an offer names (`core.offer.Offer.meter`).

        Raises:
            BadTerms: it is not named by a key of OCMF, in the form of `str(OcmfKey)`.
        """
        try:
            key = OcmfKey.parse(meter)
        except OutOfRange as error:
            raise BadTerms(f"the offer names no meter that can be checked: {error}") from None
        if str(key) != meter:
            raise BadTerms("the offer names its meter in another form than ocmf: and the digits of its key")
        return cls(key)

    def begin(self, record: bytes, total: Quantity) -> None:
        """Count from the register of this record, `total` of which is the session's already.

        Raises:
            BadReading: as `check`.
        """
        signed = self._readings.check(record)
        if signed.last.total < total:
            raise BadReading(f"the meter signed {signed.last.total} Wh, less than the {total} Wh announced")
        self._base = Quantity(signed.last.total - total)
        self._readings.accept(signed)

    def check(self, record: bytes, total: Quantity, at: Instant) -> None:
        """Pass where the meter signed `total` (Wh since the first record) at `at`; the first record is for total 0.

        Raises:
            BadReading: it did not, or the record does not follow those before (`OcmfReadings.check`). Nothing changed.
        """
        newest = self._readings.newest
        if not record:
            raise BadReading("the reading is unsigned: the meter's record is not there")
        signed = newest if newest is not None and record == newest.text else self._readings.check(record)
        base = signed.last.total if self._base is None else self._base
        if (signed.last.total - base, signed.last.at) != (total, at):
            said = f"{signed.last.total - base} Wh at {signed.last.at}"
            raise BadReading(f"the reading is not what the meter signed: {said}, not {total} Wh at {at}")
        self._base = base
        self._readings.accept(signed)
