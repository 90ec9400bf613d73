"""Price series: every digit of a price arrives in the tariff, and what does not hold together is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRates
from penstock.core.series import MAX_RATES, MAX_SERIES, Rates, dump, instant, of_tariff, parse, written
from penstock.core.tariff import MAX_STEPS, Step, Tariff
from penstock.core.units import Instant

START = Instant(1_772_323_200_000)  # 2026-03-01T00:00:00Z
QUARTER = 900_000


def rates(*values: str, width: int = QUARTER) -> Rates:
    edges = [Instant(START + number * width) for number in range(len(values) + 1)]
    return Rates.of(zip(edges, edges[1:], map(Decimal, values), strict=False))


def listed(value: str, start: str = '"2026-03-01T00:00:00Z"', end: str = '"2026-03-01T01:00:00Z"') -> bytes:
    return f'[{{"start":{start},"end":{end},"value":{value}}}]'.encode()


@st.composite
def series(draw: st.DrawFn) -> Rates:
    places = draw(st.integers(0, 12))
    values = draw(st.lists(st.decimals("-9999", "9999", places=places), min_size=1, max_size=20))
    widths = draw(st.lists(st.integers(1, 10**9), min_size=len(values), max_size=len(values)))
    edges = [draw(st.integers(0, 4_000_000_000_000))]
    for width in widths:
        edges.append(edges[-1] + width)
    return Rates.of((Instant(a), Instant(b), value) for a, b, value in zip(edges, edges[1:], values, strict=False))


def test_slots_are_read_in_any_order_with_any_offset_and_sign() -> None:
    data = b"""[{"start":"2026-03-01T00:15:00Z", "end":"2026-03-01T01:30:00+01:00", "value":-0.01230, "power":7},
                {"start":"2026-03-01T01:00:00+01:00", "end":"2026-03-01T00:15:00.000Z", "value":"0.30"}]"""
    assert parse(data) == rates("0.3", "-0.0123")
    assert parse(b'{"rates":' + data + b"}") == rates("0.3", "-0.0123")


def test_a_value_never_goes_through_a_float() -> None:
    long = "0.123456789012345678"
    assert parse(listed(long)).price(START) == Decimal(long)
    assert parse(listed("1.5e-3")) == parse(listed("0.0015")) == parse(listed('"0.00150"'))


@given(series())
def test_what_is_written_is_read_again(found: Rates) -> None:
    assert parse(dump(found)) == found


@given(series(), st.integers(0, 18))
def test_a_tariff_is_exact_at_every_instant_whatever_the_token(found: Rates, decimals: int) -> None:
    tariff = found.tariff(found.start, decimals)
    tariff.check(negative=True)
    for slot in found.slots:
        for at in (slot.start, slot.end - 1):
            step = [step for step in tariff.steps if step.start <= at][-1]
            assert Fraction(step.amount * 1000, tariff.per) == Fraction(found.price(Instant(at))) * 10**decimals


@given(series(), st.integers(0, 18))
def test_the_way_back_from_a_tariff_says_the_same(found: Rates, decimals: int) -> None:
    back = of_tariff(found.tariff(found.start, decimals), decimals, found.start, found.end)
    assert (back.start, back.end) == (found.start, found.end)
    assert all(back.price(slot.start) == found.price(slot.start) for slot in found.slots)


def test_a_tariff_begins_with_the_price_in_force_and_joins_equal_ones() -> None:
    found = rates("0.1", "0.2", "0.2", "-0.05")
    assert found.tariff(Instant(START + QUARTER + 1), 6) == Tariff(
        1_000, (Step(Instant(START + QUARTER), 200_000), Step(Instant(START + 3 * QUARTER), -50_000))
    )


def test_prices_finer_than_the_token_are_quoted_for_more_energy() -> None:
    assert rates("0.1234").tariff(START, 2) == Tariff(100_000, (Step(START, 1_234),))
    with pytest.raises(BadRates, match="no whole number of token units per 1,000"):
        rates("0.1234").tariff(START, 2, per=1_000)
    with pytest.raises(BadRates, match="too fine for a token of 0 decimals"):
        rates("0.000000000000000001").tariff(START, 0)


def test_a_price_that_no_token_holds_is_refused() -> None:
    with pytest.raises(BadRates, match="more than a token holds"):
        rates("99999999999999999999999").tariff(START, 18)


def test_before_and_after_the_series_there_is_no_price() -> None:
    found = rates("0.1", "0.2")
    assert found.price(Instant(found.end - 1)) == Decimal("0.2")
    for at in (START - 1, found.end):
        with pytest.raises(BadRates, match="say nothing for"):
            found.tariff(Instant(at), 6)


def test_a_tariff_has_a_horizon() -> None:
    assert rates("0.1", "0.2").horizon(START) == START + 2 * QUARTER
    long = rates(*("0.1", "0.2") * (MAX_STEPS // 2 + 3))
    tariff = long.tariff(START, 6)
    assert len(tariff.steps) == MAX_STEPS
    assert long.horizon(START) == START + MAX_STEPS * QUARTER
    assert long.horizon(Instant(START + 6 * QUARTER)) == long.end


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ([(0, 2), (1, 3)], "overlap"),
        ([(0, 1), (0, 1)], "overlap"),
        ([(0, 1), (2, 3)], "leave a gap"),
        ([(1, 1)], "ends when it begins"),
        ([(2, 1)], "ends when it begins"),
        ([], "has 1.."),
        ([(0, 2**53 - 1)], "after the year 9999"),
        ([(-1, 1)], "before 1970"),
        ([(0, 1)] * (MAX_RATES + 1), "has 1.."),
    ],
)
def test_slots_that_do_not_hold_together_are_refused(edges: list[tuple[int, int]], said: str) -> None:
    with pytest.raises(BadRates, match=said):
        Rates.of((Instant(start), Instant(end), Decimal(1)) for start, end in edges)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"1",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"start":1}]',
        b'{"rates":{}}',
        b'{"rates":[],"rates":[]}',
        b" " * (MAX_SERIES + 1),
        b"[" + b"9" * 10_000 + b"]",
        b"[" + b"1," * MAX_RATES + b"1]",
        listed("NaN"),
        listed("Infinity"),
        listed('"NaN"'),
        listed('"1_000"'),
        listed('"\u0661"'),
        listed("1e999999999999999999999"),
        listed('"much"'),
        listed("true"),
        listed("null"),
        listed("1e99999999"),
        listed("1e-99999999"),
        listed("0." + "1" * 19),
        listed("1" + "0" * 40),
        listed("1", start="0"),
        listed("1", start='"2026-03-01T00:00:00"'),
        listed("1", start='"2026-02-30T00:00:00Z"'),
        listed("1", start='"1969-12-31T23:00:00Z"'),
        listed("1", end='"9999-12-31T23:59:59-23:00"'),
        listed("1", start='"' + "2" * 1_000 + '"'),
    ],
    ids=range(32),
)
def test_what_is_no_series_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadRates) as refused:
        parse(data)
    assert "\n" not in refused.value.line()
    assert len(refused.value.line()) < 300


@given(st.binary(max_size=200))
def test_no_bytes_but_a_series_pass(data: bytes) -> None:
    with pytest.raises(BadRates):
        parse(data)


def test_instants_are_written_as_they_are_read() -> None:
    for text in ("2026-03-01T00:15:00Z", "2026-03-01T00:15:00.250Z"):
        assert written(instant(text)) == text
    assert instant("2026-03-01t00:15:00.2509+00:00") == START + QUARTER + 250
