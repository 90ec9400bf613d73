"""The simulated meter that signs: what flows through a line arrives in records that verify, over restarts, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.core.errors import BadReading, DeviceError
from penstock.core.meter import Reading, SessionMeter
from penstock.core.ports import Meter
from penstock.core.units import Instant, Quantity
from penstock.gateways.ocmf import OcmfKey, OcmfReadings, OcmfSeal, verify
from penstock.sim.line import LineSupply
from penstock.sim.signing_meter import OcmfSigner, SigningMeter

START = Instant(1_551_425_700_123)


def wh(value: int) -> Quantity:
    return Quantity(value)


def line(path: Path) -> LineSupply:
    return LineSupply(path, 6_600, package=wh(25), clock=lambda: START)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the line flows by timers of its own
            await asyncio.sleep(0.002)


@pytest.mark.asyncio
async def test_what_flows_through_a_line_passes_the_seal_of_a_session(tmp_path: Path) -> None:
    supply = line(tmp_path / "line")
    signing = SigningMeter(supply, tmp_path / "meter")
    meter: Meter = signing
    seal, session = OcmfSeal(OcmfKey.parse(str(signing.key))), SessionMeter(meter.read())
    heard: list[Reading] = []
    meter.watch(heard.append)
    seal.check(session.record, session.total, session.at)
    for total in (25, 50, 75):
        supply.allow(wh(total))
        await until(lambda: meter.read().total == total)  # noqa: B023  # awaited before the next round
    supply.close()
    for reading in heard:
        session.take(reading)
        seal.check(session.record, session.total, session.at)
    assert session.total == 75
    assert meter.read() == heard[-1] == verify(heard[-1].record, signing.key).reading
    signing.close()


@pytest.mark.asyncio
async def test_pages_and_key_go_on_over_a_restart(tmp_path: Path) -> None:
    records: list[bytes] = []
    for total in (25, 50, 75):
        supply = line(tmp_path / "line")
        signing = SigningMeter(supply, tmp_path / "meter")
        records.append(signing.read().record)
        signing.watch(lambda reading: records.append(reading.record))
        supply.allow(wh(total))
        await until(lambda: signing.read().total == total)  # noqa: B023  # awaited before the next round
        supply.detach()
        signing.close()
    readings = OcmfReadings(signing.key)
    assert [readings.take(record).page for record in records] == list(range(1, len(records) + 1))
    assert readings.newest is not None
    assert readings.newest.last.total == 75
    assert (tmp_path / "meter").stat().st_mode & 0o077 == 0


class Hand:
    """A meter that shows what it is told to, and tells it when it is told to."""

    def __init__(self) -> None:
        self.shown = Reading(wh(5), START)
        self.watchers: list[Callable[[Reading], None]] = []

    def read(self) -> Reading:
        return self.shown

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self.watchers.append(on_reading)


def test_reading_it_tells_nobody_and_signs_each_reading_once(tmp_path: Path) -> None:
    """Who reads a meter must not be called back by it."""
    hand, heard = Hand(), list[Reading]()
    meter = SigningMeter(hand, tmp_path / "meter")
    meter.watch(heard.append)
    hand.shown = Reading(wh(6), START)
    signed = meter.read()
    assert meter.read() == signed
    assert (signed.total, verify(signed.record, meter.key).page) == (6, 2)
    assert not heard
    for tell in hand.watchers:
        tell(hand.shown)
    assert heard == [signed]


def test_a_meter_that_falls_is_not_signed(tmp_path: Path) -> None:
    hand = Hand()
    meter = SigningMeter(hand, tmp_path / "meter")
    hand.shown = Reading(wh(4), START)
    with pytest.raises(DeviceError, match="register fell"):
        meter.read()
    meter.close()


@pytest.mark.parametrize("content", [b"x", bytes(40), b"\xff" * 40, bytes(41)])
def test_a_file_that_is_no_meters_memory_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meter").write_bytes(content)
    with pytest.raises(DeviceError, match="no meter's memory"):
        SigningMeter(line(tmp_path / "line"), tmp_path / "meter")
    assert (tmp_path / "meter").read_bytes() == content


def test_a_memory_that_cannot_be_opened_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot open"):
        SigningMeter(line(tmp_path / "line"), tmp_path)


def test_the_same_readings_make_the_same_text() -> None:
    readings = [("B", Reading(wh(1_500), START)), ("E", Reading(wh(2_001), Instant(START + 1)))]
    first, second = OcmfSigner(4711), OcmfSigner(4711)
    assert first.transaction(readings) == second.transaction(readings) != first.transaction(readings)
    found = verify(second.transaction(readings), second.key)
    assert (found.context, found.page, found.meter or found.gateway) == ("T", 2, "PENSTOCK-1")
    assert [(one.reason, one.total, one.at) for one in found.readings] == [("B", 1_500, START), ("E", 2_001, START + 1)]


def test_a_payload_of_any_content_can_be_signed() -> None:
    signer = OcmfSigner(4711)
    with pytest.raises(BadReading, match="no page"):
        verify(signer.sign("{}"), signer.key)
