"""What a car allows: heard at once, void without its process, and nothing where the files are not a car's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.core.errors import DeviceError
from penstock.sim.permit import Permit, Permits


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited is an event of the loop's
            await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_what_the_car_allows_is_called_and_read(tmp_path: Path) -> None:
    permit, calls = Permit(tmp_path / "line"), list[tuple[int, int]]()
    permits = Permits(tmp_path / "line", lambda: calls.append(permits.look()))
    assert permits.look() == (0, 0)
    assert permits.here
    for count, totals in enumerate([(5, 0), (5, 7), (0, 0)], start=1):
        permit.set(*totals)
        await until(lambda: len(calls) == count)  # noqa: B023  # awaited before the next round
        assert calls[-1] == totals
    permits.close()


@pytest.mark.asyncio
async def test_nobody_who_listens_is_in_the_way_of_a_car_that_calls(tmp_path: Path) -> None:
    permit = Permit(tmp_path / "line")
    for total in range(100_000):  # more than a FIFO holds
        permit.set(total, 0)
    permits = Permits(tmp_path / "line", lambda: None)
    assert permits.look() == (99_999, 0)
    permits.close()
    permit.close()


@pytest.mark.asyncio
async def test_the_end_of_the_car_is_called_and_voids_what_it_allowed(tmp_path: Path) -> None:
    permit, calls = Permit(tmp_path / "line"), list[tuple[int, int]]()
    permits = Permits(tmp_path / "line", lambda: calls.append(permits.look()))
    permit.set(5, 5)
    assert permits.look() == (5, 5)
    os.close(permit._call)  # as where its process is killed: nothing was written before
    await until(lambda: bool(calls))
    assert calls == [(0, 0)]
    assert not permits.here
    assert permits.look() == (0, 0)
    permit._register.close()
    again = Permit(tmp_path / "line")
    assert permits.look() == (0, 0), "what it allowed before is void"
    again.set(6, 0)
    assert permits.look() == (6, 0)
    permits.close()
    again.close()


@pytest.mark.asyncio
async def test_a_line_has_one_car(tmp_path: Path) -> None:
    first = Permit(tmp_path / "line")
    first.set(3, 4)
    with pytest.raises(DeviceError, match="has a car already"):
        Permit(tmp_path / "line")
    permits = Permits(tmp_path / "line", lambda: None)
    assert permits.look() == (3, 4), "whoever was refused has changed nothing"
    permits.close()
    first.close()
    Permit(tmp_path / "line").close()


@pytest.mark.asyncio
async def test_where_no_car_ever_was_nothing_is_allowed(tmp_path: Path) -> None:
    assert Permits(tmp_path / "line", lambda: None).look() == (0, 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 192, b"PENSLINE\1" + b"\xff" * 192])
@pytest.mark.asyncio
async def test_a_file_that_is_no_permission_allows_nothing_and_is_told_once(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    permit, permits = Permit(tmp_path / "line"), Permits(tmp_path / "line", lambda: None)
    permit.set(5, 5)
    (tmp_path / "line.car").write_bytes(content)
    for _ in range(3):
        assert permits.look() == (0, 0)
    assert len(caplog.records) == 1
    permit.close()


@pytest.mark.asyncio
async def test_a_call_that_is_no_fifo_is_refused_by_the_car_and_allows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Permit(tmp_path / "line").close()
    (tmp_path / "line.call").unlink()
    (tmp_path / "line.call").write_bytes(b"!")
    with pytest.raises(DeviceError, match="is no FIFO") as caught:
        Permit(tmp_path / "line")
    assert caught.value.advice
    assert Permits(tmp_path / "line", lambda: None).look() == (0, 0)
    assert "is no FIFO" in caplog.text
    (tmp_path / "line.call").unlink()
    Permit(tmp_path / "line").close()
