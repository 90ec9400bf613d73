"""The hops rail: a payer's end and a payee's under one lock, through lost evidence, crashes and lies."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.channel import MAX_TICKS, Lock
from penstock.core.codec import encode
from penstock.core.errors import (
    BadMessage,
    BadPreimage,
    BadTerms,
    BadVoucher,
    JournalError,
    OutOfFunds,
    RemoteError,
)
from penstock.core.rail import Evidence
from penstock.core.tariff import Bill, Tariff
from penstock.core.ticks import TickChain
from penstock.core.units import Instant, Quantity
from penstock.rails.hops import (
    END_ROWS,
    TICK_ROWS,
    HopOffer,
    HopPayee,
    HopPayer,
    HopTerms,
    SeedRow,
    check_lock,
    decode_offer,
    decode_seed,
    decode_terms,
    proof_in,
)

from ..core.pair import DOMAIN, SUPPLIER

SEED, OTHER_SEED = b"\x07" * 32, b"\x08" * 32
TICKS, TICK, EXPIRY = 30, 10, 5_000
CHAIN = TickChain(SEED, TICKS)
TERMS = HopTerms(DOMAIN, CHAIN.root, TICKS, EXPIRY)
BILL = Bill(Tariff.flat(1, 1))


class Ends:
    """Both ends of a session, with the rows that each has written."""

    def __init__(self) -> None:
        self.paid: dict[bytes, bytes] = {}
        self.earned: dict[bytes, bytes] = {}
        self.payer = HopPayer(TERMS, TICK, SEED)
        self.payee = HopPayee(TERMS, TICK)

    def give(self, evidence: list[Evidence], least: int | None = None) -> None:
        for one in evidence:
            self._write(self.paid, one.rows)
            self._write(self.earned, self.payee.take(one.data, least))

    @staticmethod
    def _write(books: dict[bytes, bytes], rows: Any) -> None:
        books.update({key: value for key, value in rows if value is not None})

    def payer_again(self) -> HopPayer:
        return HopPayer(TERMS, TICK, SEED, self.paid.get(END_ROWS + TERMS.root))

    def payee_again(self) -> HopPayee:
        return HopPayee(TERMS, TICK, self.earned.get(TICK_ROWS + TERMS.root), self.earned.get(END_ROWS + TERMS.root))


def state_of(payee: HopPayee) -> Any:
    return payee.secured, payee.ticks, payee.proof, payee.state()


# ---- paying


def test_a_lock_speaks_for_itself() -> None:
    ends = Ends()
    opening = ends.payer.open()
    assert opening == Evidence(b"")
    assert ends.payee.take(opening.data) == ()
    assert ends.payer.paid == ends.payee.secured == 0
    assert ends.payer.capacity == ends.payee.capacity == TICKS * TICK


@pytest.mark.parametrize(("upto", "paid"), [(0, 0), (9, 0), (10, 10), (19, 10), (300, 300), (10**9, 300)])
def test_a_payer_pays_as_near_as_whole_ticks_and_the_lock_allow(upto: int, paid: int) -> None:
    ends = Ends()
    ends.give(ends.payer.pay(upto))
    assert ends.payer.paid == ends.payee.secured == paid
    assert ends.payer.ticks == ends.payee.ticks == paid // TICK
    assert ends.payer.pay(upto) == []
    assert ends.payer.pay(0) == []
    assert ends.payer.fold() == []  # hubs hear nothing


def test_readings_pay_nothing() -> None:
    ends = Ends()
    assert ends.payee.metered(BILL, Quantity(5), Instant(1), False) is None
    assert ends.payer.metered(b"", BILL, Quantity(5), Instant(1), False) == ()
    assert (ends.payer.by_meter, ends.payer.paid) == (False, 0)


@pytest.mark.parametrize(("upto", "bill"), [(50, 50), (50, 57), (50, 83), (50, 43), (0, 3), (0, 0), (300, 300)])
def test_a_session_ends_with_its_exact_bill(upto: int, bill: int) -> None:
    """Below what the ticks are worth, too: the payee takes less of its lock."""
    ends = Ends()
    ends.give(ends.payer.pay(upto))
    ends.give([ends.payer.square(bill)], bill)
    assert ends.payer.paid == ends.payee.secured == bill
    count = max(upto, bill) // TICK
    assert ends.payee.proof == (count, CHAIN.preimage(count))
    assert proof_in(ends.paid[END_ROWS + TERMS.root]) == (*ends.payee.proof, bill)
    assert proof_in(ends.earned[TICK_ROWS + TERMS.root]) == (*ends.payee.proof, 0)
    assert ends.payer_again().paid == ends.payee_again().secured == bill
    assert state_of(ends.payee_again()) == state_of(ends.payee)


@pytest.mark.parametrize("bill", [-1, TICKS * TICK + 1])
def test_a_bill_beyond_the_lock_is_not_paid(bill: int) -> None:
    ends = Ends()
    with pytest.raises(OutOfFunds):
        ends.payer.square(bill)
    assert ends.payer.ticks == 0


def test_the_end_repeated_is_the_end() -> None:
    ends = Ends()
    end = ends.payer.square(57)
    ends.give([end], 57)
    assert ends.payer.square(57) == end
    before = state_of(ends.payee)
    ends.give([end], 57)
    assert state_of(ends.payee) == before


# ---- being taken up again


def test_a_payee_that_crashed_stands_where_its_rows_do() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(70))
    assert state_of(ends.payee_again()) == state_of(ends.payee)


def test_a_payer_that_crashed_learns_from_its_payee_what_it_paid() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(70))
    again = ends.payer_again()
    assert again.paid == 0
    assert again.resume(ends.payee.state()) == []
    assert again.paid == 70


def test_a_payer_says_again_what_its_payee_lost() -> None:
    ends = Ends()
    ends.payer.pay(70)
    ends.give(ends.payer.resume(HopPayee(TERMS, TICK).state()))
    assert ends.payee.secured == 70


@pytest.mark.parametrize("count", [1, TICKS + 1])
def test_a_payee_that_claims_ticks_it_was_not_given_is_refused(count: int) -> None:
    ends = Ends()
    lie = b"\x01" + count.to_bytes(4, "big") + TickChain(OTHER_SEED, TICKS).preimage(1)
    with pytest.raises(BadMessage, match="cannot prove"):
        ends.payer.resume(lie)
    assert ends.payer.paid == 0


# ---- what is refused changes nothing


def tick(count: int, preimage: bytes) -> bytes:
    return b"\x01" + count.to_bytes(4, "big") + preimage


def end(count: int, preimage: bytes, bill: int) -> bytes:
    return b"\x02" + count.to_bytes(4, "big") + preimage + bill.to_bytes(12, "big")


REFUSED: dict[str, tuple[bytes, int | None, type[RemoteError]]] = {
    "nothing at the end": (b"", 50, BadMessage),
    "no kind that there is": (b"\x03" + bytes(36), None, BadMessage),
    "a tick that is cut off": (tick(6, CHAIN.preimage(6))[:-1], None, BadMessage),
    "a tick that is too long": (tick(6, CHAIN.preimage(6)) + b"\0", None, BadMessage),
    "more ticks than a lock has": (tick(MAX_TICKS + 1, bytes(32)), None, BadMessage),
    "more ticks than this one has": (tick(TICKS + 1, SEED), None, BadPreimage),
    "another chain's": (tick(6, TickChain(OTHER_SEED, TICKS).preimage(6)), None, BadPreimage),
    "another tick's": (tick(6, CHAIN.preimage(7)), None, BadPreimage),
    "ticks where the end is due": (tick(6, CHAIN.preimage(6)), 60, BadVoucher),
    "the end before its time": (end(6, CHAIN.preimage(6), 60), None, BadVoucher),
    "another bill": (end(6, CHAIN.preimage(6), 59), 60, BadVoucher),
    "a whole tick left to ask for": (end(5, CHAIN.preimage(5), 60), 60, BadVoucher),
    "an end that is not proven": (end(6, CHAIN.preimage(7), 60), 60, BadPreimage),
}


@pytest.mark.parametrize("what", REFUSED)
def test_evidence_that_proves_nothing_is_refused(what: str) -> None:
    evidence, least, error = REFUSED[what]
    ends = Ends()
    ends.give(ends.payer.pay(50))
    before = state_of(ends.payee)
    with pytest.raises(error):
        ends.payee.take(evidence, least)
    assert state_of(ends.payee) == before


def test_the_last_ticks_again_change_nothing_and_fewer_are_refused() -> None:
    ends = Ends()
    ends.give(ends.payer.pay(50))
    before = state_of(ends.payee)
    assert ends.payee.take(tick(5, CHAIN.preimage(5))) == ()
    with pytest.raises(BadPreimage):
        ends.payee.take(tick(2, CHAIN.preimage(2)))
    assert state_of(ends.payee) == before


def test_a_seed_that_is_not_the_locks_is_refused() -> None:
    with pytest.raises(BadTerms, match="not that of the session's lock"):
        HopPayer(TERMS, TICK, OTHER_SEED)


@pytest.mark.parametrize(
    "change", [{"root": bytes(32)}, {"ticks": TICKS - 1}, {"tick_value": TICK - 1}, {"expiry": EXPIRY - 1}]
)
def test_a_lock_that_a_hub_changed_on_the_way_pays_no_session(change: dict[str, Any]) -> None:
    lock = Lock(TERMS.root, TICK, TICKS, EXPIRY)
    check_lock(TERMS, lock, TICK)
    with pytest.raises(BadTerms, match="the lock that arrived"):
        check_lock(TERMS, msgspec.structs.replace(lock, **change), TICK)


# ---- in any order


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["pay", "lose", "again", "payer dies", "payee dies"]), st.integers(0, 320))),
    st.integers(0, TICKS * TICK),
)
def test_whatever_is_lost_or_repeated_what_is_secured_never_falls_and_was_given(
    steps: list[tuple[str, int]], bill: int
) -> None:
    ends, given_, secured, sent = Ends(), 0, 0, [b""]
    for step, number in steps:
        match step:
            case "pay" | "lose":
                evidence = ends.payer.pay(number)
                given_ = max(given_, ends.payer.paid)
                if step == "pay":  # what is lost went with its link, and comes no more
                    ends.give(evidence)
                    sent += [one.data for one in evidence]
            case "again":
                with suppress(BadPreimage):  # fewer than it has
                    ends.give([Evidence(sent[number % len(sent)])])
            case "payer dies":
                ends.payer = ends.payer_again()
                ends.give(ends.payer.resume(ends.payee.state()))
            case "payee dies":
                ends.payee = ends.payee_again()
        assert secured <= ends.payee.secured <= given_
        secured = ends.payee.secured
    ends.give([ends.payer.square(bill)], bill)
    assert ends.payee.secured == ends.payer.paid == bill


# ---- what travels, and what is kept


def test_offers_terms_and_rows_mean_the_same_when_they_are_read() -> None:
    offer, row = HopOffer(DOMAIN, SUPPLIER.address, 60), SeedRow(SEED, TICKS, b"\x44" * 32, 7, 11, 3)
    assert decode_offer(encode(offer)) == offer
    assert decode_terms(encode(TERMS)) == TERMS
    assert decode_seed(encode(row)) == row
    with pytest.raises(BadMessage):
        decode_offer(b"[]")
    with pytest.raises(BadMessage):
        decode_terms(b"{")
    with pytest.raises(JournalError):
        decode_seed(b"1")
