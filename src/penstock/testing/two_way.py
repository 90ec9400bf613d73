"""What devices through which the flow may go either way must do: two meters, a `core.ports.TwoWayValve` at each end.

Used as `penstock.testing.meter` is: give each check of `TWO_WAY_CHECKS` a fresh `TwoWayFlow`, or run them all with
`check_two_way`. Where the supplier's end is a `core.ports.Throttle`, that is checked, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from typing import NamedTuple, Protocol

from penstock.core.meter import Reading, Tolerance
from penstock.core.ports import Meter, Throttle, TwoWayValve
from penstock.core.units import Quantity
from penstock.testing.meter import LOOK, MANY, PATIENCE, QUIET


class Ends(NamedTuple):
    """The supplier's meter and valve, the consumer's, and the supplier's throttle, where it has one."""

    meter: Meter
    valve: TwoWayValve
    other: Meter
    other_valve: TwoWayValve
    throttle: Throttle | None = None


class TwoWayFlow(Protocol):
    """Something that takes, and gives, all that both valves let through, without end, as long as this stands."""

    step: int  # units of the medium: a quantity that flows in well under a second
    tolerance: Tolerance  # how far the consumer's meter may be from the supplier's at rest

    async def open(self) -> Ends:
        """The processes start that are not there, with the registers as the last ones left them."""
        ...

    async def end(self) -> None:
        """The supplier's process is gone."""
        ...

    async def leave(self) -> None:
        """The consumer's process is gone."""
        ...


Check = Callable[[TwoWayFlow], Awaitable[None]]
Totals = tuple[int, int]


# What the checks share


def _totals(meter: Meter) -> Totals:
    reading = meter.read()
    return reading.total, reading.export


def _more(totals: Totals, total: int = 0, export: int = 0) -> tuple[Quantity, Quantity]:
    return Quantity(totals[0] + total), Quantity(totals[1] + export)


