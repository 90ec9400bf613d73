"""Price series: read exactly, refused where they do not hold together, and made into tariffs without rounding."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import series
from penstock.core.errors import BadRates
from penstock.core.series import Rates
from penstock.core.tariff import MAX_STEPS, Bill
from penstock.core.units import Instant, Quantity

BEGIN = 1_772_323_200_000  # 2026-03-01T00:00:00Z
QUARTER = 900_000
ROW = '{"start":"2026-03-01T00:00:00Z","end":"2026-03-01T00:15:00Z","value":%s}'


def at(quarter: int) -> Instant:
    return Instant(BEGIN + quarter * QUARTER)


def rates(*values: str | Decimal) -> Rates:
    return Rates.of((at(n), at(n + 1), Decimal(value)) for n, value in enumerate(values))


def refused(text: str | bytes) -> str:
    with pytest.raises(BadRates) as caught:
        series.parse(text.encode() if isinstance(text, str) else text)
    line = caught.value.line()
    assert "\n" not in line
    assert len(line) < 400
    return line


@pytest.mark.parametrize("form", ["[%s]", '{"rates":[%s],"currency":"EUR"}'])
def test_both_forms_are_read(form: str) -> None:
    assert series.parse((form % ROW % "-0.0123").encode()) == rates("-0.0123")


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("0.1", "0.1"), ('"0.1"', "0.1"), ("1e-3", "0.001"), ("-0", "0"), ("12", "12"), ("0.30000000000000004",) * 2,
        ("100000000000000000000.000000000000000001",) * 2, ("0.5000", "0.5"), ("-1.25E1", "-12.5"),
    ],
)  # fmt: skip
def test_a_value_keeps_every_digit(value: str, price: str) -> None:
    assert series.parse(f"[{ROW % value}]".encode()).price(at(0)) == Decimal(price)


@pytest.mark.parametrize(
    ("start", "when"),
    [
        ("2026-03-01T01:00:00+01:00", BEGIN),
        ("2026-02-28t19:00:00-05:00", BEGIN),
        ("2026-03-01 00:00:00z", BEGIN),
        ("2026-03-01T00:00:00.5Z", BEGIN + 500),
        ("2026-03-01T00:00:00.000999Z", BEGIN),
    ],
)
def test_times_are_read_with_their_offset(start: str, when: int) -> None:
    assert series.instant(start) == when


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01", "2026-03-01T00:00:00", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "soon", "", 1772323200,
        None, "2026-03-01T25:00:00Z", "9999-12-31T23:59:59-23:59", "2026-03-01T00:00:00Z" + " " * 80,
        "٢٠٢٦-03-01T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(BadRates):
        series.instant(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "no list"),
        ("{}", "no list"),
        ("[]", "1..40,000 slots, not 0"),
        ("[1]", "slot 1 of the prices has no start"),
        ('[{"start":"2026-03-01T00:00:00Z"}]', "slot 1 of the prices has no start"),
        (f"[{ROW % 'NaN'}]", "NaN is no number"),
        (f"[{ROW % '-Infinity'}]", "is no number"),
        (f"[{ROW % 'true'}]", "no price"),
        (f"[{ROW % 'null'}]", "no price"),
        (f"[{ROW % '[]'}]", "no price"),
        (f"[{ROW % chr(34) + 'nan' + chr(34)}]", "no"),
        (f"[{ROW % ('9' * 65)}]", "too many digits"),
        (f"[{ROW % '1e999999999'}]", "absurd"),
        (f"[{ROW % '1e-19'}]", "absurd"),
        (f"[{ROW % '0.1234567890123456789'}]", "more than 18 digits"),
        (f"[{ROW % 1},{ROW % 2}]", "overlap"),
        ('[{"start":"2026-03-01T00:00:00Z","start":"2026-03-01T00:00:00Z","end":"x","value":1}]', "twice"),
        ('[{"start":"2026-03-01T00:15:00Z","end":"2026-03-01T00:00:00Z","value":1}]', "ends when it begins"),
        (b" " * (series.MAX_SERIES + 1), "bytes is not read"),
    ],
)
def test_what_is_no_series_is_refused_in_one_line(text: str | bytes, said: str) -> None:
    assert said in refused(text)


def test_a_gap_is_refused_and_no_price_is_made_up_for_it() -> None:
    rows = [{"start": series.written(at(n)), "end": series.written(at(n + 1)), "value": 1} for n in (0, 2)]
    assert "leave a gap" in refused(json.dumps(rows))


def test_more_slots_than_a_year_has_are_refused() -> None:
    with pytest.raises(BadRates, match="slots"):
        Rates.of((at(n), at(n + 1), Decimal(1)) for n in range(series.MAX_RATES + 1))


def test_slots_may_come_in_any_order() -> None:
    rows = [(at(n), at(n + 1), Decimal(n)) for n in (2, 0, 1)]
    assert [slot.value for slot in Rates.of(rows).slots] == [0, 1, 2]


def test_a_tariff_begins_with_the_price_in_force_and_joins_equal_ones() -> None:
    tariff = rates("0.1", "0.2", "0.2", "-0.3").tariff(Instant(at(1) + 5), 6)
    assert (tariff.per, [(step.start, step.amount) for step in tariff.steps]) == (
        1_000,
        [(at(1), 200_000), (at(3), -300_000)],
    )


def test_a_price_finer_than_the_token_is_quoted_per_more() -> None:
    tariff = rates("0.12345678", "0.1").tariff(at(0), 6)
    assert (tariff.per, [step.amount for step in tariff.steps]) == (100_000, [12_345_678, 10_000_000])


def test_a_price_that_a_quantity_cannot_hold_exactly_is_refused() -> None:
    with pytest.raises(BadRates, match="no whole number of token units"):
        rates("0.1234567").tariff(at(0), 6, 1_000)
    with pytest.raises(BadRates, match="more than a token holds"):
        rates("9" * 24).tariff(at(0), 18)
    with pytest.raises(BadRates, match="too fine"):
        rates("0.000000000000000001").tariff(at(0), 0)


def test_another_medium_is_quoted_for_its_own_quantity() -> None:
    tariff = rates("0.10").tariff(at(0), 6, quoted=10**9)
    assert (tariff.per, tariff.steps[0].amount) == (10**9, 100_000)


@pytest.mark.parametrize("when", [-1, 4 * QUARTER])
def test_there_is_no_tariff_for_a_time_without_price(when: int) -> None:
    with pytest.raises(BadRates, match="say nothing for"):
        rates("0.1", "0.2", "0.3", "0.4").tariff(Instant(BEGIN + when), 6)


def test_a_tariff_holds_so_many_steps_and_its_horizon_says_so() -> None:
    long = rates(*(str(n % 2 + 1) for n in range(MAX_STEPS + 10)))
    assert len(long.tariff(at(0), 6).steps) == MAX_STEPS
    assert long.horizon(at(0)) == at(MAX_STEPS)
    assert long.horizon(at(10)) == long.end
    assert rates("1", "1", "2").horizon(at(0)) == at(3)


values = st.lists(st.decimals(-2, 2, places=8, allow_nan=False), min_size=1, max_size=60)


@given(values)
def test_what_is_written_is_read_again_and_so_is_a_tariff(prices: list[Decimal]) -> None:
    made = rates(*prices)
    assert series.parse(series.dump(made)) == made
    tariff = made.tariff(at(0), 6)
    again = series.of_tariff(tariff, 6, made.start, made.end)
    assert again.tariff(at(0), 6, tariff.per) == tariff
    assert all(again.price(at(n)) == price for n, price in enumerate(prices))


@given(values, st.data())
def test_a_bill_by_a_series_is_its_integral_to_the_token_unit(prices: list[Decimal], data: st.DataObject) -> None:
    flows = data.draw(st.lists(st.integers(0, 5_000), min_size=len(prices), max_size=len(prices)))
    bill = Bill(rates(*prices).tariff(at(0), 6))
    total = 0
    for quarter, flow in enumerate(flows):
        bill.turn(Quantity(total), at(quarter))
        total += flow
    worth = [Fraction(price) * 10**6 * flow / 1_000 for price, flow in zip(prices, flows, strict=True)]
    rise, fall = bill.exact(total)
    assert Fraction(rise, bill.tariff.per) == sum(one for one in worth if one > 0)
    assert Fraction(fall, bill.tariff.per) == -sum(one for one in worth if one < 0)
    assert bill.due(total) == sum(one for one in worth if one > 0) // 1


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_series_or_a_typed_error(data: bytes) -> None:
    with suppress(BadRates):
        assert series.parse(data).slots
