"""A site under its grid, played with processes: a devnet, the grid's server, a site with three poles, three cars.

The operator limits the site, calls an emergency, has it feed in, and calls all off; the cars charge to the end. What
the site tells of its obedience is held against the registers of the lines, which are read from outside; the bills are
held against meters, prices, both sides' receipts, and what the chain moved.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import LocalError
from penstock.core.ports import Holdings
from penstock.gateways.openadr import Client, load
from penstock.sim.cast import STARTING, Cast, Demo, Watch, cast
from penstock.sim.gridsite import BACK, PACKAGE, PER, PRICE
from penstock.sim.processes import Child, Event
from penstock.sim.register import Entry, Register

POLES = {"left": (11_000, 6_000), "middle": (11_000, 6_000), "right": (7_400, 0)}  # W to a car, and back
WH = {"left": 9_000, "middle": 9_000, "right": 7_000}  # what each car wants
FEED_WH = 4_000  # that a car feeds in at most
LIMIT, EMERGENCY, SETPOINT = 15_000, 0, -9_000  # W
HOLD = 1.2  # s that an order stays in force
BEGUN = 150  # Wh that each car has before the first order
SOON = 30.0  # s for anything to happen


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


class _Site:
    """The site's process, and what it has told of its obedience."""

    def __init__(self, watch: Watch) -> None:
        self.obeyed: list[Event] = []
        self._watch, self._news = watch, asyncio.Event()

    def hear(self, event: str, facts: Event) -> None:
        """An event of the process."""
        if event == "obeyed":
            self.obeyed.append(facts)
        self._news.set()
        self._watch("site", event, facts)

    async def all_obey(self, asked: str) -> list[Event]:
        """Wait until all poles obey the orders in which this event was asked; "": in which nothing is."""
        async with asyncio.timeout(SOON):
            while True:
                last = {one["pole"]: one for one in self.obeyed if (asked in one["why"] if asked else not one["why"])}
                if len(last) == len(POLES):
                    return [last[pole] for pole in POLES]
                self._news.clear()
                await self._news.wait()


async def run_grid(speed: float, directory: Path, watch: Watch) -> Demo:
    """Play it at `speed` times real time; homes, chain and lines are kept in `directory`.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started = time.monotonic()
    names = ("site", *(f"car-{pole}" for pole in POLES))
    async with cast(directory, watch, names) as players, AsyncExitStack() as stack:
        before = await players.holdings()
        grid = await players.start("grid", "vtn", "--credentials", str(directory / "grid"), "--port", "0", "--json")
        server = (await asyncio.wait_for(grid.line(), STARTING))["url"]
        watch("grid", "serving", {"url": server})
        told = _Site(watch)
        site = await _start(
            stack, "site", told.hear, "gridsite", **_ledger(players), directory=str(directory),
            grid=server, grid_key=str(directory / "grid" / "site-1"), every=1.0, listens=True, poles=POLES, speed=speed,
        )  # fmt: skip
        port = (await asyncio.wait_for(site.event("listening"), STARTING))["port"]
        cars = [await _car(stack, watch, players, pole, port, number) for number, pole in enumerate(POLES, 1)]
        buying = asyncio.gather(*(car.answer() for car in cars))
        try:
            await _all_have(directory, BEGUN, buying)
            steps = await _operate(server, directory, told, watch)
            async with asyncio.timeout(SOON + STARTING):
                bought = await buying
        finally:
            buying.cancel()
        site.process.terminate()
        sold = await asyncio.wait_for(site.answer(), STARTING)
        after = await players.holdings()
        wrong = [one for step in steps for one in step.pop("wrong")]
        wrong += _audit(bought, sold, before, after)
        document = _document(speed, steps, bought, sold, before, after)
        document["wall_s"] = round(time.monotonic() - started, 2)
        return Demo(document, players.token, wrong)


def _ledger(players: Cast) -> dict[str, str]:
    flags = players.common
    return {"url": flags[flags.index("--url") + 1], "contract": flags[flags.index("--contract") + 1]}


async def _start(stack: AsyncExitStack, name: str, hear: Any, module: str, **facts: Any) -> Child:
    child = await Child.start(
        name, [json.dumps(facts)], Path(facts["directory"]) / name, hear, module=f"penstock.sim.{module}"
    )
    stack.push_async_callback(child.end)
    return child


async def _car(stack: AsyncExitStack, watch: Watch, players: Cast, pole: str, port: int, account: int) -> Child:
    def hear(event: str, facts: Event) -> None:
        watch(f"car-{pole}", event, facts)

    feed = FEED_WH if POLES[pole][1] else None
    return await _start(
        stack, f"car-{pole}", hear, "gridcar", **_ledger(players), directory=str(players.directory),
        pole=pole, port=port, account=account, energy=WH[pole], feed=feed,
    )  # fmt: skip


async def _all_have(directory: Path, energy: int, buying: asyncio.Future[Any]) -> None:
    """Wait until that much (Wh) has flowed at every pole."""
    async with asyncio.timeout(SOON + STARTING):
        while min(one.total for one in _read(directory).values()) < energy:
            if buying.done():
                await buying
                raise LocalError("the cars were done before the grid asked for anything")
            await asyncio.sleep(0.02)


def _read(directory: Path) -> dict[str, Entry]:
    """What the registers of the lines show, read from outside."""
    found = {}
    for pole in POLES:
        register = Register.read_end(directory / pole)
        found[pole] = register.read()
        register.close()
    return found


# ---- the operator


async def _operate(server: str, directory: Path, told: _Site, watch: Watch) -> list[dict[str, Any]]:
    """Ask for one thing after the other, and at last for nothing; for each, how it was obeyed, and what is wrong."""
    found, asked = [], list[str]()
    async with _operator(server, directory) as (client, program):
        for step in STEPS:
            watch("grid", "asks", {"what": step.name, "watts": step.watts})
            since = time.monotonic()
            if step.kind is not None:
                asked.append(await client.create("/events", _event(program, step.kind, step.watts)))
                obeyed = await told.all_obey(f"event {asked[-1]}")
            else:
                told.obeyed.clear()
                for name in (asked[1], asked[0], asked[2]):  # the setpoint holds to the last
                    await client.delete(f"/events/{name}")
                obeyed = await told.all_obey("")
            found.append(await _held(step, obeyed, time.monotonic() - since, directory))
    return found


@asynccontextmanager
async def _operator(server: str, directory: Path) -> AsyncIterator[tuple[Client, str]]:
    client = Client(server, load(directory / "grid" / "operator"))
    try:
        yield client, await client.create("/programs", {"programName": "peaks"})
    finally:
        await client.close()


def _event(program: str, kind: str, watts: int) -> dict[str, Any]:
    """An event that is in force at once, without end."""
    return {
        "programID": program,
        "intervalPeriod": {"start": "0001-01-01T00:00:00Z", "duration": "P9999Y"},
        "payloadDescriptors": [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": "W"}],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": [watts]}]}],
    }


async def _held(step: _Step, obeyed: list[Event], wall: float, directory: Path) -> dict[str, Any]:
    """How a step was obeyed and kept while it was in force; `wall` is how long after the operator's word (s)."""
    first = _read(directory)
    await asyncio.sleep(HOLD)
    last, wrong = _read(directory), []
    for one in obeyed:
        pole, before, after = one["pole"], first[one["pole"]], last[one["pole"]]
        if one["wh"] > PACKAGE:
            wrong.append(f"{step.name}: {one['wh']} Wh flowed at {pole} before it obeyed, more than a package")
        for way, most, flowed in (
            ("to the car", one["supply"], after.total - before.total),
            ("back", one["feed"], after.export - before.export),
        ):
            if most is not None and 3_600_000 * (flowed - PACKAGE * (most > 0)) > most * (after.at - before.at):
                wrong.append(f"{step.name}: {flowed} Wh {way} at {pole} in {after.at - before.at} ms, over {most} W")
        if step.watts < 0 and POLES[pole][1] and after.export == before.export:
            wrong.append(f"{step.name}: {pole} feeds nothing in")
    for limit, way in ((step.watts if step.watts > 0 else None, 1), (-step.watts if step.watts < 0 else None, -1)):
        power = sum(max(0, way * one["after"]) for one in obeyed)
        if limit is not None and power > limit:
            wrong.append(f"{step.name}: {power} W at all poles together, over {limit} W")
    keys = ("pole", "ms", "wh", "before", "after", "supply", "feed", "why")
    kept = {pole: _mean(first[pole], last[pole]) for pole in POLES}
    return {
        "asked": step.name,
        "watts": step.watts if step.kind is not None else None,
        "told_and_obeyed_ms": round(wall * 1_000, 1),
        "poles": [{key: one[key] for key in keys} | {"kept": kept[one["pole"]]} for one in obeyed],
        "wrong": wrong,
    }