async def _reached(meter: Meter, total: int, export: int) -> None:
    """Wait until the meter shows that much, either way."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (meter.read().total >= total and meter.read().export >= export):  # noqa: ASYNC110 - another's
                await asyncio.sleep(LOOK)
    except TimeoutError:
        raise AssertionError(f"only {_totals(meter)} of {total, export} flowed in {PATIENCE:g} s") from None


async def _at_rest(meter: Meter) -> Totals:
    """The totals, once nothing flows."""
    try:
        async with asyncio.timeout(PATIENCE):
            totals = _totals(meter)
            while True:
                await asyncio.sleep(QUIET)
                if totals == (totals := _totals(meter)):
                    return totals
    except TimeoutError:
        raise AssertionError("something flows on") from None


def _allow(ends: Ends, totals: tuple[Quantity, Quantity]) -> None:
    """Both sides allow the same, for a consumer's meter that counts as the supplier's does."""
    ends.valve.allow(*totals)
    ends.other_valve.allow(*totals)


# The checks


async def nothing_flows_that_only_one_side_allows(flow: TwoWayFlow) -> None:
    """Either way; from the very start."""
    ends = await flow.open()
    base = _totals(ends.meter)
    await asyncio.sleep(QUIET)
    assert _totals(ends.meter) == base, "something flowed that nobody allowed"
    ends.valve.allow(*_more(base, MANY * flow.step, MANY * flow.step))
    assert await _at_rest(ends.meter) == base, "something flowed that the consumer has not allowed"
    ends.valve.close()
    ends.other_valve.allow(*_more(base, MANY * flow.step, MANY * flow.step))
    assert await _at_rest(ends.meter) == base, "something flowed that the supplier has not allowed"


async def what_flows_is_what_both_allow(flow: TwoWayFlow) -> None:
    """To the unit, whichever side allows less, whichever allows it last."""
    ends = await flow.open()
    for ours, theirs in ((1, 4), (6, 2), (3, 3)):
        for way in (0, 1):
            base = _totals(ends.meter)
            mine, other, least = [
                (n * (1 - way) * flow.step, n * way * flow.step) for n in (ours, theirs, min(ours, theirs))
            ]
            if ours < theirs:
                ends.valve.allow(*_more(base, *mine))
                ends.other_valve.allow(*_more(base, *other))
            else:
                ends.other_valve.allow(*_more(base, *other))
                ends.valve.allow(*_more(base, *mine))
            goal = _more(base, *least)
            await _reached(ends.meter, *goal)
            assert await _at_rest(ends.meter) == goal, f"{_totals(ends.meter)} flowed where {goal} was allowed"


async def the_flow_turns_round_and_back(flow: TwoWayFlow) -> None:
    """Each register counts its own way and never falls; one at a time; both meters and all watchers agree."""
    ends = await flow.open()
    readings: list[Reading] = []
    ends.meter.watch(readings.append)
    base = goal = _totals(ends.meter)
    here = _totals(ends.other)
    for total, export in ((3, 0), (0, 5), (2, 0), (0, 1)):
        goal = _more(goal, total * flow.step, export * flow.step)
        _allow(ends, goal)
        await _reached(ends.meter, *goal)
    assert await _at_rest(ends.meter) == goal, f"{_totals(ends.meter)} flowed where {goal} was allowed"
    await _reached_within(ends.other, here, base, goal, flow.tolerance)
    assert readings, "no reading came"
    for last, reading in pairwise(readings):
        assert reading.total >= last.total, f"the import register fell from {last.total} to {reading.total}"
        assert reading.export >= last.export, f"the export register fell from {last.export} to {reading.export}"
        assert reading.at >= last.at, "the meter's clock went back"
    assert (readings[-1].total, readings[-1].export) == goal, f"the last reading says {readings[-1]}, {goal} flowed"


async def _reached_within(other: Meter, here: Totals, base: Totals, goal: Totals, tolerance: Tolerance) -> None:
    apart = [tolerance.at(after - before) for before, after in zip(base, goal, strict=True)]
    moved = [after - before for before, after in zip(base, goal, strict=True)]
    await _reached(other, here[0] + moved[0] - apart[0], here[1] + moved[1] - apart[1])
    for shown, before, much, more in zip(await _at_rest(other), here, moved, apart, strict=True):
        assert shown - before <= much + more, "the consumer's meter counts more than flowed"


async def import_goes_before_export(flow: TwoWayFlow) -> None:
    """Where both registers may run on, the export register stands still until the other has reached its end."""
    ends = await flow.open()
    readings: list[Reading] = []
    ends.meter.watch(readings.append)
    base = _totals(ends.meter)
    goal = _more(base, 4 * flow.step, 4 * flow.step)
    _allow(ends, goal)
    await _reached(ends.meter, *goal)
    for reading in readings:
        assert reading.export == base[1] or reading.total == goal[0], f"both ways at once: {reading}"


async def either_side_stops_the_flow_either_way(flow: TwoWayFlow) -> None:
    """Its own valve is enough; and what flowed until then is counted."""
    ends = await flow.open()
    for valve in (ends.valve, ends.other_valve):
        for way in (0, 1):
            base = _totals(ends.meter)
            much = MANY * flow.step
            _allow(ends, _more(base, much * (1 - way), much * way))
            await _reached(ends.meter, *_more(base, flow.step * (1 - way), flow.step * way))
            valve.close()
            rest = await _at_rest(ends.meter)
            assert rest[way] < base[way] + much, "a closed valve did not stop the flow"
            ends.valve.allow(*_more(rest, flow.step, flow.step))
            if valve is ends.other_valve:
                assert await _at_rest(ends.meter) == rest, "something flowed through the consumer's closed valve"
            ends.valve.close()


async def nothing_flows_without_the_consumers_process(flow: TwoWayFlow) -> None:
    """Not out of it, nor into it, whatever it had allowed; once it is back, it allows anew."""
    ends = await flow.open()
    for way in (0, 1):
        base = _totals(ends.meter)
        much = _more(base, MANY * flow.step * (1 - way), MANY * flow.step * way)
        _allow(ends, much)
        await _reached(ends.meter, *_more(base, flow.step * (1 - way), flow.step * way))
        await flow.leave()
        rest = await _at_rest(ends.meter)
        assert rest[way] < much[way], "all of it flowed out of a consumer that was gone"
        ends.valve.allow(*much)
        assert await _at_rest(ends.meter) == rest, "something flows through a consumer that is gone"
        ends = await flow.open()
        assert await _at_rest(ends.meter) == rest, "what a process allowed outlived it"
        goal = _more(rest, flow.step * (1 - way), flow.step * way)
        _allow(ends, goal)
        await _reached(ends.meter, *goal)
        assert await _at_rest(ends.meter) == goal


async def both_registers_outlive_the_suppliers_process(flow: TwoWayFlow) -> None:
    """They go on where they stood, with the valve shut."""
    ends = await flow.open()
    goal = _more(_totals(ends.meter))
    for total, export in ((2, 0), (0, 1)):
        goal = _more(goal, total * flow.step, export * flow.step)
        _allow(ends, goal)
        await _reached(ends.meter, *goal)
    ends.other_valve.allow(*_more(goal, MANY * flow.step, MANY * flow.step))
    await flow.end()
    ends = await flow.open()
    assert _totals(ends.meter) == goal, f"a meter that showed {goal} shows {_totals(ends.meter)} after a restart"
    assert await _at_rest(ends.meter) == goal, "something flows after a restart that nobody allowed"


async def a_throttle_holds_each_way_for_itself(flow: TwoWayFlow) -> None:
    """0 stops that way and the other flows; None lets it go on, by what is allowed still."""
    ends = await flow.open()
    if ends.throttle is None:
        return
    for way in (0, 1):
        base = _totals(ends.meter)
        ends.throttle.limit(*((0, None) if way == 0 else (None, 0)))
        goal = _more(base, flow.step * (1 - way), flow.step * way)
        _allow(ends, goal)
        assert await _at_rest(ends.meter) == base, "something flowed where the limit is 0"
        ends.throttle.limit(None, None)
        await _reached(ends.meter, *goal)
        ends.throttle.limit(*((None, 0) if way == 0 else (0, None)))
        goal = _more(goal, flow.step * (1 - way), flow.step * way)
        _allow(ends, goal)
        await _reached(ends.meter, *goal)
        ends.throttle.limit(None, None)


async def a_throttle_stops_what_flows(flow: TwoWayFlow) -> None:
    """From the moment of the call, in the middle of an allowance."""
    ends = await flow.open()
    if ends.throttle is None:
        return
    base = _totals(ends.meter)
    _allow(ends, _more(base, 0, MANY * flow.step))
    await _reached(ends.meter, *_more(base, 0, flow.step))
    ends.throttle.limit(0, 0)
    rest = _totals(ends.meter)
    assert await _at_rest(ends.meter) == rest, "something flowed on where the limit is 0"
    ends.throttle.limit(None, None)
    await _reached(ends.meter, *_more(rest, 0, flow.step))


TWO_WAY_CHECKS: tuple[Check, ...] = (
    nothing_flows_that_only_one_side_allows,
    what_flows_is_what_both_allow,
    the_flow_turns_round_and_back,
    import_goes_before_export,
    either_side_stops_the_flow_either_way,
    nothing_flows_without_the_consumers_process,
    both_registers_outlive_the_suppliers_process,
    a_throttle_holds_each_way_for_itself,
    a_throttle_stops_what_flows,
)


async def check_two_way(new_flow: Callable[[], AbstractAsyncContextManager[TwoWayFlow]]) -> None:
    """Run every check, each on fresh devices."""
    for check in TWO_WAY_CHECKS:
        async with new_flow() as flow:
            await check(flow)
