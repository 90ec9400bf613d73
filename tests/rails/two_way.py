"""Both sides of a session over one two-way channel, with what each has on disk and what is under way between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import msgspec

from penstock.core.channel import Lock, Voucher
from penstock.core.identity import Key
from penstock.core.rail import Evidence
from penstock.rails.stream import (
    EARNED_ROWS,
    PAID_ROWS,
    TICK_ROWS,
    EarnedRow,
    StreamBack,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    decode_earned,
    decode_paid,
    pair,
    proof_of,
)
from penstock.sim.model import Channel, Proof

from ..core.pair import CONSUMER, PARAMS, SUPPLIER

CHANNEL = msgspec.structs.replace(PARAMS, two_way=True)
TICKS = (7, 5)  # what a tick is worth, of the opener's and of the partner's
KEYS: tuple[Key, Key] = (CONSUMER, SUPPLIER)
OPENER, PARTNER = 0, 1


class Held(NamedTuple):
    """A voucher as its payee could file it: with `ticks` of its lock, proven by `preimage`."""

    voucher: Voucher
    locks: tuple[Lock, ...]
    ticks: int
    preimage: bytes

    @property
    def worth(self) -> int:
        return self.voucher.amount + sum(lock.tick_value * self.ticks for lock in self.locks)


class Side:
    """The opener (0) or the partner (1): its two ends, its disk, and all that it was ever given."""

    def __init__(self, number: int, deposits: tuple[int, int]) -> None:
        self.number, self.deposits = number, deposits
        self.disk: dict[bytes, bytes] = {}
        self.given: list[Held] = []
        self.post: list[Evidence] = []  # on its way to the other side
        self.payer: StreamPayer
        self.payee: StreamPayee

    def begin(self, terms: StreamTerms) -> None:
        """Begin a session, or take it up from the disk."""
        self.terms = terms
        own, others = self.deposits[self.number], self.deposits[1 - self.number]
        back = self.number == PARTNER
        paid, earned = (self.disk.get(prefix + CHANNEL.id) for prefix in (PAID_ROWS, EARNED_ROWS))
        secret = bytes((self.number + 1,)) * 31 + bytes((terms.nonce % 251,))
        row = decode_paid(paid) if paid else None
        self.payer = StreamPayer(terms, own, KEYS[self.number], secret, row, back=back)
        books, ticks = decode_earned(earned) if earned else None, self.disk.get(TICK_ROWS + CHANNEL.id)
        self.payee = StreamPayee(terms, others, books, ticks, back=not back)
        pair(self.payer, self.payee)

    def send(self, evidence: list[Evidence]) -> None:
        """Persist before send."""
        for one in evidence:
            self._write(one.rows)
            self.post.append(one)

    def take(self, one: Evidence, least: int | None = None) -> None:
        """Take what the other side gave, and make it durable."""
        self._write(self.payee.take(one.data, least))
        held = self.held()
        if held is not None:
            self.given.append(held)

    def held(self) -> Held | None:
        """The best that it could file from its disk alone."""
        earned = self.disk.get(EARNED_ROWS + CHANNEL.id)
        if earned is None:
            return None
        row: EarnedRow = decode_earned(earned)
        count, preimage = proof_of(row, self.disk.get(TICK_ROWS + CHANNEL.id)) if row.note.locks else (0, b"")
        return Held(row.note.voucher, row.note.locks, count, preimage)

    @property
    def paid(self) -> int:
        """All that it ever gave, arrived or not (token units)."""
        start = self.terms.amount if self.number == OPENER else self._back.amount
        return start + self.payer.paid

    @property
    def secured(self) -> int:
        """All that it ever got and wrote down."""
        start = self.terms.amount if self.number == PARTNER else self._back.amount
        return start + self.payee.secured

    @property
    def _back(self) -> StreamBack:
        assert self.terms.back is not None
        return self.terms.back

    def _write(self, rows: Any) -> None:
        for key, value in rows:
            if value is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = value


class Line:
    """Both sides, and the link between them."""

    def __init__(self, deposits: tuple[int, int]) -> None:
        self.deposits = deposits
        self.sides = (Side(OPENER, deposits), Side(PARTNER, deposits))
        self.begin()

    def begin(self) -> None:
        """A session from where both stand: everything folded, nothing locked."""
        opener, partner = (self._last(number) for number in (OPENER, PARTNER))
        terms = StreamTerms(CHANNEL, *opener, TICKS[OPENER], StreamBack(*partner, TICKS[PARTNER]))
        for side in self.sides:
            side.begin(terms)

    def _last(self, number: int) -> tuple[int, int]:
        paid = self.sides[number].disk.get(PAID_ROWS + CHANNEL.id)
        voucher = decode_paid(paid).note.voucher if paid else Voucher.over(0, 0)
        return voucher.nonce, voucher.amount

    def pay(self, number: int, most: int) -> None:
        """One side pays `most` token units more, as far as it can."""
        payer = self.sides[number].payer
        self.sides[number].send(payer.pay(min(payer.paid + most, payer.capacity)))

    def deliver(self, number: int) -> None:
        """What this side has sent longest ago arrives."""
        if self.sides[number].post:
            self.sides[1 - number].take(self.sides[number].post.pop(0))

    def relink(self, crashed: tuple[int, ...] = ()) -> None:
        """The link is lost with all that was on it, sides crash, and the session is taken up again."""
        for side in self.sides:
            side.post.clear()
            if side.number in crashed:
                side.begin(side.terms)
        for side, other in (self.sides, self.sides[::-1]):
            side.send(side.payer.resume(other.payee.state()))

    def finish(self) -> None:
        """Everything arrives, and each side squares what it paid."""
        for number in (OPENER, PARTNER):
            while self.sides[number].post:
                self.deliver(number)
        for side, other in (self.sides, self.sides[::-1]):
            evidence = side.payer.square(side.payer.paid)
            side.send([evidence])
            other.take(side.post.pop(), side.payer.paid)


def exits(line: Line, honest: int) -> Iterator[tuple[int, Held | None]]:
    """What the honest side gets from the ledger where it files its best, whatever the other files, in either order."""
    side, other = line.sides[honest], line.sides[1 - honest]
    fewer = [held._replace(ticks=0, preimage=b"") for held in other.given if held.ticks]
    for theirs, first in product([None, *dict.fromkeys(other.given + fewer)], (honest, 1 - honest)):
        filings = (side.held(), theirs) if honest == OPENER else (theirs, side.held())
        yield _paid_out(line.deposits, filings, first)[honest], theirs


def _paid_out(deposits: tuple[int, int], filings: tuple[Held | None, Held | None], first: int) -> tuple[int, int]:
    """Both payouts by the contract's model, where `first` begins."""
    channel = Channel(True, CHANNEL.period, deposits)
    channel.close(0)
    for number in (first, 1 - first):
        held = filings[number]
        if held is not None:
            channel.file(number, held.voucher, held.locks, 1)
            if held.ticks:
                channel.prove(number, [Proof(0, held.locks[0], held.ticks, held.preimage, ())], 2)
    channel.settle(channel.closes_at)
    assert sum(channel.paid) == sum(deposits), "no token is made or lost"
    return channel.paid
