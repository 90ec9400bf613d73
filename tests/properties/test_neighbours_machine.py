"""A channel with hop locks under any order of changes, lost messages, and crashes of either side."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.core.channel import ChannelParams, Domain, Lock
from penstock.core.effects import Rows
from penstock.core.errors import OutOfFunds, RemoteError
from penstock.core.hops import IN_ROWS, NO_VOUCHER, OUT_ROWS, Incoming, InRow, Outgoing, OutRow, Place, worth_of
from penstock.core.identity import Address, Key
from penstock.core.messages import Promise, Taken
from penstock.core.ticks import TickChain
from penstock.node import book

PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
DOMAIN = Domain(1, Address(b"\x11" * 20), Address(b"\x22" * 20))
ENDS = (PAYER.address, PAYEE.address)
PARAMS = ChannelParams(DOMAIN, *ENDS, *ENDS, 3_600, False, 7)
DEPOSIT, UNTIL = 50_000, 2**40
picks = st.integers(0, 10**6)


class Shelf(dict[bytes, bytes]):
    """A journal."""

    def put(self, rows: Rows) -> None:
        for key, value in rows:
            self.pop(key, None) if value is None else self.__setitem__(key, value)

    def load(self, prefix: bytes) -> Any:
        return iter(sorted((key, value) for key, value in self.items() if key.startswith(prefix)))


class Neighbours(RuleBasedStateMachine):
    """A payer and a payee, each with its journal, and what is on its way between them."""

    def __init__(self) -> None:
        super().__init__()
        self.out_rows, self.in_rows = Shelf(), Shelf()
        self.out = Outgoing(PARAMS, DEPOSIT, PAYER, OutRow(NO_VOUCHER), {})
        self.incoming = Incoming(PARAMS, DEPOSIT, PAYEE, InRow(NO_VOUCHER), {})
        self.chains: dict[int, TickChain] = {}
        self.coming: Promise | None = None
        self.going: Taken | None = None
        self.seeds = 0
        self.paid = 0  # by holding fees, rests and ends, as the payee took them

    def _one(self, pick: int) -> int | None:
        numbers = sorted(self.incoming.locks)
        return numbers[pick % len(numbers)] if numbers else None

    @rule(ticks=st.integers(1, 12), value=st.integers(1, 900), holding=st.integers(0, 40))
    def add(self, ticks: int, value: int, holding: int) -> None:
        self.seeds += 1
        chain = TickChain(self.seeds.to_bytes(32, "big"), ticks)
        try:
            number = self.out.add(Lock(chain.root, value, ticks, 5_000), holding, ())
        except OutOfFunds:
            assert self.out.free < (ticks + 1) * value + holding
        else:
            self.chains[number] = chain

    @rule(pick=picks, rest=st.integers(0, 900))
    def ask(self, pick: int, rest: int) -> None:
        if (number := self._one(pick)) is not None:
            rest = min(rest, self.incoming.locks[number].lock.tick_value - 1)
            self.out.ask(number, 0, b"", rest)

    @rule(pick=picks, count=st.integers(0, 12))
    def prove(self, pick: int, count: int) -> None:
        if (number := self._one(pick)) is not None:
            count = min(count, self.chains[number].ticks)
            self.in_rows.put(self.incoming.prove(number, count, self.chains[number].preimage(count)))

    @rule(pick=picks, less=st.integers(0, 2_000))
    def done(self, pick: int, less: int) -> None:
        if (number := self._one(pick)) is not None:
            self.in_rows.put(self.incoming.done(number, self.incoming.locks[number].worth - less))

    @rule(pick=picks)
    def tell(self, pick: int) -> None:
        """What the payee says arrives, perhaps again."""
        number = self._one(pick)
        told = self.incoming.locks[number].told(Place(PARAMS.id, number)) if number is not None else None
        if told is not None:
            rows, held = self.out.told(told)
            self.out_rows.put(rows)
            if told.done and held is not None:
                self.out.settle(told.number, told.total)

    @rule(lost=st.booleans())
    def promise(self, lost: bool) -> None:
        made = self.out.promise()
        if made is not None:
            self.out_rows.put(made[0])
        if not lost and self.out.waiting is not None:
            self.coming = self.out.waiting

    @precondition(lambda self: self.coming is not None)
    @rule(lost=st.booleans())
    def take(self, lost: bool) -> None:
        assert self.coming is not None
        took = self.incoming.take(self.coming, UNTIL)
        self.in_rows.put(took.rows)
        self.coming, self.going = None, None if lost else took.answer

    @precondition(lambda self: self.going is not None)
    @rule(again=st.booleans())
    def taken(self, again: bool) -> None:
        assert self.going is not None
        for _ in range(1 + again):
            self.out_rows.put(self.out.taken(self.going)[0])
        self.going = None

    @precondition(lambda self: self.out.waiting is not None)
    @rule(pick=picks, by=st.integers(-3, 3))
    def rubbish(self, pick: int, by: int) -> None:
        """A promise that says something else is refused, and changes nothing."""
        promise = self.out.waiting
        assert promise is not None
        field = ("nonce", "amount", "locked", "locked_until")[pick % 4]
        voucher = msgspec.structs.replace(promise.voucher, **{field: getattr(promise.voucher, field) + by})
        before = self.incoming.row, dict(self.incoming.locks)
        if by:
            try:
                self.incoming.take(msgspec.structs.replace(promise, voucher=voucher), UNTIL)
            except RemoteError:
                pass
            else:
                raise AssertionError(f"{field} {by:+} was taken")
        assert (self.incoming.row, self.incoming.locks) == before

    @rule()
    def payer_crashes(self) -> None:
        """What was on its way is lost, and what was queued; the books are the journal's."""
        self.coming = self.going = None
        self.out = Outgoing(PARAMS, DEPOSIT, PAYER, *book.hops_out(self.out_rows, PARAMS.id))

    @rule()
    def payee_crashes(self) -> None:
        self.coming = self.going = None
        self.incoming = Incoming(PARAMS, DEPOSIT, PAYEE, *book.hops_in(self.in_rows, PARAMS.id))

    @invariant()
    def what_is_held_is_covered(self) -> None:
        held = self.incoming.row.voucher
        assert held.amount + held.locked <= DEPOSIT
        assert held.locked == sum(one.lock.value for one in self.incoming.locks.values())
        assert worth_of(self.incoming.row, self.incoming.locks) <= DEPOSIT

    @invariant()
    def the_books_agree(self) -> None:
        row = self.out.row
        assert self.incoming.row.voucher.nonce in (row.released, row.voucher.nonce)
        if self.out.waiting is None:
            assert self.incoming.row.voucher == row.voucher
            ours = {number: held.lock for number, held in self.out.locks.items()}
            assert ours == {number: held.lock for number, held in self.incoming.locks.items()}
            assert not self.out.leaving

    @invariant()
    def the_journals_are_the_books(self) -> None:
        row, locks = book.hops_in(self.in_rows, PARAMS.id)
        assert locks == self.incoming.locks
        assert row.voucher == self.incoming.row.voucher
        again, held = book.hops_out(self.out_rows, PARAMS.id)
        assert held == self.out.all
        assert again == self.out.row

    @invariant()
    def nothing_that_was_paid_is_taken_back(self) -> None:
        assert self.incoming.row.voucher.amount >= self.paid
        self.paid = self.incoming.row.voucher.amount

    @invariant()
    def rows_are_where_they_belong(self) -> None:
        assert all(key.startswith(OUT_ROWS + PARAMS.id) for key in self.out_rows)
        assert all(key.startswith(IN_ROWS + PARAMS.id) for key in self.in_rows)


TestNeighbours = Neighbours.TestCase
TestNeighbours.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
