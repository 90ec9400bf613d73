"""Turns a flow by a profile: so much to us, so much back, so much to us again, in one session.

Where the profile stands follows from the two registers alone, so that a session that is taken up again goes on with it.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from penstock.core.errors import OutOfRange
from penstock.core.messages import Reason, Way
from penstock.core.session import State
from penstock.core.units import MAX_QUANTITY
from penstock.node.consumer import Consumer
from penstock.node.tell import Tell

LOOK = 0.05  # s between two looks: at 22 kW, 0.3 Wh flow meanwhile
MOST = 1_000  # legs


class Leg(NamedTuple):
    """The flow goes one way until that way's register shows `goal` (units of the medium since the session began)."""

    way: Way
    goal: int


class Profile:
    """Which way the flow goes next, by what has flowed either way."""

    __slots__ = ("export", "legs", "total")

    def __init__(self, amounts: list[int]) -> None:
        """`amounts` flow one after the other (units of the medium): above 0 to us, below 0 back.

        Raises:
            OutOfRange: there are none or too many, one is 0, or all of them are more than a register shows.
        """
        if not 1 <= len(amounts) <= MOST or 0 in amounts:
            raise OutOfRange(f"a profile has 1 to {MOST} amounts, and none of them is 0")
        self.total = self.export = 0
        legs: list[Leg] = []
        for amount in amounts:
            if amount > 0:
                self.total += amount
                legs.append(Leg(Way.SUPPLY, self.total))
            else:
                self.export -= amount
                legs.append(Leg(Way.FEED, self.export))
        if not 0 < self.total <= MAX_QUANTITY or self.export > MAX_QUANTITY:
            raise OutOfRange(f"a profile moves more than nothing to us, and at most {MAX_QUANTITY} units")
        self.legs = tuple(legs)

    def leg(self, total: int, export: int) -> int:
        """The number of the leg that is under way at these totals; that of legs where all is done."""
        for number, (way, goal) in enumerate(self.legs):
            if (total if way is Way.SUPPLY else export) < goal:
                return number
        return len(self.legs)


async def turn(consumer: Consumer, profile: Profile, tell: Tell) -> None:
    """Direct the consumer's flow by the profile, until cancelled. Stops the session once all of it has flowed."""
    told = -1
    while True:
        await asyncio.sleep(LOOK)
        session = consumer.session
        if session is None or session.state is not State.STREAMING:
            continue
        total, export = session.meter.total, session.meter.export
        number = profile.leg(total, export)
        if number == len(profile.legs):
            consumer.stop(Reason.TARGET_REACHED)
            continue
        leg = profile.legs[number]
        if number != told:
            told = number
            goal = f"{leg.goal} of {profile.total if leg.way is Way.SUPPLY else profile.export}"
            way = "to us" if leg.way is Way.SUPPLY else "back"
            tell(
                "way",
                leg=number,
                way=leg.way.name.lower(),
                total=total,
                export=export,
                why=f"{way} until {goal} have flowed",
            )
        if session.wanted is not leg.way:
            consumer.direct(leg.way)
