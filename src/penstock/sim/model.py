"""What the channel contract must do with one channel, in Python: the rules of the design, written another way.

Money is an integer, a party is 0 (opener) or 1 (partner), time is in seconds. An act that the rules forbid raises
Forbidden; the channel is then to be thrown away, so that whoever acts does so on a copy. Nothing here knows of packed
words, storage or signatures, and a voucher's locks are a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import product

from penstock.core.channel import MAX_PERIOD, Lock, LockTree, Voucher
from penstock.core.ports import ProvenTicks
from penstock.core.units import MAX_AMOUNT


class Forbidden(Exception):
    """The rules do not allow this now."""


def require(condition: bool) -> None:
    """Pass where a rule is kept."""
    if not condition:
        raise Forbidden


@dataclass(frozen=True)
class Proof:
    """`count` ticks of the lock that is said to stand at `index`; a count of 0 gives the lock up."""

    index: int
    lock: Lock
    count: int
    preimage: bytes
    branch: tuple[bytes, ...]

    def stands_in(self, locks: Sequence[Lock]) -> bool:
        """Whether the lock is where the proof says."""
        if self.index >= len(locks) or locks[self.index] != self.lock:
            return False
        return self.branch == tuple(LockTree(locks).branch(self.index))

    def holds(self) -> bool:
        """Whether the preimage leads to the lock's root in `count` steps."""
        if not 0 <= self.count <= self.lock.ticks:
            return False
        link = self.preimage
        for _ in range(self.count):
            link = sha256(link).digest()
        return link == self.lock.root


@dataclass
class Filed:
    """A filed voucher and what became of its locks."""

    amount: int
    locks: tuple[Lock, ...] = ()
    locked: int = 0
    until: int = 0
    nonce: int = 0
    proven: dict[int, int] = field(default_factory=dict)  # index -> ticks
    dead: frozenset[int] = frozenset()  # locks that were given up
    earned: int = 0
    given_up: int = 0

    @property
    def rest(self) -> int:
        """What is locked and neither earned nor given up."""
        return self.locked - self.earned - self.given_up

    def least(self) -> int:
        """What it is worth already."""
        return min(self.amount + self.earned, MAX_AMOUNT)

    def most(self, now: int) -> int:
        """What it can still become worth after the challenge."""
        return self.least() + (self.rest if now < self.until else 0)

    def move(self, proof: Proof, closes_at: int, now: int) -> bool:
        """Earn ticks, or give up a lock that can no longer be proven. Returns whether ticks were earned."""
        require(proof.stands_in(self.locks))
        lock, end = proof.lock, proof.lock.expiry or closes_at
        done = lock.ticks if proof.index in self.dead else self.proven.get(proof.index, 0)
        if proof.count:
            require(now < end)
            if proof.count <= done:
                return False  # somebody was quicker with it
            require(lock.expiry <= self.until and proof.holds())
            self.earned += min((proof.count - done) * lock.tick_value, self.rest)
            self.proven = {**self.proven, proof.index: proof.count}
        else:
            require(now >= end and done < lock.ticks)
            self.given_up += min((lock.ticks - done) * lock.tick_value, self.rest)
            self.dead |= {proof.index}
        return proof.count > 0


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

    def copy(self) -> Side:
        return replace(self, filed=replace(self.filed) if self.filed else None)


