"""What a line counts is exact: power times time, however it is cut into pieces and whatever the power does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.counter import EXPORT, IMPORT, MILLISECOND, WH, Counter

SECOND = 1_000 * MILLISECOND
HOUR = 3_600 * SECOND
ENDLESS = 2**62


def test_power_times_time_is_energy() -> None:
    counter = Counter(100, 7, 5_000)
    counter.run(IMPORT, 6_600, HOUR // 2, 5 * SECOND + HOUR // 2, ENDLESS)
    assert counter.registers == [3_400, 7]
    assert counter.at == 5_000 + 1_800_000
    counter.run(EXPORT, 1_000, HOUR, 5 * SECOND + 2 * HOUR, ENDLESS)
    assert counter.totals == (3_400, 1_007)


def test_the_clock_shows_when_the_register_reached_what_it_shows() -> None:
    counter = Counter(0, 0, 0)
    counter.run(IMPORT, 3_600, 10 * SECOND, 10 * SECOND, 4)  # a Wh a second, no further than 4
    assert (counter.registers, counter.at) == ([4, 0], 4_000)
    counter.run(IMPORT, 3_600, 1_500 * MILLISECOND, 20 * SECOND, 100)
    assert (counter.registers, counter.at) == ([5, 0], 19_500), "the half of the next Wh is not there yet"
    assert counter.ahead(IMPORT, 3_600, 6) == SECOND // 2


def test_at_full_speed_the_clock_advances_by_the_time_that_the_energy_takes() -> None:
    counter = Counter(0, 0, 0)
    for total in range(25, 6_601, 25):
        counter.pass_at_once(IMPORT, 6_600, total)
    assert counter.clock == HOUR, "what each step leaves of a nanosecond is kept"
    counter.pass_at_once(EXPORT, 3_300, 3_300)
    assert counter.clock == 2 * HOUR


def test_another_car_begins_with_no_part_of_a_wh_and_the_clock_never_goes_back() -> None:
    counter = Counter(0, 0, 0)
    counter.run(IMPORT, 3_600, 1_999 * MILLISECOND, 10 * SECOND, ENDLESS)
    counter.restart(3_000)
    assert counter.at == 9_001
    counter.restart(60_000)
    counter.run(IMPORT, 3_600, 999 * MILLISECOND, 61 * SECOND, ENDLESS)
    assert (counter.registers, counter.at) == ([1, 0], 60_000)


PIECES = st.lists(
    st.tuples(st.sampled_from([IMPORT, EXPORT]), st.integers(1, 10**6), st.integers(0, 3 * SECOND)), max_size=30
)


@given(PIECES)
def test_nothing_is_lost_whatever_the_power_does_and_whichever_way_it_goes(pieces: list[tuple[int, int, int]]) -> None:
    counter, now, energy = Counter(0, 0, 0), 0, [0, 0]
    for way, watts, duration in pieces:
        now += duration
        energy[way] += watts * duration
        counter.run(way, watts, duration, now, ENDLESS)
        assert 0 <= counter.clock <= now
    assert counter.registers == [flowed // WH for flowed in energy]
    for way in (IMPORT, EXPORT):
        assert counter.ahead(way, 1, counter.registers[way] + 1) == WH - energy[way] % WH


@given(st.integers(1, 10**6), st.integers(1, 1_000), st.integers(1, 10**6), st.data())
def test_no_piece_goes_beyond_its_goal_and_a_stall_earns_no_credit(
    watts: int, goal: int, part: int, data: st.DataObject
) -> None:
    counter = Counter(0, 0, 0)
    needed = counter.ahead(IMPORT, watts, goal)
    late = data.draw(st.integers(0, HOUR))
    counter.run(IMPORT, watts, needed + late, needed + late, goal)
    assert (counter.registers[IMPORT], counter.clock) == (goal, needed)
    counter.run(IMPORT, watts, part, needed + late + part, ENDLESS)
    assert counter.registers[IMPORT] == goal + watts * part // WH
