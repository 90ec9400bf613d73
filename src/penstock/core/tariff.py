"""Price over time, and the bill that both sides compute alike from the same readings.

A tariff is a series of steps. A step takes effect at the first reading that the supplier announces at or after its
start (a *turn*): what flowed up to that reading is billed at the old price, what flows after it at the new one. Both
sides see the same announced readings, so they turn at the same total and need no message about it. Money is exact:
the bill is the integral over all steps, rounded down once, at the end.
"""

from __future__ import annotations

import msgspec

from penstock.core.errors import BadTerms, IllegalEvent
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Price, Quantity

MAX_STEPS = 1024  # ten days of quarter hours


class Step(msgspec.Struct, frozen=True, array_like=True):
    """From `start` on (ms since 1970), `amount` token units per the tariff's `per` units of the medium."""

    start: Instant
    amount: int


class Tariff(msgspec.Struct, frozen=True, array_like=True):
    """Steps in order of time, all quoted per `per` units of the medium. The first is in force from the beginning."""

    per: int
    steps: tuple[Step, ...]

    @classmethod
    def flat(cls, amount: int, per: int) -> Tariff:
        """One price for all time: `amount` token units per `per` units."""
        return cls(per, (Step(Instant(0), amount),))

    def price(self, step: int) -> Price:
        """The price of a step."""
        return Price(self.steps[step].amount, self.per)

    def since(self, at: Instant) -> Tariff:
        """The same prices from `at` on: it begins with the step that is in force then."""
        begun = [step for step in self.steps if step.start <= at]
        return Tariff(self.per, self.steps[max(0, len(begun) - 1) :])

    @property
    def highest(self) -> Price:
        """The dearest step's price; 0 where all are negative."""
        return Price(max(0, *(step.amount for step in self.steps)), self.per)

    @property
    def lowest(self) -> Price:
        """The cheapest step's price, which may be negative."""
        return Price(min(step.amount for step in self.steps), self.per)

    @property
    def dearest(self) -> int:
        """The largest sum per `per` units that either side may come to owe the other (token units)."""
        return max(abs(step.amount) for step in self.steps)

    def check(self, *, negative: bool = False) -> None:
        """Pass where both sides can compute with this tariff. `negative` lets prices be 0 or below.

        Raises:
            BadTerms: no steps or too many, not in order of time, or a price that is not positive or absurd.
        """
        if not 1 <= len(self.steps) <= MAX_STEPS:
            raise BadTerms(f"a tariff has 1..{MAX_STEPS} steps, not {len(self.steps)}")
        if not 0 < self.per <= MAX_QUANTITY:
            raise BadTerms("a tariff is quoted per a positive quantity")
        before = -1
        for step in self.steps:
            if not before < step.start <= MAX_INSTANT:
                raise BadTerms("a tariff's steps start one after the other")
            if not (-MAX_AMOUNT if negative else 1) <= step.amount <= MAX_AMOUNT:
                raise BadTerms(
                    "a tariff's prices are positive and within uint96",
                    "offer feed-in, too: prices of 0 and below need a way to pay back",
                )
            before = step.start


class Bill:
    """What is due for a running total. `turns` are the totals at which the steps after the first took effect.

    What flows at a price below 0 makes the other side owe: `exact` has both sums, and neither ever falls.
    """

    __slots__ = ("_back", "_base", "_fall", "_from", "_next", "_rise", "price", "tariff", "turns")

    def __init__(self, tariff: Tariff, turns: tuple[Quantity, ...] = ()) -> None:
        """Take up a bill at the turns made so far.

        Raises:
            BadTerms: more turns than steps, or turns whose totals fall.
        """
        self.tariff = tariff
        self.turns: tuple[Quantity, ...] = ()
        self._base = 0  # token units times `per`, billed up to the last turn
        self._back = 0  # the same, at prices below 0
        self._from = 0  # the total at the last turn
        self._enter(0)
        if len(turns) >= len(tariff.steps):
            raise BadTerms("a bill cannot turn more often than its tariff has steps")
        for total in turns:
            if total < self._from:
                raise BadTerms("a bill's turns cannot go back")
            self._turn(total)

    def _enter(self, step: int) -> None:
        self.price = self.tariff.price(step)
        self._rise, self._fall = max(0, self.price.amount), max(0, -self.price.amount)
        steps = self.tariff.steps
        self._next = steps[step + 1].start if step + 1 < len(steps) else MAX_INSTANT + 1

    def _turn(self, total: Quantity) -> None:
        self._base += (total - self._from) * self._rise
        self._back += (total - self._from) * self._fall
        self._from = total
        self.turns = (*self.turns, total)
        self._enter(len(self.turns))

    def soon(self, at: int) -> list[int]:
        """The prices that are not yet in force, and will have begun by `at` (token units per `tariff.per`)."""
        ahead = self.tariff.steps[len(self.turns) + 1 :] if at >= self._next else ()
        return [step.amount for step in ahead if step.start <= at]

    def turns_at(self, at: Instant) -> bool:
        """Whether a step that has not taken effect starts at or before a reading's instant."""
        return at >= self._next

    def turn(self, total: Quantity, at: Instant) -> bool:
        """Let the steps that start at or before an announced reading take effect. Returns whether one did.

        Raises:
            IllegalEvent: `total` is below the last turn's.
        """
        if at < self._next:
            return False
        if total < self._from:
            raise IllegalEvent("a bill cannot turn below its last turn")
        while at >= self._next:
            self._turn(total)
        return True

    def due(self, total: int) -> Amount:
        """Token units due for `total`, at the prices in force so far; rounded down."""
        if total < self._from:
            return Amount(self.exact(total)[0] // self.price.per)
        return Amount((self._base + (total - self._from) * self._rise) // self.price.per)

    def exact(self, total: int) -> tuple[int, int]:
        """What flowed up to `total` is worth at prices above 0, and at those below (token units times `tariff.per`)."""
        if total < self._from:  # another meter's, behind the last turn
            return Bill(self.tariff, tuple(turn for turn in self.turns if turn <= total)).exact(total)
        flowed = total - self._from
        return self._base + flowed * self._rise, self._back + flowed * self._fall

    def affords(self, sum_: int, total: int = 0) -> Quantity:
        """The total up to which supply may run, having reached `total`, so that its due does not exceed `sum_`.

        It holds for the price in force; ask again after a turn. Never below `total`; without end at prices up to 0.
        """
        if not self._rise:
            return MAX_QUANTITY
        reached = max(total, self._from)
        room = (sum_ + 1) * self.price.per - 1 - self._base - (reached - self._from) * self._rise
        return Quantity(reached + max(0, room) // self._rise)
