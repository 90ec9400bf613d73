"""A site's end of OpenADR 3.1 (a VEN): it learns what the grid asks, says so to the site, and reports back.

    poll ----> Grid (core/grid.py) ----> steer: on_orders at each change
      ^ rings                   `------> report
    hook

Polling is what counts; a subscription only makes us poll sooner. While the server is away, slow or talks rubbish the
events that are known stay in force until their ends, and after them nothing is asked: the site does as it does by
default. None of it touches a running session: all that comes is bounded, and read an event at a time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from penstock.core.errors import GridError, GridRefused
from penstock.core.grid import Event, Grid, Orders
from penstock.core.units import Instant
from penstock.gateways.openadr.client import Client
from penstock.gateways.openadr.enrol import Enrolment
from penstock.gateways.openadr.hook import Hook
from penstock.gateways.openadr.reader import Batch, Reader
from penstock.gateways.openadr.report import Measured, Reporter
from penstock.gateways.openadr.signals import Reading

EVERY = 30.0  # seconds between two polls
LONGEST = 60.0  # seconds between two tries of a server that does not answer: it may have an emergency to tell
FAREWELL = 2.0  # seconds for ending the subscription, where the server is slow
AT_LEAST = 0.2  # seconds between two polls, however often it rings
LOOK = 2.0  # seconds between two looks at the clock, which may be set
SHORTEST = 0.05  # seconds between two orders: an event may be cut as finely as it likes
MAX_REPORTS = 64  # that wait for a server that is away; the oldest go first
MAX_TOLD = 8  # events of one poll whose fault is told


class Site(NamedTuple):
    """Who we are to the grid's server, and what of it is for us.

    `name` and `resources` are what we are called there. `programs` (names) and `targets` narrow what we take; without
    them it is whatever the server lets us see. `listen` is where notifications come (host, port), `callback` the URL by
    which the server reaches that, where it is another one; without `listen` there is no subscription.
    """

    name: str
    resources: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    listen: tuple[str, int] | None = None
    callback: str | None = None


class Ven:
    """One site at one server. `run` it in a task, and `close` it when done."""

    def __init__(
        self,
        client: Client,
        site: Site,
        reading: Reading,
        on_orders: Callable[[Orders], None],
        clock: Callable[[], Instant],
        tell: Callable[..., Any],
        every: float = EVERY,
        measured: Callable[[], Measured] | None = None,
        known: Iterable[Event] = (),
    ) -> None:
        """`on_orders` is called from the event loop whenever something else is asked than before; at first nothing is.

        `every` is the pause between two polls (s). `measured` reads the figures of all resources, for reports; without
        it none is made. `known` are the events of an earlier run (`known`), which hold until the server is reached. The
        client is closed with this.
        """
        self.orders = Orders()
        self._client, self._site, self._every = client, site, every
        self._on_orders, self._clock, self._tell = on_orders, clock, tell
        self._grid = Grid()
        self._grid.replace(known, clock())
        self._reader = Reader(reading, site.programs, site.targets)
        self._bell, self._changed = asyncio.Event(), asyncio.Event()
        self._hook = Hook(self._bell.set) if site.listen else None
        self._enrolment = Enrolment(client, site.name, site.resources, site.targets)
        self._measured = measured
        self._reporter = Reporter(site.name)
        self._reports: deque[dict[str, Any]] = deque(maxlen=MAX_REPORTS)
        self._wanted = asyncio.Event()
        self._faults: set[tuple[str, str]] = set()
        self._trouble: GridError | None = None

    @property
    def known(self) -> tuple[Event, ...]:
        """The events in force or to come, to be kept for the next run: it may begin while the server is away."""
        return self._grid.events

    async def run(self) -> None:
        """Do all of it until cancelled.

        Raises:
            UsageError: notifications cannot be listened for.
        """
        if self._hook and self._site.listen:
            host, port = self._site.listen[0], await self._hook.listen(*self._site.listen)
            self._enrolment.callback = self._site.callback or f"http://{host}:{port}/"
            self._enrolment.token = self._hook.token
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            tasks.create_task(self._steer())
            if self._measured:
                tasks.create_task(self._report(self._measured))

    async def close(self) -> None:
        """End the subscription, stop listening, drop the connections. What we are called stays at the server."""
        with suppress(GridError, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._enrolment.leave()
        if self._hook:
            await self._hook.close()
        await self._client.close()

    # Learning

    async def _poll(self) -> None:
        pause = self._every
        while True:
            self._bell.clear()
            try:
                await self._look()
                await self._enrol()
                self._well()
                pause = self._every
            except GridError as error:
                self._ill(error)
                pause = min(2 * pause, max(LONGEST, self._every))
            await asyncio.sleep(AT_LEAST)
            with suppress(TimeoutError):
                async with asyncio.timeout(_jittered(pause)):
                    await self._bell.wait()

    def _well(self) -> None:
        if self._trouble:
            self._tell("grid reached", server=self._client.place)
        self._trouble = None

    def _ill(self, error: GridError) -> None:
        self._enrolment.forget()
        if self._trouble is None or str(error) != str(self._trouble):
            self._tell("grid not reached", server=self._client.place, reason=error.line(), events=len(self._grid))
        self._trouble = error

    async def _look(self) -> None:
        """Read all that is for us, and know it instead of what we knew. What fails leaves all as it was."""
        await self._learn()
        batch = Batch(self._clock())
        await self._take({"active": "true"}, batch)
        if self._site.targets:
            await self._take({"active": "true", "targets": list(self._site.targets)}, batch)
        self._reader.done(batch)
        batch.left += self._grid.replace([found.event for found in batch.found.values()], batch.now)
        unmade = self._reporter.want([found.wanted for found in batch.found.values() if found.wanted])
        self._complain(batch, unmade if self._measured else {})
        self._changed.set()
        self._wanted.set()

    async def _learn(self) -> None:
        try:
            self._reader.learn([raw async for page in self._client.pages("/programs", {}) for raw in page])
        except GridRefused:
            if self._site.programs:
                raise

    async def _take(self, query: dict[str, str | list[str]], batch: Batch) -> None:
        async for page in self._client.pages("/events", query):
            for raw in page:
                self._reader.read(raw, batch)
                await asyncio.sleep(0)  # sessions run on this loop, too
            batch.trim()

    def _complain(self, batch: Batch, unmade: dict[str, str]) -> None:
        """Tell of what is not obeyed, once, and not of more than an operator can read."""
        faults = {(name, error.line()) for name, error in batch.faults}
        for name, reason in sorted(faults - self._faults)[:MAX_TOLD]:
            self._tell("signal not read", signal=name, reason=reason, faulty=batch.faulty)
        missing = {(name, f"no report: {reason}") for name, reason in unmade.items()}
        for name, reason in sorted(missing - self._faults)[:MAX_TOLD]:
            self._tell("report not made", signal=name, reason=reason)
        faults |= missing
        self._faults = faults
        if batch.left:
            self._tell("signals left out", events=batch.left)

    async def _enrol(self) -> None:
        try:
            await self._enrolment.stand()
        except GridRefused as error:  # events come without it, too
            if error.line() != self._enrolment.trouble:
                self._enrolment.trouble = error.line()
                self._tell("not enrolled", server=self._client.place, reason=error.line())

    # Obeying

    async def _steer(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock()
            orders = self._grid.at(now)
            if not orders.same(self.orders):
                self._order(orders)
                self._wanted.set()
            pause = max(SHORTEST, min(LOOK, (orders.until - now) / 1000))
            await asyncio.sleep(SHORTEST)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _order(self, orders: Orders) -> None:
        self.orders = orders
        self._tell("grid asks", why=list(orders.why), emergency=orders.emergency is not None)
        try:
            self._on_orders(orders)
        except Exception as fault:  # the site's; the next orders must come nevertheless
            what = {"message": "the grid's orders could not be followed", "exception": fault}
            asyncio.get_running_loop().call_exception_handler(what)

    # Reporting back

    async def _report(self, measured: Callable[[], Measured]) -> None:
        while True:
            self._wanted.clear()
            if not self._reporter.idle:
                self._reports.extend(self._reporter.due(self._clock(), measured(), self.orders))
                await self._send()
            await asyncio.sleep(SHORTEST)
            pause = min(LOOK, max(0, self._reporter.next() - self._clock()) / 1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    async def _send(self) -> None:
        """Send what waits; what the server cannot be told now is kept for later, and what it refuses is not."""
        try:
            while self._reports:
                await self._client.create("/reports", self._reports[0])
                self._reports.popleft()
        except GridRefused as error:
            refused = self._reports.popleft()
            self._tell("report not taken", signal=refused["eventID"], reason=error.line())
        except GridError:
            pass  # the poll tells


def _jittered(pause: float) -> float:
    """Between 80 and 100 % of a pause, so that sites do not ask all at once."""
    return pause * (1 - secrets.randbelow(200) / 1000)
