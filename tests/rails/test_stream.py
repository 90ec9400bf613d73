"""The stream rail: a payer's end and a payee's, through folds, fresh chains, crashes and lies."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.channel import MAX_TICKS, Lock, Voucher
from penstock.core.codec import decode_part, encode
from penstock.core.errors import (
    BadMessage,
    BadPreimage,
    BadSignature,
    BadTerms,
    BadVoucher,
    IllegalEvent,
    JournalError,
    OutOfFunds,
    RemoteError,
)
from penstock.core.identity import Address, Key
from penstock.core.rail import Evidence
from penstock.core.ticks import TickChain
from penstock.core.units import MAX_AMOUNT
from penstock.rails.stream import (
    EARNED_ROWS,
    FOLD_EVERY,
    MAX_WALK,
    PAID_ROWS,
    TICK_ROWS,
    EarnedRow,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    VoucherNote,
    check_terms,
    decode_earned,
    decode_offer,
    decode_paid,
    decode_terms,
    proof_of,
)

from ..core.pair import CONSUMER, DOMAIN, PARAMS, SECRET, STRANGER, SUPPLIER

TICK = 10
DEPOSIT = 100_000
TERMS = StreamTerms(PARAMS, 0, 0, TICK)
ID = PARAMS.id


class Ends:
    """Both ends of one direction, with the rows that each has written. `terms` begins a session."""

    def __init__(self, terms: StreamTerms = TERMS, deposit: int = DEPOSIT) -> None:
        self.terms, self.deposit = terms, deposit
        self.paid: dict[bytes, bytes] = {}
        self.earned: dict[bytes, bytes] = {}
        self.payer = StreamPayer(terms, deposit, CONSUMER, SECRET)
        self.payee = StreamPayee(terms, deposit)
        self.give([self.payer.open()])

    def give(self, evidence: list[Evidence], least: int | None = None) -> None:
        for one in evidence:
            self.lose(one)
            self._write(self.earned, self.payee.take(one.data, least))

    def lose(self, one: Evidence) -> None:
        """The payer keeps its rows, and the evidence never arrives."""
        self._write(self.paid, one.rows)

    @staticmethod
    def _write(books: dict[bytes, bytes], rows: Any) -> None:
        for key, value in rows:
            if value is None:
                books.pop(key, None)
            else:
                books[key] = value

    def payer_again(self) -> StreamPayer:
        return StreamPayer(self.terms, self.deposit, CONSUMER, SECRET, decode_paid(self.paid[PAID_ROWS + ID]))

    def payee_again(self) -> StreamPayee:
        row = decode_earned(self.earned[EARNED_ROWS + ID])
        return StreamPayee(self.terms, self.deposit, row, self.earned.get(TICK_ROWS + ID))


def state_of(end: Any) -> dict[str, Any]:
    """Every slot of an end, its proof and its signer taken apart."""
    slots = {name: getattr(end, name) for name in end.__slots__}
    slots["_signer"] = slots["_signer"].address if "_signer" in slots else None
    proof = slots.pop("_proof", None)
    return slots | ({"proof": (proof.count, proof.preimage, proof.ticks)} if proof else {})


# ---- paying


def test_an_opening_shows_that_payment_can_follow_and_pays_nothing() -> None:
    ends = Ends()
    assert ends.payer.paid == ends.payee.secured == 0
    note = decode_earned(ends.earned[EARNED_ROWS + ID]).note
    assert note.voucher.locked == MAX_WALK * TICK
    assert (ends.payer.capacity, ends.payee.capacity) == (DEPOSIT, DEPOSIT)


@pytest.mark.parametrize(("upto", "paid"), [(0, 0), (9, 0), (10, 10), (19, 10), (5_119, 5_110), (40_960, 40_960)])
def test_a_payer_pays_as_near_as_whole_ticks_allow(upto: int, paid: int) -> None:
    ends = Ends()
    ends.give(ends.payer.pay(upto))
    assert ends.payer.paid == ends.payee.secured == paid
    assert ends.payer.ticks == ends.payee.ticks == paid // TICK
    assert ends.payer.pay(upto) == []
    assert ends.payer.pay(0) == []


def test_claimed_ticks_are_folded_into_a_higher_voucher_of_the_same_worth() -> None:
    ends = Ends()
    ends.give(ends.payer.pay((FOLD_EVERY - 1) * TICK))
    assert ends.payer.fold() == []
    ends.give(ends.payer.pay(FOLD_EVERY * TICK))
    ends.give(ends.payer.fold())
    assert ends.payer.fold() == []
    note = decode_earned(ends.earned[EARNED_ROWS + ID]).note
    assert note.voucher.amount == FOLD_EVERY * TICK
    assert note.voucher.amount + note.voucher.locked == MAX_WALK * TICK
    assert note.locks[0].root == TickChain(chain_seed(1), MAX_WALK).preimage(FOLD_EVERY)
    assert TICK_ROWS + ID not in ends.earned
    ends.give(ends.payer.pay((FOLD_EVERY + 1) * TICK))
    assert ends.payee.secured == (FOLD_EVERY + 1) * TICK


def chain_seed(nonce: int) -> bytes:
    return StreamPayer(TERMS, DEPOSIT, CONSUMER, SECRET)._seed(nonce)


def test_a_chain_that_is_used_up_is_followed_by_a_fresh_one() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(MAX_WALK * TICK))
    first = decode_paid(ends.paid[PAID_ROWS + ID])
    ends.give(ends.payer.pay(MAX_WALK * TICK + TICK))
    second = decode_paid(ends.paid[PAID_ROWS + ID])
    assert second.chain_nonce == second.note.voucher.nonce > first.chain_nonce
    assert second.note.locks[0].root == TickChain(chain_seed(second.chain_nonce), MAX_WALK).root
    assert ends.payee.secured == (MAX_WALK + 1) * TICK
    assert ends.payee.ticks == MAX_WALK + 1


@pytest.mark.parametrize("deposit", [10, 19, 1_005, 40_960, 40_965, 40_970, 100_000])
def test_no_more_than_the_deposit_is_ever_promised(deposit: int) -> None:
    ends = Ends(deposit=deposit)
    for upto in (deposit // 3, deposit // 2, deposit, 10 * deposit):
        ends.give(ends.payer.pay(upto))
        voucher = decode_paid(ends.paid[PAID_ROWS + ID]).note.voucher
        assert voucher.amount + voucher.locked <= deposit
        assert ends.payer.paid <= min(upto, deposit)
    assert deposit - ends.payee.secured < TICK
    ends.give([ends.payer.square(deposit)], least=deposit)
    assert ends.payee.secured == deposit


@pytest.mark.parametrize("deposit", [0, 9])
def test_a_channel_without_a_tick_left_cannot_open_a_session(deposit: int) -> None:
    with pytest.raises(OutOfFunds):
        StreamPayer(TERMS, deposit, CONSUMER, SECRET).open()


@pytest.mark.parametrize("bill", [0, 7, 1_000, 1_009, DEPOSIT])
def test_the_last_voucher_squares_the_bill_to_the_unit_and_locks_nothing(bill: int) -> None:
    ends = Ends()
    ends.give(ends.payer.pay(min(bill, 1_000)))
    square = ends.payer.square(bill)
    ends.give([square], least=bill)
    assert ends.payer.paid == ends.payee.secured == bill
    assert decode_earned(ends.earned[EARNED_ROWS + ID]).note.locks == ()
    again = ends.payer.square(bill)
    assert (again.data, again.rows) == (square.data, ())


def test_ticks_do_not_square_a_bill() -> None:
    """Mistake: underpayment accepted. Ticks that are known already must not stand for a bill that is higher."""
    ends = Ends()
    known = ends.payer.pay(300)
    ends.give(known)
    for bill in (300, 400):
        with pytest.raises(BadVoucher):
            ends.payee.take(known[-1].data, least=bill)
    assert ends.payee.secured == 300


def test_a_bill_may_be_less_than_what_was_paid_ahead() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(500))
    ends.give([ends.payer.square(420)], least=420)
    assert ends.payee.secured == ends.payer.paid == 420


@pytest.mark.parametrize("bill", [-1, DEPOSIT + 1])
def test_a_bill_that_the_channel_cannot_pay_is_refused(bill: int) -> None:
    ends = Ends()
    before = state_of(ends.payer)
    with pytest.raises(OutOfFunds):
        ends.payer.square(bill)
    assert state_of(ends.payer) == before


def test_a_channel_pays_one_session_after_another() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    ends.give([ends.payer.square(307)], least=307)
    paid, earned = decode_paid(ends.paid[PAID_ROWS + ID]), decode_earned(ends.earned[EARNED_ROWS + ID])
    terms = StreamTerms(PARAMS, paid.note.voucher.nonce, 307, 25)
    payer = StreamPayer(terms, DEPOSIT, CONSUMER, b"\x08" * 32, paid)
    payee = StreamPayee(terms, DEPOSIT, earned)
    assert payer.paid == payee.secured == 0
    payee.take(payer.open().data)
    for one in payer.pay(1_000):
        payee.take(one.data)
    assert payer.paid == payee.secured == 1_000
    payee.take(payer.square(DEPOSIT - 307).data, least=DEPOSIT - 307)
    assert payee.capacity == payee.secured


def test_no_seed_is_used_twice() -> None:
    seeds = {chain_seed(nonce) for nonce in range(100)}
    other_channel = msgspec.structs.replace(PARAMS, counter=2)
    seeds.add(StreamPayer(StreamTerms(other_channel, 0, 0, TICK), DEPOSIT, CONSUMER, SECRET)._seed(1))
    seeds.add(StreamPayer(TERMS, DEPOSIT, CONSUMER, b"\x08" * 32)._seed(1))
    assert len(seeds) == 102


# ---- lies


def mutations() -> list[tuple[str, bytes, type[RemoteError]]]:
    """Evidence that could follow 200 secured under voucher 1, each with one thing wrong."""
    ends = Ends()
    ends.give(ends.payer.pay(200))
    next_tick = ends.payer.pay(230)[0].data
    held = decode_paid(ends.paid[PAID_ROWS + ID]).note
    lock = Lock(b"\x11" * 32, TICK, 100)

    def note(
        nonce: int = 2, amount: int = 230, locks: tuple[Lock, ...] = (), key: Key = CONSUMER, **changes: Any
    ) -> bytes:
        voucher = msgspec.structs.replace(Voucher.over(nonce, amount, locks), **changes)
        return b"\x02" + encode(VoucherNote(voucher, key.sign(voucher.digest(PARAMS)), locks))

    good = decode_part(note(locks=(lock,))[1:], VoucherNote)
    elsewhere = msgspec.structs.replace(PARAMS, counter=9)
    foreign = msgspec.structs.replace(good, signature=CONSUMER.sign(good.voucher.digest(elsewhere)))
    high_s = msgspec.structs.replace(good, signature=good.signature[:64] + bytes((good.signature[64] - 27,)))
    return [
        ("nothing", b"", BadMessage),
        ("another kind", b"\x03" + next_tick[1:], BadMessage),
        ("a short tick", next_tick[:-1], BadMessage),
        ("a long tick", next_tick + b"\0", BadMessage),
        ("more ticks than any lock", next_tick[:9] + (MAX_TICKS + 1).to_bytes(4, "big") + next_tick[13:], BadPreimage),
        ("another nonce", next_tick[:8] + b"\x02" + next_tick[9:], BadVoucher),
        ("a tick more", next_tick[:9] + (24).to_bytes(4, "big") + next_tick[13:], BadPreimage),
        ("a tick less", next_tick[:9] + (22).to_bytes(4, "big") + next_tick[13:], BadPreimage),
        ("fewer than before", next_tick[:9] + (19).to_bytes(4, "big") + next_tick[13:], BadPreimage),
        ("beyond the lock", next_tick[:9] + (MAX_WALK + 1).to_bytes(4, "big") + next_tick[13:], BadPreimage),
        ("another preimage", next_tick[:13] + bytes(32), BadPreimage),
        ("no voucher", b"\x02{}", BadMessage),
        ("a voucher and more", note() + b"1", BadMessage),
        ("a field more", b"\x02" + encode([*msgspec.to_builtins(good), 1]), BadMessage),
        ("the same nonce", note(nonce=1), BadVoucher),
        ("an older nonce", note(nonce=0), BadVoucher),
        ("a negative nonce", note_raw(-1), BadVoucher),
        ("a nonce beyond the contract's", note(nonce=2**63), BadVoucher),
        ("less than was secured", note(amount=199), BadVoucher),
        ("more than the deposit", note(amount=DEPOSIT + 1), BadVoucher),
        ("locks beyond the deposit", note(amount=DEPOSIT - 999, locks=(lock,)), BadVoucher),
        ("two locks", note(locks=(lock, lock)), BadVoucher),
        ("another tick value", note(locks=(Lock(bytes(32), TICK + 1, 5),)), BadVoucher),
        ("an expiry", note(locks=(Lock(bytes(32), TICK, 5, 2**33),)), BadVoucher),
        ("a lock too long to walk", note(locks=(Lock(bytes(32), TICK, MAX_WALK + 1),)), BadVoucher),
        ("a lock of no ticks", note_with(Lock(bytes(32), TICK, 0)), BadVoucher),
        ("a lock of a short root", note_with(Lock(bytes(31), TICK, 5)), BadVoucher),
        ("a lock of negative worth", note_with(Lock(bytes(32), -TICK, 5)), BadVoucher),
        ("another sum locked", note(locks=(lock,), locked=999), BadVoucher),
        ("locked for ever", note(locks=(lock,), locked_until=2**63), BadVoucher),
        ("another tree", note(locks=(lock,), locks_root=b"\x22" * 32), BadVoucher),
        ("locks that are not shown", note(locked=50), BadVoucher),
        ("another key", note(key=STRANGER), BadSignature),
        ("the payee's own key", note(key=SUPPLIER), BadSignature),
        ("another channel", b"\x02" + encode(foreign), BadSignature),
        ("another form of signature", b"\x02" + encode(high_s), BadSignature),
        ("the last signature", b"\x02" + encode(VoucherNote(good.voucher, held.signature, (lock,))), BadSignature),
    ]  # fmt: skip


def note_raw(nonce: int) -> bytes:
    return b"\x02" + encode(VoucherNote(Voucher.over(nonce, 230), bytes(65), ()))


def note_with(lock: Lock) -> bytes:
    voucher = Voucher(2, 230, abs(lock.value), 0, bytes(32))
    return b"\x02" + encode(VoucherNote(voucher, CONSUMER.sign(voucher.digest(PARAMS)), (lock,)))


@pytest.mark.parametrize(("evidence", "error"), [pytest.param(e, error, id=name) for name, e, error in mutations()])
def test_evidence_with_one_thing_wrong_is_refused_and_changes_nothing(evidence: bytes, error: type) -> None:
    """Mistake: underpayment accepted by the payee's check."""
    ends = Ends()
    ends.give(ends.payer.pay(200))
    before = state_of(ends.payee)
    with pytest.raises(error):
        ends.payee.take(evidence)
    assert state_of(ends.payee) == before
    ends.give(ends.payer.pay(230))
    assert ends.payee.secured == 230, "honest payment goes on"


