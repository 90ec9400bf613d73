from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadTerms, IllegalEvent
from penstock.core.tariff import MAX_STEPS, Bill, Step, Tariff
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY, Instant, Quantity


def tariff(*prices: int, per: int = 1_000) -> Tariff:
    return Tariff(per, tuple(Step(Instant(n * 1_000), price) for n, price in enumerate(prices)))


@pytest.mark.parametrize(
    "bad",
    [
        Tariff(1, ()),
        Tariff(1, tuple(Step(Instant(n), 1) for n in range(MAX_STEPS + 1))),
        Tariff(0, (Step(Instant(0), 1),)),
        Tariff(MAX_QUANTITY + 1, (Step(Instant(0), 1),)),
        Tariff(1, (Step(Instant(-1), 1),)),
        Tariff(1, (Step(Instant(5), 1), Step(Instant(5), 2))),
        Tariff(1, (Step(Instant(MAX_INSTANT + 1), 1),)),
        Tariff(1, (Step(Instant(0), 0),)),
        Tariff(1, (Step(Instant(0), MAX_AMOUNT + 1),)),
    ],
)
def test_a_tariff_that_cannot_be_computed_with_is_refused(bad: Tariff) -> None:
    with pytest.raises(BadTerms):
        bad.check()


def test_a_tariff_knows_its_steps_and_its_dearest() -> None:
    steps = tariff(5, 9, 7)
    steps.check()
    assert [steps.price(n).amount for n in range(3)] == [5, 9, 7]
    assert steps.highest.amount == 9
    Tariff.flat(400_000, 1_000).check()


def test_a_step_takes_effect_at_the_first_reading_at_or_after_its_start() -> None:
    bill = Bill(tariff(1_000, 2_000))
    assert not bill.turn(Quantity(10), Instant(999))
    assert bill.due(10) == 10
    assert bill.turn(Quantity(20), Instant(1_500))
    assert (bill.turns, bill.due(20), bill.due(30)) == ((20,), 20, 40)
    assert not bill.turn(Quantity(30), Instant(10**9)), "the last step has no successor"


def test_what_is_due_behind_a_turn_is_due_at_the_price_of_then() -> None:
    bill = Bill(tariff(1_000, 2_000, 500))
    bill.turn(Quantity(20), Instant(1_000))
    bill.turn(Quantity(30), Instant(2_000))
    assert [bill.due(total) for total in (0, 19, 20, 21, 30, 32)] == [0, 19, 20, 22, 40, 41]


def test_several_steps_may_take_effect_at_once() -> None:
    bill = Bill(tariff(1_000, 5_000, 3_000))
    bill.turn(Quantity(10), Instant(2_000))
    assert (bill.turns, bill.price.amount, bill.due(11)) == ((10, 10), 3_000, 13)


def test_a_bill_cannot_turn_below_its_last_turn() -> None:
    bill = Bill(tariff(1, 2, 3))
    bill.turn(Quantity(10), Instant(1_000))
    with pytest.raises(IllegalEvent):
        bill.turn(Quantity(9), Instant(2_000))
    assert bill.turns == (10,)


@pytest.mark.parametrize("turns", [(5, 4), (1, 2, 3)])
def test_turns_that_no_bill_made_are_refused(turns: tuple[Quantity, ...]) -> None:
    with pytest.raises(BadTerms):
        Bill(tariff(1, 2, 3), turns)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Tariff, list[tuple[int, int]]]:
    """A tariff, and announced readings (total, instant) whose totals never fall."""
    prices = draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
    totals = sorted(draw(st.lists(st.integers(0, 10**9), max_size=12)))
    times = sorted(draw(st.lists(st.integers(0, 7_000), min_size=len(totals), max_size=len(totals))))
    return tariff(*prices, per=draw(st.integers(1, 10**6))), list(zip(totals, times, strict=True))


def exact(of: Tariff, readings: list[tuple[int, int]], total: int) -> Fraction:
    """The integral, an interval at a time: what flowed up to a reading is billed at the price before it."""
    due, step, last = Fraction(0), 0, 0
    for reached, at in [*readings, (total, 0)]:
        due += Fraction((reached - last) * of.steps[step].amount, of.per)
        last = reached
        while step + 1 < len(of.steps) and at >= of.steps[step + 1].start:
            step += 1
    return due


@given(histories(), st.integers(0, 10**9))
def test_the_bill_is_the_exact_integral_rounded_down_once(
    history: tuple[Tariff, list[tuple[int, int]]], more: int
) -> None:
    of, readings = history
    bill = Bill(of)
    for total, at in readings:
        bill.turn(Quantity(total), Instant(at))
        assert bill.due(total) <= exact(of, readings[: readings.index((total, at)) + 1], total)
    end = (readings[-1][0] if readings else 0) + more
    assert bill.due(end) == int(exact(of, readings, end))
    again = Bill(of, bill.turns)
    assert (again.due(end), again.price, again.turns) == (bill.due(end), bill.price, bill.turns)


@given(histories(), st.integers(0, 10**13), st.integers(0, 10**9))
def test_what_a_sum_affords_never_makes_more_due_than_the_sum(
    history: tuple[Tariff, list[tuple[int, int]]], sum_: int, more: int
) -> None:
    of, readings = history
    bill = Bill(of)
    for total, at in readings:
        bill.turn(Quantity(total), Instant(at))
    reached = (readings[-1][0] if readings else 0) + more
    most = bill.affords(sum_, reached)
    assert most >= reached
    if bill.due(reached) <= sum_:
        assert bill.due(most) <= sum_ < bill.due(most + 1)
    else:
        assert most == reached
