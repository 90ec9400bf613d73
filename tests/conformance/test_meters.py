"""Every meter and valve, the simulation's too, is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.sim.virtual import VirtualLoop
from penstock.testing import two_way
from penstock.testing.meter import METER_CHECKS, Check
from penstock.testing.two_way import TWO_WAY_CHECKS

from .flows import CableFlow, DataFlow, GaugeFlow, LineFlow, SigningFlow, TwoWayCable, TwoWayLine

Play = Callable[[Path, Check], None]


def _line(flow: LineFlow, check: Check) -> None:
    async def play() -> None:
        try:
            await check(flow)
        finally:
            await flow.stop()

    asyncio.run(play())


def full_speed(directory: Path, check: Check) -> None:
    _line(LineFlow(directory), check)


def at_a_speed(directory: Path, check: Check) -> None:
    _line(LineFlow(directory, speed=200_000), check)


def signing(directory: Path, check: Check) -> None:
    _line(SigningFlow(directory), check)


def gauge(directory: Path, check: Check) -> None:
    _line(GaugeFlow(directory), check)


def cable(directory: Path, check: Check) -> None:
    loop = VirtualLoop()

    async def play() -> None:
        flow = CableFlow(loop)
        await check(flow)
        await flow.end()

    loop.run(play())


def data(directory: Path, check: Check) -> None:
    async def play() -> None:
        flow = DataFlow(directory)
        try:
            await check(flow)
        finally:
            await flow.stop()

    asyncio.run(play())


DEVICES: dict[str, Play] = {
    "LineSupply, LineMeter at full speed": full_speed,
    "LineSupply, LineMeter at a speed": at_a_speed,
    "SigningMeter, OcmfMeter": signing,
    "Gauge": gauge,
    "Socket, CarMeter": cable,
    "DataSupply, DataMeter": data,
}


@pytest.mark.parametrize("check", METER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("device", DEVICES)
def test_a_device_conforms(device: str, check: Check, tmp_path: Path) -> None:
    DEVICES[device](tmp_path, check)


@pytest.mark.parametrize("check", TWO_WAY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("speed", [None, 200_000], ids=["at full speed", "at a speed"])
def test_a_device_for_both_ways_conforms(speed: float | None, check: two_way.Check, tmp_path: Path) -> None:
    async def play() -> None:
        flow = TwoWayLine(tmp_path, speed)
        try:
            await check(flow)
        finally:
            await flow.end()
            await flow.leave()

    asyncio.run(play())


@pytest.mark.parametrize("check", TWO_WAY_CHECKS, ids=lambda check: check.__name__)
def test_the_simulations_cable_conforms_both_ways(check: two_way.Check) -> None:
    loop = VirtualLoop()
    loop.run(check(TwoWayCable(loop)))