@settings(max_examples=200)
@given(st.binary(max_size=120).flatmap(lambda b: st.sampled_from([b, b"\x01" + b, b"\x02" + b])))
def test_rubbish_is_no_evidence(rubbish: bytes) -> None:
    payee = Ends().payee
    before = state_of(payee)
    with pytest.raises(RemoteError):
        payee.take(rubbish)
    assert state_of(payee) == before


@pytest.mark.parametrize("amount", [99, 101, 100_001])
def test_the_last_voucher_must_be_worth_the_bill_exactly(amount: int) -> None:
    """Mistake: underpayment accepted by the payee's check."""
    ends = Ends()
    voucher = Voucher.over(2, amount)
    note = VoucherNote(voucher, CONSUMER.sign(voucher.digest(PARAMS)), ())
    with pytest.raises(BadVoucher):
        ends.payee.take(b"\x02" + encode(note), least=100)
    locked = Voucher.over(2, 100, (Lock(bytes(32), TICK, 5),))
    note = VoucherNote(locked, CONSUMER.sign(locked.digest(PARAMS)), (Lock(bytes(32), TICK, 5),))
    with pytest.raises(BadVoucher):
        ends.payee.take(b"\x02" + encode(note), least=100)


def test_what_is_repeated_after_a_lost_link_changes_nothing() -> None:
    ends = Ends()
    evidence = ends.payer.pay(FOLD_EVERY * TICK) + ends.payer.fold() + ends.payer.pay(FOLD_EVERY * TICK + 30)
    ends.give(evidence)
    before = state_of(ends.payee)
    assert ends.payee.take(evidence[-1].data) == ()
    assert state_of(ends.payee) == before


