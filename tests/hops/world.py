"""One real hub between a payer and a payee that do what a test makes them do, over real links and a real chain."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.conformance.ground import CONSUMER, SUPPLIER, Ground

from penstock.core.channel import ChannelParams, Lock
from penstock.core.errors import LedgerError, PeerRefused
from penstock.core.hops import Incoming, InLock, OutLock
from penstock.core.identity import Key
from penstock.core.messages import Add, Ask, Change, Hop, Reached, SignedReach, Told
from penstock.core.ports import Link
from penstock.core.ticks import TickChain
from penstock.core.units import Instant
from penstock.ledgers.devnet.manifest import dev_key
from penstock.node.book import ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.clock import now
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings, Terms
from penstock.node.outgoing import Neighbour
from penstock.node.relay import Fees
from penstock.node.site import Site
from penstock.node.visit import Asked, Visit, Visits
from penstock.rails.stream import StreamOffer
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Server, connect, serve

HOST = "127.0.0.1"
PATIENCE = float(os.environ.get("PATIENCE", 20))  # seconds; less where it is a bug that is waited for
HUB = dev_key(3)
PERIOD, DELTA, LIFE = 600, 1_200, 3_000  # seconds
LEND, DEPOSIT = 1_000_000, 1_000_000  # token units
TICK, TICKS = 700, 20
FEES = Fees(fee_ppm=10_000, holding_ppm=100, delta=DELTA, share=90)


class Clock:
    """The time, which a test can move, together with the chain's or apart from it."""

    def __init__(self) -> None:
        self.offset = 0  # seconds

    def __call__(self) -> Instant:
        return Instant(now() + self.offset * 1_000)


