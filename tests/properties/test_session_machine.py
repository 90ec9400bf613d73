"""Two sessions under any order of deliveries, losses, crashes, waits and lies. What must hold, holds after each step:

- exposure: neither honest side would lose more than its limit (the harness measures after every effect);
- secured: what a payee counts is what the contract would pay for the evidence in its journal alone;
- conservation: what is promised never exceeds the deposit, and what was paid never exceeds what was given;
- exit: once links hold and nobody lies, both sides end.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core.channel import Voucher
from penstock.core.identity import check_signed
from penstock.core.messages import Message, Metered, Paid, Reason
from penstock.core.meter import Tolerance
from penstock.core.session import Role, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails import stream
from penstock.rails.stream import EARNED_ROWS, PAID_ROWS, TICK_ROWS, decode_earned, decode_paid, proof_of

from ..core.pair import CONSUMER, PARAMS, START, Pair, Side, make_offer, make_terms

TARIFF = Tariff(
    1_000, (Step(Instant(0), 300_000), Step(Instant(START + 3_000), 900_000), Step(Instant(START + 9_000), 50_000))
)


class Sessions(RuleBasedStateMachine):
    """One pair; `pair.thief` is set once a side has lied, and then nothing is asked for it any more."""

    pair: Pair

    @initialize(
        mode=st.sampled_from(["pay-after", "pay-before"]),
        tick=st.sampled_from([70, 400, 1_000]),
        credit=st.sampled_from([1_900, 2_000, 9_000]),
        quantity=st.integers(1, 300),
        deposit=st.integers(2_000, 200_000),
        budget=st.integers(1_900, 100_000),
    )
    def begin(self, mode: Any, tick: int, credit: int, quantity: int, deposit: int, budget: int) -> None:
        offer = make_offer(
            mode=mode, tick_value=tick, credit_limit=credit, tariff=TARIFF, tolerance=Tolerance(2, 10_000)
        )
        self.pair = Pair(make_terms(offer, quantity_limit=quantity, budget=budget), deposit=deposit)

    def side(self, role: Role) -> Side:
        return self.pair.supplier if role is Role.SUPPLIER else self.pair.consumer

    @rule(times=st.integers(1, 8))
    def deliver(self, times: int) -> None:
        for _ in range(times):
            self.pair.deliver()

    @rule(most=st.integers(1, 40))
    def flow(self, most: int) -> None:
        self.pair.flow(most)

    @rule(steps=st.integers(1, 30))
    def go_on(self, steps: int) -> None:
        self.pair.stream(steps)

    @rule(ms=st.sampled_from([100, 500, 1_000, 4_000]))
    def wait(self, ms: int) -> None:
        self.pair.wait(ms, ms, stream=False)

    @rule()
    @precondition(lambda self: self.pair.up)
    def lose_link(self) -> None:
        self.pair.lose_link()

    @rule()
    @precondition(lambda self: not self.pair.up)
    def relink(self) -> None:
        self.pair.relink()

    @rule(role=st.sampled_from(Role))
    def crash(self, role: Role) -> None:
        self.pair.crash(self.side(role))

    @rule(role=st.sampled_from(Role), effects=st.integers(0, 12))
    def crash_soon(self, role: Role, effects: int) -> None:
        self.pair.crash_at = (self.side(role), effects)

    @rule(role=st.sampled_from(Role), reason=st.sampled_from([Reason.OPERATOR, Reason.GRID]))
    def stop(self, role: Role, reason: Reason) -> None:
        self.pair.stop(self.side(role), reason)

    @rule(units=st.integers(-3, 60))
    @precondition(lambda self: self.pair.thief in (None, Role.SUPPLIER))
    def over_read(self, units: int) -> None:
        self.pair.thief = Role.SUPPLIER

        def cut(message: Message) -> Message | None:
            if isinstance(message, Metered):
                return msgspec.structs.replace(message, total=Quantity(max(0, message.total + units)))
            return message

        self.pair.cut = cut

    @rule(drop=st.booleans(), total=st.integers(0, 500))
    @precondition(lambda self: self.pair.thief in (None, Role.CONSUMER))
    def underpay(self, drop: bool, total: int) -> None:
        self.pair.thief = Role.CONSUMER

        def cut(message: Message) -> Message | None:
            if isinstance(message, Paid):
                return None if drop else msgspec.structs.replace(message, total=Quantity(total))
            return message

        self.pair.cut = cut

    @invariant()
    def exposure_is_bounded(self) -> None:
        self.pair.measure()

    @invariant()
    def secured_is_what_the_ledger_would_pay(self) -> None:
        books, deposit = self.pair.supplier.journal, self.pair.supplier.deposit
        row = decode_earned(books[EARNED_ROWS + PARAMS.id])
        voucher, locks = row.note.voucher, row.note.locks
        check_signed(voucher.digest(PARAMS), row.note.signature, CONSUMER.address, "the voucher")
        assert voucher == Voucher.over(voucher.nonce, voucher.amount, locks)
        assert voucher.amount + voucher.locked <= deposit
        count, preimage = proof_of(row, books.get(TICK_ROWS + PARAMS.id))
        value = preimage
        for _ in range(count):
            value = sha256(value).digest()
        assert not count or (value == locks[0].root and count <= locks[0].ticks)
        pays = voucher.amount + min(voucher.locked, count * self.pair.terms.offer.tick_value)
        assert self.pair.supplier.payee_in_journal().secured == pays
        if self.pair.crash_at is None and not self.pair.supplier.session.heard:
            assert self.pair.supplier.session.paid == pays

    @invariant()
    def nothing_is_promised_beyond_the_deposit_or_secured_beyond_what_was_given(self) -> None:
        voucher = decode_paid(self.pair.consumer.journal[PAID_ROWS + PARAMS.id]).note.voucher
        assert voucher.amount + voucher.locked <= self.pair.consumer.deposit
        secured = self.pair.supplier.payee_in_journal().secured
        assert secured <= max(self.pair.revealed, 0)
        assert self.pair.revealed <= self.pair.consumer.deposit
        ahead = self.pair.terms.offer.tick_value
        assert self.pair.revealed <= self.pair.terms.budget + ahead

    @invariant()
    def a_receipt_that_both_signed_is_one_and_is_paid(self) -> None:
        supplier, consumer = self.pair.supplier.row, self.pair.consumer.row
        if supplier.supplier_signature:
            assert supplier.receipt == consumer.receipt
            assert supplier.receipt is not None
            assert self.pair.supplier.payee_in_journal().secured == supplier.receipt.paid

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        pair.cut, pair.crash_at = (lambda message: message), None
        pair.heal()
        assert [side.session.state for side in pair.sides] == [State.ENDED, State.ENDED]
        assert not pair.supplier.open
        self.exposure_is_bounded()
        self.secured_is_what_the_ledger_would_pay()
        self.a_receipt_that_both_signed_is_one_and_is_paid()


Machine = Sessions.TestCase
Machine.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(autouse=True, scope="module")
def _short_chains() -> Any:
    """Folds and fresh chains every few ticks, so that short histories meet them."""
    before = stream.FOLD_EVERY, stream.MAX_WALK
    stream.FOLD_EVERY, stream.MAX_WALK = 3, 7
    yield
    stream.FOLD_EVERY, stream.MAX_WALK = before


def test_a_turn_that_was_learned_on_resumption_is_known_after_a_crash() -> None:
    """The consumer pays at the price of a turn that it heard of while it came back; its journal must know of it."""
    sessions = Sessions()
    sessions.begin(mode="pay-after", tick=70, credit=1_900, quantity=2, deposit=2_000, budget=1_900)
    for _ in range(2):
        sessions.lose_link()
        sessions.relink()
    sessions.wait(ms=4_000)
    sessions.crash_soon(effects=5, role=Role.CONSUMER)
    sessions.go_on(steps=4)
    sessions.teardown()