# ---- coming back


def lost(at: int, keeps: int, then: int) -> tuple[Ends, StreamPayer]:
    """Ends that had `at` between them, whose payer then paid up to `then`, of which `keeps` pieces arrived."""
    ends = Ends()
    ends.give(ends.payer.pay(at))
    evidence = ends.payer.pay(then)
    ends.give(evidence[:keeps])
    for one in evidence[keeps:]:
        ends.lose(one)
    return ends, ends.payer


@pytest.mark.parametrize("crash", [False, True], ids=["link lost", "payer crashed"])
@pytest.mark.parametrize("keeps", range(4))
@pytest.mark.parametrize(
    ("at", "then"),
    [
        (0, 0),
        (0, 50),
        (200, 230),
        (200, 200),
        (5_000, 5_200),  # across a fold
        (5_110, 5_120),  # up to a fold
        (40_900, 41_100),  # across a fresh chain
        (200, 60_000),  # across several
    ],
)
def test_a_payer_takes_up_where_the_payee_stands(at: int, keeps: int, then: int, crash: bool) -> None:
    ends, payer = lost(at, keeps, then)
    if crash:
        payer = ends.payer = ends.payer_again()
        assert payer.paid <= then
    ends.payee = ends.payee_again()
    ends.give(payer.resume(ends.payee.state()))
    assert payer.paid == ends.payee.secured
    assert payer.ticks >= ends.payee.ticks
    assert payer.resume(ends.payee.state()) == []
    ends.give(payer.pay(70_000))
    assert payer.paid == ends.payee.secured == 70_000
    ends.give([payer.square(70_003)], least=70_003)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\x01" + bytes(43),
        b"\x02" + bytes(44),
        b"\x01" + (7).to_bytes(8, "big") + bytes(36),
        b"\x01" + (1).to_bytes(8, "big") + (3).to_bytes(4, "big") + bytes(32),
        b"\x01" + (1).to_bytes(8, "big") + (MAX_WALK + 1).to_bytes(4, "big") + bytes(32),
        b"\x01" + (1).to_bytes(8, "big") + (2**32 - 1).to_bytes(4, "big") + bytes(32),
    ],
)
def test_a_payee_that_claims_what_was_never_given_is_refused(state: bytes) -> None:
    ends = Ends()
    ends.give(ends.payer.pay(50))
    before = state_of(ends.payer)
    with pytest.raises(BadMessage):
        ends.payer.resume(state)
    before["_chain"] = state_of(ends.payer)["_chain"]
    assert state_of(ends.payer) == before


