"""The price series that a pole follows: where they come from, and what is sold by the newest of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from penstock.cli.config import SupplySection
from penstock.cli.goods import Series, goods
from penstock.core.errors import BadTerms, OutOfRange, PriceError, UsageError

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts
    from penstock.core.series import Rates
    from penstock.gateways.prices import Newest, Vouched
    from penstock.node.supplier import Goods, Supplier
    from penstock.node.tell import Tell

SUPPLY, FEED = "supply", "feed"  # the titles that signed series must have
HOUR = 3_600.0  # seconds after which prices are looked at again: a series may be longer than a tariff


class Pricing:
    """What a pole sells by the newest prices: made by `priced`, which lets go of the sources in the end."""

    def __init__(self, section: SupplySection, token: TokenFacts, tell: Tell) -> None:
        self.newest: dict[str, Newest] = {}
        self._section, self._token, self._tell = section, token, tell
        self._changed = asyncio.Event()

    def on_rates(self, rates: Rates) -> None:
        """There are other prices than before."""
        self._changed.set()

    def goods(self) -> Goods:
        """What is sold now. Raises as `cli.goods.goods`."""
        from penstock.node.clock import now

        found = {name: newest.rates for name, newest in self.newest.items()}
        return goods(self._section, self._token, Series(**found), now())

    async def follow(self, supplier: Supplier) -> None:
        """Let a supplier sell by what comes from now on, until cancelled."""
        if not self.newest:
            return
        following = [asyncio.ensure_future(newest.run()) for newest in self.newest.values()]
        try:
            while True:
                await self._news()
                self._offer(supplier)
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _news(self) -> None:
        try:
            async with asyncio.timeout(HOUR):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def _offer(self, supplier: Supplier) -> None:
        try:
            made = self.goods()
            supplier.sell(made)
        except (PriceError, BadTerms, OutOfRange) as error:  # what is on offer stays, up to its end
            self._tell("prices not taken", error=error.line())
            return
        self._tell("prices", steps=len(made.tariff.steps), price=made.tariff.steps[0].amount, per=made.tariff.per)


@asynccontextmanager
async def priced(section: SupplySection, token: TokenFacts, tell: Tell) -> AsyncIterator[Pricing]:
    """The pole's pricing, with a first series from each of its sources.

    Raises:
        PriceError: a source has none that can be used. UsageError: a source is none, or needs what is not installed.
    """
    from penstock.gateways.prices import Newest, source
    from penstock.node.clock import now

    pricing = Pricing(section, token, tell)
    named = {SUPPLY: section.prices, FEED: section.feed_prices}
    sources = {way: source(name, now, _vouched(section, way)) for way, name in named.items() if name is not None}
    try:
        for way, one in sources.items():
            pricing.newest[way] = Newest(one, pricing.on_rates, now, tell)
            await pricing.newest[way].first()
        pricing._changed.clear()
        yield pricing
    finally:
        for one in sources.values():
            await one.close()


def _vouched(section: SupplySection, way: str) -> Vouched | None:
    from penstock.core.identity import parse_address
    from penstock.gateways.prices import Vouched

    if section.prices_signer is None:
        return None
    try:
        return Vouched(parse_address(section.prices_signer), way)
    except OutOfRange as error:
        raise UsageError(str(error), "give --prices-signer the signer's address") from None
