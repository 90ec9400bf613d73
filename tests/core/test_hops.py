"""Both books of a channel that carries hop locks: what is promised, taken, told and settled, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.core import hops
from penstock.core.channel import MAX_LOCKS, ChannelParams, Domain, Lock, Release, Voucher
from penstock.core.codec import encode
from penstock.core.errors import (
    BadMessage,
    BadPreimage,
    BadSignature,
    BadVoucher,
    IllegalEvent,
    JournalError,
    OutOfFunds,
    PenstockError,
)
from penstock.core.hops import (
    AT_ONCE,
    IN_ROWS,
    MAX_ONWARD,
    NO_VOUCHER,
    OUT_ROWS,
    Incoming,
    InLock,
    InRow,
    Outgoing,
    OutLock,
    OutRow,
    Place,
    decode_in,
    decode_in_lock,
    decode_out,
    decode_out_lock,
    filing_of,
    worth_of,
)
from penstock.core.identity import Address, Key
from penstock.core.messages import Add, Ask, Change, Hop, Promise, Settle, Taken, Told
from penstock.core.ticks import TickChain
from penstock.core.units import MAX_AMOUNT

PAYER, PAYEE, STRANGER = (Key(bytes((n,)) * 32) for n in (1, 2, 3))
DOMAIN = Domain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
PARAMS = ChannelParams(DOMAIN, PAYER.address, PAYEE.address, PAYER.address, PAYEE.address, 3600, False, 1)
DEPOSIT, TICK, TICKS, EXPIRY, UNTIL = 100_000, 100, 20, 5_000, 9_000
CHAIN, OTHER = TickChain(b"\x07" * 32, TICKS), TickChain(b"\x08" * 32, TICKS)
ONWARD = (Hop(STRANGER.address, 99, 4_000, 2),)


def lock(chain: TickChain = CHAIN, **change: Any) -> Lock:
    return Lock(**{"root": chain.root, "tick_value": TICK, "ticks": TICKS, "expiry": EXPIRY, **change})


class Books:
    """A journal of either side."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, rows: Any) -> None:
        for key, value in rows:
            self.rows.pop(key, None) if value is None else self.rows.__setitem__(key, value)

    def locks(self, prefix: bytes, decode: Callable[[bytes], Any]) -> dict[int, Any]:
        whole = prefix + PARAMS.id
        return {
            int.from_bytes(key[len(whole) :], "big"): decode(value)
            for key, value in sorted(self.rows.items())
            if key.startswith(whole) and len(key) == len(whole) + 8
        }


class Pair:
    """Both sides of the channel, with the journals that they keep."""

    def __init__(self, deposit: int = DEPOSIT) -> None:
        self.deposit = deposit
        self.out_books, self.in_books = Books(), Books()
        self.out = Outgoing(PARAMS, deposit, PAYER, OutRow(NO_VOUCHER), {})
        self.incoming = Incoming(PARAMS, deposit, PAYEE, InRow(NO_VOUCHER), {})

    def promise(self) -> Promise:
        made = self.out.promise()
        assert made is not None
        self.out_books.write(made[0])
        return made[1]

    def take(self, promise: Promise) -> Taken:
        took = self.incoming.take(promise, UNTIL)
        self.in_books.write(took.rows)
        return took.answer

    def taken(self, answer: Taken) -> tuple[Change, ...]:
        rows, changes = self.out.taken(answer)
        self.out_books.write(rows)
        return changes

    def exchange(self) -> tuple[Change, ...]:
        return self.taken(self.take(self.promise()))

    def locked(self, chain: TickChain = CHAIN, holding: int = 3) -> int:
        """A lock under the newest voucher of both. Returns its number."""
        number = self.out.add(lock(chain), holding, ONWARD)
        self.exchange()
        return number

    def proven(self, count: int, chain: TickChain = CHAIN) -> int:
        """A lock of which so many ticks are proven."""
        number = self.locked(chain)
        self.in_books.write(self.incoming.prove(number, count, chain.preimage(count)))
        return number

    def done(self, number: int, total: int) -> Told:
        """What the payee says of a lock with which it is done."""
        self.in_books.write(self.incoming.done(number, total))
        told = self.incoming.locks[number].told(Place(PARAMS.id, number))
        assert told is not None
        return told

    def out_again(self) -> Outgoing:
        row = self.out_books.rows.get(OUT_ROWS + PARAMS.id)
        held = decode_out(row) if row else OutRow(NO_VOUCHER)
        return Outgoing(PARAMS, self.deposit, PAYER, held, self.out_books.locks(OUT_ROWS, decode_out_lock))

    def in_again(self) -> Incoming:
        row = self.in_books.rows.get(IN_ROWS + PARAMS.id)
        held = decode_in(row) if row else InRow(NO_VOUCHER)
        return Incoming(PARAMS, self.deposit, PAYEE, held, self.in_books.locks(IN_ROWS, decode_in_lock))


