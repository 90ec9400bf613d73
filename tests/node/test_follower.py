"""A plan followed in a real session: TLS, journals, a line both ways whose clock runs through a day of prices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from penstock.core.codec import decode
from penstock.core.errors import PenstockError
from penstock.core.messages import Accepted, Closing, Final, Message, Metered, Offered, Paid, Reason, Receipted, Way
from penstock.core.offer import Feed
from penstock.core.plan import Battery, Plan
from penstock.core.session import State
from penstock.core.tariff import Bill, Step, Tariff
from penstock.core.units import Instant, Price
from penstock.node.follower import Follower
from penstock.transports.tls import TlsLink

from .world import PACKAGE, Car, Street, Told, until

Open = Callable[..., AbstractAsyncContextManager[Street]]

FAST = 3_600.0  # a day takes 24 s
QUARTER = 900_000  # ms
LATE = 3_000  # Wh that flow within half a second at this speed: a valve that shuts late on a busy machine
KWH = 1_000


def day(begin: Instant, amount: Callable[[int], int]) -> Tariff:
    """96 quarter hours from `begin` on."""
    steps = (Step(Instant(begin + number * QUARTER), amount(number)) for number in range(96))
    return Tariff(KWH, tuple(steps))


def market(number: int) -> int:
    """Token units a kWh in a quarter of a sunny spring day: two humps, and midday below 0."""
    hour = number / 4
    if 11 <= hour < 15:
        return -40_000 - 1_000 * (number % 4)
    if 18 <= hour < 21:
        return 400_000 + 7_001 * (number % 4)
    return 250_000 + 3_003 * (number % 8)


class Tapped:
    """A link whose incoming messages are kept."""

    def __init__(self, link: TlsLink, heard: list[Message]) -> None:
        self._link, self._heard = link, heard
        self.peer, self.send, self.close = link.peer, link.send, link.close

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        def tapped(frame: bytes) -> None:
            self._heard.append(decode(frame))
            on_frame(frame)

        self._link.attach(tapped, on_lost)


class Listener(Car):
    """A car that keeps what the pole said."""

    def __init__(self, street: Street) -> None:
        super().__init__(street, street.fresh_key(), "listener")
        self.heard: list[Message] = []

    async def _dial(self) -> Any:
        return Tapped(await super()._dial(), self.heard)


class Flow(NamedTuple):
    """What flowed between two readings, and the prices per Wh that were in force."""

    supplied: int
    fed: int
    price: Fraction
    back: Fraction


def flows(readings: list[Metered | Final], buy: Tariff, sell: Tariff) -> list[Flow]:
    """From one announced reading to the next: a step is in force after the first reading at or after its start."""
    found: list[Flow] = []
    total = export = 0
    price, back = (Fraction(tariff.steps[0].amount, tariff.per) for tariff in (buy, sell))
    for one in readings:
        found.append(Flow(one.total - total, one.export - export, price, back))
        total, export = one.total, one.export
        price, back = (
            Fraction([each.steps[0], *(step for step in each.steps[1:] if step.start <= one.at)][-1].amount, each.per)
            for each in (buy, sell)
        )
    return found


def bill(parts: list[Flow]) -> tuple[int, int]:
    """What the consumer and what the supplier owes, each rounded down once."""
    worth = [value for part in parts for value in (part.supplied * part.price, -part.fed * part.back)]
    return int(sum(each for each in worth if each > 0)), int(-sum(each for each in worth if each < 0))


@pytest.mark.asyncio
async def test_a_day_of_prices_is_billed_alike_on_both_sides_and_followed_by_a_plan(open_street: Open) -> None:
    dearest, least = Price(300_000, KWH), Price(350_000, KWH)
    async with open_street(serves=False, speed=FAST) as it, Listener(it) as car:
        await car.buy(quantity=10, keep=True, budget=20_000_000)  # a channel is open before the day begins
        await until(lambda: not it.supplier.visits)
        begin, earlier = it.line.read().at, len(it.sessions)
        buy, sell = day(begin, market), day(begin, lambda number: market(number) - 20_000)
        it.supplier.sell(it.supplier.goods._replace(tariff=buy, feed=Feed(sell, 800, PACKAGE, 2_400, 100_000)))
        plan = Plan(
            energy=15_000,
            by=Instant(begin + 96 * QUARTER),
            max_price=dearest,
            power=6_600,
            battery=Battery(12_000, 10_000, 40_000),
            min_sell=least,
            feed_power=5_000,
        )
        car.heard.clear()
        del car.consumer
        wish = {"feed": 100_000, "min_feed": least, "waits": True, "quantity": None, "budget": 10_000_000}
        buying = asyncio.ensure_future(car.buy(max_price=dearest.amount, **wish))  # type: ignore[arg-type]  # as named
        await until(lambda: hasattr(car, "consumer"))
        following = asyncio.ensure_future(
            Follower(car.consumer, plan, lambda: it.line.read().at, car.told).follow(0.005)
        )
        session = await buying
        following.cancel()
        await until(lambda: len(it.sessions) > earlier, "the pole's session does not end")
        pole = it.sessions[-1]
        receipt = session.receipt
        assert receipt is not None
        assert session.complete
        assert pole.receipt == receipt
        assert receipt.unpaid == 0

        # Both bills turned at the same totals, and no message said a price.
        assert (session.bill.turns, session.account.feed_turns) == (pole.bill.turns, pole.account.feed_turns)
        assert len(session.bill.turns) > 40  # how many depends on when the plan is done
        assert {type(one) for one in car.heard} <= {Offered, Accepted, Metered, Paid, Final, Receipted, Closing}
        terms = session.terms
        assert terms.feed is not None
        readings = [one for one in car.heard if isinstance(one, Metered | Final)]
        parts = flows(readings, terms.offer.tariff, terms.feed.tariff)
        owed, earned = bill(parts)
        assert receipt.paid - receipt.repaid == owed - earned
        # Exposure is not asked for here: while a valve shuts, 6 Wh a millisecond flow at this speed, at a new price.

        # The plan was followed: paid to take energy at midday, sold in the evening, and what was asked for is there.
        assert receipt.reason == Reason.TARGET_REACHED
        assert receipt.supplier_total - receipt.supplier_export >= plan.energy
        assert sum(part.supplied for part in parts if part.price < 0) > 0
        assert sum(part.fed for part in parts if part.back >= Fraction(*least)) > 0
        assert sum(part.supplied for part in parts if part.price > Fraction(*dearest)) < LATE
        assert sum(part.fed for part in parts if part.back < Fraction(*least)) < LATE
        assert {facts["way"] for facts in car.told.of("way")} == {"supply", "hold", "feed"}


class Resting:
    """A consumer whose supplier is asked to rest; `flow` says what its meter shows."""

    def __init__(self) -> None:
        begin = Instant(0)
        terms = SimpleNamespace(
            offer=SimpleNamespace(
                tariff=day(begin, lambda n: (-40_000, 450_000, 200_000)[min(n // 4, 2)]),
                package=3,
                credit_limit=2_000,
            ),
            feed=None,
        )
        self.session: Any = SimpleNamespace(state=State.STREAMING, terms=terms, way=Way.SUPPLY, wanted=Way.SUPPLY)
        self.session.bill, self.session.account = Bill(terms.offer.tariff), SimpleNamespace(feed=None)
        self.asked: list[Way] = []
        self.stopped: list[Reason] = []
        self.stop = self.stopped.append
        self.flow(0)

    def flow(self, net: int) -> None:
        self.session.meter = SimpleNamespace(total=net, export=0)

    def direct(self, way: Way) -> None:
        self.session.wanted = way
        self.asked.append(way)


def test_what_a_price_below_0_let_flow_is_no_reason_to_leave_and_a_supplier_that_never_rests_is() -> None:
    now = [Instant(0)]
    told = Told()
    consumer = Resting()
    plan = Plan(30_000, Instant(96 * QUARTER), Price(300_000, KWH), 6_600, Battery(0, 0, 40_000))
    follower = Follower(consumer, plan, lambda: now[0], told)  # type: ignore[arg-type]  # what a follower sees of one
    follower.look(0.0)
    now[0] = Instant(4 * QUARTER)
    consumer.flow(6_600)
    follower.look(1.0)
    assert consumer.asked == [Way.HOLD]
    consumer.session.bill.turn(6_600, now[0])
    consumer.flow(7_000)  # the supplier had let it before it heard
    follower.look(1.5)
    consumer.session.way = Way.HOLD
    for time in (2.0, 4.0, 60.0):
        follower.look(time)
    assert consumer.stopped == []
    consumer.flow(7_000 + 17)
    follower.look(61.0)
    assert consumer.stopped == [Reason.PRICE_OVER_LIMIT]
    assert told.of("flow not held") == [{"net": 7_017, "held": 7_000}]
