"""What a pole sells follows from its flags and its price series: exactly, both ways, with limits that fit."""

from __future__ import annotations

from decimal import Decimal

import pytest

from penstock.cli.config import SupplySection, over
from penstock.cli.goods import Series, goods, need_prices, step, units
from penstock.core.errors import BadRates, UsageError
from penstock.core.medium import medium
from penstock.core.ports import TokenFacts
from penstock.core.series import Rates
from penstock.core.units import MAX_INSTANT, Instant
from penstock.node.supplier import Goods

EURO = TokenFacts("CEUR", 6)
BEGIN, QUARTER = 1_772_323_200_000, 900_000
NOW = Instant(BEGIN + 5)


def rates(*values: str) -> Rates:
    at = [Instant(BEGIN + n * QUARTER) for n in range(len(values) + 1)]
    return Rates.of(zip(at[:-1], at[1:], map(Decimal, values), strict=True))


def made(series: Series | None = None, **flags: object) -> Goods:
    section = over(SupplySection(), **({"tick": "0.001"} | flags))
    need_prices(section)
    return goods(section, EURO, series or Series(), NOW)


def test_a_flat_price_is_sold_as_before() -> None:
    sold = made(price="0.40")
    assert sold == Goods("electricity", sold.tariff, 1_000, 3, 2_000)
    assert (sold.tariff.per, sold.tariff.dearest, sold.until, step(sold)) == (1_000, 400_000, MAX_INSTANT, 2)


def test_a_series_is_sold_up_to_its_end_and_the_dearest_price_sets_the_limits() -> None:
    sold = made(Series(rates("0.10", "0.50")), prices="day.json")
    assert [one.amount for one in sold.tariff.steps] == [100_000, 500_000]
    assert sold.until == BEGIN + 2 * QUARTER
    assert (sold.package, step(sold), sold.feed) == (2, 2, None)


def test_a_price_of_0_or_below_can_be_paid_back_and_nothing_is_taken() -> None:
    for low in ("0", "-0.5"):
        feed = made(Series(rates("0.10", low)), prices="day.json").feed
        assert feed is not None
        assert feed.limit == 0


def test_a_series_of_zeros_can_be_sold() -> None:
    sold = made(Series(rates("0")), prices="day.json")
    assert (sold.package, step(sold)) == (1_000, 1_000)


def test_what_is_fed_in_has_the_supply_s_limits_where_it_has_none_of_its_own() -> None:
    feed = made(price="0.40", feed_price="0.30").feed
    assert feed is not None
    assert (feed.tariff.dearest, feed.tick_value, feed.credit_limit, feed.limit) == (300_000, 1_000, 2_000, 100_000)
    own = made(price="0.40", feed_price="0.30", feed_tick="0.002", feed_credit=5, feed_limit="7.5").feed
    assert own is not None
    assert (own.tick_value, own.credit_limit, own.limit) == (2_000, 10_000, 7_500)


def test_both_ways_are_quoted_per_what_holds_the_finest_price_of_either() -> None:
    sold = made(Series(feed=rates("0.12345678")), price="0.40", feed_prices="feed.json")
    assert sold.feed is not None
    assert sold.tariff.per == sold.feed.tariff.per == 100_000
    assert (sold.tariff.dearest, sold.feed.tariff.dearest) == (40_000_000, 12_345_678)
    assert sold.until == BEGIN + QUARTER


def test_a_series_that_is_over_is_not_sold_by() -> None:
    with pytest.raises(BadRates, match="say nothing for"):
        goods(over(SupplySection(), prices="x", tick="0.001"), EURO, Series(rates("1")), Instant(BEGIN + QUARTER))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "supply.price is not set"),
        ({"price": "1", "prices": "x"}, "both a price and a price series"),
        ({"price": "1", "feed_price": "1", "feed_prices": "x"}, "both a feed-in price and a series"),
        ({"price": "1", "feed_limit": "5"}, "--feed-limit is for feeding in"),
        ({"price": "1", "feed_power": 5}, "--feed-power is for feeding in"),
        ({"price": "1", "prices_signer": "0x" + "11" * 20}, "--prices-signer"),
        ({"price": "1", "feed_price": "1", "medium": "data"}, "data is not taken back"),
        ({"prices": ""}, "--prices cannot be"),
        ({"price": "1", "feed_limit": "much"}, "--feed-limit cannot be"),
        ({"prices": "x", "prices_signer": "0x12"}, "--prices_signer"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        made(**flags)
    assert said in refused.value.line()


def test_quantities_are_read_in_what_prices_are_for() -> None:
    assert units("7.5", medium("electricity"), "--feed") == 7_500
    assert units("0.0019", medium("water"), "--feed") == 1
    with pytest.raises(UsageError, match="--feed"):
        units("x", medium("electricity"), "--feed")