def _mean(before: Entry, after: Entry) -> int:
    """The mean power (W) between two readings of a line, on its own clock; below 0 where it was fed in."""
    flowed = (after.total - before.total) - (after.export - before.export)
    return flowed * 3_600_000 // max(1, after.at - before.at)


# ---- the money


def _audit(bought: list[Event], sold: Event, before: list[Holdings], after: list[Holdings]) -> list[str]:
    """Everything about the bills that must agree and does not."""
    wrong: list[str] = []

    def same(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            wrong.append(f"{what}: {', '.join(map(str, values))}")

    theirs = {one["pole"]: one for one in sold["sessions"]}
    same("sessions", len(sold["sessions"]), len(bought), len(theirs))
    nets, gains = [], [now.tokens - then.tokens for then, now in zip(before, after, strict=True)]
    for car, gained in zip(bought, gains[1:], strict=True):
        pole = car["pole"]
        mine, other = car["receipt"], theirs.get(pole, {}).get("receipt")
        if not (car["complete"] and mine and other):
            wrong.append(f"the session at {pole} ended without a receipt on both sides")
            continue
        net = _due(mine["supplier_total"]) - _owed(mine["supplier_export"])
        nets.append(net)
        same(f"the receipts at {pole}", json.dumps(mine, sort_keys=True), json.dumps(other, sort_keys=True))
        same(f"the end at {pole}", car["reason"], "target reached")
        same(f"the car's energy at {pole}", mine["supplier_total"], mine["consumer_total"], WH[pole])
        same(f"what was fed in at {pole}, by both meters", mine["supplier_export"], mine["consumer_export"])
        same(f"net payment and bill at {pole}", mine["paid"] - mine["repaid"], net)
        same(f"what the chain took from the car at {pole}, and its bill", -gained, net)
        for side, one in (("supplier", theirs[pole]), ("consumer", car)):
            if one["worst"] > one["limits"][side]:
                wrong.append(f"the {side}'s exposure at {pole} of {one['worst']} exceeds {one['limits'][side]}")
    same("what the chain gave the site, and all bills", gains[0], sum(nets))
    return wrong


def _due(energy: int) -> int:
    return energy * PRICE // PER


def _owed(energy: int) -> int:
    return energy * BACK // PER


def _document(
    speed: float,
    steps: list[dict[str, Any]],
    bought: list[Event],
    sold: Event,
    before: list[Holdings],
    after: list[Holdings],
) -> dict[str, Any]:
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
            for name, then, now in zip(("site", *POLES), before, after, strict=True)
        },
    }
