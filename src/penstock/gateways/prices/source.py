"""What a source of prices is, and which one a name means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from penstock.core import published
from penstock.core.errors import BadRates, UsageError
from penstock.core.identity import Address
from penstock.core.series import Rates
from penstock.core.units import Instant


class Source(Protocol):
    """Prices from somewhere. `name` is shown to people, and has no secret in it.

    `again` is how long the last answer is good for (seconds): asking sooner is of no use.
    """

    name: str
    again: float

    async def rates(self) -> Rates:
        """The newest series. What was answered before stays good where this raises.

        Raises:
            PricesUnreachable: no answer, or none that can be used. BadRates: an answer that is no series of ours.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class Vouched(NamedTuple):
    """Whose signature a series must have, and under which title."""

    signer: Address
    title: str


class Reader:
    """Reads one source's answers. A series that was issued before the last one that was taken is refused."""

    __slots__ = ("_issued", "vouched")

    def __init__(self, vouched: Vouched | None) -> None:
        self.vouched = vouched
        self._issued = Instant(0)

    def read(self, data: bytes) -> Rates:
        """The series in an answer. It takes up to a second of CPU: not for an event loop that has other work.

        Raises:
            BadRates: it is none, or not vouched for.
        """
        found = published.parse(data)
        if self.vouched is not None:
            found.check(*self.vouched)
            if found.issued < self._issued:
                raise BadRates("these prices were issued before those that we have")
            self._issued = found.issued
        return found.rates


def source(name: str, clock: Callable[[], Instant], vouched: Vouched | None = None) -> Source:
    """The source that a name means: http(s)://..., entsoe:AREA, nordpool:AREA, or a file.

    Raises:
        UsageError: a URL that may not be asked, a market without its library or its key.
    """
    from penstock.gateways.prices.file import FileSource
    from penstock.gateways.prices.http import HttpSource

    if name.startswith(("http://", "https://")):
        return HttpSource(name, vouched)
    market, _, area = name.partition(":")
    if market in ("entsoe", "nordpool"):
        from penstock.gateways.prices.market import EntsoeSource, NordpoolSource

        if vouched is not None:
            raise UsageError("a market signs no prices", "leave out whose signature they must have")
        return EntsoeSource(area, clock) if market == "entsoe" else NordpoolSource(area, clock)
    if "://" in name[:12]:
        raise UsageError(f"prices cannot be had from {name[:80]!r}", "give a file, or a URL with http:// or https://")
    return FileSource(Path(name), vouched)
