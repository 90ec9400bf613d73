"""Virtual time passes only where everybody waits, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.sim.virtual import Deadlock, VirtualLoop


def test_a_year_passes_at_once() -> None:
    loop, began = VirtualLoop(), time.monotonic()

    async def wait() -> None:
        await asyncio.gather(asyncio.sleep(365 * 86_400), asyncio.sleep(3))

    loop.run(wait())
    assert loop.time() == pytest.approx(365 * 86_400)
    assert time.monotonic() - began < 5


def test_waiting_for_what_never_comes_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        VirtualLoop().run(wait())


def test_a_loop_that_never_ends_is_an_error() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - that is what is tested
            await asyncio.sleep(0)

    with pytest.raises(Deadlock):
        VirtualLoop().run(spin())


def test_what_a_step_raises_ends_the_run() -> None:
    loop = VirtualLoop()

    def fail() -> None:
        if loop.time() > 5:
            raise AssertionError("six")

    async def wait() -> None:
        for _ in range(10):
            await asyncio.sleep(1)

    loop.on_step = fail
    with pytest.raises(AssertionError, match="six"):
        loop.run(wait())
    assert loop.time() <= 7
