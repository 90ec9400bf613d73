"""The media that flow, their unit, and the quantity that their prices are quoted for."""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.errors import OutOfRange


class Medium(NamedTuple):
    """A flowing good. `unit` is what a `Quantity` counts; prices are quoted per `per` units, called `quoted`."""

    name: str
    unit: str
    per: int
    quoted: str


MEDIA = {
    medium.name: medium
    for medium in (
        Medium("electricity", "Wh", 1_000, "kWh"),
        Medium("gas", "L", 1_000, "m3"),
        Medium("water", "L", 1_000, "m3"),
        Medium("data", "bytes", 10**9, "GB"),
        Medium("compute", "core-ms", 3_600_000, "core-hour"),
        Medium("time", "ms", 3_600_000, "hour"),
        Medium("requests", "requests", 1, "request"),
        Medium("distance", "m", 1_000, "km"),
    )
}


def medium(name: str) -> Medium:
    """The medium of that name.

    Raises:
        OutOfRange: no such medium.
    """
    try:
        return MEDIA[name]
    except KeyError:
        raise OutOfRange(f"no medium {name[:40]!r}", f"one of {', '.join(MEDIA)}") from None
