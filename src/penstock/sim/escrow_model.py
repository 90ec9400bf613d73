"""What the escrow contract must do with one escrow, in Python: the rules of the design, written another way.

Money is in token units, time in seconds. An act that the rules forbid raises Forbidden and changes nothing. Nothing
here knows of packed words, storage, signatures or accounts: whoever acts has checked those, and credits both parties
with what `payee_had` and `payer_had` have grown by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from penstock.core.errors import BadTerms, OutOfRange
from penstock.core.escrow import MAX_LIFE, MAX_STEPS, EscrowParams, MeterReading, tariff_hash
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY
from penstock.sim.model import Forbidden, require


@dataclass
class Escrow:
    """One escrow. What the payee's readings have earned is its own (`payee_had`) or waits (`waiting`, since when)."""

    params: EscrowParams
    payee_had: int = 0
    payer_had: int = 0
    waiting: int = 0
    since: int = 0
    closed: Literal["", "last", "contested"] = ""  # why no reading is taken any more, deadlines apart
    ended: bool = False

    @classmethod
    def begin(cls, params: EscrowParams, now: int) -> Escrow:
        """An escrow whose deposit is made now."""
        try:
            params.check()
        except OutOfRange:
            raise Forbidden from None
        require(now < params.deadline <= now + MAX_LIFE)
        return cls(params)

    def copy(self) -> Escrow:
        return replace(self)

    @property
    def claimed(self) -> int:
        """What the payee has by its readings, paid or not."""
        return self.payee_had + self.waiting

    @property
    def held(self) -> int:
        """What is still in the escrow."""
        return self.params.deposit - self.payee_had - self.payer_had

    @property
    def matures_at(self) -> int:
        """From when on what waits can be paid."""
        return self.since + self.params.window

    def takes_readings(self, now: int) -> bool:
        """Whether a reading can be filed."""
        return not self.ended and not self.closed and now < self.params.deadline

    def contestable(self, now: int) -> bool:
        """Whether a contest can still lower what waits."""
        return not self.ended and self.waiting > 0 and now < self.matures_at

    # The moves

    def release(self, tariff: Tariff, reading: MeterReading, by_payee: bool, now: int) -> None:
        """File a reading that the meter has signed."""
        require(self.takes_readings(now) and (reading.last or by_payee))
        gain = self.due(tariff, reading) - self.claimed
        require(gain > 0 or (gain == 0 and reading.last))
        self._pay(now)
        if gain:
            self.waiting, self.since = self.waiting + gain, now
        if reading.last:
            self.closed = "last"
        self._pay(now)

    def contest(self, tariff: Tariff, first: MeterReading, second: MeterReading, now: int) -> None:
        """Show two readings that the meter has signed."""
        require(self.contestable(now))
        lesser = min(self.due(tariff, first), self.due(tariff, second))
        require(first.contradicts(second))
        less = max(0, self.claimed - max(lesser, self.payee_had))
        require(less > 0 or self.closed != "contested")
        self.waiting -= less
        self.closed = "contested"
        self._pay(now)

    def end(self, amount: int) -> None:
        """What both keys have signed: the payee gets `amount` in all."""
        require(not self.ended and self.payee_had <= amount <= self.params.deposit)
        self.payee_had, self.waiting = amount, 0
        self._return()

    def settle(self, now: int) -> None:
        """Pay what can be paid."""
        require(not self.ended)
        before = self.held
        self._pay(now)
        require(self.ended or self.held < before)

    # The rules that they share

    def due(self, tariff: Tariff, reading: MeterReading) -> int:
        """What a reading is worth in all."""
        require(tariff_hash(tariff) == self.params.tariff)
        require(tariff.per > 0 and 0 < len(tariff.steps) <= MAX_STEPS)
        require(1 <= reading.sequence <= MAX_QUANTITY and 0 <= reading.total <= MAX_QUANTITY)
        require(0 <= reading.at <= MAX_INSTANT)
        try:
            return reading.due(tariff, self.params.deposit)
        except BadTerms:
            raise Forbidden from None

    def _pay(self, now: int) -> None:
        if now >= self.matures_at:
            self.payee_had, self.waiting = self.claimed, 0
        if not self.waiting and not self.takes_readings(now):
            self._return()

    def _return(self) -> None:
        self.payer_had = self.params.deposit - self.payee_had
        self.ended = True