def signed(
    *changes: Change, key: Key = PAYER, locks: tuple[Lock, ...] = (), nonce: int = 1, amount: int = 0
) -> Promise:
    """A promise as a liar may make it."""
    voucher = Voucher.over(nonce, amount, locks)
    return Promise(PARAMS.id, voucher, key.sign(voucher.digest(PARAMS)), changes)


def state_of(books: Outgoing | Incoming) -> Any:
    """All that books say."""
    if isinstance(books, Incoming):
        return books.row, dict(books.locks)
    return books.row, dict(books.locks), dict(books.leaving), books.free, books.waiting


# ---- a lock's life


def test_a_lock_comes_with_its_fee_under_a_voucher_that_both_have() -> None:
    pair = Pair()
    assert pair.out.idle
    number = pair.out.add(lock(), 3, ONWARD)
    assert not pair.out.idle
    assert pair.out.free == DEPOSIT - lock().value - TICK - 3
    promise = pair.promise()
    assert promise.changes == (Add(number, lock(), 3, ONWARD),)
    assert pair.out.promise() is None  # one at a time
    assert pair.taken(pair.take(promise)) == promise.changes
    assert pair.out.row.voucher == pair.incoming.row.voucher == Voucher.over(1, 3, (lock(),))
    assert pair.out.idle
    assert pair.out.waiting is None
    assert pair.incoming.locks[number].told(Place(PARAMS.id, number)) is None


def test_a_lock_is_placed_once_and_told_so() -> None:
    pair = Pair()
    number = pair.locked()
    rows = pair.incoming.place(number)
    assert rows
    assert pair.incoming.place(number) == ()
    told = pair.incoming.locks[number].told(Place(PARAMS.id, number))
    assert told == Told(PARAMS.id, number, False, 0, b"", 0, "")
    found, held = pair.out.told(told)
    assert found
    assert held is not None
    assert held.placed
    assert pair.out.told(told) == ((), held)  # known, and said again: who was told of it may have died before it wrote


def test_a_lock_is_settled_at_what_the_payee_is_done_with() -> None:
    pair = Pair()
    told = pair.done(pair.proven(7), 7 * TICK)
    rows, held = pair.out.told(told)
    assert rows == ()
    assert held is not None
    pair.out.settle(told.number, told.total)
    pair.out.settle(told.number, told.total)  # twice is once
    assert pair.out.told(told) == ((), None)  # its end is on the way
    promise = pair.promise()
    assert promise.changes == (Settle(told.number, 7 * TICK),)
    assert pair.out.locks == {}
    assert set(pair.out.all) == {told.number}  # until it is released, it can be claimed
    answer = pair.take(promise)
    assert pair.taken(answer) == promise.changes
    assert pair.out.all == pair.incoming.locks == {}
    assert pair.incoming.row.voucher == Voucher.over(2, 3 + 7 * TICK, ())
    assert pair.out.row.released == 2
    assert pair.out.told(told) == ((), None)
    assert pair.out.free == DEPOSIT - 3 - 7 * TICK
    assert pair.out_books.locks(OUT_ROWS, decode_out_lock) == pair.in_books.locks(IN_ROWS, decode_in_lock) == {}


def test_a_lock_of_which_nothing_is_known_is_done_at_nothing() -> None:
    pair = Pair()
    told = pair.done(pair.locked(), 50)  # more than it can prove
    assert (told.count, told.total) == (0, 0)
    assert pair.out.told(told)[1] is not None


