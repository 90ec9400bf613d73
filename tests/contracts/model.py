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
    locks: tuple[Lock, ...] = ()
    nonce: int = 0
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


@dataclass
class Side:
    """What a party, as a payee, has done in the challenge."""

    filed: Filed | None = None
    itself: bool = False  # the filing is its own, and stands
    had_locks: bool = False
    late: bool = False  # its late locks have kept the challenge open
    floor: int | None = None  # the lowest nonce that its release leaves
    restarted: bool = False
    sequence: int = 0  # the lowest that an answer of its own still needs


class Model:
    """One channel and the balances of opener, partner and stranger outside it."""

    def __init__(self, balances: tuple[int, int], two_way: bool, period: int) -> None:
        self.balances = list(balances)
        self.two_way, self.period = two_way, period
        self.status = "absent"
        self.deposits = [0, 0]
        self.paid = [0, 0]  # out of the channel, by whatever way
        self.sides = [Side(), Side()]
        self.closes_at = 0

    @property
    def pot(self) -> int:
        """All that was put in."""
        return sum(self.deposits)

    @property
    def held(self) -> int:
        """What the channel has now."""
        return self.pot - sum(self.paid)

    def open(self, deposit: int) -> None:
        _require(self.status == "absent" and self.balances[0] >= deposit)
        self.balances[0] -= deposit
        self.deposits, self.status = [deposit, 0], "open"

    def add(self, party: int, amount: int) -> None:
        _require(self.status == "open" and (party == 0 or self.two_way) and self.balances[party] >= amount)
        self.balances[party] -= amount
        self.deposits[party] += amount

    def add_to(self, party: int, total: int) -> None:
        """By signature, to a total."""
        now = self.deposits[party] if party == 0 or self.two_way else 0
        _require(total > now)
        self.add(party, total - now)

    def claim(self, amount: int) -> None:
        _require(self.status == "open" and not self.two_way)
        total = min(amount, self.pot - self.paid[0])
        _require(total > self.paid[1])
        self._pay(0, total - self.paid[1])

    def withdraw(self, opener_total: int, partner_total: int) -> None:
        _require(self.status == "open" and opener_total + partner_total <= self.pot)
        _require(opener_total >= self.paid[0] and partner_total >= self.paid[1])
        self._pay(opener_total - self.paid[0], partner_total - self.paid[1])

    def close_together(self, share: int) -> None:
        _require(self.status in ("open", "closing") and share <= self.pot)
        _require(share >= self.paid[0] and self.pot - share >= self.paid[1])
        self._pay(share - self.paid[0], self.pot - share - self.paid[1])
        self.status = "settled"

    def close(self, now: int) -> None:
        _require(self.status == "open")
        self.status, self.closes_at = "closing", now + self.period

    def file(self, party: int, filed: Filed, now: int, begin: bool = False) -> None:
        """The payee itself files, or somebody with its answer after `answer` has let it."""
        _require(self.status == "open" if begin else self.challenged(now))
        _require(party == 1 or self.two_way)
        side = self.sides[party]
        _require(side.floor is None or filed.nonce >= side.floor)
        if filed.locks and side.late:
            _require(side.floor is not None)
        if begin:
            self.close(now)
        if filed.locks and not side.late and now + self.period // 2 > self.closes_at:
            side.late, self.closes_at = True, now + self.period
        side.had_locks |= bool(filed.locks)
        side.filed, side.itself = filed, True

    def answer(self, party: int, filed: Filed, sequence: int, now: int) -> None:
        side = self.sides[party]
        _require(not side.itself and sequence >= side.sequence)
        self.file(party, filed, now)
        side.itself, side.sequence = False, sequence + 1

    def release(self, party: int, nonce: int, amount: int, now: int) -> None:
        """Of `party`, the payee; sent by the payer, or with its answer."""
        side = self.sides[party]
        _require(self.challenged(now) and (party == 1 or self.two_way))
        _require(nonce > (side.floor or 0))
        worth = side.filed.least() if side.filed else 0
        if side.had_locks and (side.filed is None or side.filed.nonce < nonce):
            worth, side.itself = 0, False
            if not side.restarted:
                side.restarted, self.closes_at = True, now + self.period
            side.filed = Filed(max(worth, amount))
        elif side.filed is None:
            side.filed = Filed(amount)
        else:
            side.filed.amount += max(0, amount - worth)
        side.floor = nonce

    def prove(self, party: int, at: int, count: int, now: int) -> None:
        filed = self._filed(party, at)
        _require(now < (filed.locks[at].expiry or self.closes_at))
        _require(at not in filed.dead and filed.proven[at] < count <= filed.locks[at].ticks)
        filed.proven[at] = count

    def expire(self, party: int, at: int, now: int) -> None:
        filed = self._filed(party, at)
        _require(now >= (filed.locks[at].expiry or self.closes_at))
        _require(at not in filed.dead and filed.proven[at] < filed.locks[at].ticks)
        filed.dead.add(at)

    def finish(self, amount: int, nonce: int, now: int) -> None:
        _require(not self.two_way and (self.status == "open" or self.challenged(now)))
        floor = self.sides[1].floor
        _require(floor is None or nonce >= floor)
        share = min(max(amount, self.paid[1]), self.pot - self.paid[0])
        self._pay(self.pot - share - self.paid[0], share - self.paid[1])
        self.status = "settled"

    def settle(self, now: int) -> None:
        _require(self.status in ("closing", "part paid") and now >= self.closes_at)
        ends = [(0,) if side.filed is None else (side.filed.least(), side.filed.most(now)) for side in self.sides]
        finals = [self._final(received, spent) for received, spent in product(*ends)]
        self._pay(min(finals) - self.paid[0], self.pot - max(finals) - self.paid[1])
        self.status = "settled" if sum(self.paid) == self.pot else "part paid"

    def challenged(self, now: int) -> bool:
        """Whether something can be filed."""
        return self.status == "closing" and now < self.closes_at

    def _final(self, received: int, spent: int) -> int:
        netted = max(0, min(self.pot, self.deposits[0] + received - spent))
        return min(max(netted, self.paid[0]), self.pot - self.paid[1])

    def _filed(self, party: int, at: int) -> Filed:
        filed = self.sides[party].filed
        _require(filed is not None and self.status in ("closing", "part paid"))
        assert filed is not None
        _require(at < len(filed.locks))
        return filed

    def _pay(self, opener: int, partner: int) -> None:
        assert opener >= 0
        assert partner >= 0
        for party, amount in enumerate((opener, partner)):
            self.balances[party] += amount
            self.paid[party] += amount
