"""The stream rail in both directions of one channel: what is earned can be spent, and nobody loses by it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.channel import Lock, Voucher
from penstock.core.codec import encode
from penstock.core.errors import BadSignature, BadTerms, BadVoucher, IllegalEvent, OutOfFunds
from penstock.core.rail import Evidence
from penstock.core.ticks import TickChain
from penstock.rails.stream import (
    EARNED_ROWS,
    FOLD_EVERY,
    MAX_WALK,
    PAID_ROWS,
    StreamBack,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    VoucherNote,
    check_terms,
    decode_earned,
)

from ..core.pair import CONSUMER, DOMAIN, PARAMS, SECRET, SUPPLIER
from .two_way import CHANNEL, KEYS, OPENER, PARTNER, TICKS, Line, exits

ID = CHANNEL.id
TERMS = StreamTerms(CHANNEL, 0, 0, TICKS[OPENER], StreamBack(0, 0, TICKS[PARTNER]))
MOVES = st.one_of(
    st.tuples(st.just("pay"), st.sampled_from((OPENER, PARTNER)), st.integers(1, 400)),
    st.tuples(st.just("fold"), st.sampled_from((OPENER, PARTNER)), st.just(0)),
    st.tuples(st.just("deliver"), st.sampled_from((OPENER, PARTNER)), st.integers(1, 4)),
    st.tuples(st.just("relink"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("finish"), st.booleans(), st.just(0)),
)


def play(line: Line, move: tuple[str, int, int]) -> None:
    name, who, much = move
    if name == "pay":
        line.pay(who, much)
    elif name == "fold":
        line.sides[who].send(line.sides[who].payer.fold())
    elif name == "deliver":
        for _ in range(much):
            line.deliver(who)
    elif name == "relink":
        line.relink(tuple(number for number in (OPENER, PARTNER) if who >> number & 1))
    else:
        line.finish()
        if who:
            line.begin()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.lists(MOVES, max_size=40))
def test_rule_7_whoever_closes_with_whatever_voucher_nobody_gets_less_than_it_is_owed(
    opener: int, partner: int, moves: list[tuple[str, int, int]]
) -> None:
    """Rule 7: a voucher is taken only if the contract would pay it in full in every order of filings."""
    line = Line((opener, partner))
    for move in moves:
        play(line, move)
        for number, side in enumerate(line.sides):
            assert side.payer.capacity <= line.sides[1 - number].payee.capacity, "a payee would refuse what is paid"
            owed = line.deposits[number] + side.secured - side.paid
            for got, theirs in exits(line, number):
                assert got >= owed, f"side {number} gets {got} of {owed} where the other files {theirs}"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.lists(MOVES, max_size=25), st.booleans(), st.integers(0, 60))
def test_rule_7_a_payer_that_promises_what_it_does_not_have_is_refused_or_pays_in_full(
    opener: int, partner: int, moves: list[tuple[str, int, int]], cheat: bool, more: int
) -> None:
    """Rule 7: what is taken beyond the deposit is backed by what the payee itself has promised for good."""
    line = Line((opener, partner))
    for move in moves:
        play(line, move)
    thief, honest = line.sides[cheat], line.sides[not cheat]
    room = line.deposits[cheat] + thief.secured  # with ticks that nobody has folded
    for amount, ticks in ((room + more, 0), (room - more, more // 2), (thief.paid, 1 + more)):
        chain = TickChain(SECRET, max(1, ticks))
        locks = (Lock(chain.root, TICKS[cheat], ticks),) if ticks else ()
        voucher = Voucher.over(10**6 + len(honest.given), max(0, amount), locks)
        note = VoucherNote(voucher, KEYS[cheat].sign(voucher.digest(CHANNEL)), locks)
        try:
            honest.take(Evidence(b"\x02" + encode(note)))
        except BadVoucher:
            continue
        owed = line.deposits[not cheat] + honest.secured - honest.paid
        assert all(got >= owed for got, _ in exits(line, int(not cheat)))


def side_with(deposit: int, *, paid_back: int) -> Line:
    """A session in which the partner, with nothing of its own, has paid on `paid_back` of the opener's money."""
    line = Line((deposit, 0))
    line.pay(OPENER, deposit)
    line.sides[OPENER].send(line.sides[OPENER].payer.fold())
    while line.sides[OPENER].post:
        line.deliver(OPENER)
    line.pay(PARTNER, paid_back)
    while line.sides[PARTNER].post:
        line.deliver(PARTNER)
    return line