def test_the_end_of_a_lock_is_asked_for_once_with_the_rest_of_a_tick() -> None:
    pair = Pair()
    number = pair.proven(4)
    before = pair.out.free
    rest = min(TICK, *(hop.tick_value for hop in ONWARD)) - 1  # it must be less than a tick everywhere on the way
    pair.out.ask(number, 4, CHAIN.preimage(4), rest)
    pair.out.ask(number, 4, CHAIN.preimage(4), rest)
    pair.exchange()
    assert pair.out.promise() is None  # the second was dropped
    assert pair.incoming.locks[number].rest == rest
    assert pair.incoming.locks[number].asked
    assert pair.incoming.row.voucher.amount == 3 + rest
    assert pair.out.free == before + TICK - rest  # what was kept for the rest of a tick, less the rest
    pair.out.ask(number, 4, CHAIN.preimage(4), 1)
    assert pair.out.promise() is None
    pair.out.ask(99, 4, CHAIN.preimage(4), 1)  # no such lock
    assert pair.out.idle


def test_the_end_of_a_lock_may_be_asked_for_before_it_was_promised() -> None:
    pair = Pair()
    number = pair.out.add(lock(), 0, ())
    pair.out.ask(number, 0, b"", 5)
    promise = pair.promise()
    assert [type(change) for change in promise.changes] == [Add, Ask]
    pair.taken(pair.take(promise))
    assert pair.incoming.locks[number].rest == 5


def test_nobody_asks_for_the_end_of_what_is_being_settled() -> None:
    pair = Pair()
    told = pair.done(pair.proven(2), 2 * TICK)
    pair.out.ask(told.number, 2, CHAIN.preimage(2), 5)
    pair.out.settle(told.number, told.total)
    assert [type(change) for change in pair.promise().changes] == [Settle]


def test_many_changes_go_under_one_voucher_and_the_rest_under_the_next() -> None:
    pair = Pair(10**9)
    for _ in range(AT_ONCE + 1):
        pair.out.add(lock(), 1, ())
    assert len(pair.exchange()) == AT_ONCE
    assert len(pair.exchange()) == 1
    assert pair.out.promise() is None
    assert pair.incoming.row.voucher == pair.out.row.voucher
    assert len(pair.incoming.locks) == AT_ONCE + 1


def test_what_is_lent_for_a_channel_is_known_before_it_is_promised() -> None:
    pair = Pair()
    one, two = b"\x01" * 32, b"\x02" * 32
    pair.out.add(lock(), 0, (), Place(one, 1))
    pair.out.add(lock(OTHER), 0, (), Place(two, 1))
    assert pair.out.lent(one) == lock().value
    pair.exchange()
    pair.out.add(lock(), 0, (), Place(one, 2))
    assert pair.out.lent(one) == 2 * lock().value
    assert pair.out.lent(b"\x03" * 32) == 0


def test_a_payer_promises_no_more_than_it_has() -> None:
    pair = Pair(lock().value + TICK)
    with pytest.raises(OutOfFunds, match="token units left"):
        pair.out.add(lock(), 1, ())
    pair.out.add(lock(), 0, ())
    with pytest.raises(OutOfFunds):
        pair.out.add(lock(OTHER, ticks=1), 0, ())
    with pytest.raises(PenstockError):
        pair.out.add(lock(ticks=0), 0, ())


def test_a_payer_promises_no_more_locks_than_a_tree_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "MAX_LOCKS", 2)
    pair = Pair()
    pair.locked()
    pair.out.add(lock(OTHER), 0, ())
    with pytest.raises(OutOfFunds, match="2 locks already"):
        pair.out.add(lock(OTHER), 0, ())


# ---- lost messages and crashes


def test_a_promise_said_again_is_answered_again_and_changes_nothing() -> None:
    pair = Pair()
    pair.out.add(lock(), 3, ())
    promise = pair.promise()
    first = pair.take(promise)
    before = state_of(pair.incoming)
    took = pair.incoming.take(promise, UNTIL)
    assert (took.rows, took.changes) == ((), ())
    assert took.answer == first
    assert state_of(pair.incoming) == before
    assert pair.out.waiting == promise
    pair.taken(first)
    assert pair.out.taken(first) == ((), ())  # the answer again


