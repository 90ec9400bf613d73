"""One clock for many sessions: each hears of the time, evenly spread, and none keeps another from it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from penstock.node import beat
from penstock.node.beat import SLICES, Beat
from penstock.node.collector import MANY, Collector
from penstock.node.tasks import Tasks

from .world import until

pytestmark = pytest.mark.asyncio


class Listener:
    """What the clock sees of a session."""

    def __init__(self, fault: bool = False) -> None:
        self.heard: list[float] = []
        self.over = False
        self._fault = fault

    def on_time(self) -> None:
        self.heard.append(asyncio.get_running_loop().time())
        if self._fault:
            raise RuntimeError("broken")


async def test_each_session_hears_of_the_time_once_a_beat_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat, "BEAT", 0.4)
    tasks = Tasks()
    clock, listeners = Beat(tasks), [Listener() for _ in range(3 * SLICES)]
    for one in listeners:
        clock.add(one)  # type: ignore[arg-type]  # all that it needs
    await until(lambda: all(len(one.heard) >= 3 for one in listeners))
    counts = [len(one.heard) for one in listeners]
    assert max(counts) - min(counts) <= 1
    first = sorted(one.heard[0] for one in listeners)
    together = max(sum(begun <= at < begun + 0.005 for at in first) for begun in first)
    assert together <= len(listeners) // 2, "a share of the sessions at a time"
    await tasks.cancel()


async def test_a_session_that_fails_stops_no_other_clock_and_one_that_is_over_hears_no_more() -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    tasks = Tasks()
    clock, broken, over, well = Beat(tasks), Listener(fault=True), Listener(), Listener()
    over.over = True
    for one in (broken, over, well):
        clock.add(one)  # type: ignore[arg-type]
    await until(lambda: len(well.heard) >= 3)
    assert len(broken.heard) >= 2
    assert len(faults) == len(broken.heard)
    assert len(over.heard) == 1
    broken.over = well.over = True
    await until(lambda: not tasks._tasks, "the clock runs on for nobody")
    clock.add(Listener())  # type: ignore[arg-type]
    await until(lambda: len(tasks._tasks) == 1)
    await tasks.cancel()


async def test_the_collector_is_kept_off_what_stays_and_gets_it_back() -> None:
    collector, before = Collector(), gc.get_freeze_count()
    kept = [[number] for number in range(1_000)]
    collector.running(MANY)
    assert gc.get_freeze_count() == before
    collector.running(MANY + 1)
    hidden = gc.get_freeze_count()
    assert hidden >= before + len(kept)
    collector.running(MANY + 50)
    assert gc.get_freeze_count() <= hidden
    collector.running(MANY // 3)
    assert gc.get_freeze_count() == 0