def test_what_was_earned_can_be_spent_at_once() -> None:
    """A partner without a deposit pays from what it earned, and the opener spends that again."""
    line = Line((70, 0))
    opener, partner = line.sides
    assert (opener.payer.capacity, partner.payer.capacity) == (70, 0)
    assert partner.payer.pay(0) == partner.payer.fold() == []
    line.pay(OPENER, 70)
    opener.send(opener.payer.fold())
    while opener.post:
        line.deliver(OPENER)
    assert (opener.payer.capacity, partner.payer.capacity) == (70, 70)
    for spender, earner in ((PARTNER, OPENER), (OPENER, PARTNER)) * 20:  # the same 70 units, forty times
        side = line.sides[spender]
        before = line.sides[earner].payee.secured
        line.pay(spender, 70)
        side.send(side.payer.fold())
        while side.post:
            line.deliver(spender)
        assert line.sides[earner].payee.secured == before + 70
    assert opener.payer.paid == 21 * 70
    assert partner.payer.paid == 20 * 70


def test_rule_7_ticks_that_are_not_folded_back_nothing() -> None:
    """Rule 7: a payer may forget them when it crashes; its payee would then hold more than was ever promised for."""
    line = side_with(70, paid_back=35)
    opener, partner = line.sides
    assert opener.payee.secured == 35
    assert opener.payer.capacity == partner.payee.capacity == 70
    voucher = Voucher.over(50, 75)
    note = VoucherNote(voucher, CONSUMER.sign(voucher.digest(CHANNEL)), ())
    with pytest.raises(BadVoucher, match="back: 70"):
        partner.payee.take(b"\x02" + encode(note))
    partner.send(partner.payer.fold())
    assert (opener.payer.capacity, partner.payee.capacity) == (70, 105)
    line.deliver(PARTNER)
    assert opener.payer.capacity == partner.payee.capacity == 105
    partner.take(Evidence(b"\x02" + encode(note)))
    assert partner.payee.secured == 75


def test_a_payer_that_is_also_paid_folds_whatever_there_is() -> None:
    line = side_with(700, paid_back=5)
    partner = line.sides[PARTNER]
    folds = partner.payer.fold()
    assert len(folds) == 1
    assert partner.payer.promised == 5
    assert partner.payer.fold() == []
    alone = StreamPayer(StreamTerms(PARAMS, 0, 0, 7), 700_000, CONSUMER, SECRET)
    alone.open()
    alone.pay(7 * (FOLD_EVERY - 1))
    assert alone.fold() == []


def test_a_lock_from_when_little_was_backed_does_not_starve_the_session() -> None:
    """It is as long as what was backed when it was made; a fresh one follows when it is used up."""
    line = side_with(7_000, paid_back=5)
    opener, partner = line.sides
    short = opener.payer.pay(opener.payer.paid + 7_000)
    assert short == [], "nothing is left"
    partner.send(partner.payer.pay(partner.payer.paid + 2_000))
    partner.send(partner.payer.fold())
    while partner.post:
        line.deliver(PARTNER)
    line.pay(OPENER, 700)
    opener.send(opener.payer.fold())
    while opener.post:
        line.deliver(OPENER)
    assert partner.payee.secured == 7_700
    partner.send(partner.payer.pay(partner.payer.paid + 4_000))
    partner.send(partner.payer.fold())
    while partner.post:
        line.deliver(PARTNER)
    line.pay(OPENER, 5_000)
    while opener.post:
        line.deliver(OPENER)
    assert partner.payee.secured == 7_700 + 5_000 // 7 * 7


def test_what_is_spent_of_earnings_is_as_durable_as_that_it_was_spent() -> None:
    """Rule 7: without the voucher that backs it, a promise above the deposit could not be made good."""
    line = side_with(70, paid_back=35)
    opener, partner = line.sides
    partner.send(partner.payer.fold())
    earned = opener.payee.take(partner.post.pop().data)  # and its rows wait to be written
    spent = opener.payer.pay(opener.payer.paid + 35)
    promised = next(one for one in spent if one.rows)
    assert dict(promised.rows)[EARNED_ROWS + ID] == dict(earned)[EARNED_ROWS + ID]
    cheap = Line((70, 0)).sides[OPENER].payer.pay(35)
    assert [key for one in cheap for key, _ in one.rows] == [PAID_ROWS + ID], "its own deposit needs no backing"


