"""The line both ways: throttled exactly, bound by both ends, and still where either process is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.errors import DeviceError, UsageError
from penstock.core.meter import Reading
from penstock.core.ports import Throttle, TwoWayValve
from penstock.core.units import Instant, Quantity
from penstock.sim.line import LineMeter, LineSupply
from penstock.sim.register import Register
from penstock.sim.virtual import VirtualLoop

START = Instant(1_551_425_700_000)
MINUTE, HOUR = 60_000, 3_600_000
MUCH = Quantity(10**9)


def wh(value: int) -> Quantity:
    return Quantity(value)


def pole(
    path: Path, speed: float | None = None, power_w: int = 6_600, feed_w: int = 3_300, limit: int = 2**60
) -> LineSupply:
    return LineSupply(path, power_w, speed, package=wh(25), limit=wh(limit), feed_w=feed_w, clock=lambda: START)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is awaited happens in another process, or in no event of ours
            await asyncio.sleep(0.002)


def totals(meter: LineSupply | LineMeter) -> tuple[int, int]:
    reading = meter.read()
    return reading.total, reading.export


@pytest.mark.asyncio
async def test_the_ends_are_valves_for_both_ways(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line")
    car = LineMeter(tmp_path / "line")
    valves: list[TwoWayValve] = [supply, car]
    for valve in valves:
        valve.allow(wh(0), wh(0))
        valve.close()
    throttle: Throttle = supply
    throttle.limit(None, 0)
    car.detach()
    supply.detach()


@pytest.mark.asyncio
async def test_each_way_has_its_power_and_the_clock_follows_both(tmp_path: Path) -> None:
    supply, car = pole(tmp_path / "line"), LineMeter(tmp_path / "line")
    readings: list[Reading] = []
    supply.watch(readings.append)
    car.allow(MUCH, MUCH)
    for total, export in ((6_600, 0), (6_600, 3_300), (13_200, 3_300)):
        supply.allow(wh(total), wh(export))
        await until(lambda: totals(supply) == (total, export))  # noqa: B023  # awaited before the next round
    assert [reading.at - START for reading in readings] == [HOUR, 2 * HOUR, 3 * HOUR]
    assert car.read() == supply.read() == readings[-1]
    car.detach()
    supply.detach()


def test_a_throttle_changes_the_power_at_once_and_loses_no_part_of_a_wh(tmp_path: Path) -> None:
    loop = VirtualLoop()

    async def charge() -> None:
        supply = pole(tmp_path / "line", speed=1.0)
        readings: list[Reading] = []
        supply.watch(readings.append)
        supply.allow(MUCH)
        energy, powers = 0, []
        for number, (limit, seconds) in enumerate([(None, 61), (1_380, 7), (0, 100), (4_140, 13), (10_000, 59)] * 40):
            supply.limit(limit, None)
            powers.append(supply.power())
            await asyncio.sleep(seconds + number / 1_000)
            energy += powers[-1] * (seconds * 1_000 + number)
        supply.limit(0, 0)
        assert powers == [6_600, 1_380, 0, 4_140, 6_600] * 40
        assert energy // HOUR - 1 <= supply.read().total <= energy // HOUR, "floats of seconds leave some nanoseconds"
        assert readings[-1].total <= supply.read().total
        await asyncio.sleep(1)
        assert readings[-1].total == supply.read().total, "where it is throttled is told"
        supply.detach()

    loop.run(charge())


def test_within_a_package_a_limit_of_nothing_stops_the_flow_and_none_lets_it_go_on(tmp_path: Path) -> None:
    loop = VirtualLoop()

    async def charge() -> None:
        supply = pole(tmp_path / "line", speed=1.0, power_w=3_600)  # a Wh a second, a package of 25
        readings: list[Reading] = []
        supply.watch(readings.append)
        supply.allow(wh(100))
        await asyncio.sleep(30.5)
        supply.limit(0, None)
        assert supply.power() == 0
        await asyncio.sleep(1_000)
        assert (supply.read().total, readings[-1].total) == (30, 30)
        supply.limit(None, None)
        await asyncio.sleep(100)
        assert supply.read().total == 100
        # half a Wh had flowed, 1000 s nothing
        assert readings[-1].at - START == pytest.approx(1_100_000, abs=2)
        supply.detach()

    loop.run(charge())


@pytest.mark.asyncio
async def test_at_full_speed_a_throttled_line_takes_the_time_of_its_limit(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line")
    supply.limit(1_650, None)
    supply.allow(wh(1_650))
    await until(lambda: supply.read().total == 1_650)
    assert supply.read().at - START == HOUR
    supply.limit(0, None)
    supply.allow(MUCH)
    await asyncio.sleep(0.02)
    assert supply.read().total == 1_650
    supply.limit(9_999, None)
    supply.allow(wh(8_250))
    await until(lambda: supply.read().total == 8_250)
    assert supply.read().at - START == 2 * HOUR, "a limit above the line's power is none"
    supply.detach()


@pytest.mark.asyncio
async def test_a_one_way_session_needs_no_car_and_minds_none(tmp_path: Path) -> None:
    supply, car = pole(tmp_path / "line"), LineMeter(tmp_path / "line")
    supply.allow(wh(50))
    await until(lambda: supply.read().total == 50)
    assert os.listdir(tmp_path) == ["line"]
    car.close()
    car.allow(wh(0), wh(0))
    supply.allow(wh(75))
    await until(lambda: supply.read().total == 75)
    car.detach()
    supply.allow(wh(100))
    await until(lambda: supply.read().total == 100)
    supply.detach()


@pytest.mark.asyncio
async def test_a_line_that_cannot_feed_never_does(tmp_path: Path) -> None:
    supply, car = LineSupply(tmp_path / "line", 6_600, package=wh(25)), LineMeter(tmp_path / "line")
    car.allow(MUCH, MUCH)
    supply.allow(wh(25), MUCH)
    await until(lambda: supply.read().total == 25)
    await asyncio.sleep(0.02)
    assert totals(supply) == (25, 0)
    car.detach()
    supply.detach()


@pytest.mark.asyncio
async def test_a_full_car_draws_again_what_it_has_fed_in(tmp_path: Path) -> None:
    supply, car = pole(tmp_path / "line", limit=130), LineMeter(tmp_path / "line")
    car.allow(MUCH, MUCH)
    supply.allow(MUCH, wh(0))
    await until(lambda: supply.read().total == 130)
    supply.allow(wh(130), wh(70))
    await until(lambda: supply.read().export == 70)
    supply.allow(MUCH, wh(70))
    await until(lambda: supply.read().total == 200)
    await asyncio.sleep(0.02)
    assert totals(supply) == (200, 70)
    car.detach()
    supply.detach()


@pytest.mark.parametrize("ppm", [20_000, 0, -20_000])
@pytest.mark.asyncio
async def test_the_car_allows_by_what_its_own_meter_shows(ppm: int, tmp_path: Path) -> None:
    supply, car = pole(tmp_path / "line"), LineMeter(tmp_path / "line", error_ppm=ppm)
    supply.allow(MUCH, MUCH)
    for total, export in ((1_000, 0), (1_000, 990), (1_001, 990)):
        car.allow(wh(total), wh(export))
        true = (total * 1_000_000 + 999_999) // (1_000_000 + ppm), (export * 1_000_000 + 999_999) // (1_000_000 + ppm)
        await until(lambda: totals(supply) == true)  # noqa: B023  # awaited before the next round
        assert car.read().total <= total
        assert car.read().export <= export
    car.detach()
    supply.detach()


@pytest.mark.asyncio
async def test_however_long_the_pole_was_held_up_hardly_more_flows_than_until_the_car_was_gone(tmp_path: Path) -> None:
    supply, car = pole(tmp_path / "line", speed=3_600), LineMeter(tmp_path / "line")  # 3.3 kWh a second fed in
    car.allow(wh(0), MUCH)
    supply.allow(wh(0), MUCH)
    await until(lambda: supply.read().export > 100)
    before = supply.read().export
    car.detach()
    time.sleep(1.5)  # noqa: ASYNC251  # the pole's loop is held up for what would be 5 kWh
    await asyncio.sleep(0.05)
    assert supply.read().export - before <= 3_300 * 1.1
    stood = supply.read().export
    await asyncio.sleep(0.1)
    assert supply.read().export == stood
    supply.detach()


def test_limits_and_powers_below_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="to feed in"):
        pole(tmp_path / "line", feed_w=-1)
    supply = pole(tmp_path / "line")
    with pytest.raises(UsageError, match="below 0"):
        supply.limit(None, -1)
    supply.limit(0, 0)
    supply.detach()
    with pytest.raises(DeviceError, match="let go"):
        supply.limit(1, 1)


@pytest.mark.asyncio
async def test_a_car_that_was_let_go_of_allows_nothing(tmp_path: Path) -> None:
    pole(tmp_path / "line").detach()
    car = LineMeter(tmp_path / "line")
    car.allow(wh(5), wh(5))
    car.detach()
    with pytest.raises(DeviceError, match="let go"):
        car.allow(wh(10), wh(10))


POLE = """
import asyncio, sys
from pathlib import Path
from penstock.sim.line import LineSupply
async def main():
    speed = float(sys.argv[2]) or None
    supply = LineSupply(Path(sys.argv[1]), 6_600, speed, package=25, feed_w=6_600)
    supply.allow(int(sys.argv[3]), int(sys.argv[4]))
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
CAR = """
import asyncio, sys
from pathlib import Path
from penstock.sim.line import LineMeter
async def main():
    car = LineMeter(Path(sys.argv[1]))
    step = int(sys.argv[5])
    if step:  # before it allows anything: what flows at once must not be missed
        car.watch(lambda reading: car.allow(reading.total, reading.export + step))
    car.allow(int(sys.argv[3]), int(sys.argv[4]))
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@contextmanager
def process(code: str, path: Path, speed: float, total: int, export: int, step: int = 0) -> Iterator[None]:
    """Such a process, until it is killed at the end of the block."""
    arguments = [sys.executable, "-c", code, str(path), str(speed), str(total), str(export), str(step)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield
        finally:
            child.kill()


async def stands(meter: LineMeter) -> tuple[int, int]:
    """What the registers show, once nothing has flowed for a while."""
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(10):
        while len(seen) < 20 or seen[-20] != seen[-1]:
            seen.append(totals(meter))
            await asyncio.sleep(0.01)
    return seen[-1]


@pytest.mark.parametrize("speed", [0, 3_600], ids=["at full speed", "at a speed"])
@pytest.mark.asyncio
async def test_kill_9_of_the_car_stops_what_it_feeds(speed: float, tmp_path: Path) -> None:
    path = tmp_path / "line"
    Register.write_end(path).close()
    meter = LineMeter(path)
    with process(POLE, path, speed, 0, 10**15):
        with process(CAR, path, speed, 0, 10**15):
            await until(lambda: meter.read().export > 1_000)
        stood = await stands(meter)
        assert 1_000 < stood[1] < 10**15
        with process(CAR, path, speed, 0, stood[1] + 77):
            await until(lambda: meter.read().export == stood[1] + 77)
            assert await stands(meter) == (0, stood[1] + 77), "the next one's permission alone counts"
    meter.detach()


@pytest.mark.parametrize("speed", [0, 3_600], ids=["at full speed", "at a speed"])
@pytest.mark.asyncio
async def test_kill_9_of_the_pole_leaves_both_registers_and_no_flow(speed: float, tmp_path: Path) -> None:
    path = tmp_path / "line"
    Register.write_end(path).close()
    meter = LineMeter(path)
    with process(CAR, path, speed, 500, 10**15):
        with process(POLE, path, speed, 10**15, 10**15):
            await until(lambda: meter.read().export > 1_000)
        stood = await stands(meter)
        assert stood[0] == 500, "the car allowed no more"
        with process(POLE, path, speed, 0, stood[1] + 33):
            await until(lambda: meter.read().export == stood[1] + 33)
            assert await stands(meter) == (500, stood[1] + 33)
    meter.detach()


@pytest.mark.asyncio
async def test_a_car_that_comes_after_the_pole_has_allowed_is_found(tmp_path: Path) -> None:
    path = tmp_path / "line"
    Register.write_end(path).close()
    meter = LineMeter(path)
    with process(POLE, path, 0, 10**15, 0), process(CAR, path, 0, 300, 0):
        await until(lambda: meter.read().total == 300)
        assert await stands(meter) == (300, 0)
    meter.detach()


@pytest.mark.asyncio
async def test_a_permission_that_another_process_raises_is_heard_without_polling(tmp_path: Path) -> None:
    path = tmp_path / "line"
    supply = pole(path)
    readings: list[int] = []
    supply.watch(lambda reading: readings.append(reading.export))
    with process(CAR, path, 0, 0, 1, step=1):  # it raises its permission by 1 Wh at each reading
        supply.allow(wh(0), wh(200))
        await until(lambda: supply.read().export == 200)
    assert readings == list(range(1, 201)), "each permission let flow what it allowed, and no more"
    supply.detach()
