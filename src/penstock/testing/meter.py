"""What every `core.ports.Meter` and `core.ports.Valve` must do, as checks against any device that is both, or a pair.

Give each check of `METER_CHECKS` a fresh `Flow` (or run them all with `check_meter`):

    @pytest.mark.parametrize("check", METER_CHECKS, ids=lambda check: check.__name__)
    def test_a_device_conforms(check, tmp_path):
        async def run():
            async with my_flow(tmp_path) as flow:
                await check(flow)
        asyncio.run(run())

A check passes, or raises AssertionError with what was not kept. It waits by the event loop's clock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import NamedTuple, Protocol

from penstock.core.meter import Reading, Tolerance
from penstock.core.ports import Meter, Valve
from penstock.core.units import Quantity

PATIENCE = 10.0  # seconds until what must happen counts as missing
QUIET = 0.15  # seconds without a change until a flow counts as at rest
LOOK = 0.005  # seconds between looks
MANY = 10**7  # steps: more than flows in any of these checks


class Device(NamedTuple):
    """The supplier's meter and valve, and the meter of the consumer of the same flow, where it has one."""

    meter: Meter
    valve: Valve
    other: Meter | None = None


class Flow(Protocol):
    """Something that takes all that a valve lets through, without end, as long as this stands."""

    step: int  # units of the medium: a quantity that flows in well under a second
    tolerance: Tolerance  # how far the consumer's meter may be from the supplier's at rest

    async def open(self) -> Device:
        """The supplier's process starts, with the register as the last one left it."""
        ...

    async def end(self) -> None:
        """The supplier's process is gone."""
        ...


Check = Callable[[Flow], Awaitable[None]]


# What the checks share


async def _reached(meter: Meter, total: int) -> None:
    """Wait until the meter shows that much."""
    try:
        async with asyncio.timeout(PATIENCE):
            while meter.read().total < total:  # noqa: ASYNC110 - what is awaited may be another process's
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise AssertionError(f"only {meter.read().total} of {total} flowed in {PATIENCE:g} s") from None


async def _at_rest(meter: Meter) -> int:
    """The total, once nothing flows."""
    try:
        async with asyncio.timeout(PATIENCE):
            total = meter.read().total
            while True:
                await asyncio.sleep(QUIET)
                if total == (total := meter.read().total):
                    return total
    except TimeoutError:
        raise AssertionError("something flows on") from None


# The checks


async def nothing_flows_before_it_is_allowed(flow: Flow) -> None:
    """A valve begins shut."""
    meter = (await flow.open()).meter
    before = meter.read().total
    await asyncio.sleep(QUIET)
    assert meter.read().total == before, f"{meter.read().total - before} flowed through a valve that nobody opened"


async def no_more_flows_than_was_allowed(flow: Flow) -> None:
    """And all of that, to the unit; again and again."""
    meter, valve, _ = await flow.open()
    base = meter.read().total
    for steps in (1, 2, 5):
        total = base + steps * flow.step
        valve.allow(Quantity(total))
        await _reached(meter, total)
        assert await _at_rest(meter) == total, f"{meter.read().total} flowed where {total} was allowed"


async def what_has_flowed_is_not_allowed_again(flow: Flow) -> None:
    """A total that was reached allows nothing, and takes nothing back."""
    meter, valve, _ = await flow.open()
    total = meter.read().total + 3 * flow.step
    valve.allow(Quantity(total))
    await _reached(meter, total)
    valve.allow(Quantity(total - flow.step))
    assert await _at_rest(meter) == total, "a total that was reached already let something flow"


async def nothing_flows_through_a_closed_valve(flow: Flow) -> None:
    """From the moment of the call, whatever was allowed; until more is allowed."""
    meter, valve, _ = await flow.open()
    base = meter.read().total
    valve.allow(Quantity(base + MANY * flow.step))
    await _reached(meter, base + flow.step)
    valve.close()
    total = meter.read().total
    assert await _at_rest(meter) == total, f"{meter.read().total - total} flowed through a closed valve"
    valve.allow(Quantity(total + flow.step))
    await _reached(meter, total + flow.step)


