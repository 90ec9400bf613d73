"""The newest series of a source, kept while the source fails."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from penstock.core.errors import PriceError
from penstock.core.series import Rates
from penstock.core.units import Instant
from penstock.gateways.prices.source import Source

FIRST, LONGEST = 5.0, 900.0  # seconds until a source that failed is asked again; longer each time
JITTER = 0.1  # of a pause: a thousand poles that were started at once do not stay together


class Newest:
    """Follows a source: `rates` is its last good series, `fault` why there is no newer one."""

    __slots__ = ("_clock", "_on_rates", "_source", "_tell", "fault", "rates", "seen")

    def __init__(
        self,
        source: Source,
        on_rates: Callable[[Rates], None],
        clock: Callable[[], Instant],
        tell: Callable[..., object],
    ) -> None:
        """`on_rates` is called whenever the series changes, `tell` when the source fails or is back."""
        self.rates: Rates | None = None
        self.seen: Instant | None = None  # when the source last said what `rates` says
        self.fault: PriceError | None = None
        self._source, self._on_rates, self._clock, self._tell = source, on_rates, clock, tell

    @property
    def stale(self) -> bool:
        """Whether `rates` may be out of date: the source was asked again, and did not say."""
        return self.fault is not None

    async def first(self) -> Rates:
        """Ask once, before anything is sold.

        Raises:
            PriceError: the source has no prices that can be used.
        """
        rates = await self._source.rates()
        self._take(rates)
        return rates

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        pause = FIRST
        while True:
            wait = self._source.again if self.fault is None else max(pause, self._source.again)
            await asyncio.sleep(wait * (1 + JITTER * secrets.randbelow(1_000) / 1_000))
            try:
                self._take(await self._source.rates())
                pause = FIRST
            except PriceError as error:
                pause = min(LONGEST, 2 * pause) if self.fault is not None else FIRST
                self._failed(error)

    def _take(self, rates: Rates) -> None:
        if self.fault is not None:
            self._tell("prices are back", source=self._source.name)
        self.fault, self.seen = None, self._clock()
        if rates != self.rates:
            self.rates = rates
            self._on_rates(rates)

    def _failed(self, error: PriceError) -> None:
        if self.fault is None or str(error) != str(self.fault):
            age = None if self.seen is None else (self._clock() - self.seen) // 1_000
            self._tell("prices failed", source=self._source.name, error=error.line(), age=age)
        self.fault = error
