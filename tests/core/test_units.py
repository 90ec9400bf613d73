from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import OutOfRange, PenstockError, UsageError
from penstock.core.units import (
    MAX_AMOUNT,
    MAX_INSTANT,
    MAX_QUANTITY,
    Price,
    amount,
    format_decimal,
    instant,
    parse_decimal,
    quantity,
)

UNITS = [(amount, MAX_AMOUNT), (quantity, MAX_QUANTITY), (instant, MAX_INSTANT)]


@pytest.mark.parametrize(("unit", "most"), UNITS)
def test_a_unit_takes_whole_numbers_within_its_bounds_and_nothing_else(unit: object, most: int) -> None:
    assert callable(unit)
    for good in (0, 1, most):
        assert unit(good) == good
    for bad in (-1, most + 1, True, False, 1.0, "1", None, b"1", Decimal(1)):
        with pytest.raises(OutOfRange):
            unit(bad)


@pytest.mark.parametrize(
    ("text", "decimals", "units"),
    [
        ("0.40", 6, 400_000),
        (" 8 ", 6, 8_000_000),
        ("1e3", 6, 1_000_000_000),
        ("1.50000000000", 2, 150),
        ("0", 18, 0),
        ("-0", 6, 0),
        ("0e-999999999", 6, 0),
        ("79228162514.264337593543950335", 18, MAX_AMOUNT),
        ("79228162514264337593543950335", 0, MAX_AMOUNT),
    ],
)
def test_a_sum_in_whole_tokens_is_read_exactly(text: str, decimals: int, units: int) -> None:
    assert parse_decimal(text, decimals) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eight",
        "NaN",
        "Infinity",
        "-1",
        "0.0000001",
        "1e29",
        "1e999999999",
        "0e99999",
        "1e-999999999",
        "1" * 5_000,
        "0." + "0" * 500 + "1",
        "1.00000000000000000000000000000001",
        "79228162514264337593544",
        "1,5",
    ],
)
def test_what_is_no_sum_of_the_token_is_refused(text: str) -> None:
    with pytest.raises(OutOfRange) as caught:
        parse_decimal(text, 6)
    assert len(str(caught.value)) < 140


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 18))
def test_a_sum_that_is_written_reads_the_same(units: int, decimals: int) -> None:
    assert parse_decimal(format_decimal(units, decimals), decimals) == units


def test_a_sum_is_written_without_trailing_zeros() -> None:
    assert [format_decimal(v, 6) for v in (400_000, 1, 0, -2_500_000, 3_000_000)] == [
        "0.4",
        "0.000001",
        "0",
        "-2.5",
        "3",
    ]
    assert format_decimal(12, 0) == "12"


prices = st.builds(Price, st.integers(0, 10**12), st.integers(1, 10**10))


@given(prices, st.integers(0, 10**15))
def test_what_a_sum_affords_costs_no_more_and_one_unit_more_would(price: Price, sum_: int) -> None:
    most = price.affords(sum_)
    if price.amount == 0:
        assert most == MAX_QUANTITY
        return
    assert price.cost(most) <= sum_ < price.cost(most + 1)


def test_an_error_is_one_line_with_what_to_do() -> None:
    assert UsageError("no such flag", "see --help").line() == "no such flag: see --help"
    assert PenstockError("gone").line() == "gone"