def test_a_squared_channel_has_no_ticks_to_claim() -> None:
    ends = Ends()
    ends.give([ends.payer.square(0)], least=0)
    nonce = (2).to_bytes(8, "big")
    with pytest.raises(BadMessage):
        ends.payer.resume(b"\x01" + nonce + (1).to_bytes(4, "big") + bytes(32))
    assert ends.payer.resume(ends.payee.state()) == []


@settings(max_examples=40, deadline=None)
@given(
    st.integers(10, 3_000),
    st.lists(
        st.tuples(st.integers(0, 3_500), st.sampled_from(["give", "lose", "payer", "payee", "both"])), max_size=12
    ),
)
def test_whatever_is_lost_the_books_meet_again_and_promise_no_more_than_the_deposit(
    deposit: int, moves: list[tuple[int, str]]
) -> None:
    ends = Ends(deposit=deposit)
    for upto, what in moves:
        evidence = ends.payer.pay(upto)
        if what == "lose":
            for one in evidence:
                ends.lose(one)
        else:
            ends.give(evidence)
        if what in ("payer", "both"):
            ends.payer = ends.payer_again()
        if what in ("payee", "both"):
            again = ends.payee_again()
            assert state_of(again) == state_of(ends.payee)
            ends.payee = again
        if what != "give":
            ends.give(ends.payer.resume(ends.payee.state()))
        assert ends.payer.paid == ends.payee.secured <= deposit
        row = decode_earned(ends.earned[EARNED_ROWS + ID])
        count, preimage = proof_of(row, ends.earned.get(TICK_ROWS + ID))
        assert provable(row, count, preimage) == ends.payee.secured
    bill = min(deposit, ends.payer.paid + 3)
    ends.give([ends.payer.square(bill)], least=bill)
    assert ends.payee.secured == bill


