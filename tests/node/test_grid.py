"""A pole that sells while the grid's server lies to it, in the same event loop: nobody at the pole notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from tests.gateways.grid import site, until
from tests.gateways.grid_liar import LIES, LIMIT, Handler, Liar, dispatched, liar, listed

from penstock.gateways.openadr import Ven

from .world import LIMIT as CREDIT
from .world import PRICE, Street

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio
ENERGY = 2_400  # Wh; some two seconds at the street's speed


async def told(server: Liar, ven: Ven, lie: Handler) -> None:
    """Have the pole ask, as a notification would make it, and be lied to."""
    server.events, asked = lie, server.asked
    ven._bell.set()
    await until(lambda: server.asked > asked)


async def test_a_session_streams_on_through_every_lie_and_flood_of_the_grids_server(open_street: Open) -> None:
    hours = [{"id": n, "payloads": [{"type": "PRICE", "values": [n]}]} for n in range(24)]
    period = {"start": "2026-01-01T00:00:00Z", "duration": "PT1H"}
    crowd = (dispatched(f"e-{n}", "X", intervalPeriod=period, intervals=hours, duration="P9999Y") for n in range(450))
    flood = listed(LIMIT, *crowd)
    async with open_street(speed=600.0) as it, liar() as server, it.car() as car:
        server.events = listed(LIMIT)
        async with site(server.url, every=0.05) as (ven, watched):
            buying = asyncio.ensure_future(car.buy(quantity=ENERGY))
            await until(lambda: ven.orders.supply_limit == 3_000)
            await until(lambda: it.supplier.shell and it.supplier.shell.session.meter.total > 0)
            assert it.supplier.shell is not None
            sold = it.supplier.shell.session
            totals = set()
            for lie in (*LIES.values(), flood):
                await told(server, ven, lie)
                totals.add(sold.meter.total)
            assert len(totals) > 1, "nothing flowed meanwhile"
            bought = await buying
            assert watched.of("grid not reached")
            assert ven.orders.supply_limit == 3_000
        assert bought.complete
        assert bought.receipt is not None
        assert bought.receipt.paid == ENERGY * PRICE // 1_000
        assert 0 < sold.control.worst <= CREDIT
        assert not car.told.of("link lost")