class Events:
    """What a node tells."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **facts: Any) -> None:
        self.heard.append((event, facts))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.heard if name == event]


class Payee:
    """A payee that says of each lock at once that it is in place, and no more; a door, and the taker of its locks."""

    def __init__(self, site: Site, incomings: Incomings) -> None:
        self.site, self.incomings, self.visits = site, incomings, Visits()
        site.incomings = incomings
        self.silent = False  # whether promises are taken without a word
        self.asked: list[Ask] = []
        incomings.begin(self)

    def on_link(self, link: Link) -> None:
        self.visits.add(Visit(self, link))  # type: ignore[arg-type]  # it sells nothing

    def pole_for(self, asked: Asked) -> Any:
        raise PeerRefused("nothing is sold here")

    def left(self, visit: Visit, in_order: bool) -> None:
        self.visits.discard(visit)

    def take_up(self, incoming: Incoming) -> None:
        pass

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change, Add):
                await self.incomings.keep(incoming, change.number, incoming.place(change.number))
            elif isinstance(change, Ask):
                self.asked.append(change)

    def reached(self) -> list[SignedReach]:
        return []

    def speaks(self, reached: Reached) -> Reached:
        return reached

    @property
    def incoming(self) -> Incoming:
        return next(iter(self.incomings.channels.values()))

    async def done(self, number: int, count: int, preimage: bytes, total: int) -> None:
        """Say that a lock is done, as an honest supplier does."""
        rows = self.incoming.prove(number, count, preimage) if count else ()
        await self.incomings.keep(self.incoming, number, rows + self.incoming.done(number, total))


class Listener:
    """What the payer hears of its locks."""

    def __init__(self) -> None:
        self.places: set[int] = set()
        self.ends: dict[int, Told] = {}
        self.gone: set[int] = set()
        self.settles = True  # whether it pays what it is told

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        self.places.add(number)

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        self.ends[told.number] = told
        return self.settles

    async def settled(self, channel: bytes, number: int) -> None:
        self.gone.add(number)

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None:
        raise AssertionError("the payer does not look at the ledger here")

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None:
        raise AssertionError("the payer does not look at the ledger here")


class HopWorld:
    """The three of them. `hub` can be stopped and started again from its journal."""

    def __init__(self, ground: Ground, directory: Path) -> None:
        self.ground, self.ledger, self._directory = ground, ground.channels, directory
        self.clock, self.hub_clock = Clock(), Clock()
        self.told = Events()
        self.listener = Listener()
        self._journals: list[SqliteJournal] = []
        self._servers: list[Server] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._seed = 0
        self._at: dict[str, int] = {}

    async def start(self) -> None:
        self.before = await self.tokens()
        journal = self._journal("payee")
        incomings = Incomings(SUPPLIER, journal, self.ledger, self.clock, Events(), Terms(margin=100))
        self.payee = Payee(Site(SUPPLIER, journal, self.clock, Events(), []), incomings)
        await incomings.look()
        self._at["payee"] = await self._serve(SUPPLIER, self.payee.on_link)
        await self.start_hub()
        self.payer_journal = self._journal("payer")
        purse = ChannelPurse(CONSUMER, self.payer_journal, self._ledger, Events(), DEPOSIT, PERIOD)

        async def find(reached: Reached) -> ChannelRow:
            wanted = StreamOffer(reached.domain, reached.node, reached.node, reached.min_period)
            return await purse.channel(wanted, 1, DEPOSIT, PERIOD)

        dial = partial(self._dial, CONSUMER, "hub")
        self.payer = Neighbour(CONSUMER, self.payer_journal, dial, find, self._ledger, None, Events(), self.listener)
        self._tasks.append(asyncio.ensure_future(self.payer.run()))
        await until(self.payer.ready.is_set)

    async def start_hub(self) -> None:
        self.hub_journal = self._journal("hub")
        self.hub = Hub(
            HUB, self.hub_journal, self.ledger, self.hub_clock, self.told,
            {"payee": partial(self._dial, HUB, "payee")}, LEND, FEES, Terms(margin=200), PERIOD,
        )  # fmt: skip
        await self.hub.incomings.look()
        await self.hub.start()
        self._at["hub"] = await self._serve(HUB, self.hub.on_link, self._at.get("hub", 0))
        await until(lambda: bool(self.hub.relay.neighbours) and self.onward.ready.is_set())

    async def stop_hub(self) -> None:
        """As abruptly as it goes inside one process: nothing more is written."""
        await self._servers.pop().close()
        await self.hub.close()
        await self.hub_journal.close()
        self._journals.remove(self.hub_journal)

    @property
    def onward(self) -> Neighbour:
        """The hub's half of the channel to the payee."""
        return next(iter(self.hub.relay.neighbours.values()))

    @property
    def in_params(self) -> ChannelParams:
        assert self.payer.outgoing is not None
        return self.payer.outgoing.params

    @property
    def out_params(self) -> ChannelParams:
        assert self.onward.outgoing is not None
        return self.onward.outgoing.params

    def chain(self) -> TickChain:
        self._seed += 1
        return TickChain(self._seed.to_bytes(32, "big"), TICKS)

    def locked(self, chain: TickChain, **change: Any) -> int:
        """Promise a lock to the hub, onward to the payee; what is not as it should be is named."""
        until_ = self.clock() // 1_000 + LIFE
        hop = Hop(SUPPLIER.address, change.pop("onward", TICK), change.pop("expiry", until_), 0)
        given = {"tick_value": FEES.tick(TICK), "ticks": TICKS, "expiry": until_ + DELTA, "root": chain.root, **change}
        holding = given.pop("holding", 5)
        return self.payer.add(Lock(**given), holding, (hop,))

    async def placed(self, chain: TickChain) -> int:
        """A lock that is in place, all the way. Its number is the same in both channels."""
        number = self.locked(chain)
        await until(lambda: number in self.listener.places)
        return number

    def held(self, number: int = 1) -> InLock:
        return self.hub.incomings.channels[self.in_params.id].locks[number]

    async def wait(self, seconds: int) -> None:
        """Let time pass, on the chain and for all."""
        await self.ground.wait(seconds)
        self.clock.offset += seconds
        self.hub_clock.offset += seconds

    async def look(self) -> None:
        """The hub looks at all that it looks at, and waits for what it sends."""
        for one in (*self.hub.relay.neighbours.values(), *self.hub.relay.former):
            await one.look()
        await self.hub.incomings.look()
        await self.hub.incomings.lookout.look()
        await self.hub.incomings.lookout._tasks.wait()
        await self.hub.incomings._tasks.wait()

    async def payee_looks(self) -> None:
        """The payee looks at its channel, and waits for what it sends."""
        await self.payee.incomings.look()
        await self.payee.incomings.lookout.look()
        await self.payee.incomings.lookout._tasks.wait()
        await self.payee.incomings._tasks.wait()

    async def tokens(self) -> dict[str, int]:
        """What each has outside channels."""
        keys = {"payer": CONSUMER, "hub": HUB, "payee": SUPPLIER}
        return {name: (await self.ledger.holdings(key.address)).tokens for name, key in keys.items()}

    async def gains(self) -> dict[str, int]:
        """What each has gained since the beginning, once every channel has been closed and settled."""
        for params, key in ((self.in_params, CONSUMER), (self.out_params, HUB)):
            if (await self.ledger.channel(params)).status == "open":
                await self.ledger.close(key, params, None)
        await self.look()
        await self.payee_looks()
        await self.wait(LIFE + DELTA + PERIOD + 100)
        for params in (self.in_params, self.out_params):
            with suppress(LedgerError):  # a lookout may have been quicker
                await self.ledger.settle(HUB, params)
        now_ = await self.tokens()
        return {name: now_[name] - had for name, had in self.before.items()}

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hub.close()
        await self.payee.incomings.close()
        for server in self._servers:
            await server.close()
        for journal in self._journals:
            await journal.close()

    async def _ledger(self) -> Any:
        return self.ledger

    def _journal(self, name: str) -> SqliteJournal:
        journal = SqliteJournal(self._directory / f"{name}.db")
        self._journals.append(journal)
        return journal

    async def _serve(self, key: Key, on_link: Callable[[Any], None], port: int = 0) -> int:
        server = await serve(HOST, port, key, on_link)
        self._servers.append(server)
        return server.port

    async def _dial(self, key: Key, name: str) -> Link:
        return await connect(HOST, self._at[name], key)


async def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what holds is many a thing, none of which tells of itself
            await asyncio.sleep(0.02)


@asynccontextmanager
async def hop_world(ground: Ground, directory: Path) -> AsyncIterator[HopWorld]:
    """A world that has begun, and is stopped in the end."""
    world = HopWorld(ground, directory)
    try:
        await world.start()
        yield world
    finally:
        await world.stop()
