"""A site under its grid, played with processes: a devnet, the grid's server, a site with three poles, three cars.

The operator limits the site, calls an emergency, has it feed in, and calls all off; the cars charge to the end. What
the site tells of its obedience is held against the registers of the lines, which are read from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.gateways.openadr import Client, load
from penstock.sim.cast import STARTING, Demo, Watch, cast
from penstock.sim.gridsite import PACKAGE
from penstock.sim.gridyard import ACCOUNTS, POLES, End, Grid, Yard, audit, read, yard
from penstock.sim.processes import Event
from penstock.sim.register import Entry

WH = {"left": 8_000, "middle": 8_000, "right": 6_000}  # what each car wants
LIMIT, EMERGENCY, SETPOINT = 15_000, 0, -9_000  # W
HOLD = 1.0  # s that an order stays in force
BEGUN = 600  # Wh that each car has before the first order


class _Step(NamedTuple):
    """One thing that the operator does: what it asks (an event's payload, in W), or None, that all is called off."""

    name: str
    kind: str | None = None
    watts: int = 0


STEPS = (
    _Step("limit", "IMPORT_CAPACITY_LIMIT", LIMIT),
    _Step("emergency", "ALERT_GRID_EMERGENCY", EMERGENCY),
    _Step("setpoint", "DISPATCH_SETPOINT", SETPOINT),
    _Step("none"),
)


async def run_grid(speed: float, directory: Path, watch: Watch) -> Demo:
    """Play it at `speed` times real time; homes, chain and lines are kept in `directory`.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started = time.monotonic()
    async with cast(directory, watch, ACCOUNTS) as players:
        keys = directory / "grid"
        server = await players.start("grid", "vtn", "--credentials", str(keys), "--port", "0", "--json")
        url = (await asyncio.wait_for(server.line(), STARTING))["url"]
        watch("grid", "serving", {"url": url})
        async with yard(players, watch, Grid(url, keys / "site-1"), speed, WH) as it:
            await it.all_have(BEGUN)
            steps = await _operate(url, it, speed, watch)
            end = await it.end()
        wrong = [one for step in steps for one in step.pop("wrong")] + audit(end, WH)
        document = _document(speed, steps, end)
        document["wall_s"] = round(time.monotonic() - started, 2)
        return Demo(document, players.token, wrong)


# ---- the operator


async def _operate(server: str, it: Yard, speed: float, watch: Watch) -> list[dict[str, Any]]:
    """Ask for one thing after the other, and at last for nothing; for each, how it was obeyed, and what is wrong."""
    found, asked = [], list[str]()
    async with _operator(server, it.directory) as (client, program):
        for step in STEPS:
            watch("grid", "asks", {"what": step.name, "watts": step.watts})
            since = time.monotonic()
            if step.kind is not None:
                asked.append(await client.create("/events", event(program, step.kind, step.watts)))
                obeyed = await it.told.all_obey(f"event {asked[-1]}")
            else:
                it.told.obeyed.clear()
                for name in (asked[1], asked[0], asked[2]):  # the setpoint holds to the last
                    await client.delete(f"/events/{name}")
                obeyed = await it.told.all_obey("")
            found.append(await _held(step, obeyed, time.monotonic() - since, it.directory, speed))
    return found


@asynccontextmanager
async def _operator(server: str, directory: Path) -> AsyncIterator[tuple[Client, str]]:
    client = Client(server, load(directory / "grid" / "operator"))
    try:
        yield client, await client.create("/programs", {"programName": "peaks"})
    finally:
        await client.close()


def event(program: str, kind: str, watts: int) -> dict[str, Any]:
    """An event that is in force at once, without end."""
    return {
        "programID": program,
        "intervalPeriod": {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"},
        "payloadDescriptors": [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": "W"}],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": [watts]}]}],
    }


async def _held(step: _Step, obeyed: list[Event], wall: float, directory: Path, speed: float) -> dict[str, Any]:
    """How a step was obeyed and kept while it was in force; `wall` is how long after the operator's word (s)."""
    since, first = time.monotonic(), read(directory)
    await asyncio.sleep(HOLD)
    last, wrong = read(directory), list[str]()
    passed = int((time.monotonic() - since) * speed * 1_000)  # ms on the lines' clocks
    for one in obeyed:
        pole, before, after = one["pole"], first[one["pole"]], last[one["pole"]]
        if one["wh"] > PACKAGE:
            wrong.append(f"{step.name}: {one['wh']} Wh flowed at {pole} before it obeyed, more than a package")
        for way, most, flowed in (
            ("to the car", one["supply"], after.total - before.total),
            ("back", one["feed"], after.export - before.export),
        ):
            if most is not None and 3_600_000 * (flowed - PACKAGE * (most > 0)) > most * passed:
                wrong.append(f"{step.name}: {flowed} Wh {way} at {pole} in {passed} ms, over {most} W")
        if step.watts < 0 and POLES[pole][1] and after.export == before.export:
            wrong.append(f"{step.name}: {pole} feeds nothing in")
    power = sum(one["after"] for one in obeyed)
    if step.kind is not None and not min(step.watts, 0) <= power <= max(step.watts, 0):
        wrong.append(f"{step.name}: {power} W at all poles together, and not {step.watts} W")
    keys = ("pole", "ms", "wh", "before", "after", "supply", "feed", "why")
    kept = {pole: _mean(first[pole], last[pole], passed) for pole in POLES}
    return {
        "asked": step.name,
        "watts": step.watts if step.kind is not None else None,
        "told_and_obeyed_ms": round(wall * 1_000, 1),
        "poles": [{key: one[key] for key in keys} | {"kept": kept[one["pole"]]} for one in obeyed],
        "wrong": wrong,
    }


def _mean(before: Entry, after: Entry, passed: int) -> int:
    """The mean power (W) between two readings of a line, `passed` ms apart; below 0 where it was fed in."""
    flowed = (after.total - before.total) - (after.export - before.export)
    return flowed * 3_600_000 // max(1, passed)


def _document(speed: float, steps: list[dict[str, Any]], end: End) -> dict[str, Any]:
    bought, sold, before, after = end
    return {
        "scenario": "grid",
        "speed": speed,
        "package_wh": int(PACKAGE),
        "steps": steps,
        "sessions": [
            {
                "pole": car["pole"],
                "reason": car["reason"],
                "energy_wh": car["receipt"]["supplier_total"],
                "fed_in_wh": car["receipt"]["supplier_export"],
                "paid": car["receipt"]["paid"],
                "repaid": car["receipt"]["repaid"],
                "ticks": car["receipt"]["ticks"],
                "max_exposure": car["worst"],
            }
            for car in bought
        ],
        "transactions": sold["transactions"],
        "balances": {
            name: {"before": then.tokens, "after": now.tokens}
            for name, then, now in zip(ACCOUNTS, before, after, strict=True)
        },
    }