def provable(row: EarnedRow, count: int, preimage: bytes) -> int:
    """What the contract would pay for this, recomputed from the voucher and the preimage alone."""
    voucher, locks = row.note.voucher, row.note.locks
    assert voucher == Voucher.over(voucher.nonce, voucher.amount, locks)
    if not count:
        return voucher.amount
    value = preimage
    for _ in range(count):
        value = sha256(value).digest()
    assert value == locks[0].root
    assert count <= locks[0].ticks
    return voucher.amount + min(count * locks[0].tick_value, voucher.locked)


# ---- terms and rows

OFFER = StreamOffer(DOMAIN, SUPPLIER.address, SUPPLIER.address, 60)


@pytest.mark.parametrize(
    ("offer", "terms", "deposit"),
    [
        ({"domain": msgspec.structs.replace(DOMAIN, chain_id=1)}, {}, DEPOSIT),
        ({"payee": STRANGER.address}, {}, DEPOSIT),
        ({"payee_key": STRANGER.address}, {}, DEPOSIT),
        ({"min_period": 3_601}, {}, DEPOSIT),
        ({}, {"params": msgspec.structs.replace(PARAMS, period=1)}, DEPOSIT),
        ({}, {"params": msgspec.structs.replace(PARAMS, opener=Address(b""))}, DEPOSIT),
        ({}, {"tick_value": 11}, DEPOSIT),
        ({}, {"nonce": -1}, DEPOSIT),
        ({}, {"nonce": 2**63}, DEPOSIT),
        ({}, {"amount": -1}, DEPOSIT),
        ({}, {"amount": DEPOSIT + 1}, DEPOSIT),
        ({}, {}, MAX_AMOUNT + 1),
    ],
)
def test_terms_under_which_the_payee_could_not_be_paid_are_refused(
    offer: dict[str, Any], terms: dict[str, Any], deposit: int
) -> None:
    """Mistake: unclaimed vouchers reserve nothing while the seller is down."""
    check_terms(OFFER, TERMS, (DEPOSIT, 0), (TICK, 0))
    with pytest.raises(BadTerms):
        check_terms(
            msgspec.structs.replace(OFFER, **offer), msgspec.structs.replace(TERMS, **terms), (deposit, 0), (TICK, 0)
        )


