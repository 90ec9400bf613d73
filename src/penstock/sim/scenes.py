"""One rail's runs for a comparison: a devnet of its own, and on it a pole and a car as processes, honest or cheating.

What the processes say of themselves decides nothing about money: what flowed is the line's register, what was paid is
what the chain moved.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from penstock.core.errors import DeviceError, LocalError
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
CHEATED = 300.0  # seconds in which a side that was cheated has ended its session and is paid

T = TypeVar("T")
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
            self.devnet = await self.start("devnet", "penstock", "devnet", "--port", "0", "--accounts", "9", "--json")
            manifest = await in_time(self.devnet.line(), "a devnet")
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
            PenstockError: a process failed, or did not get on.
        """
        honest = meter == "true" and pays
        first, (sold_before, bought_before) = await self.observer.height() + 1, await self.tokens(POLE, account)
        pole, port = await self._pole(name, meter=meter, patience=PATIENT if honest else SHORT)
        began = time.monotonic()
        car = await self._car(name, account, port=port, pays=pays, leaves=False, patience=PATIENT)
        first_wh = asyncio.ensure_future(flows(self.directory / name / "line", 1))
        try:
            await in_time(car.event("accepted"), "the session of " + name)
            accepted = await self.observer.height()
            await in_time(first_wh, "the first watt-hour")
            first_wh_s = time.monotonic() - began
            sold = await in_time(pole.answer(), "the end of a session of " + name, None if honest else CHEATED)
            bought = await _leaving(car, PATIENT / 1_000 if honest else LEAVING)
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

    async def vanish(self, name: str, account: int) -> list[Sight]:
        """A session whose pole is killed halfway, and whose car gets the rest of its deposit back alone.

        The devnet's time passes meanwhile, for good: play this last. Returns what the chain shows of it.
        """
        first = await self.observer.height() + 1
        pole, port = await self._pole(name, meter="true", patience=PATIENT)
        car = await self._car(name, account, port=port, pays=True, leaves=True, patience=SHORT)
        await in_time(flows(self.directory / name / "line", self.charge.energy_wh // 2), "half of the energy")
        pole.process.kill()
        await in_time(car.answer(), "what was left of the deposit")
        return await self.observer.look(first)

    async def _pole(self, name: str, **facts: object) -> tuple[Child, int]:
        """A pole that is open, and its port."""
        (self.directory / name).mkdir(mode=0o700)
        pole = await self.start(f"{name}-pole", "penstock.sim.pole", self._facts(name, facts))
        return pole, (await in_time(pole.event("listening"), "a pole"))["port"]

    async def _car(self, name: str, account: int, **facts: object) -> Child:
        return await self.start(f"{name}-car", "penstock.sim.car", self._facts(name, {**facts, "account": account}))

    def _facts(self, name: str, own: dict[str, object]) -> str:
        shared = {
            "url": self.url,
            "contract": self.contract,
            "rail": self.rail,
            "directory": str(self.directory / name),
            "charge": msgspec.to_builtins(self.charge),
        }
        return json.dumps({**shared, **own})


async def in_time(coming: Awaitable[T], what: str, seconds: float | None = STARTING) -> T:
    """What comes; None waits for ever.

    Raises:
        LocalError: it does not come in that time.
    """
    try:
        return await asyncio.wait_for(coming, seconds)
    except TimeoutError:
        raise LocalError(
            f"{what} did not come within {seconds:g} s", "this machine may be too busy: try again"
        ) from None


def flowed(line: Path) -> int:
    """What the line's register shows (Wh); 0 where there is none yet."""
    try:
        register = Register.read_end(line)
    except DeviceError:
        return 0
    try:
        return register.read().total
    except DeviceError:
        return 0
    finally:
        register.close()


async def flows(line: Path, total: int) -> None:
    """Return once the register shows so much; it looks every millisecond."""
    while flowed(line) < total:  # noqa: ASYNC110 -- another process writes the register
        await asyncio.sleep(0.001)


async def _leaving(car: Child, patience: float) -> Event:
    """The car's report; after `patience` seconds it is asked to leave, where it waits for a pole that is gone."""
    answering = asyncio.ensure_future(car.answer())
    await asyncio.wait([answering], timeout=patience)
    if not answering.done():
        car.process.terminate()
    return await answering
