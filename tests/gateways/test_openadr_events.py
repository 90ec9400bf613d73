"""Events of OpenADR as signals: times, durations, intervals, random starts, units and numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import BadSignal
from penstock.core.grid import LOWEST, Event, Grid, Kind
from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.gateways.openadr import Reading, signals
from penstock.gateways.openadr.forms import Descriptor, Dispatched, decode
from penstock.gateways.openadr.reader import Batch, Reader
from penstock.gateways.openadr.times import FOR_EVER, duration, instant, lasting, text_of, written
from penstock.gateways.openadr.windows import windows

from .grid import RATES

HOUR, DAY = 3_600_000, 86_400_000
START = int(datetime(2026, 3, 20, 10, tzinfo=UTC).timestamp()) * 1000
SEEN = Instant(START - HOUR)
AT = "2026-03-20T10:00:00Z"


def said(intervals: list[dict[str, Any]], period: dict[str, Any] | None = None, **more: Any) -> Dispatched:
    """An event as the server hands it out."""
    whole = {"id": "e", "programID": "p", "modificationDateTime": "2026-03-20T08:00:00Z", "intervals": intervals}
    return decode(
        msgspec.json.encode(whole | ({"intervalPeriod": period} if period else {}) | more), Dispatched, "event"
    )


def interval(number: int, period: dict[str, Any] | None = None, **payloads: list[Any]) -> dict[str, Any]:
    """An interval with payloads by their types."""
    found = [{"type": kind, "values": values} for kind, values in payloads.items()]
    return {"id": number, "payloads": found} | ({"intervalPeriod": period} if period else {})


def spans(event: Dispatched, seed: bytes = b"") -> list[tuple[int, float, float]]:
    """Id, start and end of each window, in hours since START."""
    found = windows(event, SEEN, seed)
    return [(w.interval.id, (w.start - START) / HOUR, (w.end - START) / HOUR) for w in found]


def read(event: Dispatched, reading: Reading = RATES, program: list[Descriptor] | None = None) -> Event:
    return signals.event(event, program, SEEN, reading)


def one(kind: str, *values: Any, **descriptor: Any) -> Any:
    """The one signal of an event with one payload."""
    units = [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind} | descriptor]
    event = said([interval(0, **{kind: list(values)})], {"start": AT, "duration": "PT1H"}, payloadDescriptors=units)
    (signal,) = read(event).signals
    return signal


# Times


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT0S", 0), ("P0D", 0), ("PT15M", 900_000), ("PT1H30M", 5_400_000), ("P1D", DAY), ("P2W", 14 * DAY),
        ("P1Y", 365 * DAY), ("P1M", 30 * DAY), ("P1DT1H1M1.5S", DAY + 3_661_500), ("PT0.0019S", 1),
        ("-PT5M", -300_000), ("P9999Y", FOR_EVER), ("P99999Y", FOR_EVER), ("P9999999999999D", FOR_EVER),
    ],
)  # fmt: skip
def test_a_duration_is_read(text: str, length: int) -> None:
    assert duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "1H", "PT1", "P1H", "PT1H ", "pt1h", "P1D2W", "PT" + "1" * 70 + "S", "P١D"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadSignal):
        duration(text)


def test_a_duration_of_nothing_is_for_ever() -> None:
    assert lasting(None) == lasting("PT0S") == lasting("P9999Y") == FOR_EVER


@given(st.integers(0, 10**12))
def test_a_duration_and_a_time_are_written_as_they_are_read(length: int) -> None:
    assert duration(text_of(Duration(length))) == length
    assert instant(written(Instant(length))) == length


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (AT, START), ("2026-03-20T11:00:00+01:00", START), ("2026-03-20T10:00:00", START),
        ("2026-03-20T10:00:00.1239Z", START + 123), ("2026-03-20", START - 10 * HOUR), ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01", None), ("0001-01-01T00:00:00", None), ("0001-01-01T00:00:00Z", None),
    ],
)  # fmt: skip
def test_a_time_is_read(text: str, at: int | None) -> None:
    assert instant(text) == at


@pytest.mark.parametrize(
    "text", ["", "now", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-03-20T25:00:00Z", "9" * 99]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadSignal):
        instant(text)


# Intervals


def test_intervals_follow_one_another() -> None:
    event = said([interval(n) for n in (7, 8, 9)], {"start": AT, "duration": "PT1H"})
    assert spans(event) == [(7, 0, 1), (8, 1, 2), (9, 2, 3)]


def test_an_interval_that_has_a_period_of_its_own_keeps_to_that_and_others_follow_it() -> None:
    later = {"start": "2026-03-20T15:00:00Z"}
    event = said(
        [interval(0), interval(1, {"duration": "PT2H"}), interval(2, later), interval(3)],
        {"start": AT, "duration": "PT1H"},
    )
    assert spans(event) == [(0, 0, 1), (1, 1, 3), (2, 5, 6), (3, 6, 7)]


def test_a_start_of_all_time_follows_the_interval_before() -> None:
    then = {"start": "0001-01-01", "duration": "PT1H"}
    assert spans(said([interval(0, then), interval(1, then)], {"start": AT})) == [(0, 0, 1), (1, 1, 2)]


def test_now_is_when_we_saw_it_first_and_at_our_start_when_the_server_changed_it() -> None:
    limit = {"IMPORT_CAPACITY_LIMIT": [1]}
    hour = {"start": "0001-01-01", "duration": "PT1H"}
    reader = Reader(RATES, (), ())

    def begins(at: int, **more: Any) -> float:
        """When the event begins (hours since START), read in a list of this hour."""
        batch = Batch(Instant(START + at * HOUR))
        event = said([interval(0, **limit)], hour, **more)
        reader.read(msgspec.Raw(msgspec.json.encode(event)), batch)
        reader.done(batch)
        (signal,) = batch.found["e"].event.signals
        return (signal.start - START) / HOUR

    assert begins(0) == -2, "the server changed it at 8"
    assert begins(1) == -2, "it does not begin anew"
    assert begins(2, modificationDateTime="2026-03-20T08:30:00Z") == 2, "a clock that is behind delays nothing"
    assert begins(3, modificationDateTime="2099-01-01T00:00:00Z") == 3
    assert begins(4, modificationDateTime="2099-01-01T00:00:00Z") == 3
    assert spans(said([interval(0)])) == [(0, -1, (MAX_INSTANT - START) / HOUR)]


def test_what_has_no_end_leaves_no_room_after_it() -> None:
    event = said([interval(0), interval(1), interval(2, {"start": AT, "duration": "PT1H"})], {"start": AT})
    assert spans(event) == [(0, 0, (MAX_INSTANT - START) / HOUR), (2, 0, 1)]


def test_the_duration_of_an_event_cuts_or_repeats_it() -> None:
    prices = [interval(n, PRICE=[n]) for n in range(3)]
    period = {"start": AT, "duration": "PT1H"}
    assert spans(said(prices, period, duration="PT1H30M")) == [(0, 0, 1), (1, 1, 1.5)]
    assert spans(said(prices, period, duration="PT0S")) == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]
    grid = Grid()
    grid.replace([read(said(prices, period, duration="P9999Y"))], SEEN)
    for hour in (0, 1, 2, 3, 4, 5, 24, 25, 8_760):
        assert grid.at(Instant(START + hour * HOUR)).price == hour % 3 * 1_000_000, hour
    grid.replace([read(said(prices, period, duration="PT4H"))], SEEN)
    assert [grid.at(Instant(START + hour * HOUR)).price for hour in (3, 4)] == [0, None]


@pytest.mark.parametrize("spread", ["PT10M", "-PT10M"])
def test_a_random_start_is_chosen_once_within_its_bounds_and_moves_all_intervals_alike(spread: str) -> None:
    period = {"start": AT, "duration": "PT1H", "randomizeStart": spread}
    own = {"start": "2026-03-20T20:00:00Z"}
    event = said([interval(0), interval(1), interval(2, own)], period)
    shifts = set()
    for number in range(200):
        seed = number.to_bytes(2, "big")
        first, second, third = spans(event, seed)
        assert spans(event, seed) == [first, second, third]
        shifts.add(first[1])
        assert abs(first[1]) <= 1 / 6
        assert [second[1], third[1]] == pytest.approx([first[1] + 1, first[1] + 10])
        assert first[2] - first[1] == pytest.approx(1)
    assert min(shifts) < -0.1 < 0.1 < max(shifts)
    assert len(shifts) > 190


def test_an_interval_with_a_random_start_of_its_own_moves_what_follows_it() -> None:
    own = {"start": "2026-03-20T20:00:00Z", "randomizeStart": "PT10M"}
    event = said([interval(0), interval(1, own), interval(2)], {"start": AT, "duration": "PT1H"})
    first, second, third = spans(event, b"seed")
    assert first[1] == 0
    assert second[1] != 10
    assert third[1] == pytest.approx(second[1] + 1)


# Values


def test_power_is_in_watts() -> None:
    assert one("IMPORT_CAPACITY_LIMIT", 11.5).value == 11_500
    assert one("IMPORT_CAPACITY_LIMIT", 3.6999, units="KW").value == 3_699
    assert one("EXPORT_CAPACITY_LIMIT", 4_600, units="W").value == 4_600
    assert one("DISPATCH_SETPOINT", -0.0019, units="KW").value == -1
    assert one("DISPATCH_SETPOINT", 1.2, units="MW").value == 1_200_000
    assert one("IMPORT_CAPACITY_LIMIT", 0).value == 0


def test_a_charge_is_in_thousandths_or_watt_hours() -> None:
    assert (one("CHARGE_STATE_SETPOINT", 0.8, units="PERCENT").value, "permille") == (800, "permille")
    charge = one("CHARGE_STATE_SETPOINT", 42.5, units="KWH")
    assert (charge.value, charge.unit) == (42_500, "Wh")
    for units in ({"units": "PERCENT"}, {}, {"units": "KW"}):
        with pytest.raises(BadSignal):
            one("CHARGE_STATE_SETPOINT", 80, **units)


@pytest.mark.parametrize(
    ("values", "watts", "text"),
    [
        (["the grid fails"], 0, "the grid fails"), ([0], 0, ""), ([2.5], 2_500, ""), ([], 0, ""),
        (["a", 1], 1_000, "a"), ([-5], 0, ""), ([True], 0, ""), ([{"x": 1, "y": 2}], 0, ""),
        (["a\n\x1b[2Jb"], 0, "a [2Jb"), (["x" * 999], 0, "x" * 128),
    ],
)  # fmt: skip
def test_an_emergency_counts_whatever_it_says(values: list[Any], watts: int, text: str) -> None:
    signal = one("ALERT_GRID_EMERGENCY", *values)
    assert (signal.kind, signal.value, signal.text) == (Kind.EMERGENCY, watts, text)


def test_a_price_is_exact_and_rounded_down() -> None:
    assert one("PRICE", 0.1, units="KWH", currency="EUR").value == 100_000
    assert one("PRICE", 0.1234567, currency="EUR").value == 123_456
    assert one("EXPORT_PRICE", -0.0000001).value == -1
    assert one("PRICE", 1e-3).value == 1_000
    for descriptor in ({"currency": "USD"}, {"units": "THERMS"}, {"units": "W"}):
        with pytest.raises(BadSignal):
            one("PRICE", 1, **descriptor)
    two = Reading({"EUR": 10**6, "USD": 10**6}, b"")
    with pytest.raises(BadSignal, match="in no currency"):
        read(said([interval(0, PRICE=[1])], {"start": AT, "duration": "PT1H"}), two)


@given(st.integers(-(10**9), 10**9), st.integers(0, 9), st.integers(1, 10**9))
def test_a_price_is_the_product_of_the_number_and_the_rate(digits: int, places: int, rate: int) -> None:
    text = f"{'-' if digits < 0 else ''}{abs(digits) // 10**places}.{abs(digits) % 10**places:0{max(1, places)}d}"
    event = said([], {"start": AT, "duration": "PT1H"})
    raw = [interval(0, PRICE=[msgspec.Raw(text.encode())])]
    event = said(raw, {"start": AT, "duration": "PT1H"})
    (signal,) = read(event, Reading({"EUR": rate}, b"")).signals
    assert signal.value == Fraction(text) * rate // 1


def test_several_prices_in_an_interval_share_it() -> None:
    event = read(said([interval(0, PRICE=[1, 2, 3])], {"start": AT, "duration": "PT3H"}))
    assert [(s.value, (s.start - START) / HOUR, (s.end - START) / HOUR) for s in event.signals] == [
        (1_000_000, 0, 1), (2_000_000, 1, 2), (3_000_000, 2, 3),
    ]  # fmt: skip


def test_units_of_an_event_go_before_those_of_its_program() -> None:
    program = [Descriptor("IMPORT_CAPACITY_LIMIT", "W")]
    period = {"start": AT, "duration": "PT1H"}
    plain = said([interval(0, IMPORT_CAPACITY_LIMIT=[5])], period)
    assert read(plain, program=program).signals[0].value == 5
    own = [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}]
    other = said([interval(0, IMPORT_CAPACITY_LIMIT=[5])], period, payloadDescriptors=own)
    assert read(other, program=program).signals[0].value == 5_000


def test_no_priority_is_the_lowest_and_types_that_are_not_for_us_are_left_aside() -> None:
    event = read(said([interval(0, GHG=["x"], SIMPLE=[3], PRICE=[1])], {"start": AT, "duration": "PT1H"}))
    assert event.priority == LOWEST
    assert [signal.kind for signal in event.signals] == [Kind.PRICE]
    assert read(said([], priority=10**18)).priority == LOWEST


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("IMPORT_CAPACITY_LIMIT", [1, 2]), ("IMPORT_CAPACITY_LIMIT", []), ("IMPORT_CAPACITY_LIMIT", [-1]),
        ("IMPORT_CAPACITY_LIMIT", ["1"]), ("IMPORT_CAPACITY_LIMIT", [True]), ("IMPORT_CAPACITY_LIMIT", [None]),
        ("IMPORT_CAPACITY_LIMIT", [10**12]), ("DISPATCH_SETPOINT", [-(10**12)]), ("PRICE", [10**30]), ("PRICE", []),
        ("PRICE", [int("9" * 41)]), ("EXPORT_CAPACITY_LIMIT", [1e300]), ("EXPORT_CAPACITY_LIMIT", [1e-300]),
    ],
)  # fmt: skip
def test_values_that_cannot_be_obeyed_are_refused(kind: str, values: list[Any]) -> None:
    raw = [msgspec.Raw(str(v).encode()) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    with pytest.raises(BadSignal) as caught:
        read(said([interval(0, **{kind: raw})], {"start": AT, "duration": "PT1H"}))
    assert "\n" not in caught.value.line()
    assert len(caught.value.line()) < 200


def test_an_event_of_too_many_signals_is_refused() -> None:
    packed = [interval(n, PRICE=[1] * 512) for n in range(3)]
    with pytest.raises(BadSignal, match="more than"):
        read(said(packed, {"start": AT, "duration": "P1D"}))


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
    st.just([]), st.just({"x": 1.0, "y": 2.0}), st.just([[1]]),
)  # fmt: skip
odd_times = st.sampled_from(["0001-01-01", AT, "P1D", "-PT1S", "PT0S", "P9999Y", "PT1H", "x", None]) | json_values
odd_period = st.fixed_dictionaries(
    {}, optional={"start": odd_times, "duration": odd_times, "randomizeStart": odd_times}
)
odd_payload = st.fixed_dictionaries(
    {"type": st.sampled_from([*signals.KINDS, "GHG"]), "values": st.lists(json_values, max_size=3)}
)
odd_interval = st.fixed_dictionaries(
    {"id": st.integers(0, 9), "payloads": st.lists(odd_payload, max_size=3)}, optional={"intervalPeriod": odd_period}
)
odd_event = st.fixed_dictionaries(
    {"id": st.sampled_from("ab"), "programID": st.just("p"), "intervals": st.lists(odd_interval, max_size=3)},
    optional={
        "intervalPeriod": odd_period,
        "duration": odd_times,
        "priority": json_values,
        "modificationDateTime": odd_times,
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # this machine may be busy
@given(odd_event)
def test_whatever_a_server_says_is_an_event_or_a_bad_signal(odd: dict[str, Any]) -> None:
    try:
        found = read(decode(msgspec.json.encode(odd), Dispatched, "event"))
    except BadSignal:
        return
    grid = Grid()
    grid.replace([found], SEEN)
    orders = grid.at(Instant(START))
    assert orders.until > START
    assert orders.supply_limit is None or orders.supply_limit >= 0
