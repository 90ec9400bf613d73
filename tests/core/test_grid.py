"""What the grid asks at an instant, of signals that overlap, repeat, contradict one another, or are too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.grid import (
    LOWEST,
    MAX_EVENTS,
    MAX_SIGNALS,
    ChargeState,
    Event,
    Grid,
    Kind,
    Orders,
    Signal,
    fitting,
)
from penstock.core.units import MAX_INSTANT, Duration, Instant

T = Instant(1_000_000)


def signal(kind: Kind, value: int, start: int = 0, end: int = MAX_INSTANT, every: int = 0, **more: object) -> Signal:
    return Signal(kind, Instant(start), Instant(end), value, Duration(every), **more)  # type: ignore[arg-type]  # text


def event(name: str, *signals: Signal, priority: int = 5, modified: int = 0) -> Event:
    return Event(name, priority, Instant(modified), signals)


def at(now: int, *events: Event) -> Orders:
    grid = Grid()
    grid.replace(list(events), Instant(0))
    return grid.at(Instant(now))


def test_a_grid_that_asks_nothing_asks_nothing_for_ever() -> None:
    assert at(T) == Orders()
    assert at(T).until == MAX_INSTANT


def test_a_signal_holds_from_its_start_to_before_its_end() -> None:
    limit = event("a", signal(Kind.SUPPLY_LIMIT, 3_000, 100, 200))
    found = [(now, at(now, limit).supply_limit, at(now, limit).until) for now in (99, 100, 199)]
    assert found == [(99, None, 100), (100, 3_000, 200), (199, 3_000, 200)]
    assert at(200, limit).supply_limit is None


def test_the_highest_priority_wins_then_what_was_modified_last_then_the_id() -> None:
    low = event("z", signal(Kind.SUPPLY_LIMIT, 1), priority=LOWEST, modified=9)
    first = event("a", signal(Kind.SUPPLY_LIMIT, 2), priority=0, modified=1)
    newer = event("a2", signal(Kind.SUPPLY_LIMIT, 3), priority=0, modified=2)
    greater = event("b", signal(Kind.SUPPLY_LIMIT, 4), priority=0, modified=2)
    assert at(T, low, first).supply_limit == 2
    assert at(T, first, newer, low).supply_limit == 3
    assert at(T, greater, newer, first).supply_limit == 4


def test_in_one_event_the_signal_that_starts_last_wins() -> None:
    steps = event("a", signal(Kind.PRICE, 1, 0), signal(Kind.PRICE, 2, 100), signal(Kind.PRICE, 3, 200))
    assert [at(now, steps).price for now in (50, 150, 250)] == [1, 2, 3]


def test_an_emergency_and_a_limit_both_hold_and_a_setpoint_stays_within_them() -> None:
    limit, setpoint = event("l", signal(Kind.SUPPLY_LIMIT, 3_000)), event("s", signal(Kind.SETPOINT, 9_000))
    assert at(T, limit, setpoint).setpoint == 3_000
    emergency = event("e", signal(Kind.EMERGENCY, 0, text="failing"), priority=LOWEST)
    orders = at(T, limit, setpoint, emergency)
    assert (orders.supply_limit, orders.setpoint, orders.emergency) == (0, 0, "failing")
    feed = event("f", signal(Kind.FEED_LIMIT, 2_000)), event("s", signal(Kind.SETPOINT, -9_000))
    assert at(T, *feed).setpoint == -2_000
    assert at(T, event("e", signal(Kind.EMERGENCY, 5_000)), limit).supply_limit == 3_000


def test_orders_say_why() -> None:
    orders = at(
        T,
        event("e", signal(Kind.EMERGENCY, 0, text="failing")),
        event("c", signal(Kind.CHARGE_STATE, 800, unit="permille")),
        event("p", signal(Kind.PRICE, -12)),
    )
    assert orders.why == (
        "emergency 0 W (failing): event e",
        "charge state 800 permille: event c",
        "price -12 units/kWh: event p",
    )
    assert orders.charge_state == ChargeState(800, "permille")


def test_a_signal_that_repeats_comes_and_goes_until_it_stops() -> None:
    daily = event("d", signal(Kind.PRICE, 7, 100, 130, every=100, stop=Instant(320)))
    found = [(now, at(now, daily).price, at(now, daily).until) for now in (99, 100, 130, 199, 200, 229, 310, 320)]
    assert found == [
        (99, None, 100), (100, 7, 130), (130, None, 200), (199, None, 200), (200, 7, 230), (229, 7, 230), (310, 7, 320),
        (320, None, MAX_INSTANT),
    ]  # fmt: skip


def test_events_that_are_over_are_forgotten_and_not_counted_as_left_out() -> None:
    grid = Grid()
    assert grid.replace([event("a", signal(Kind.PRICE, 1, 0, 100)), event("none")], Instant(100)) == 0
    assert len(grid) == 0


def test_of_too_many_events_the_gravest_are_kept() -> None:
    many = [event(f"p{n}", signal(Kind.PRICE, n), priority=0) for n in range(MAX_EVENTS + 50)]
    grid = Grid()
    assert grid.replace([*many, event("e", signal(Kind.EMERGENCY, 0), priority=LOWEST)], Instant(0)) == 51
    assert len(grid) == MAX_EVENTS
    assert grid.at(T).supply_limit == 0
    fat = event("fat", *(signal(Kind.PRICE, n) for n in range(MAX_SIGNALS)), priority=1)
    assert fitting([fat, event("l", signal(Kind.SUPPLY_LIMIT, 1), priority=9)]) == (
        event("l", signal(Kind.SUPPLY_LIMIT, 1), priority=9),
    )


signals = st.builds(
    lambda kind, value, start, length, every, stop: Signal(
        kind, Instant(start), Instant(start + length), value, Duration(every and max(every, length)), Instant(stop)
    ),
    st.sampled_from(Kind), st.integers(0, 5), st.integers(0, 60), st.integers(1, 30), st.integers(0, 40),
    st.integers(1, 120),
)  # fmt: skip
events = st.lists(
    st.builds(
        lambda name, priority, modified, found: Event(name, priority, Instant(modified), tuple(found)),
        st.sampled_from("abcd"), st.integers(0, 2), st.integers(0, 2), st.lists(signals, max_size=4),
    ),
    max_size=5, unique_by=lambda event: event.id,
)  # fmt: skip


@given(events)
def test_nothing_changes_before_the_orders_say_so(found: list[Event]) -> None:
    grid = Grid()
    grid.replace(found, Instant(0))
    orders = grid.at(Instant(0))
    for now in range(1, 130):
        next_ = grid.at(Instant(now))
        if now < orders.until:
            assert next_.same(orders), now
        assert next_.until > now
        orders = next_


@given(events, st.integers(0, 130))
def test_the_order_in_which_events_come_does_not_matter(found: list[Event], now: int) -> None:
    assert at(now, *found) == at(now, *reversed(found))
