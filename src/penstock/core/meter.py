"""What a session makes of a meter: totals since it began, that never fall, and agreement of two meters."""

from __future__ import annotations

import msgspec

from penstock.core.errors import DeviceError
from penstock.core.units import MAX_QUANTITY, Instant, Quantity


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """A meter's running total (units of the medium) at an instant of the meter's clock."""

    total: Quantity
    at: Instant


class Tolerance(msgspec.Struct, frozen=True, array_like=True):
    """How far two meters of the same flow may be apart: `units`, and `ppm` millionths of the total on top.

    Meters of class B (EN 50470) are within 1 %, so that two of them are within 2 %: 20_000 ppm.
    """

    units: int
    ppm: int

    def at(self, total: int) -> int:
        """The difference allowed at `total`, in units of the medium."""
        return self.units + total * self.ppm // 1_000_000


class SessionMeter:
    """One meter's total since the session began. `base` is the register's total at the beginning."""

    __slots__ = ("at", "base", "total")

    def __init__(self, base: Reading) -> None:
        self.base = base
        self.total = Quantity(0)
        self.at = base.at

    def take(self, reading: Reading) -> Quantity:
        """Take a reading of the register; returns the session's total.

        Raises:
            DeviceError: the register or its clock went back. Nothing has changed.
        """
        total = reading.total - self.base.total
        if total < self.total or reading.at < self.at or total > MAX_QUANTITY:
            raise DeviceError(
                f"the meter fell: {self.base.total + self.total} at {self.at}, now {reading.total} at {reading.at}",
                "replace the meter; nothing that it says can be billed",
            )
        self.total = Quantity(total)
        self.at = reading.at
        return self.total
