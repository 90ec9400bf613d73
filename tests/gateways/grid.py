"""A grid operator for tests: a real VTN in this process, its business logic, and a site that listens to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from penstock.core.grid import Event, Orders
from penstock.core.units import Instant
from penstock.gateways.openadr import Client, Credentials, Reading, Site, Ven
from penstock.gateways.openadr.report import Measured
from penstock.sim.vtn import Client as Known
from penstock.sim.vtn import Role, Vtn

BL = Known("operator", "a secret of the operator", Role.BL)
SITE = Known("site", "a secret & of/the site", Role.VEN)
OTHER = Known("other", "a secret of another", Role.VEN)
RATES = Reading({"EUR": 1_000_000}, b"seed")
DEADLINE = 10.0  # seconds for anything at all to happen


def clock() -> Instant:
    """The wall clock, in ms."""
    return Instant(time.time_ns() // 1_000_000)


async def until(true: Callable[[], object], what: str = "") -> None:
    """Wait, up to the deadline, for something to be so."""
    end = asyncio.get_running_loop().time() + DEADLINE
    while not true():
        assert asyncio.get_running_loop().time() < end, f"not within {DEADLINE} s: {what or true}"
        await asyncio.sleep(0.01)


class Operator:
    """The operator's business logic: it talks to the server as any other client would."""

    def __init__(self, url: str, who: Known = BL) -> None:
        self.client = Client(url, Credentials(who.id, who.secret))
        self.program = ""

    async def found(self, name: str = "night", **more: Any) -> str:
        """A program for the events that follow."""
        self.program = await self.client.create("/programs", {"programName": name, **more})
        return self.program

    async def ask(self, kind: str, *values: Any, units: str | None = None, **more: Any) -> str:
        """An event of one interval, from now on and without end unless told otherwise; returns its id."""
        return await self.client.create("/events", event(self.program, kind, *values, units=units, **more))

    async def change(self, name: str, kind: str, *values: Any, **more: Any) -> None:
        """Replace an event."""
        await self.client.update(f"/events/{name}", event(self.program, kind, *values, **more))

    async def call_off(self, name: str) -> None:
        """Delete an event."""
        await self.client.delete(f"/events/{name}")


def event(program: str, kind: str, *values: Any, units: str | None = None, **more: Any) -> dict[str, Any]:
    """An event of one interval, as the operator sends it."""
    descriptor = {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind}
    if kind.endswith("PRICE"):
        descriptor |= {"units": "KWH", "currency": "EUR"}
    return {
        "programID": program,
        "intervalPeriod": {"start": "0001-01-01T00:00:00", "duration": "P9999Y"},
        "payloadDescriptors": [descriptor | ({"units": units} if units else {})],
        "intervals": [{"id": 0, "payloads": [{"type": kind, "values": list(values)}]}],
    } | more


class Watched:
    """What a site was told: its orders, one after the other, and its events."""

    def __init__(self) -> None:
        self.orders: list[Orders] = []
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, what: str, **facts: Any) -> None:
        self.told.append((what, facts))

    @property
    def last(self) -> Orders:
        return self.orders[-1] if self.orders else Orders()

    def of(self, what: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.told if name == what]


@contextlib.asynccontextmanager
async def vtn(port: int = 0, **more: Any) -> AsyncIterator[Vtn]:
    """A server that knows the operator and two sites."""
    server = Vtn([BL, SITE, OTHER], **more)
    await server.start(port)
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def operator(url: str) -> AsyncIterator[Operator]:
    """The operator, with a program."""
    one = Operator(url)
    try:
        await one.found()
        yield one
    finally:
        await one.client.close()


@contextlib.asynccontextmanager
async def site(
    url: str,
    every: float = 0.1,
    who: Known = SITE,
    measured: Callable[[], Measured] | None = None,
    known: tuple[Event, ...] = (),
    obey: Callable[[Orders], None] = lambda orders: None,
    **more: Any,
) -> AsyncIterator[tuple[Ven, Watched]]:
    """A running site that polls ten times a second, and what it is told."""
    watched = Watched()

    def on_orders(orders: Orders) -> None:
        watched.orders.append(orders)
        obey(orders)

    options = {"name": "pole-1"} | more
    ven = Ven(
        Client(url, Credentials(who.id, who.secret)),
        Site(**options),
        RATES,
        on_orders,
        clock,
        watched.tell,
        every,
        measured,
        known,
    )
    running = asyncio.ensure_future(ven.run())
    try:
        yield ven, watched
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await ven.close()


@contextlib.asynccontextmanager
async def posting() -> AsyncIterator[aiohttp.ClientSession]:
    """Requests by hand."""
    async with aiohttp.ClientSession() as session:
        yield session
