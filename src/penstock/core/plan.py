"""A consumer's plan: so much energy by a deadline, bought in the cheapest hours, and sold again in the dearest.

    20 kWh by 07:00, at most 0.35 a kWh, may sell above 0.50, between 10 and 60 kWh in the battery

`schedule` cuts the time until the deadline where a price of either tariff changes, and says for each slot which way
electricity should flow, and how much. It is the cheapest schedule that there is for these prices.

Why it is: the least that it can cost to have reached a level of the battery is a convex function of that level, made
of straight pieces, the cheapest first. Each slot adds two (not to sell, to buy) where they belong by their price; the
battery's bounds cut the function at both ends: what is cut off below must flow in any case, what is cut off above never
can. At the end the cheapest pieces are taken up to the level that is wanted. All pieces are whole Wh, so that nothing
is rounded but what fits into a slot (down). n slots cost n log n comparisons.

In one slot the flow goes one way. Where an offer pays more for what is fed in than it asks at the same time, the plan
counts it as what it asks: to turn the same energy round and round is no plan.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from math import lcm
from typing import NamedTuple

from penstock.core.errors import OutOfRange
from penstock.core.messages import Way
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Instant, Price, Quantity

MS_W = 3_600_000  # ms in which 1 W is 1 Wh
MAX_POWER = 10**9  # W


class Battery(NamedTuple):
    """What is in it `now`, the `least` that is to stay in it, and the `most` that goes in (Wh)."""

    now: int
    least: int
    most: int


class Plan(NamedTuple):
    """`energy` (Wh, what comes less what goes; at least) by `by`, with `power` W to us and `feed_power` W back.

    Nothing is bought above `max_price`, nothing sold below `min_sell` (None: nothing is sold). Where prices are below 0
    more is bought than was asked for, as far as the battery takes it.
    """

    energy: int
    by: Instant
    max_price: Price
    power: int
    battery: Battery
    min_sell: Price | None = None
    feed_power: int = 0

    def check(self) -> None:
        """Pass where this can be planned.

        Raises:
            OutOfRange: powers, quantities or the deadline make no sense; it says which.
        """
        now, least, most = self.battery
        if not 0 < self.power <= MAX_POWER or not 0 <= self.feed_power <= MAX_POWER:
            raise OutOfRange(f"powers of {self.power} W and {self.feed_power} W are outside 1..{MAX_POWER}")
        if not 0 <= least <= most <= MAX_QUANTITY or not 0 <= now <= MAX_QUANTITY:
            raise OutOfRange(f"a battery with {now} Wh in it cannot be kept between {least} and {most} Wh")
        if abs(self.energy) > MAX_QUANTITY:
            raise OutOfRange(f"an energy of {self.energy} Wh is absurd")
        if not 0 <= self.by <= MAX_INSTANT:
            raise OutOfRange("the deadline is no instant of this calendar")

    def after(self, net: int) -> Plan:
        """What is left of it once `net` Wh have come (below 0: have gone)."""
        now, least, most = self.battery
        return self._replace(energy=self.energy - net, battery=Battery(max(0, now + net), least, most))


class Lack(StrEnum):
    """Why a plan cannot be carried out in full."""

    TIME = "too little time"
    PRICE = "prices over the limit"
    BATTERY = "the battery is too small"


class Slot(NamedTuple):
    """`amount` Wh that flow one way between `start` and `end`; 0 and `Way.HOLD` where it rests."""

    start: Instant
    end: Instant
    way: Way
    amount: Quantity


class Order(NamedTuple):
    """Which way electricity should flow now, and until when nothing changes in that."""

    way: Way
    until: Instant


class Schedule(NamedTuple):
    """What flows in each slot, one after the other. `missing` Wh of the plan cannot be had, and `lack` says why.

    `owed` and `earned` are what that costs and brings (token units times `per`, not rounded).
    """

    slots: tuple[Slot, ...]
    powers: tuple[int, int]  # W, to us and back
    owed: int
    earned: int
    per: int
    missing: int = 0
    lack: Lack | None = None

    @property
    def cost(self) -> int:
        """What the bills come to: what is owed less what is earned, each rounded down (token units)."""
        return self.owed // self.per - self.earned // self.per

    @property
    def net(self) -> int:
        """What comes less what goes, in all (Wh)."""
        return sum(_signed(slot) for slot in self.slots)

    def at(self, now: Instant) -> Order:
        """What is to be done at `now`: each slot's energy flows from its start on, at full power."""
        for slot in self.slots:
            if now < slot.start:
                return Order(Way.HOLD, slot.start)
            if now < slot.end:
                if slot.way is Way.HOLD:
                    return Order(Way.HOLD, slot.end)
                takes = -(-slot.amount * MS_W // self.powers[slot.way is Way.FEED])
                done = Instant(min(slot.end, slot.start + takes))
                return Order(slot.way, done) if now < done else Order(Way.HOLD, slot.end)
        return Order(Way.HOLD, MAX_INSTANT)


class _Piece(NamedTuple):
    """A straight piece: `length` Wh more in the battery cost `slope` each. In the order in which they are taken."""

    slope: int  # token units per Wh, times `per`
    buys: bool  # to buy; otherwise not to sell, which goes first where both cost the same
    slot: int
    length: int


class _Price(NamedTuple):
    """What buying costs and selling brings in one slot (token units per `per`), and how much can flow each way (Wh)."""

    start: Instant
    end: Instant
    buy: int
    sell: int
    room: int
    feed: int


def schedule(plan: Plan, tariff: Tariff, feed: Tariff | None, now: Instant) -> Schedule:
    """The cheapest way to carry out `plan` from `now` on: `tariff` prices what flows in, and `feed` what flows out.

    What cannot be carried out in full is carried out as far as it goes, whatever that costs within the limits.

    Raises:
        OutOfRange: as `Plan.check`.
    """
    plan.check()
    per = lcm(tariff.per, feed.per) if feed is not None else tariff.per
    prices = list(_prices(plan, tariff, feed, now, per))
    flows, most = _solve(plan, prices)
    target = plan.battery.now + plan.energy
    slots = tuple(_slot(price, flow) for price, flow in zip(prices, flows, strict=True))
    owed = earned = 0
    for price, flow in zip(prices, flows, strict=True):
        worth = flow * price.buy if flow > 0 else flow * price.sell
        owed, earned = owed + max(0, worth), earned + max(0, -worth)
    missing = max(0, target - most)
    lack = _lack(plan, prices, target) if missing else None
    return Schedule(slots, (plan.power, plan.feed_power), owed, earned, per, missing, lack)


def _prices(plan: Plan, tariff: Tariff, feed: Tariff | None, now: Instant, per: int) -> Iterator[_Price]:
    """The slots until the deadline."""
    if now >= plan.by:
        return
    starts = {step.start for each in (tariff, feed) if each is not None for step in each.steps}
    edges = [now, *sorted(start for start in starts if now < start < plan.by), plan.by]
    ours, theirs = _Steps(tariff), _Steps(feed) if feed is not None else None
    for start, end in pairwise(edges):
        buy = ours.amount(start)
        room = plan.power * (end - start) // MS_W if _within(buy, tariff.per, plan.max_price) else 0
        sell = back = 0
        if feed is not None and theirs is not None and plan.min_sell is not None:
            sell = theirs.amount(start)
            if _within(-sell, feed.per, Price(-plan.min_sell.amount, plan.min_sell.per)):
                back = plan.feed_power * (end - start) // MS_W
            sell *= per // feed.per
        yield _Price(start, end, buy * (per // tariff.per), sell, room, back)


class _Steps:
    """A tariff, walked once in the order of time."""

    def __init__(self, tariff: Tariff) -> None:
        self._steps = tariff.steps
        self._at = 0

    def amount(self, now: Instant) -> int:
        while self._at + 1 < len(self._steps) and self._steps[self._at + 1].start <= now:
            self._at += 1
        return self._steps[self._at].amount


def _within(amount: int, per: int, most: Price) -> bool:
    return amount * most.per <= most.amount * per


def _solve(plan: Plan, prices: list[_Price]) -> tuple[list[int], int]:
    """What flows in each slot (Wh; below 0: back), and the most that the battery could hold at the end."""
    now, least, most = plan.battery
    least, most = min(now, least), max(now, most)  # a battery beyond its bounds is led back to them, not refused
    flows = [-price.feed for price in prices]  # as if all were sold, and nothing bought
    pieces: list[_Piece] = []
    low = high = now  # between which levels all this holds
    for number, price in enumerate(prices):
        # The pieces of one slot must rise: see the head of this file.
        sell = min(price.sell, price.buy) if price.room else price.sell
        if price.feed:
            insort(pieces, _Piece(sell, False, number, price.feed))
        if price.room:
            insort(pieces, _Piece(price.buy, True, number, price.room))
        low, high = low - price.feed, high + price.room
        if low < least:
            _take(pieces, flows, least - low)
            low = least
        if high > most:
            _drop(pieces, high - most)
            high = most
    _take(pieces, flows, min(max(0, now + plan.energy - low), high - low))
    _take(pieces, flows, sum(piece.length for piece in pieces if (piece.slope, piece.buys) < (0, True)))
    return flows, high


def _take(pieces: list[_Piece], flows: list[int], amount: int) -> None:
    """Let the cheapest `amount` Wh flow."""
    while amount > 0:
        piece = pieces.pop(0)
        used = min(amount, piece.length)
        flows[piece.slot] += used
        amount -= used
        if used < piece.length:
            pieces.insert(0, piece._replace(length=piece.length - used))


def _drop(pieces: list[_Piece], amount: int) -> None:
    """Never let the dearest `amount` Wh flow."""
    while amount > 0:
        piece = pieces.pop()
        if piece.length > amount:
            pieces.append(piece._replace(length=piece.length - amount))
        amount -= piece.length


def _slot(price: _Price, flow: int) -> Slot:
    way = Way.SUPPLY if flow > 0 else Way.FEED if flow < 0 else Way.HOLD
    return Slot(price.start, price.end, way, Quantity(abs(flow)))


def _signed(slot: Slot) -> int:
    return -slot.amount if slot.way is Way.FEED else slot.amount


def _lack(plan: Plan, prices: list[_Price], target: int) -> Lack:
    """Why `target` is out of reach."""
    if target > max(plan.battery.now, plan.battery.most):
        return Lack.BATTERY
    at_any_price = plan.battery.now + sum(plan.power * (price.end - price.start) // MS_W for price in prices)
    return Lack.TIME if at_any_price < target else Lack.PRICE
