"""What the channel contract must do with one channel, in Python: the rules of the design, written another way.

Money is an integer, a party is 0 (opener) or 1 (partner), time is in seconds. An act that the rules forbid raises
Forbidden and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from penstock.core.channel import Lock


class Forbidden(Exception):
    """The rules do not allow this now."""


def _require(condition: bool) -> None:
    if not condition:
        raise Forbidden


@dataclass
class Filed:
    """A filed voucher, and the ticks proven under it; `dead` are the locks that were declared so."""

    amount: int
    locks: tuple[Lock, ...]
    proven: list[int] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.proven = [0] * len(self.locks)

    def least(self) -> int:
        """What it is worth already."""
        return self.amount + sum(lock.tick_value * count for lock, count in zip(self.locks, self.proven, strict=True))

    def most(self, now: int) -> int:
        """What it can still become worth after the challenge.

        The contract knows the last expiry only: until then a lock without one holds, too, unless it was declared dead.
        """
        if now >= max((lock.expiry for lock in self.locks), default=0):
            return self.least()
        return self.least() + sum(
            lock.tick_value * (lock.ticks - self.proven[at])
            for at, lock in enumerate(self.locks)
            if at not in self.dead
        )


class Model:
    """One channel and the two parties' balances outside it."""

    def __init__(self, balances: tuple[int, int], two_way: bool, period: int) -> None:
        self.balances = list(balances)
        self.two_way, self.period = two_way, period
        self.status = "absent"
        self.deposits = [0, 0]
        self.paid = [0, 0]
        self.closes_at = 0
        self.filed: list[Filed | None] = [None, None]

    @property
    def held(self) -> int:
        """What is in the channel."""
        return sum(self.deposits) - sum(self.paid) if self.status in ("open", "closing", "part paid") else 0

    def open(self, deposit: int) -> None:
        _require(self.status == "absent" and self.balances[0] >= deposit)
        self.balances[0] -= deposit
        self.deposits, self.status = [deposit, 0], "open"

    def add(self, party: int, amount: int) -> None:
        _require(self.status == "open" and (party == 0 or self.two_way) and self.balances[party] >= amount)
        self.balances[party] -= amount
        self.deposits[party] += amount

    def close_together(self, share: int) -> None:
        _require(self.status in ("open", "closing") and share <= sum(self.deposits))
        self._pay(share, sum(self.deposits) - share)
        self.status = "settled"

    def close(self, now: int) -> None:
        _require(self.status == "open")
        self.status, self.closes_at = "closing", now + self.period

    def file(self, party: int, amount: int, locks: tuple[Lock, ...], now: int) -> None:
        _require(self.status == "closing" and now < self.closes_at and (party == 1 or self.two_way))
        self.filed[party] = Filed(amount, locks)

    def prove(self, party: int, at: int, count: int, now: int) -> None:
        filed = self.filed[party]
        _require(filed is not None and self.status != "settled")
        assert filed is not None
        _require(at < len(filed.locks) and now < (filed.locks[at].expiry or self.closes_at))
        _require(filed.proven[at] < count <= filed.locks[at].ticks)
        filed.proven[at] = count

    def expire(self, party: int, at: int, now: int) -> None:
        filed = self.filed[party]
        _require(filed is not None and self.status != "settled")
        assert filed is not None
        _require(at < len(filed.locks) and now >= (filed.locks[at].expiry or self.closes_at))
        _require(at not in filed.dead and filed.proven[at] < filed.locks[at].ticks)
        filed.dead.add(at)

    def finish(self, amount: int, now: int) -> None:
        _require(not self.two_way and self.status in ("open", "closing"))
        _require(self.status == "open" or now < self.closes_at)
        share = min(amount, self.deposits[0])
        self._pay(self.deposits[0] - share, share)
        self.status = "settled"

    def settle(self, now: int) -> None:
        _require(self.status in ("closing", "part paid") and now >= self.closes_at)
        ends = [(0,) if filed is None else (filed.least(), filed.most(now)) for filed in self.filed]
        pot, opener_deposit = sum(self.deposits), self.deposits[0]
        finals = [max(0, min(pot, opener_deposit + received - spent)) for received, spent in product(*ends)]
        self._pay(min(finals) - self.paid[0], pot - max(finals) - self.paid[1])
        self.status = "settled" if sum(self.paid) == pot else "part paid"

    def _pay(self, opener: int, partner: int) -> None:
        assert opener >= 0
        assert partner >= 0
        for party, amount in enumerate((opener, partner)):
            self.balances[party] += amount
            self.paid[party] += amount
