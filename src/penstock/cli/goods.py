"""What a pole sells, from its section of the configuration and from the prices that are in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from penstock.cli.config import SupplySection
from penstock.cli.devices import DATA, feeds
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.core.medium import Medium
    from penstock.core.offer import Feed
    from penstock.core.ports import TokenFacts
    from penstock.core.series import Rates
    from penstock.core.tariff import Tariff
    from penstock.core.units import Instant
    from penstock.node.supplier import Goods

FEED_LIMIT = "100"  # kWh that a pole takes back in a session where nothing else is said: a large car's battery


class Series(NamedTuple):
    """The newest price series of both directions, where they have any."""

    supply: Rates | None = None
    feed: Rates | None = None


def need_prices(section: SupplySection) -> None:
    """Pass where it is said what the medium costs, once.

    Raises:
        UsageError: it is not, or twice, or feeding in has limits and no price.
    """
    from penstock.cli.config import need

    if section.prices is None:
        need(section.price, "supply", "price")
    elif section.price is not None:
        raise UsageError("both a price and a price series are given", "leave out --price, or --prices")
    if section.feed_price is not None and section.feed_prices is not None:
        raise UsageError("both a feed-in price and a series of them are given", "leave out one of the two")
    if feeds(section) and section.medium == DATA:
        raise UsageError("data is not taken back", "leave out what is for feeding in")
    alone = [key for key in ("feed_limit", "feed_tick", "feed_credit", "feed_power") if getattr(section, key)]
    if alone and not feeds(section):
        raise UsageError(f"--{alone[0].replace('_', '-')} is for feeding in, which has no price", "give --feed-price")
    if section.prices_signer and section.prices is None and section.feed_prices is None:
        raise UsageError("--prices-signer signs no fixed price", "give --prices, or leave it out")


def goods(section: SupplySection, token: TokenFacts, series: Series, now: Instant) -> Goods:
    """What is sold from `now` on.

    Raises:
        UsageError: a sum is none. BadRates: a series has no price for `now`, or one that the token cannot hold.
    """
    from penstock.cli.money import sum_of
    from penstock.core.medium import medium
    from penstock.core.units import MAX_INSTANT, Amount
    from penstock.gateways.forwarder import tolerance
    from penstock.node.supplier import Goods

    sold = medium(section.medium)
    known = [rates for rates in series if rates is not None]
    per = max((rates.per(token.decimals, sold.per) for rates in known), default=sold.per)
    tariff = _tariff(section.price, "--price", series.supply, token, sold, per, now)
    if sold.name == DATA and section.tick is None:
        tick = Amount(max(1, tariff.dearest * sold.per // per // 1_000))  # 1 MB
    else:
        tick = sum_of(section.tick, token, "--tick")
    credit = section.credit_ticks or (16 if sold.name == DATA else 2)
    package = section.package or _package(tariff, tick, sold)
    made = Goods(
        medium=sold.name,
        tariff=tariff,
        tick_value=tick,
        package=package,
        credit_limit=max(credit * tick, tick + -(-tariff.dearest // per)),
        mode=section.mode,
        feed=_feed(section, token, series, now, tariff, tick, credit, sold),
        until=min((rates.horizon(now) for rates in known), default=MAX_INSTANT),
    )
    if sold.name != DATA:
        return made
    return made._replace(tolerance=tolerance(tariff.highest, made.credit_limit))


def units(text: str, sold: Medium, flag: str) -> int:
    """Units of a medium from a decimal number of those that prices are quoted for (kWh, m3), rounded down.

    Raises:
        UsageError: it is none.
    """
    from penstock.core.errors import OutOfRange
    from penstock.core.units import parse_decimal

    try:
        return parse_decimal(text, 9, flag) * sold.per // 10**9
    except OutOfRange as error:
        raise UsageError(str(error), f"give it in {sold.quoted}, such as 7.5") from None


def step(goods: Goods) -> int:
    """How much of the medium a tick moves, rounded down: how often the line tells its total."""
    from penstock.core.medium import medium

    ticks = [(goods.tariff, goods.tick_value)]
    if goods.feed is not None and goods.feed.limit:
        ticks.append((goods.feed.tariff, goods.feed.tick_value))
    sold = medium(goods.medium)
    return max(1, min(_package(tariff, tick, sold, up=False) for tariff, tick in ticks))


def _tariff(
    flat: str | None, flag: str, rates: Rates | None, token: TokenFacts, sold: Medium, per: int, now: Instant
) -> Tariff:
    from penstock.cli.money import sum_of
    from penstock.core.tariff import Tariff

    if rates is not None:
        return rates.tariff(now, token.decimals, per, sold.per)
    return Tariff.flat(sum_of(flat, token, flag) * per // sold.per, per)  # `per` is a multiple


def _feed(
    section: SupplySection,
    token: TokenFacts,
    series: Series,
    now: Instant,
    supply: Tariff,
    tick: int,
    credit: int,
    sold: Medium,
) -> Feed | None:
    """The other direction. Where only our own price falls to 0 or below, it takes nothing, and lets us pay."""
    from penstock.cli.money import sum_of
    from penstock.core.offer import Feed
    from penstock.core.tariff import Tariff

    if feeds(section):
        tariff = _tariff(section.feed_price, "--feed-price", series.feed, token, sold, supply.per, now)
        limit = units(section.feed_limit or FEED_LIMIT, sold, "--feed-limit")
    elif min(step.amount for step in supply.steps) <= 0:
        tariff, limit = Tariff.flat(1, supply.per), 0
    else:
        return None
    value = sum_of(section.feed_tick, token, "--feed-tick") if section.feed_tick else tick
    return Feed(
        tariff=tariff,
        tick_value=value,
        package=_package(tariff, value, sold) if limit else 1,
        credit_limit=max((section.feed_credit or credit) * value, value + -(-tariff.dearest // tariff.per)),
        limit=limit,
    )


def _package(tariff: Tariff, tick: int, sold: Medium, *, up: bool = True) -> int:
    """What a tick buys at the dearest price, within a unit that prices are quoted for: all prices may be 0."""
    dearest = max(1, tariff.dearest)
    units = -(-tick * tariff.per // dearest) if up else ((tick + 1) * tariff.per - 1) // dearest
    return max(1, min(units, sold.per) if tariff.dearest == 0 else units)