def test_a_payer_that_crashed_makes_the_promise_under_way_again() -> None:
    pair = Pair()
    told = pair.done(pair.proven(3), 3 * TICK)
    pair.out.settle(told.number, told.total)
    promise = pair.promise()
    pair.out = pair.out_again()
    assert pair.out.waiting == promise
    assert set(pair.out.leaving) == {told.number}
    assert pair.out.locks == {}
    assert pair.taken(pair.take(promise)) == promise.changes
    pair.out = pair.out_again()
    assert pair.out.all == {}
    assert pair.out.idle


def test_numbers_rise_over_a_crash() -> None:
    pair = Pair()
    first = pair.locked()
    pair.out = pair.out_again()
    assert pair.out.add(lock(OTHER), 0, ()) == first + 1


def test_a_payee_that_crashed_stands_where_its_rows_do() -> None:
    pair = Pair()
    number = pair.proven(5)
    pair.in_books.write(pair.incoming.forward(number, Place(b"\x09" * 32, 4)))
    pair.in_books.write(pair.incoming.place(number))
    pair.in_books.write(pair.incoming.end(number, 5 * TICK))
    pair.done(number, 5 * TICK)
    assert state_of(pair.in_again()) == state_of(pair.incoming)
    held = pair.incoming.locks[number]
    assert held.out == Place(b"\x09" * 32, 4)
    assert held.ending == held.done == held.worth == 5 * TICK


# ---- what a payee knows of a lock


def test_fewer_ticks_than_are_proven_change_nothing() -> None:
    pair = Pair()
    number = pair.proven(5)
    assert pair.incoming.prove(number, 5, CHAIN.preimage(5)) == ()
    assert pair.incoming.prove(number, 3, CHAIN.preimage(3)) == ()
    before = state_of(pair.incoming)
    with pytest.raises(BadPreimage):
        pair.incoming.prove(number, 6, OTHER.preimage(6))
    assert state_of(pair.incoming) == before
    assert pair.incoming.prove(number, 6, CHAIN.preimage(6))


def test_what_a_lock_ends_at_is_within_what_is_proven() -> None:
    pair = Pair()
    number = pair.proven(5)
    pair.incoming.end(number, 10**9)
    assert pair.incoming.locks[number].ending == 5 * TICK
    pair.incoming.end(number, -1)
    assert pair.incoming.locks[number].ending == 0


def test_what_a_payee_is_done_with_is_said_once() -> None:
    pair = Pair()
    number = pair.proven(5)
    assert pair.incoming.done(number, 4 * TICK, "x" * 300)
    assert pair.incoming.done(number, 5 * TICK) == ()
    held = pair.incoming.locks[number]
    assert (held.done, held.why) == (4 * TICK, "x" * 200)


def test_a_lock_that_lapsed_is_worth_nothing_whatever_was_said() -> None:
    pair = Pair()
    number = pair.proven(5)
    pair.incoming.done(number, 5 * TICK)
    assert pair.incoming.lapse(number)
    assert pair.incoming.lapse(number) == ()
    held = pair.incoming.locks[number]
    assert held.done == 0
    assert held.why == "the lock has expired"


def test_nothing_is_known_of_a_lock_that_is_not_there() -> None:
    incoming = Pair().incoming
    for ask in (
        lambda: incoming.prove(1, 1, b""),
        lambda: incoming.forward(1, Place(b"", 1)),
        lambda: incoming.place(1),
        lambda: incoming.end(1, 0),
        lambda: incoming.done(1, 0),
        lambda: incoming.lapse(1),
    ):
        with pytest.raises(IllegalEvent, match="no lock 1"):
            ask()


def test_what_can_be_filed_is_the_voucher_with_its_locks_in_order_and_their_ticks() -> None:
    pair = Pair()
    pair.proven(5)
    second = pair.locked(OTHER, 0)
    filing = filing_of(pair.incoming.row, pair.incoming.locks)
    assert filing.voucher == pair.incoming.row.voucher
    assert filing.voucher.holds(filing.locks)
    assert filing.proofs == ((5, CHAIN.preimage(5)), (0, b""))
    assert worth_of(pair.incoming.row, pair.incoming.locks) == 3 + 5 * TICK
    assert second == 2


