"""The simulated line: no more flows than is allowed, the register outlives its process, and faults are told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from penstock.core.errors import DeviceError, UsageError
from penstock.core.meter import Reading
from penstock.core.ports import Meter, Valve
from penstock.core.units import Instant, Quantity
from penstock.sim.line import LineMeter, LineSupply
from penstock.sim.register import Register

START = Instant(1_551_425_700_000)
HOUR = 3_600_000


def wh(value: int) -> Quantity:
    return Quantity(value)


def pole(
    path: Path, power_w: int = 6_600, speed: float | None = None, package: int = 25, limit: int = 2**60
) -> LineSupply:
    return LineSupply(path, power_w, speed, package=wh(package), limit=wh(limit), clock=lambda: START)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is awaited happens in another process, or in no event of ours
            await asyncio.sleep(0.002)


def test_the_ends_are_a_meter_and_a_valve(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line")
    valve: Valve = supply
    meters: list[Meter] = [supply, LineMeter(tmp_path / "line")]
    assert [meter.read() for meter in meters] == [Reading(wh(0), START)] * 2
    valve.close()


@pytest.mark.asyncio
async def test_at_full_speed_what_is_allowed_flows_at_once_on_the_lines_own_clock(tmp_path: Path) -> None:
    supply, meter = pole(tmp_path / "line"), LineMeter(tmp_path / "line")
    readings: list[Reading] = []
    supply.watch(readings.append)
    for total in (25, 50, 6_600):
        supply.allow(wh(total))
        assert supply.read().total < total, "watchers are called from the loop, not from within allow"
        await until(lambda: supply.read().total == total)  # noqa: B023  # awaited before the next round
    assert [reading.total for reading in readings] == [25, 50, 6_600]
    assert [reading.at - START for reading in readings] == [13_636, 27_272, HOUR]
    assert meter.read() == readings[-1]
    assert supply.power() == 0


@pytest.mark.asyncio
async def test_an_endless_allowance_at_full_speed_leaves_others_their_turn_and_stops(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line")
    supply.allow(wh(2**63 - 1))
    await until(lambda: supply.read().total > 50_000)
    supply.close()
    total = supply.read().total
    await asyncio.sleep(0.02)
    assert supply.read().total == total


@pytest.mark.asyncio
async def test_nothing_flows_through_a_closed_valve(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=100)
    supply.close()
    await asyncio.sleep(0.02)
    assert supply.read().total == 0
    supply.allow(wh(100))
    supply.close()
    await asyncio.sleep(0.02)
    assert supply.read().total <= 18, "no more than flowed in between: 18 Wh are 98 ms"
    assert supply.power() == 0


@pytest.mark.asyncio
async def test_flow_follows_time_scaled_by_the_speed(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=3_600, package=66)  # 6.6 kWh a second: a package each 10 ms
    readings: list[Reading] = []
    supply.watch(readings.append)
    began = asyncio.get_running_loop().time()
    supply.allow(wh(3_300))
    assert supply.power() == 6_600
    await until(lambda: supply.read().total == 3_300)
    took = asyncio.get_running_loop().time() - began
    assert 0.49 <= took < 1.5
    assert readings[-1].total == 3_300
    assert abs(readings[-1].at - START - HOUR // 2) <= 3_600, "a millisecond is 3.6 s on this clock"
    totals = [reading.total for reading in readings]
    assert totals == sorted(set(totals))
    assert 20 <= len(totals) <= 50
    for reading in readings:
        assert abs((reading.at - START) * 6_600 / HOUR - reading.total) < 10, "power times time is energy"


@pytest.mark.asyncio
async def test_no_more_flows_than_is_allowed_however_late_the_pole_wakes(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=3_600)
    supply.allow(wh(100))
    time.sleep(0.1)  # noqa: ASYNC251  # the loop is held up for what would be 660 Wh
    await until(lambda: supply.read().total == 100)
    await asyncio.sleep(0.01)
    supply.allow(wh(101))
    await until(lambda: supply.read().total == 101)
    time.sleep(0.1)  # noqa: ASYNC251  # a stall earns no credit for later
    supply.allow(wh(10**6))
    supply.close()
    assert supply.read().total <= 101 + 330


@pytest.mark.asyncio
async def test_raising_the_allowance_in_time_never_interrupts_the_flow(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=3_600, package=33)
    supply.watch(lambda reading: supply.allow(wh(min(reading.total + 660, 3_300))))
    began = asyncio.get_running_loop().time()
    supply.allow(wh(660))
    await until(lambda: supply.read().total == 3_300)
    assert asyncio.get_running_loop().time() - began < 0.7
    assert abs(supply.read().at - START - HOUR // 2) < HOUR / 10


@pytest.mark.asyncio
async def test_lowering_the_allowance_below_the_total_stops_the_flow(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=3_600)
    supply.allow(wh(10_000))
    await until(lambda: supply.read().total >= 50)
    supply.allow(wh(1))
    total = supply.read().total
    await asyncio.sleep(0.03)
    assert supply.read().total == total
    assert supply.power() == 0


@pytest.mark.asyncio
async def test_what_flowed_before_the_valve_closed_is_told(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line", speed=3_600, package=10_000)
    readings: list[Reading] = []
    supply.watch(readings.append)
    supply.allow(wh(10_000))
    await asyncio.sleep(0.03)
    supply.close()
    total = supply.read().total
    assert total > 0
    assert readings == []
    await until(lambda: bool(readings))
    assert [reading.total for reading in readings] == [supply.read().total]


@pytest.mark.asyncio
async def test_a_full_car_draws_no_more(tmp_path: Path) -> None:
    for name, speed in (("fast", None), ("timed", 10_000.0)):
        supply = pole(tmp_path / name, speed=speed, limit=130)
        readings: list[Reading] = []
        supply.watch(readings.append)
        supply.allow(wh(10_000))
        await until(lambda: bool(readings) and readings[-1].total == 130)  # noqa: B023  # awaited before the next round
        assert supply.power() == 0
        supply.allow(wh(20_000))
        await asyncio.sleep(0.01)
        assert supply.read().total == 130


@pytest.mark.asyncio
async def test_the_line_goes_on_where_it_stood(tmp_path: Path) -> None:
    first = pole(tmp_path / "line")
    first.allow(wh(1_000))
    await until(lambda: first.read().total == 1_000)
    stood = first.read()
    first.detach()
    with pytest.raises(DeviceError, match="let go"):
        first.allow(wh(2_000))
    second = pole(tmp_path / "line")
    assert second.read() == stood, "neither the total nor the clock goes back"
    second.allow(wh(1_100))
    await until(lambda: second.read().total == 1_100)
    assert second.read().at == stood.at + 100 * HOUR // 6_600


POLE = """
import asyncio, sys
from pathlib import Path
from penstock.sim.line import LineSupply
async def main():
    supply = LineSupply(Path(sys.argv[1]), 6600, 3600, package=10)
    supply.allow(10**9)
    print("flowing", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def flowing_pole(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", POLE, str(tmp_path / "line")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"flowing\n"
        yield process
        process.kill()


@pytest.mark.asyncio
async def test_a_killed_pole_leaves_the_register_and_no_flow(
    tmp_path: Path, flowing_pole: subprocess.Popen[bytes]
) -> None:
    path = tmp_path / "line"
    meter = LineMeter(path)
    readings: list[Reading] = []
    meter.watch(readings.append)
    await until(lambda: meter.read().total > 200)
    assert meter.power() == 6_600
    flowing_pole.kill()
    flowing_pole.wait()
    stood = meter.read()
    await asyncio.sleep(0.1)
    assert meter.read() == stood
    await until(lambda: readings[-1] == stood)
    await until(lambda: meter.power() == 0)
    supply = LineSupply(path, 6_600, 3_600, package=wh(10))
    assert supply.read().total == stood.total
    assert supply.read().at >= stood.at
    supply.allow(wh(stood.total + 10))
    await until(lambda: meter.read().total == stood.total + 10)
    meter.detach()


def test_many_readings_a_second_cost_little(tmp_path: Path) -> None:
    async def flow() -> tuple[int, float]:
        supply = pole(tmp_path / "line", speed=10_000, package=36)  # a package each 1.96 ms: 509 a second
        count = 0

        def on_reading(_: Reading) -> None:
            nonlocal count
            count += 1

        supply.watch(on_reading)
        began = time.process_time()
        supply.allow(wh(10**9))
        await asyncio.sleep(1)
        supply.detach()
        return count, time.process_time() - began

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        count, cpu = runner.run(flow())
    assert count > 150, "the machine may be busy; some 500 is what it gives alone"
    assert cpu / count < 0.001


@pytest.mark.asyncio
async def test_the_car_sees_each_change_soon(tmp_path: Path) -> None:
    supply, meter = pole(tmp_path / "line"), LineMeter(tmp_path / "line")
    readings: list[Reading] = []
    meter.watch(readings.append)
    for total in (25, 50):
        supply.allow(wh(total))
        await until(lambda: bool(readings) and readings[-1].total == total, seconds=1)  # noqa: B023  # awaited
    assert [reading.total for reading in readings] == [25, 50]
    meter.detach()
    supply.allow(wh(75))
    await asyncio.sleep(0.1)
    assert len(readings) == 2


@pytest.mark.asyncio
async def test_a_meter_may_deviate(tmp_path: Path) -> None:
    supply = pole(tmp_path / "line")
    fast, slow = (LineMeter(tmp_path / "line", error_ppm=ppm) for ppm in (20_000, -20_000))
    supply.allow(wh(1_000))
    await until(lambda: supply.read().total == 1_000)
    assert (fast.read().total, slow.read().total) == (1_020, 980)


@pytest.mark.asyncio
async def test_a_stuck_meter_shows_no_more(tmp_path: Path) -> None:
    supply, meter = pole(tmp_path / "line"), LineMeter(tmp_path / "line", stuck_at=wh(60))
    supply.allow(wh(50))
    await until(lambda: meter.read().total == 50)
    supply.allow(wh(100))
    await until(lambda: supply.read().total == 100)
    assert meter.read().total == 60


@pytest.mark.asyncio
async def test_a_meter_that_falls_is_told_and_stays_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    supply, meter = pole(tmp_path / "line"), LineMeter(tmp_path / "line", falls_at=wh(100))
    readings: list[Reading] = []
    meter.watch(readings.append)
    supply.allow(wh(99))
    await until(lambda: bool(readings))
    supply.allow(wh(100))
    await until(lambda: "fell from 99 to 50" in caplog.text)
    for _ in range(2):
        with pytest.raises(DeviceError, match="fell from 99 to 50 Wh"):
            meter.read()
    assert [reading.total for reading in readings] == [99]


@pytest.mark.asyncio
async def test_a_line_that_is_lost_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "line"
    with pytest.raises(DeviceError, match="there is no power line"):
        LineMeter(path)
    Register.write_end(path).close()
    meter = LineMeter(path)
    meter.watch(lambda reading: None)
    path.write_bytes(b"")
    await until(lambda: "not set up" in caplog.text)
    with pytest.raises(DeviceError):
        meter.power()
    path.write_bytes(b"something else" * 20)
    with pytest.raises(DeviceError, match="is no power line"):
        pole(path)


@pytest.mark.parametrize(
    ("power", "speed", "package"),
    [
        (0, None, 1),
        (-1, None, 1),
        (10**10, None, 1),
        (1, 0, 1),
        (1, -1, 1),
        (1, float("nan"), 1),
        (1, float("inf"), 1),
        (1, 1, 0),
    ],
)
def test_a_line_of_absurd_numbers_is_refused(tmp_path: Path, power: int, speed: float | None, package: int) -> None:
    with pytest.raises(UsageError):
        pole(tmp_path / "line", power, speed, package)
    assert not (tmp_path / "line").exists()
    Register.write_end(tmp_path / "line").close()
    with pytest.raises(UsageError):
        LineMeter(tmp_path / "line", error_ppm=-1_000_000)


@pytest.mark.asyncio
async def test_the_clock_of_a_line_at_rest_goes_on_at_both_ends(tmp_path: Path) -> None:
    supply, meter = pole(tmp_path / "line", speed=3_600), LineMeter(tmp_path / "line")
    supply.allow(wh(10))
    await until(lambda: supply.read().total == 10)
    supply.close()
    began = supply.read().at
    await until(lambda: supply.read().at > began + HOUR // 2)
    await until(lambda: meter.read().at > began + HOUR // 2)
    assert (supply.read().total, meter.read().total) == (10, 10)
    for _ in range(20):  # what the pole announces now, the car's meter has reached
        await asyncio.sleep(0.001)
        assert supply.read().at <= meter.read().at
