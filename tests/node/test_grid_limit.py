"""A grid's limit on a site whose poles sell: it stops the flow within a package and ends no session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from penstock.core.session import Session, State
from penstock.core.units import Instant, Price
from penstock.node import clock
from penstock.node.channel_purse import ChannelPurse
from penstock.node.consumer import Consumer, Wish
from penstock.node.sharing import Outlet, SiteLimit
from penstock.sim.line import LineMeter
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import connect

from .test_gateway import Yard, yard
from .world import HOST, PACKAGE, PRICE, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

POLES = ("left", "middle", "right")
WH = 1_500


@asynccontextmanager
async def buyer(it: Yard, pole: str, skew: Callable[[], int]) -> AsyncIterator[asyncio.Task[Session]]:
    """A car at this pole that buys, with a clock of its own."""
    street, key = it.street, it.street.fresh_key()
    journal, meter = SqliteJournal(street.directory / f"{pole}.db"), LineMeter(street.directory / pole)

    async def ledger() -> Any:
        return street.ledger

    def now() -> Instant:
        return Instant(clock.now() + skew())

    purse = ChannelPurse(key, journal, ledger, street.told)
    wish = Wish(Price(450_000, 1_000), 1_000_000, WH, pole=pole)
    consumer = Consumer(key, journal, meter, lambda: connect(HOST, it.server.port, key), wish, now, street.told, purse)
    buying = asyncio.ensure_future(consumer.buy())
    try:
        yield buying
    finally:
        buying.cancel()
        await asyncio.gather(buying, return_exceptions=True)
        meter.detach()
        await journal.close()


async def test_a_limit_of_nothing_stops_every_pole_within_a_package_for_as_long_as_it_takes(open_street: Open) -> None:
    async with yard(open_street, *POLES) as it:
        street = it.street
        limit = SiteLimit([Outlet(name, line, 6_600) for name, line in it.lines.items()], street.told)
        street.site.limit = limit
        async with (
            buyer(it, "left", lambda: street.skew) as left,
            buyer(it, "middle", lambda: street.skew) as middle,
            buyer(it, "right", lambda: street.skew) as right,
        ):
            for name in POLES:
                await until(lambda: it.lines[name].read().total > 50)  # noqa: B023  # awaited before the next round
            limit.set(0, None, "ALERT_GRID_EMERGENCY")
            stood = [line.read().total for line in it.lines.values()]
            assert [line.power() for line in it.lines.values()] == [0, 0, 0]
            for _ in range(3):  # 18 seconds pass, seen by their clocks: longer than a consumer's patience
                street.skew += 5_000
                await asyncio.sleep(1.05)
            assert [line.read().total for line in it.lines.values()] == stood
            shells = [supplier.shell for supplier in it.gateway.poles.values()]
            assert [shell.session.state for shell in shells if shell] == [State.STREAMING] * 3
            assert all(shell.session.control.worst <= 2_000 for shell in shells if shell)
            limit.set(None, None, "the emergency is over")
            for bought in await asyncio.gather(left, middle, right):
                assert bought.complete
                assert bought.receipt is not None
                assert WH <= bought.meter.total <= WH + PACKAGE
                assert bought.receipt.paid == bought.meter.total * PRICE // 1_000
        limit.close()
        whys = [(facts["pole"], facts["supply"], facts["why"]) for facts in street.told.of("limited")]
        assert whys == [
            *((name, 0, "ALERT_GRID_EMERGENCY") for name in POLES),
            *((name, None, "the emergency is over") for name in POLES),
        ]
