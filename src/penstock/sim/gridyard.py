"""A site with three poles under its grid, and three cars, each a process: brought up, and held to account in the end.

The bills are held against meters, prices, both sides' receipts, and what the chain moved.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import LocalError
from penstock.core.ports import Holdings
from penstock.sim.cast import STARTING, Cast, Watch
from penstock.sim.gridsite import BACK, PER, PRICE
from penstock.sim.processes import Child, Event
from penstock.sim.register import Entry, Register

POLES = {"left": (11_000, 6_000), "middle": (11_000, 6_000), "right": (7_400, 0)}  # W to a car, and back
ACCOUNTS = ("site", *(f"car-{pole}" for pole in POLES))  # in the order of the devnet's keys
FEED_WH = 4_000  # that a car feeds in at most
SOON = 30.0  # s for anything to happen


class Grid(NamedTuple):
    """Where the site finds its grid: the server, the file of credentials there, the pause between two polls (s)."""

    url: str
    key: Path
    every: float = 1.0


class End(NamedTuple):
    """How it ended: what the cars and the site say, and what each account had before and after."""

    bought: list[Event]
    sold: Event
    before: list[Holdings]
    after: list[Holdings]


class Told:
    """The site's process, and what it has told of its obedience."""

    def __init__(self, watch: Watch) -> None:
        self.obeyed: list[Event] = []
        self.samples: list[Event] = []
        self._watch, self._news = watch, asyncio.Event()

    def hear(self, event: str, facts: Event) -> None:
        """An event of the process."""
        if event == "obeyed":
            self.obeyed.append(facts)
        elif event == "power":
            self.samples.append(facts)
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


class Yard:
    """The processes, and what they tell."""

    def __init__(self, players: Cast, told: Told, site: Child, cars: list[Child], before: list[Holdings]) -> None:
        self.told, self.directory = told, players.directory
        self._players, self._site, self._before = players, site, before
        self._buying = asyncio.gather(*(car.answer() for car in cars))

    async def all_have(self, energy: int) -> None:
        """Wait until that much (Wh) has flowed at every pole.

        Raises:
            PenstockError: a car was done, or failed, before.
        """
        async with asyncio.timeout(SOON + STARTING):
            while min(one.total for one in read(self.directory).values()) < energy:
                if self._buying.done():
                    await self._buying
                    raise LocalError("the cars were done before the grid asked for anything")
                await asyncio.sleep(0.02)

    async def end(self) -> End:
        """Wait until all cars have what they want, and the site has settled."""
        async with asyncio.timeout(SOON + STARTING):
            bought = await self._buying
        self._site.process.terminate()
        sold = await asyncio.wait_for(self._site.answer(), STARTING)
        return End(bought, sold, self._before, await self._players.holdings())

    def leave(self) -> None:
        """Wait for the cars no more."""
        self._buying.cancel()


@asynccontextmanager
async def yard(players: Cast, watch: Watch, grid: Grid, speed: float, energy: Mapping[str, int]) -> AsyncIterator[Yard]:
    """The site and its cars, each of which wants the `energy` of its pole (Wh). All are ended in the end.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    directory, told = players.directory, Told(watch)
    async with AsyncExitStack() as stack:
        before = await players.holdings()
        site = await _start(
            stack, "site", told.hear, "gridsite", **_ledger(players), directory=str(directory),
            grid=grid.url, grid_key=str(grid.key), every=grid.every, listens=True, poles=POLES, speed=speed,
        )  # fmt: skip
        port = (await asyncio.wait_for(site.event("listening"), STARTING))["port"]
        cars = [
            await _car(stack, watch, players, pole, port, account, energy[pole])
            for account, pole in enumerate(POLES, 1)
        ]
        made = Yard(players, told, site, cars, before)
        try:
            yield made
        finally:
            made.leave()


def _ledger(players: Cast) -> dict[str, str]:
    flags = players.common
    return {"url": flags[flags.index("--url") + 1], "contract": flags[flags.index("--contract") + 1]}


async def _start(stack: AsyncExitStack, name: str, hear: Any, module: str, **facts: Any) -> Child:
    child = await Child.start(
        name, [json.dumps(facts)], Path(facts["directory"]) / name, hear, module=f"penstock.sim.{module}"
    )
    stack.push_async_callback(child.end)
    return child


async def _car(
    stack: AsyncExitStack, watch: Watch, players: Cast, pole: str, port: int, account: int, energy: int
) -> Child:
    def hear(event: str, facts: Event) -> None:
        watch(f"car-{pole}", event, facts)

    feed = FEED_WH if POLES[pole][1] else None
    return await _start(
        stack, f"car-{pole}", hear, "gridcar", **_ledger(players), directory=str(players.directory),
        pole=pole, port=port, account=account, energy=energy, feed=feed,
    )  # fmt: skip


def read(directory: Path) -> dict[str, Entry]:
    """What the registers of the lines show, read from outside."""
    found = {}
    for pole in POLES:
        register = Register.read_end(directory / pole)
        found[pole] = register.read()
        register.close()
    return found


# ---- the money


def audit(end: End, energy: Mapping[str, int]) -> list[str]:
    """Everything about the bills that must agree and does not."""
    bought, sold, before, after = end
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
        same(f"the car's energy at {pole}", mine["supplier_total"], mine["consumer_total"], energy[pole])
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
