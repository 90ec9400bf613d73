"""A session whose flow turns round, between two nodes: TLS, journals, a line both ways, a channel on a chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from penstock.core.grid import Orders
from penstock.core.messages import Reason, Way
from penstock.core.offer import Feed
from penstock.core.session import Session
from penstock.core.tariff import Tariff
from penstock.node.sharing import Outlet, SiteLimit
from penstock.node.steering import Steering

from .world import LIMIT, PACKAGE, PRICE, SPEED, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]

BACK = 500_000  # token units a kWh of what is fed in
FEED = Feed(Tariff.flat(BACK, 1_000), 800, PACKAGE, 2_400, 50_000)


def paid_exactly(session: Session) -> None:
    receipt = session.receipt
    assert session.complete
    assert receipt is not None
    due, owed = receipt.supplier_total * PRICE // 1_000, receipt.supplier_export * BACK // 1_000
    assert receipt.paid - receipt.repaid == due - owed
    assert receipt.unpaid == 0


def exported(it: Street) -> int:
    return it.supplier.shell.session.meter.export if it.supplier.shell is not None else 0


def imported(it: Street) -> int:
    return it.supplier.shell.session.meter.total if it.supplier.shell is not None else 0


@pytest.mark.asyncio
async def test_a_car_charges_discharges_and_charges_over_one_channel(
    open_street: Open,
) -> None:
    async with open_street(feed=FEED, speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(feed=20_000, quantity=1_500))
        await until(lambda: imported(it) > 200)
        car.consumer.direct(Way.FEED)
        await until(lambda: exported(it) > 150)
        car.consumer.direct(Way.SUPPLY)
        session = await buying
        await until(lambda: len(it.sessions) == 2, "the pole's session does not end")
        paid_exactly(session)
        pole = it.sessions[-1]
        assert pole.receipt == session.receipt
        assert session.receipt is not None
        assert session.receipt.supplier_export > 150
        assert session.receipt.supplier_total == 1_500
        assert pole.control.worst <= LIMIT
        assert session.control.worst <= FEED.credit_limit
        before = (await it.ledger.holdings(car.key.address)).tokens, (await it.ledger.holdings(it.key.address)).tokens
        opened = car.told.of("opened")
        mined = await it.site.settle()
        assert len(opened) == 1
        assert len(mined) == 1
        receipt = session.receipt
        after = (await it.ledger.holdings(car.key.address)).tokens, (await it.ledger.holdings(it.key.address)).tokens
        deposit = next(iter(car.told.of("opening")))["deposit"]
        assert after[0] - before[0] == deposit - receipt.paid + receipt.repaid


@pytest.mark.asyncio
async def test_a_grid_stops_throttles_and_turns_a_flow_whose_session_goes_on(open_street: Open) -> None:
    async with open_street(feed=FEED, speed=SPEED) as it, it.car() as car:
        limit = it.site.limit = SiteLimit([Outlet("pole", it.line, 6_600, 5_000)], it.told)
        steering = Steering([it.supplier], limit, it.told)
        buying = asyncio.ensure_future(car.buy(feed=20_000, quantity=1_500))
        await until(lambda: imported(it) > 300)
        steering.obey(Orders(supply_limit=0, emergency="too much load", why=("emergency 0 W: event 7",)))
        assert it.line.power() == 0
        held = it.line.read().total
        await until(lambda: car.consumer.session is not None and car.consumer.session.way is Way.HOLD)
        steering.obey(Orders(setpoint=-3_000, why=("setpoint -3,000 W: event 8",)))
        await until(lambda: exported(it) > 100)
        assert it.line.read().total == held
        await until(lambda: it.line.power() == -3_000)
        steering.obey(Orders(supply_limit=3_300))
        await until(lambda: it.line.power() == 3_300)
        steering.obey(Orders())
        session = await buying
        await until(lambda: len(it.sessions) == 2, "the pole's session does not end")
        paid_exactly(session)
        assert session.reason is Reason.TARGET_REACHED
        assert it.sessions[-1].control.worst <= LIMIT
        assert session.control.worst <= FEED.credit_limit
        assert [facts["why"] for facts in it.told.of("limited")][:2] == [
            "emergency 0 W: event 7",
            "setpoint -3,000 W: event 8",
        ]