# ---- what is refused changes nothing


SMALL = lock(ticks=2)
BAD_PROMISES: dict[str, tuple[Callable[[], Promise], type[PenstockError], str]] = {
    "one that skips a voucher": (lambda: signed(Add(1, SMALL, 0, ()), locks=(SMALL,), nonce=2), BadVoucher, "follow"),
    "one without a change": (lambda: signed(), BadMessage, "changes 1.."),
    "one with too many": (lambda: signed(*[Settle(1, 0)] * (AT_ONCE + 1)), BadMessage, "changes 1.."),
    "a lock that is none": (lambda: signed(Add(1, lock(ticks=0), 0, ())), BadVoucher, "a lock holds"),
    "a number that was": (lambda: signed(Add(0, SMALL, 0, ()), locks=(SMALL,)), BadVoucher, "new number"),
    "a lock without an end": (
        lambda: signed(Add(1, lock(expiry=0), 0, ()), locks=(lock(expiry=0),)), BadVoucher, "expiry"
    ),
    "a lock for too long": (
        lambda: signed(Add(1, lock(expiry=UNTIL + 1), 0, ()), locks=(lock(expiry=UNTIL + 1),)), BadVoucher, "not after"
    ),
    "too long a way": (
        lambda: signed(Add(1, SMALL, 0, ONWARD * (MAX_ONWARD + 1)), locks=(SMALL,)), BadVoucher, "at most"
    ),
    "a fee below nothing": (lambda: signed(Add(1, SMALL, -1, ()), locks=(SMALL,)), BadVoucher, "uint96"),
    "a hop to no account": (
        lambda: signed(Add(1, SMALL, 0, (Hop(b"\x05" * 19, 99, 1, 1),)), locks=(SMALL,)), BadVoucher, "20 bytes"
    ),
    "a hop of too much": (
        lambda: signed(Add(1, SMALL, 0, (Hop(bytes(20), MAX_AMOUNT + 1, 1, 1),)), locks=(SMALL,)), BadVoucher, "uint96"
    ),
    "the end of no lock": (lambda: signed(Ask(1, 0, b"", 0)), BadVoucher, "no lock 1"),
    "no lock settled": (lambda: signed(Settle(1, 0)), BadVoucher, "no lock 1"),
    "another amount": (lambda: signed(Add(1, SMALL, 5, ()), locks=(SMALL,), amount=4), BadVoucher, "do not follow"),
    "another tree": (lambda: signed(Add(1, SMALL, 0, ()), locks=(lock(),)), BadVoucher, "do not follow"),
    "more than there is": (
        lambda: signed(Add(1, lock(tick_value=DEPOSIT), 0, ()), locks=(lock(tick_value=DEPOSIT),)),
        BadVoucher,
        "more than the channel's deposit",
    ),
    "a stranger's": (lambda: signed(Add(1, SMALL, 0, ()), locks=(SMALL,), key=STRANGER), BadSignature, "voucher"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_PROMISES)
def test_a_promise_that_is_not_as_it_should_be_is_refused(what: str) -> None:
    made, error, says = BAD_PROMISES[what]
    incoming = Pair().incoming
    before = state_of(incoming)
    with pytest.raises(error, match=says):
        incoming.take(made(), UNTIL)
    assert state_of(incoming) == before


@pytest.mark.parametrize(
    ("change", "locks", "amount"),
    [
        (Ask(1, 5, b"", TICK), (lock(),), 3 + TICK),  # a whole tick
        (Ask(1, 5, b"", -1), (lock(),), 2),
        (Settle(1, 4 * TICK), (), 3 + 4 * TICK),  # less than it is done at
        (Settle(1, TICKS * TICK + 1), (), 3 + TICKS * TICK + 1),  # more than it is worth: who errs so, errs in more
    ],
)
def test_a_change_to_a_lock_at_another_sum_is_refused(change: Change, locks: tuple[Lock, ...], amount: int) -> None:
    pair = Pair()
    pair.done(pair.proven(5), 5 * TICK)
    before = state_of(pair.incoming)
    with pytest.raises(BadVoucher):
        pair.incoming.take(signed(change, locks=locks, nonce=2, amount=amount), UNTIL)
    assert state_of(pair.incoming) == before


@pytest.mark.parametrize("total", [5 * TICK, lock().value])
def test_a_lock_that_is_not_done_is_not_settled_at_any_sum(total: int) -> None:
    """Rule 8: a hub still owes the lock that it pays for."""
    pair = Pair()
    number = pair.proven(5)
    with pytest.raises(BadVoucher, match="before its payee was done"):
        pair.incoming.take(signed(Settle(number, total), nonce=2, amount=3 + total), UNTIL)


def test_a_lock_whose_end_was_asked_for_is_asked_for_no_more() -> None:
    pair = Pair()
    number = pair.proven(5)
    pair.out.ask(number, 5, CHAIN.preimage(5), 0)
    pair.exchange()
    with pytest.raises(BadVoucher, match="once"):
        pair.incoming.take(signed(Ask(number, 5, b"", 0), locks=(lock(),), nonce=3, amount=3), UNTIL)


def test_more_locks_than_a_tree_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    pair.locked()
    pair.out.add(lock(OTHER), 0, ())
    promise = pair.promise()
    monkeypatch.setattr(hops, "MAX_LOCKS", 1)
    with pytest.raises(BadVoucher, match="2 locks under one voucher"):
        pair.incoming.take(promise, UNTIL)
    assert MAX_LOCKS > 1


def test_a_release_of_something_else_is_refused() -> None:
    pair = Pair()
    pair.locked()
    pair.out.add(lock(OTHER), 3, ())
    answer = pair.take(pair.promise())
    before = state_of(pair.out)
    with pytest.raises(BadMessage, match="not under way"):
        pair.out.taken(Taken(PARAMS.id, 7, answer.release))
    for wrong in (STRANGER.sign(Release(2, 6).digest(PARAMS)), PAYEE.sign(Release(2, 7).digest(PARAMS)), b""):
        with pytest.raises(BadSignature):
            pair.out.taken(Taken(PARAMS.id, 2, wrong))
    assert state_of(pair.out) == before
    assert pair.taken(answer)
    with pytest.raises(BadMessage):
        pair.out.taken(Taken(PARAMS.id, 1, answer.release))


def test_an_end_that_cannot_be_is_refused() -> None:
    pair = Pair()
    number = pair.locked()
    before = state_of(pair.out)
    with pytest.raises(BadPreimage):
        pair.out.told(Told(PARAMS.id, number, True, 3, OTHER.preimage(3), 3 * TICK, ""))
    with pytest.raises(BadPreimage):
        pair.out.told(Told(PARAMS.id, number, True, TICKS + 1, bytes(32), 0, ""))
    for total in (-1, 3 * TICK + 1):
        with pytest.raises(BadMessage, match="for 3 ticks"):
            pair.out.told(Told(PARAMS.id, number, True, 3, CHAIN.preimage(3), total, ""))
    assert pair.out.told(Told(PARAMS.id, 99, True, 0, b"", 0, "")) == ((), None)
    assert state_of(pair.out) == before


# ---- rows


@pytest.mark.parametrize(
    ("value", "decode"),
    [
        (OutRow(Voucher.over(3, 50, (lock(),)), b"\x22" * 65, (Settle(2, 5), Ask(1, 2, b"x", 3)), 2, 40), decode_out),
        (OutLock(lock(), Place(b"\x44" * 32, 7), placed=True, asked=True), decode_out_lock),
        (InRow(Voucher.over(3, 50, (lock(),)), b"\x22" * 65, 3), decode_in),
        (InLock(Add(3, lock(), 5, ONWARD), 4, b"\x66" * 32, done=5, why="so", rest=2), decode_in_lock),
    ],
)
def test_rows_mean_the_same_when_they_are_read(value: Any, decode: Callable[[bytes], Any]) -> None:
    assert decode(encode(value)) == value
    with pytest.raises(JournalError):
        decode(b"[]")
