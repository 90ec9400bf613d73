"""Follows a consumer's plan in a session that runs: which way the flow should go now, and when the session is done.

    follower = Follower(consumer, plan, clock, tell)
    following = asyncio.ensure_future(follower.follow())
    session = await consumer.buy()

It plans anew at the end of each leg (a stretch of time in which the flow goes one way), and earlier where more has
flowed than the leg was to bring: what a leg brought less, because the pole was throttled or turned late, is made up for
in the next. Both registers count from the session's beginning, and so does the plan's battery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from penstock.core.messages import Reason, Way
from penstock.core.plan import MS_W, Lack, Plan, Schedule, schedule
from penstock.core.session import Session, State
from penstock.core.units import MAX_QUANTITY, Duration, Instant
from penstock.node.consumer import Consumer
from penstock.node.tell import Tell

LOOK = 0.25  # s between two looks: at 22 kW, 1.5 Wh flow meanwhile
SETTLE = 2.0  # s in which a supplier rests once it was asked to
AGAIN = 5.0  # s after which a way that the supplier does not take is asked for once more
SURE = Duration(60_000)  # a power is what flowed in no less time; registers count whole Wh


class Leg(NamedTuple):
    """Let the flow go this `way` until then, or until the net energy (import less export, Wh) is `goal`."""

    way: Way
    until: Instant
    goal: int


class Follower:
    """Directs a consumer's flow by a plan."""

    __slots__ = (
        "_asked", "_began", "_clock", "_consumer", "_flow", "_leg", "_plan", "_powers", "_session", "_tell", "planned",
    )  # fmt: skip

    def __init__(self, consumer: Consumer, plan: Plan, clock: Callable[[], Instant], tell: Tell) -> None:
        """`clock` is the one by which the prices change: the meters'.

        Raises:
            OutOfRange: the plan makes no sense.
        """
        plan.check()
        self.planned: Schedule | None = None  # the newest schedule
        self._consumer, self._plan, self._clock, self._tell = consumer, plan, clock, tell
        self._session: Session | None = None
        self._leg: Leg | None = None
        self._began = self._asked = 0.0
        self._powers = [plan.power, plan.feed_power]  # W that we count on each way
        self._flow: tuple[Way, Instant, int] | None = None  # since when, and from which net energy, it goes its way

    async def follow(self, every: float = LOOK) -> None:
        """Look again and again, until cancelled. `every` so many seconds; less where the clock runs fast."""
        loop = asyncio.get_running_loop()
        while True:
            self.look(loop.time())
            await asyncio.sleep(every)

    def look(self, time: float) -> None:
        """Direct the flow as the plan says for now. `time` (s) only ever grows."""
        session = self._consumer.session
        if session is None or session.state is not State.STREAMING:
            return
        if session is not self._session:
            self._session, self._leg, self._flow = session, None, None
        now, net = self._clock(), session.meter.total - session.meter.export
        self._measure(session.way, now, net)
        leg = self._leg
        if leg is not None and leg.way is Way.HOLD and time - self._began < SETTLE:
            # What the price before let flow may flow still, until the supplier has heard us.
            self._leg = leg = leg._replace(goal=max(leg.goal, net))
        if leg is not None and leg.way is Way.HOLD and net > leg.goal + self._leak(session):
            self._tell("flow not held", net=net, held=leg.goal)  # without a valve of our own, all we can do is go
            self._consumer.stop(Reason.PRICE_OVER_LIMIT)
            return
        if leg is None or now >= leg.until or _reached(leg, net):
            leg = self._next(session, now, net)
            if leg is None:
                return
            self._leg, self._began, self._asked = leg, time, time - AGAIN
        if session.wanted is not leg.way or (session.way is not leg.way and time - self._asked >= AGAIN):
            self._asked = time
            self._consumer.direct(leg.way)

    @staticmethod
    def _leak(session: Session) -> int:
        """What may still flow until a supplier rests: what was secured when it heard that, and what its credit buys."""
        offer, price = session.terms.offer, session.bill.price
        return 2 * (offer.package + price.affords(offer.credit_limit)) if price.amount > 0 else MAX_QUANTITY

    def _measure(self, way: Way, now: Instant, net: int) -> None:
        """Learn the power from what flows."""
        if way is Way.HOLD or self._flow is None or self._flow[0] is not way:
            self._flow = (way, now, net)
            return
        _, since, before = self._flow
        if net == before:
            self._flow = (way, now, net)  # it has not begun
        elif now - since >= SURE:
            feeds = way is Way.FEED
            most = self._plan.feed_power if feeds else self._plan.power
            self._powers[feeds] = max(1, min(most, -(-abs(net - before) * MS_W // (now - since))))

    def _next(self, session: Session, now: Instant, net: int) -> Leg | None:
        """The next leg; None where nothing is left to do, and the session stops."""
        terms, plan = session.terms, self._plan
        power, feed_power = self._powers
        if terms.feed is None or session.meter.export >= (terms.feed_limit or 0):
            feed_power = 0
        left = plan.after(net)._replace(power=power, feed_power=feed_power)
        feed = terms.feed.tariff if terms.feed is not None else None
        found = self.planned = schedule(left, terms.offer.tariff, feed, now)
        if not any(slot.amount for slot in found.slots):
            self._stop(found, net)
            return None
        way, until = found.at(now)
        amount = found.slots[0].amount if way is not Way.HOLD else 0
        leg = Leg(way, until, net - amount if way is Way.FEED else net + amount)
        if self._leg is None or self._leg.way is not way:
            self._say(session, leg, found)
        return leg

    def _stop(self, found: Schedule, net: int) -> None:
        """Everything that can be done is done."""
        reason = Reason.OPERATOR if found.missing else Reason.TARGET_REACHED
        if found.lack is Lack.PRICE:
            reason = Reason.PRICE_OVER_LIMIT
        self._tell("plan done", net=net, missing=found.missing, why=str(found.lack or "all of it has flowed"))
        self._consumer.stop(reason)

    def _say(self, session: Session, leg: Leg, found: Schedule) -> None:
        bill = session.account.feed if leg.way is Way.FEED else session.bill
        price = bill.price if bill is not None else session.bill.price
        self._tell(
            "way",
            way=leg.way.name.lower(),
            why=_WHY[leg.way],
            until=leg.until,
            price=price.amount,
            per=price.per,
            cost=found.cost,
            missing=found.missing,
            lack=str(found.lack or ""),
        )


_WHY = {
    Way.SUPPLY: "the plan buys now",
    Way.FEED: "the plan sells now",
    Way.HOLD: "the plan waits for another price",
}


def _reached(leg: Leg, net: int) -> bool:
    return (leg.way is Way.SUPPLY and net >= leg.goal) or (leg.way is Way.FEED and net <= leg.goal)