def test_a_session_that_pays_one_way_over_a_two_way_channel_leans_on_what_was_promised_before() -> None:
    terms = StreamTerms(CHANNEL, 4, 120, 7, StreamBack(2, 50, 0))
    payer, payee = StreamPayer(terms, 100, CONSUMER, SECRET), StreamPayee(terms, 100)
    assert payer.capacity == payee.capacity == 30


def test_an_earlier_sessions_ticks_are_not_counted_again() -> None:
    line = side_with(700, paid_back=50)
    line.finish()
    assert [side.payer.ticks for side in line.sides] == [100, 10]
    line.begin()
    assert [(side.payer.ticks, side.payee.ticks, side.payer.paid) for side in line.sides] == [(0, 0, 0)] * 2
    assert [side.payer.capacity for side in line.sides] == [50, 650]


def test_a_side_that_paid_nothing_squares_nothing() -> None:
    line = Line((70, 0))
    line.finish()
    notes = [decode_earned(side.disk[EARNED_ROWS + ID]).note for side in line.sides]
    assert [(note.voucher.amount, note.voucher.locked) for note in notes] == [(0, 0), (0, 0)]
    assert line.sides[OPENER].payer.square(0).data == line.sides[OPENER].payer.square(0).data, "asked for twice"
    with pytest.raises(OutOfFunds):
        line.sides[PARTNER].payer.square(1)


def test_a_partners_vouchers_are_signed_with_its_own_key() -> None:
    terms = msgspec.structs.replace(TERMS, back=StreamBack(0, 0, TICKS[OPENER]))
    opening = StreamPayer(terms, 70, SUPPLIER, SECRET, back=True).open().data
    with pytest.raises(BadSignature):
        StreamPayee(terms, 70).take(opening)
    StreamPayee(terms, 70, back=True).take(opening)


@pytest.mark.parametrize(
    ("changes", "deposits"),
    [
        ({"back": None}, (100, 100)),
        ({"params": PARAMS}, (100, 100)),
        ({"back": StreamBack(0, 0, TICKS[PARTNER] + 1)}, (100, 100)),
        ({"back": StreamBack(0, 0, 0)}, (100, 100)),
        ({"back": StreamBack(-1, 0, TICKS[PARTNER])}, (100, 100)),
        ({"back": StreamBack(2**63, 0, TICKS[PARTNER])}, (100, 100)),
        ({"back": StreamBack(1, -1, TICKS[PARTNER])}, (100, 100)),
        ({"back": StreamBack(1, 101, TICKS[PARTNER])}, (100, 100)),
        ({"amount": 101}, (100, 100)),
        ({"amount": 60, "back": StreamBack(1, 20, TICKS[PARTNER])}, (30, 100)),
    ],
)
def test_two_way_terms_under_which_somebody_could_not_be_paid_are_refused(
    changes: dict[str, object], deposits: tuple[int, int]
) -> None:
    offer = StreamOffer(DOMAIN, SUPPLIER.address, SUPPLIER.address, 60)
    check_terms(offer, TERMS, (100, 100), TICKS)
    check_terms(
        offer, msgspec.structs.replace(TERMS, amount=110, back=StreamBack(1, 10, 0)), (100, 0), (TICKS[OPENER], 0)
    )
    bad = msgspec.structs.replace(TERMS, **changes)  # type: ignore[arg-type]  # any field
    with pytest.raises(BadTerms):
        check_terms(offer, bad, deposits, TICKS)


def test_nothing_is_paid_back_over_a_one_way_channel() -> None:
    with pytest.raises(IllegalEvent):
        StreamPayer(StreamTerms(PARAMS, 0, 0, 7), 70, SUPPLIER, SECRET, back=True)


def test_locks_stay_within_bounds_however_much_is_backed() -> None:
    line = Line((10**9, 10**9))
    line.pay(PARTNER, 5)
    line.deliver(PARTNER)
    assert decode_earned(line.sides[OPENER].disk[EARNED_ROWS + ID]).note.locks[0].ticks == MAX_WALK
