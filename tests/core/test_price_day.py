"""The stored day of quarter-hour prices is the one that its description makes, and has what it is there for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from math import exp

import pytest

from penstock.core import series
from penstock.core.units import Instant

BEGIN = datetime(2026, 6, 13, 22, tzinfo=UTC)  # Sunday the 14th of June, at Berlin's midnight
HILLS = ((3.0, 3.0, -0.06), (8.0, 1.5, 0.09), (13.25, 2.5, -0.37), (19.5, 1.75, 0.31))  # hour, width (h), height
TOOTH = (-0.009, -0.003, 0.003, 0.009)  # of the quarters of an hour in the evening, and the other way before noon
FEE = Decimal("0.04")  # that the pole keeps of what it pays for a kWh fed in


def made() -> list[Decimal]:
    """0.28 a kWh, with the hills of a day in spring: a morning, a sunny noon, an evening; to a hundredth of a cent."""
    values = []
    for quarter in range(96):
        hour = quarter / 4
        hills = sum(height * exp(-(((hour - top) / width) ** 2)) for top, width, height in HILLS)
        tooth = TOOTH[quarter % 4] if hour >= 14 else -TOOTH[quarter % 4]
        values.append(Decimal(round((0.28 + hills + tooth) * 10_000)).scaleb(-4))
    return values


def slots(values: list[Decimal]) -> list[tuple[Instant, Instant, Decimal]]:
    starts = [Instant(int((BEGIN + timedelta(minutes=15 * n)).timestamp() * 1000)) for n in range(97)]
    return list(zip(starts[:-1], starts[1:], values, strict=True))


def stored(name: str) -> series.Rates:
    return series.parse(resources.files("penstock").joinpath("data", name).read_bytes())


@pytest.mark.parametrize(("name", "fee"), [("prices-day.json", Decimal(0)), ("prices-day-feed.json", FEE)])
def test_the_day_is_the_one_that_is_described(name: str, fee: Decimal) -> None:
    assert stored(name) == series.Rates.of(slots([value - fee for value in made()]))


def test_the_day_has_cheap_dear_and_negative_hours() -> None:
    values = [slot.value for slot in stored("prices-day.json").slots]
    assert len(values) == 96
    assert 8 <= sum(value < 0 for value in values) <= 24
    assert max(slot.value for slot in stored("prices-day-feed.json").slots) > 5_000
