"""Lost links and crashes at every point: the session goes on or ends, nobody loses more, and the receipts agree."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.messages import Reason
from penstock.core.meter import Tolerance
from penstock.core.offer import Terms
from penstock.core.session import Role, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.rails import stream

from .pair import START, Pair, make_offer, make_terms

TURNING = Tariff(
    1_000, (Step(Instant(0), 300_000), Step(Instant(START + 1_000), 450_000), Step(Instant(START + 2_000), 90_000))
)


@pytest.fixture(autouse=True)
def short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds and fresh chains every few ticks, so that a short session has them where it breaks."""
    monkeypatch.setattr(stream, "FOLD_EVERY", 3)
    monkeypatch.setattr(stream, "MAX_WALK", 7)


def terms(mode: str) -> Terms:
    """A session short enough to break at every point, over two turns of the price."""
    offer = make_offer(mode=mode, tariff=TURNING, tolerance=Tolerance(0, 0), tick_value=700, credit_limit=2_100)
    return make_terms(offer, quantity_limit=60)


def step(pair: Pair) -> None:
    """Something happens, and the clock runs."""
    pair.now = Instant(pair.now + 50)
    if not (pair.deliver() or pair.flow(2)):
        pair.wait(200, 200, stream=False)


def play(pair: Pair) -> None:
    """Let a few units flow at a time, with the link mended whenever it breaks, to the end."""
    for _ in range(1_000):
        if pair.over:
            return
        if not pair.up:
            pair.relink()
        step(pair)
    raise AssertionError("the session did not end")


def settled(pair: Pair, exactly: bool = True) -> None:
    """Whatever either side's journal says of the end is the same, to the unit."""
    supplier, consumer = pair.supplier.row, pair.consumer.row
    assert supplier.state is consumer.state is State.ENDED
    if not exactly and supplier.receipt is None:
        return
    assert supplier.receipt is not None
    assert supplier.receipt == consumer.receipt
    assert supplier.consumer_signature == consumer.consumer_signature
    assert supplier.supplier_signature == consumer.supplier_signature != b""
    assert pair.supplier.payee_in_journal().secured == supplier.receipt.paid
    assert supplier.receipt.supplier_total == supplier.receipt.consumer_total == pair.supplier.flowed
    assert supplier.receipt.unpaid == 0
    assert supplier.receipt.reason == Reason.TARGET_REACHED


def test_the_play_is_long_enough_to_break() -> None:
    for mode in ("pay-after", "pay-before"):
        pair = Pair(terms(mode))
        play(pair)
        settled(pair)
        assert len(pair.supplier.row.turns) == 2
        assert pair.effects > 40


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
@pytest.mark.parametrize("role", list(Role))
def test_a_crash_at_any_effect_leaves_receipts_that_agree(mode: Any, role: Role) -> None:
    """Before the k-th effect of one side: what was not durable by then is lost, what was durable is kept."""
    for k in range(200):
        pair = Pair(terms(mode))
        side = pair.supplier if role is Role.SUPPLIER else pair.consumer
        pair.crash_at = (side, k)
        play(pair)
        settled(pair)
        if pair.crash_at is not None:
            assert k > 20
            return
    raise AssertionError("the session never ran out of effects")


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
def test_crashes_of_both_sides_one_after_the_other_leave_receipts_that_agree(mode: Any) -> None:
    for k in range(0, 24, 3):
        for n in range(0, 24, 4):
            pair = Pair(terms(mode))
            pair.crash_at = (pair.supplier, k)
            for _ in range(k + n):
                step(pair)
            pair.crash_at = (pair.consumer, n)
            play(pair)
            settled(pair)


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
@pytest.mark.parametrize("arrives", [False, True], ids=["before the message", "after the message"])
def test_a_link_lost_at_any_message_is_taken_up_again(mode: Any, arrives: bool) -> None:
    for k in range(200):
        pair = Pair(terms(mode))
        while sum(len(side.sent) for side in pair.sides) < k and not pair.over:
            step(pair)
        if pair.over:
            assert k > 30
            return
        if arrives:
            pair.deliver()
        pair.lose_link()
        pair.wait(1_000, 500)
        play(pair)
        settled(pair)
    raise AssertionError("the session never ran out of messages")


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
def test_a_link_that_breaks_again_while_it_is_taken_up_is_taken_up_again(mode: Any) -> None:
    for k in range(0, 30, 2):
        for n in range(4):
            pair = Pair(terms(mode))
            for _ in range(k):
                step(pair)
            pair.lose_link()
            pair.relink()
            for _ in range(n):
                pair.deliver()
            pair.lose_link()
            play(pair)
            settled(pair)


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
@pytest.mark.parametrize("role", list(Role))
def test_a_crash_while_stopping_leaves_receipts_that_agree(mode: Any, role: Role) -> None:
    for stopper in Role:
        for k in range(14):
            pair = Pair(terms(mode))
            pair.stream(5)
            pair.crash_at = (pair.supplier if role is Role.SUPPLIER else pair.consumer, k)
            pair.stop(pair.supplier if stopper is Role.SUPPLIER else pair.consumer, Reason.GRID)
            play(pair)
            receipt = pair.supplier.row.receipt
            assert receipt is not None
            assert receipt == pair.consumer.row.receipt
            assert receipt.unpaid == 0
            assert pair.supplier.payee_in_journal().secured == receipt.paid
