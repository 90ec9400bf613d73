"""Poles that sell under a grid's server: all obey it within a package, and nobody notices where it lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from tests.gateways.grid import operator, site, until, vtn
from tests.gateways.grid_liar import LIES, LIMIT, Handler, Liar, dispatched, liar, listed

from penstock.core.session import Reason
from penstock.gateways.openadr import Ven
from penstock.node.sharing import Outlet, SiteLimit
from penstock.node.steering import Steering

from .test_gateway import yard
from .test_grid_limit import POLES, buyer
from .world import LIMIT as CREDIT
from .world import PACKAGE, PRICE, Street

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


async def test_an_emergency_told_to_the_grids_server_stops_all_poles_within_a_package_and_its_end_lets_them_go_on(
    open_street: Open,
) -> None:
    async with yard(open_street, *POLES) as it, vtn() as server, operator(server.url) as grid:
        street = it.street
        limit = street.site.limit = SiteLimit(
            [Outlet(name, line, 6_600) for name, line in it.lines.items()], street.told
        )
        steering = Steering(it.gateway.poles.values(), limit, street.told)
        async with (
            site(server.url, every=60.0, obey=steering.obey, listen=("127.0.0.1", 0)) as (_, watched),
            buyer(it, "left", lambda: 0) as left,
            buyer(it, "middle", lambda: 0) as middle,
            buyer(it, "right", lambda: 0) as right,
        ):
            for line in it.lines.values():
                await until(lambda line=line: line.read().total > 50)
            emergency = await grid.ask("ALERT_GRID_EMERGENCY", "too much load")
            await until(lambda: watched.last.supply_limit == 0)
            held = {name: line.read().total for name, line in it.lines.items()}
            assert all(line.power() == 0 for line in it.lines.values())
            asked = await grid.ask("DISPATCH_SETPOINT", 5)  # is none while there is an emergency
            await until(lambda: watched.last.setpoint == 0)
            flowed = {name: line.read().total - held[name] for name, line in it.lines.items()}
            assert max(flowed.values()) <= PACKAGE
            await grid.call_off(asked)
            await grid.call_off(emergency)
            for bought in (left, middle, right):
                session = await bought
                assert session.complete
                assert session.reason is Reason.TARGET_REACHED
        why = f"emergency 0 W (too much load): event {emergency}"
        assert next(facts["why"] for facts in street.told.of("steered")) == why
        stopped = [facts["supply"] for facts in street.told.of("limited") if facts["why"] == why]
        assert stopped
        assert set(stopped) == {0}