@dataclass
class Channel:
    """One channel. `paid` is what each party has had from it so far, by whatever way."""

    two_way: bool
    period: int
    deposits: tuple[int, int]
    paid: tuple[int, int] = (0, 0)
    status: str = "open"  # closing, part paid, ended
    closes_at: int = 0
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    shown: tuple[ProvenTicks, ...] = ()  # what was proven, in its order

    def copy(self) -> Channel:
        return replace(self, sides=(self.sides[0].copy(), self.sides[1].copy()))

    @property
    def pot(self) -> int:
        """All that was put in."""
        return sum(self.deposits)

    @property
    def held(self) -> int:
        """What the channel has now."""
        return self.pot - sum(self.paid)

    def challenged(self, now: int) -> bool:
        """Whether something can be filed."""
        return self.status == "closing" and now < self.closes_at

    # The moves

    def add(self, party: int, amount: int) -> None:
        require(self.status == "open" and self.can_put_in(party))
        self.deposits = (self.deposits[0] + amount * (1 - party), self.deposits[1] + amount * party)

    def claim(self, amount: int) -> None:
        require(self.status == "open" and not self.two_way)
        total = min(amount, self.pot - self.paid[0])
        require(total > self.paid[1])
        self._pay(self.paid[0], total)

    def withdraw(self, opener_total: int, partner_total: int) -> None:
        require(self.status == "open" and opener_total + partner_total <= self.pot)
        require(opener_total >= self.paid[0] and partner_total >= self.paid[1])
        self._pay(opener_total, partner_total)

    def close_together(self, opener_total: int, partner_total: int) -> None:
        require(self.status in ("open", "closing") and opener_total + partner_total == self.pot)
        require(opener_total >= self.paid[0] and partner_total >= self.paid[1])
        self._end(opener_total)

    def close(self, now: int) -> None:
        require(self.status == "open")
        self.status, self.closes_at = "closing", now + self.period

    def file(self, party: int, voucher: Voucher, locks: tuple[Lock, ...], now: int, itself: bool = True) -> None:
        """Put a voucher in the place of what was filed before, with all the ticks proven under that."""
        require(self.challenged(now))
        self._check(party, voucher, now)
        side = self.sides[party]
        if voucher.locked and now + self.period // 2 > self.closes_at:
            require(not side.late)
            side.late, self.closes_at = True, now + self.period
        side.had_locks |= voucher.locked > 0
        # A voucher that locks nothing has no locks to prove, whatever its root says; unless an earlier one had some:
        # then they can be proven, for nothing.
        locks = locks if side.had_locks else ()
        side.filed = Filed(voucher.amount, locks, voucher.locked, voucher.locked_until, voucher.nonce)
        side.itself |= itself

    def answer(self, party: int, voucher: Voucher, locks: tuple[Lock, ...], sequence: int, now: int) -> None:
        """Somebody files in the payee's name: not against it, and not what it has overtaken."""
        side = self.sides[party]
        require(not side.itself and sequence >= side.sequence)
        self.file(party, voucher, locks, now, itself=False)
        side.sequence = sequence + 1

    def release(self, party: int, nonce: int, amount: int, now: int) -> None:
        """Of `party`, the payee."""
        side = self.sides[party]
        require(self.challenged(now) and self.can_be_paid(party))
        require(nonce > (side.floor or 0))
        if side.had_locks and (side.filed is None or side.filed.nonce < nonce):
            side.filed, side.itself = Filed(amount), False
            if not side.restarted:
                side.restarted, self.closes_at = True, now + self.period
        elif side.filed is None:
            side.filed = Filed(amount)
        else:
            side.filed.amount += max(0, amount - side.filed.least())
        side.floor = nonce

    def prove(self, party: int, proofs: Sequence[Proof], now: int) -> None:
        filed = self.sides[party].filed
        require(filed is not None and self.status in ("closing", "part paid"))
        assert filed is not None
        rest = filed.rest
        earned = [proof for proof in proofs if filed.move(proof, self.closes_at, now)]
        require(filed.rest < rest)
        self._show(earned)

    def finish(self, voucher: Voucher, locks: tuple[Lock, ...], proofs: Sequence[Proof], now: int) -> None:
        require(not self.two_way and (self.status == "open" or self.challenged(now)))
        self._check(1, voucher, now)
        indexes = [proof.index for proof in proofs]
        require(indexes == sorted(set(indexes)))
        require(all(proof.stands_in(locks) and proof.holds() and proof.lock.expiry == 0 for proof in proofs))
        ticks = sum(proof.count * proof.lock.tick_value for proof in proofs)
        earned = voucher.amount + min(ticks, voucher.locked)
        self._show(proofs)
        self._end(self.pot - min(max(earned, self.paid[1]), self.pot - self.paid[0]))

    def settle(self, now: int) -> None:
        require(self.status in ("closing", "part paid") and now >= self.closes_at)
        ends = [(0,) if side.filed is None else (side.filed.least(), side.filed.most(now)) for side in self.sides]
        totals = [self.total(received, spent) for received, spent in product(*ends)]
        if min(totals) == max(totals):
            self._end(totals[0])
        else:
            self.status = "part paid"
            self._pay(min(totals), self.pot - max(totals))

    # The rules that they share

    def can_be_paid(self, party: int) -> bool:
        """Whether this party can have vouchers."""
        return party == 1 or self.two_way

    def can_put_in(self, party: int) -> bool:
        """Whether this party can have a deposit."""
        return party == 0 or self.two_way

    def total(self, received: int, spent: int) -> int:
        """The opener's total: netted, clamped to the pot; and what was drawn is never taken back."""
        netted = max(0, min(self.pot, self.deposits[0] + received - spent))
        return min(max(netted, self.paid[0]), self.pot - self.paid[1])

    def _check(self, party: int, voucher: Voucher, now: int) -> None:
        require(self.can_be_paid(party))
        require(voucher.amount + voucher.locked <= MAX_AMOUNT and voucher.nonce < 2**64)
        require(voucher.locked_until <= now + MAX_PERIOD)
        floor = self.sides[party].floor
        require(floor is None or voucher.nonce >= floor)

    def _show(self, proofs: Sequence[Proof]) -> None:
        """Let everybody see what was proven."""
        self.shown += tuple(ProvenTicks(proof.lock.root, proof.count, proof.preimage) for proof in proofs)

    def _end(self, opener_total: int) -> None:
        self._pay(opener_total, self.pot - opener_total)
        self.status = "ended"

    def _pay(self, opener_total: int, partner_total: int) -> None:
        assert opener_total >= self.paid[0]
        assert partner_total >= self.paid[1]
        self.paid = (opener_total, partner_total)
