"""What a session makes of a meter: totals since it began, that never fall, and agreement of two meters."""

from __future__ import annotations

from typing import Protocol

import msgspec

from penstock.core.errors import DeviceError
from penstock.core.units import MAX_QUANTITY, Instant, Quantity


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """A meter's running totals (units of the medium) at an instant of the meter's clock.

    `total` is its import register: what went from the supplier to the consumer. `export` is its export register: what
    the consumer fed back; 0 where nothing can flow that way. `record` is what the device itself signed of it, in the
    device's own form; empty where it signs nothing.
    """

    total: Quantity
    at: Instant
    record: bytes = b""
    export: Quantity = Quantity(0)


class Tolerance(msgspec.Struct, frozen=True, array_like=True):
    """How far two meters of the same flow may be apart: `units`, and `ppm` millionths of the total on top.

    Meters of class B (EN 50470) are within 1 %, so that two of them are within 2 %: 20_000 ppm.
    """

    units: int
    ppm: int

    def at(self, total: int) -> int:
        """The difference allowed at `total`, in units of the medium."""
        return self.units + total * self.ppm // 1_000_000


class Seal(Protocol):
    """Checks what the supplier's meter signed of each reading that is announced, in the order of the readings."""

    def begin(self, record: bytes, total: Quantity) -> None:
        """This record is of the session's beginning (`total` 0), or of when we took it up, at that total.

        Raises:
            BadReading: the meter of the terms did not sign that.
        """
        ...

    def check(self, record: bytes, total: Quantity, at: Instant) -> None:
        """The supplier says that its meter counted `total` since the session began, at `at`, and shows this record.

        Raises:
            BadReading: the meter of the terms did not sign that.
        """
        ...


class SessionMeter:
    """One meter's total since the session began. `base` is the register's total at the beginning."""

    __slots__ = ("at", "base", "export", "record", "total")

    def __init__(self, base: Reading) -> None:
        self.base = base
        self.total = Quantity(0)
        self.export = Quantity(0)
        self.at = base.at
        self.record = base.record

    def take(self, reading: Reading) -> Quantity:
        """Take a reading of the register; returns the session's total.

        Raises:
            DeviceError: the register or its clock went back. Nothing has changed.
        """
        total, export = reading.total - self.base.total, reading.export - self.base.export
        if total < self.total or export < self.export or reading.at < self.at or max(total, export) > MAX_QUANTITY:
            raise DeviceError(
                f"the meter fell: {self.base.total + self.total} and {self.base.export + self.export} at {self.at}, "
                f"now {reading.total} and {reading.export} at {reading.at}",
                "replace the meter; nothing that it says can be billed",
            )
        self.total = Quantity(total)
        self.export = Quantity(export)
        self.at = reading.at
        self.record = reading.record
        return self.total