def test_a_session_begins_with_the_voucher_that_both_hold() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    paid = decode_paid(ends.paid[PAID_ROWS + ID])
    for newer in (StreamTerms(PARAMS, 9, 0, TICK), StreamTerms(PARAMS, 0, 9_999, TICK)):
        with pytest.raises(BadTerms):
            StreamPayer(newer, DEPOSIT, CONSUMER, SECRET, paid)


def test_a_last_voucher_that_was_lost_comes_with_the_opening_of_the_next_session() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    ends.lose(ends.payer.square(307))
    last = decode_paid(ends.paid[PAID_ROWS + ID]).note.voucher
    terms = StreamTerms(PARAMS, last.nonce, last.amount, TICK)
    payer = StreamPayer(terms, DEPOSIT, CONSUMER, b"\x08" * 32)
    payee = StreamPayee(terms, DEPOSIT, decode_earned(ends.earned[EARNED_ROWS + ID]), ends.earned.get(TICK_ROWS + ID))
    assert payee.secured == -7
    payee.take(payer.open().data)
    assert (payer.paid, payee.secured, payee.ticks) == (0, 0, 0)
    for one in payer.pay(50):
        payee.take(one.data)
    assert (payee.secured, payee.ticks) == (50, payer.ticks)


def test_a_session_that_begins_below_what_we_hold_shows_as_paid_already() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    held = decode_earned(ends.earned[EARNED_ROWS + ID])
    assert StreamPayee(StreamTerms(PARAMS, 0, 0, TICK), DEPOSIT, held, ends.earned[TICK_ROWS + ID]).secured == 300


def test_ticks_under_an_older_voucher_count_for_nothing() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    ticks = ends.earned[TICK_ROWS + ID]
    ends.give([ends.payer.square(300)], least=300)
    row = decode_earned(ends.earned[EARNED_ROWS + ID])
    assert proof_of(row, ticks) == proof_of(row, None) == (0, b"")
    assert StreamPayee(TERMS, DEPOSIT, row, ticks).secured == 300


def test_a_proof_without_its_lock_is_a_broken_journal() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(300))
    row = decode_earned(ends.earned[EARNED_ROWS + ID])
    bare = msgspec.structs.replace(row, note=msgspec.structs.replace(row.note, locks=()))
    with pytest.raises(IllegalEvent):
        proof_of(bare, ends.earned[TICK_ROWS + ID])


def test_parts_and_rows_are_decoded_strictly() -> None:
    assert decode_terms(encode(TERMS)) == TERMS
    assert decode_offer(encode(OFFER)) == OFFER
    for decode in (decode_terms, decode_offer):
        with pytest.raises(BadMessage):
            decode(b"[]")
    for decode_books in (decode_paid, decode_earned):
        with pytest.raises(JournalError):
            decode_books(b"[]")
