"""A supplier's prices change while consumers think: what was offered is honoured, and what has no price is not sold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from penstock.core.errors import BadTerms
from penstock.core.messages import Accepted, AskOffer, Offered, Refused
from penstock.core.tariff import Tariff
from penstock.core.units import Instant
from penstock.node import supplier

from .world import PRICE, Street

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

DEARER = Tariff.flat(PRICE + 50_000, 1_000)


async def test_an_offer_that_was_made_is_honoured_after_the_price_has_changed(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        thief = await it.thief(key)
        before = (await thief.ask(AskOffer(), Offered)).offer
        it.supplier.sell(it.supplier.goods._replace(tariff=DEARER))
        assert (await thief.ask(AskOffer(), Offered)).offer.tariff == DEARER
        await thief.ask(it.proposal(key, before, params)[0], Accepted)
        assert it.supplier.shell is not None
        assert it.supplier.shell.session.terms.offer.tariff == before.tariff
        it.supplier.sell(it.supplier.goods._replace(tariff=Tariff.flat(PRICE, 1_000)))
        assert it.supplier.shell.session.terms.offer.tariff == before.tariff


async def test_an_old_price_is_no_longer_taken_once_its_last_offer_has_expired(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        goods = it.supplier.goods
        it.supplier.sell(goods._replace(tariff=DEARER))
        it.skew = supplier.OFFER_LIFE + 1
        late = it.supplier._offer(goods, it.supplier.offer().offer.expires)
        thief = await it.thief(key)
        assert "do not quote our offer" in (await thief.ask(it.proposal(key, late, params)[0], Refused)).why
        it.skew = 0
        it.supplier.sell(goods)


async def test_nothing_is_offered_where_the_prices_have_ended(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        goods, before = it.supplier.goods, it.supplier.offer().offer
        it.supplier.goods = goods._replace(until=Instant(before.expires - supplier.OFFER_LIFE))
        thief = await it.thief(key)
        assert "no prices for now" in (await thief.ask(AskOffer(), Refused)).why
        later = it.supplier._offer(it.supplier.goods, Instant(before.expires + 1))
        thief = await it.thief(key)
        assert "do not quote our offer" in (await thief.ask(it.proposal(key, later, params)[0], Refused)).why
        it.supplier.goods = goods


async def test_goods_that_nobody_could_agree_to_are_not_offered(open_street: Open) -> None:
    async with open_street() as it:
        goods = it.supplier.goods
        with pytest.raises(BadTerms, match="positive"):
            it.supplier.sell(goods._replace(tariff=Tariff.flat(-1, 1_000)))
        assert it.supplier.goods == goods
