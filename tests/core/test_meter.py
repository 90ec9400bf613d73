from __future__ import annotations

import pytest

from penstock.core.errors import DeviceError
from penstock.core.meter import Reading, SessionMeter, Tolerance
from penstock.core.units import MAX_QUANTITY, Instant, Quantity


def reading(total: int, at: int = 10) -> Reading:
    return Reading(Quantity(total), Instant(at))


def test_a_session_counts_from_its_first_reading() -> None:
    meter = SessionMeter(reading(1_000))
    assert (meter.total, meter.at) == (0, 10)
    assert meter.take(reading(1_000)) == 0
    assert meter.take(reading(1_250, 11)) == meter.total == 250
    assert meter.at == 11


@pytest.mark.parametrize(
    "bad", [reading(999), reading(1_049, 30), reading(1_100, 19), reading(1_001 + MAX_QUANTITY, 30), reading(0, 30)]
)
def test_a_register_or_clock_that_goes_back_is_refused_and_nothing_changes(bad: Reading) -> None:
    meter = SessionMeter(reading(1_000))
    meter.take(reading(1_050, 20))
    with pytest.raises(DeviceError):
        meter.take(bad)
    assert (meter.total, meter.at) == (50, 20)
    assert meter.take(reading(1_051, 20)) == 51


def test_the_tolerance_is_units_and_millionths_of_the_total() -> None:
    assert [Tolerance(5, 20_000).at(total) for total in (0, 49, 50, 1_000)] == [5, 5, 6, 25]
    assert Tolerance(0, 0).at(10**9) == 0
