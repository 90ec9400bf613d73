"""One rail's runs for a comparison: a devnet of its own, and on it a pole and a car as processes, honest or cheating.

What the processes say of themselves decides nothing about money: what flowed is the line's register, what was paid is
what the chain moved.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.core.errors import DeviceError
from penstock.core.identity import parse_address
from penstock.ledgers.contract import Contract
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.jsonrpc import Node
from penstock.sim.charges import Charge
from penstock.sim.observer import Observer, Sight
from penstock.sim.parts import PARTS
from penstock.sim.processes import Child, Event
from penstock.sim.register import Register

STARTING = 60.0  # seconds for a process to come up
PATIENT, SHORT = 10_000, 1_000  # ms: a car or an honest pole with the other side, and a pole that is cheated or cheats
POLE = 0  # the account of every pole
LEAVING = 1.0  # seconds that a car gets to leave a pole that it does not trust
CHEATED = 60.0  # seconds in which a side that was cheated has ended its session and is paid

Watch = Callable[[str, str, Event], None]
"""Told of each event of a process: who, what, and the facts."""


class Scene(NamedTuple):
    """What came of one session: both sides' reports, what the chain moved, and what it shows of it.

    `earned` and `spent` are token units that the supplier gained and the consumer lost; `before` is how many
    transactions were in the chain when the session was accepted; `first_wh_s` is from the consumer's start.
    """

    sold: Event
    bought: Event
    earned: int
    spent: int
    before: int
    sights: list[Sight]
    first_wh_s: float


class Ground:
    """A devnet for one rail. Use it as `async with`."""

    def __init__(self, rail: str, charge: Charge, directory: Path, watch: Watch) -> None:
        self.rail, self.charge, self.directory = rail, charge, directory
        self._watch = watch
        self._children: list[Child] = []
        self.told: Counter[tuple[str, str]] = Counter()  # how often which process told of what
        self._parts = PARTS[rail]
        self._ledger: Contract | None = None
        self._node: Node | None = None
        self.devnet: Child
        self.observer: Observer
        self.contract = ""
        self.url = ""

    async def __aenter__(self) -> Ground:
        self.directory.mkdir(mode=0o700)
        try:
            self.devnet = await self.start("devnet", "penstock", "devnet", "--port", "0", "--accounts", "8", "--json")
            manifest = await asyncio.wait_for(self.devnet.line(), STARTING)
            self.url, self.contract = manifest["url"], manifest["contracts"][self._parts.contract]
            self._ledger = await self._parts.ledger.connect(self.url, parse_address(self.contract))
            self._node = Node(self.url)
            self.observer = Observer(self._node, {self.contract.lower(): self._parts.artifact})
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(child.end() for child in reversed(self._children)))
        if self._node is not None:
            await self._node.close()
        if self._ledger is not None:
            await self._ledger.disconnect()

    async def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start a process that ends with us, with a home of its own."""

        def heard(event: str, facts: Event) -> None:
            self.told[name, event] += 1
            self._watch(f"{self.rail}: {name}", event, facts)

        child = await Child.start(name, list(arguments), self.directory / name, heard, module)
        self._children.append(child)
        return child

    async def tokens(self, *accounts: int) -> list[int]:
        """What accounts own outside deposits (token units)."""
        assert self._ledger is not None
        return [(await self._ledger.holdings(dev_key(account).address)).tokens for account in accounts]

    async def play(self, name: str, account: int, *, meter: str = "true", pays: bool = True) -> Scene:
        """One session between a pole whose meter is of that kind and a car that pays, or stops paying halfway.

        `account` is the car's, which has not been used before.

        Raises:
            PenstockError: a process failed.
        """
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        honest = meter == "true" and pays
        facts = {
            "url": self.url,
            "contract": self.contract,
            "rail": self.rail,
            "directory": str(directory),
            "charge": msgspec.to_builtins(self.charge),
        }
        selling = {**facts, "meter": meter, "patience": PATIENT if honest else SHORT}
        buying = {**facts, "pays": pays, "account": account, "patience": PATIENT}
        first, (sold_before, bought_before) = await self.observer.height() + 1, await self.tokens(POLE, account)
        pole = await self.start(f"{name}-pole", "penstock.sim.pole", json.dumps(selling))
        port = (await asyncio.wait_for(pole.event("listening"), STARTING))["port"]
        began = time.monotonic()
        car = await self.start(f"{name}-car", "penstock.sim.car", json.dumps({**buying, "port": port}))
        first_wh = asyncio.ensure_future(_first_flow(directory / "line", began))
        try:
            await asyncio.wait_for(car.event("accepted"), STARTING)
            accepted = await self.observer.height()
            sold = await (pole.answer() if honest else asyncio.wait_for(pole.answer(), CHEATED))
            bought = await _leaving(car, PATIENT / 1_000 if honest else LEAVING)
            first_wh_s = await asyncio.wait_for(first_wh, 1.0)
        finally:
            first_wh.cancel()
        sights = await self.observer.look(first)
        after = await self.tokens(POLE, account)
        return Scene(
            sold,
            bought,
            earned=after[0] - sold_before,
            spent=bought_before - after[1],
            before=sum(sight.block <= accepted for sight in sights),
            sights=sights,
            first_wh_s=first_wh_s,
        )


async def _leaving(car: Child, patience: float) -> Event:
    """The car's report; after `patience` seconds it is asked to leave, where it waits for a pole that is gone."""
    answering = asyncio.ensure_future(car.answer())
    await asyncio.wait([answering], timeout=patience)
    if not answering.done():
        car.process.terminate()
    return await answering


async def _first_flow(line: Path, began: float) -> float:
    """Seconds from `began` until the register shows that something has flowed."""
    register = Register.read_end(line)
    try:
        while True:
            with suppress(DeviceError):
                if register.read().total:
                    return time.monotonic() - began
            await asyncio.sleep(0.001)
    finally:
        register.close()
