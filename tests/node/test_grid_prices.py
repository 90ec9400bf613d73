"""A grid's prices at a pole: they are offered to whoever comes next, and what cannot work leaves the pole's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from penstock.core.grid import Orders
from penstock.core.offer import Offer
from penstock.node.grid import Tie, Tied
from penstock.node.sharing import Limits, Outlet

from .test_two_way import BACK, FEED
from .world import PRICE, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


def tie(it: Street, own: Limits | None = None) -> Tie:
    return Tie(it.site, [Tied(it.supplier, Outlet("pole", it.line, 6_600, 5_000), it.line.power)], own or Limits())


def prices(offer: Offer) -> tuple[int, int | None]:
    return offer.tariff.steps[0].amount, offer.feed.tariff.steps[0].amount if offer.feed else None


async def test_a_grids_prices_are_for_sessions_to_come_and_go_with_its_events(open_street: Open) -> None:
    async with open_street(feed=FEED, speed=600.0) as it, it.car() as car:
        steering = tie(it).steering
        steering.obey(Orders(price=300_000))
        assert prices(it.supplier.offer().offer) == (300_000, BACK)
        buying = asyncio.ensure_future(car.buy(quantity=300))
        await until(lambda: it.supplier.shell)
        steering.obey(Orders(price=-100_000, export_price=200_000))
        assert prices(it.supplier.offer().offer) == (-100_000, 200_000)
        bought = await buying
        assert bought.receipt is not None
        assert bought.receipt.paid == 300 * 300_000 // 1_000
        steering.obey(Orders())
        assert prices(it.supplier.offer().offer) == (PRICE, BACK)


async def test_a_price_below_0_leaves_a_pole_that_cannot_pay_its_own_price(open_street: Open) -> None:
    async with open_street() as it:
        tie(it).steering.obey(Orders(price=-1))
        assert prices(it.supplier.offer().offer) == (PRICE, None)
        assert [facts["pole"] for facts in it.told.of("price not taken")] == ["pole"]


async def test_what_the_grid_hears_of_a_pole_is_what_its_meter_says(open_street: Open) -> None:
    async with open_street(speed=600.0) as it, it.car() as car:
        made = tie(it, Limits(supply=3_300))
        bought = await car.buy(quantity=50)
        figures = made._measure()["pole"]
        assert bought.complete
        assert (figures.supplied, figures.fed, figures.power) == (it.line.read().total, 0, 0)
        assert figures.state == "IDLE_CURTAILED"