async def the_total_outlives_its_process(flow: Flow) -> None:
    """It goes on where it stood, with the valve shut; its clock does not go back."""
    meter, valve, _ = await flow.open()
    base = meter.read().total
    valve.allow(Quantity(base + 3 * flow.step))
    await _reached(meter, base + 3 * flow.step)
    before = meter.read()
    await flow.end()
    meter, valve, _ = await flow.open()
    after = meter.read()
    assert after.total == before.total, f"a meter that showed {before.total} shows {after.total} after a restart"
    assert after.at >= before.at, "a meter's clock went back over a restart"
    assert await _at_rest(meter) == before.total, "something flows after a restart that nobody allowed"
    valve.allow(Quantity(before.total + flow.step))
    await _reached(meter, before.total + flow.step)


async def nothing_flows_once_the_process_is_gone(flow: Flow) -> None:
    """Even where it was gone in the middle of an allowance."""
    meter, valve, other = await flow.open()
    base = meter.read().total
    valve.allow(Quantity(base + MANY * flow.step))
    await _reached(meter, base + flow.step)
    await flow.end()
    if other is not None:
        await _at_rest(other)
    meter, _, _ = await flow.open()
    total = meter.read().total
    assert base + flow.step <= total < base + MANY * flow.step, f"the total is {total} after a restart"
    assert await _at_rest(meter) == total, "an allowance outlived its process"


async def readings_come_from_the_event_loop_and_never_go_back(flow: Flow) -> None:
    """To every watcher, never from within `watch`; the last of them is where the flow stopped."""
    meter, valve, _ = await flow.open()
    first: list[Reading] = []
    second: list[Reading] = []
    threads: set[int] = set()

    def on_reading(reading: Reading) -> None:
        first.append(reading)
        threads.add(threading.get_ident())

    meter.watch(on_reading)
    meter.watch(second.append)
    assert not first, "a reading came from within watch"
    base = meter.read().total
    total = base + 5 * flow.step
    for steps in range(1, 6):
        valve.allow(Quantity(base + steps * flow.step))
        await _reached(meter, base + steps * flow.step)
    await _at_rest(meter)
    assert first, "no reading came"
    assert first == second, "two watchers heard different readings"
    assert threads == {threading.get_ident()}, "a reading came from another thread"
    for last, reading in pairwise(first):
        assert reading.total >= last.total, f"the total fell from {last.total} to {reading.total}"
        assert reading.at >= last.at, "the meter's clock went back"
    assert first[-1].total == total, f"the last reading says {first[-1].total}, and {total} flowed"


async def both_meters_agree_at_rest(flow: Flow) -> None:
    """Within what is tolerated, the consumer's meter counts what the supplier's does."""
    meter, valve, other = await flow.open()
    if other is None:
        return
    base, here = meter.read().total, other.read().total
    for steps in (1, 3, 7):
        total = base + steps * flow.step
        valve.allow(Quantity(total))
        await _reached(meter, total)
        apart = flow.tolerance.at(total - base)
        await _reached(other, here + total - base - apart)
        assert await _at_rest(other) <= here + total - base + apart, "the consumer's meter counts more than flowed"


METER_CHECKS: tuple[Check, ...] = (
    nothing_flows_before_it_is_allowed,
    no_more_flows_than_was_allowed,
    what_has_flowed_is_not_allowed_again,
    nothing_flows_through_a_closed_valve,
    the_total_outlives_its_process,
    nothing_flows_once_the_process_is_gone,
    readings_come_from_the_event_loop_and_never_go_back,
    both_meters_agree_at_rest,
)


async def check_meter(new_flow: Callable[[], AbstractAsyncContextManager[Flow]]) -> None:
    """Run every check, each on a fresh device."""
    for check in METER_CHECKS:
        async with new_flow() as flow:
            await check(flow)
