"""A real pole, real hubs in a row and real cars that pay over them, with real links, journals and a real chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.conformance.ground import CONSUMER, SUPPLIER, Ground
from tests.node.world import HOST, LIMIT, PACKAGE, PRICE, TICK, Thief

from penstock.core.channel import ChannelParams
from penstock.core.hops import Outgoing
from penstock.core.identity import Key
from penstock.core.ports import Link
from penstock.core.session import Session
from penstock.core.tariff import Tariff
from penstock.core.units import Price, Quantity
from penstock.ledgers.devnet.manifest import dev_key
from penstock.node import book
from penstock.node.channel_till import ChannelTill
from penstock.node.consumer import Consumer, Wish
from penstock.node.hop_purse import HopPurse
from penstock.node.hop_till import HopTill
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings, Terms
from penstock.node.relay import Fees
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Server, connect, serve

from .world import Clock, Events, until

HUBS = [dev_key(number) for number in (3, 4, 5)]
PERIOD, DELTA, LIFE = 600, 1_200, 3_600  # seconds
MARGIN = 200  # seconds
LEND, DEPOSIT = 4_000_000, 4_000_000  # token units
FEES = Fees(fee_ppm=10_000, holding_ppm=100, delta=DELTA, share=90)
SPEED = 600.0


class HubNode:
    """A hub that can be stopped and started again from its journal; `dial` finds it at the same port."""

    def __init__(self, street: HopStreet, key: Key, onward: str, lend: int, fees: Fees) -> None:
        self.street, self.key, self.onward, self.lend, self.fees = street, key, onward, lend, fees
        self.told = Events()
        self.clock = Clock()
        self.port = 0
        self.up = False

    async def start(self) -> None:
        self.journal = SqliteJournal(self.street.directory / f"hub-{self.key.address.hex()[:8]}.db")
        dial = partial(self.street.dial, self.onward, self.key)
        self.hub = Hub(
            self.key, self.journal, self.street.ledger, self.clock, self.told, {self.onward: dial}, self.lend,
            self.fees, Terms(margin=MARGIN), PERIOD,
        )  # fmt: skip
        await self.hub.incomings.look()
        await self.hub.start()
        self.server = await serve(HOST, self.port, self.key, self.hub.on_link)
        self.port, self.up = self.server.port, True

    async def reaches(self) -> None:
        """Wait until it has a way onward."""
        await until(lambda: any(one.ready.is_set() for one in self.hub.relay.neighbours.values()))

    @property
    def out(self) -> Outgoing:
        """Its books of the channel onward."""
        (one,) = [one for one in self.hub.relay.neighbours.values() if one.outgoing is not None]
        assert one.outgoing is not None
        return one.outgoing

    async def stop(self) -> None:
        """As abruptly as it goes inside one process."""
        if self.up:
            self.up = False
            await self.server.close()
            await self.hub.close()
            await self.journal.close()

    async def look(self) -> None:
        """Look at all that it looks at, and wait for what it sends."""
        for one in (*self.hub.relay.neighbours.values(), *self.hub.relay.former):
            await one.look()
        await look(self.hub.incomings)


async def look(incomings: Incomings) -> None:
    """Look at the channels that bring locks, and wait for what is sent."""
    await incomings.look()
    await incomings.lookout.look()
    await incomings.lookout._tasks.wait()
    await incomings._tasks.wait()


class HopStreet:
    """The pole, the hubs from the first on, and what a test needs around them."""

    def __init__(self, ground: Ground, directory: Path) -> None:
        self.ground, self.ledger, self.directory = ground, ground.channels, directory
        self.clock = Clock()
        self.told = Events()
        self.sessions: list[Session] = []
        self.hubs: list[HubNode] = []
        self.cars: list[Car] = []
        self.thieves: list[Thief] = []
        self.port = 0
        self.server: Server
        self.begun: dict[str, int] = {}
        self.lent: dict[bytes, ChannelParams] = {}  # the hubs' channels

    async def open(self, **goods: Any) -> None:
        """Open the pole, or open it again after `crash`."""
        self.journal = SqliteJournal(self.directory / "pole.db")
        self.line = LineSupply(self.directory / "line", 6_600, SPEED, package=Quantity(2), feed_w=5_000)
        self.incomings = Incomings(SUPPLIER, self.journal, self.ledger, self.clock, self.told, Terms(margin=MARGIN))
        self.till = HopTill(self.incomings)
        direct = ChannelTill(SUPPLIER, self.journal, self.ledger, self.clock, self.told)
        self.site = Site(SUPPLIER, self.journal, self.clock, self.told, [direct, self.till])
        sold = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, PACKAGE, LIMIT)._replace(**goods)
        self.supplier = Supplier(self.site, Pole("pole", self.line, self.line), sold, None, self.sessions.append)
        await self.incomings.look()
        await self.supplier.restore()
        self.server = await serve(HOST, self.port, SUPPLIER, self.supplier.on_link)
        self.port = self.server.port

    async def crash(self) -> None:
        """End the pole as kill -9 would, as far as one process can."""
        await self.site.close()
        await self.incomings.close()
        if self.supplier.shell is not None:
            self.supplier.shell.over = True
        self.supplier.shell = None
        await self.server.close()
        self.line.detach()
        await self.journal.close()

    async def row(self, count: int, lend: int = LEND, fees: Fees = FEES) -> list[HubNode]:
        """Hubs in a row, the last of which reaches the pole; from the first on."""
        onward = "pole"
        for key in reversed(HUBS[:count]):
            node = HubNode(self, key, onward, lend, fees)
            self.hubs.insert(0, node)
            await node.start()
            await node.reaches()
            self.lent[node.out.params.id] = node.out.params
            onward = f"hub-{node.port}"
        return self.hubs

    async def dial(self, name: str, key: Key) -> Link:
        port = self.port if name == "pole" else int(name.removeprefix("hub-"))
        return await connect(HOST, port, key)

    def car(self, key: Key = CONSUMER, name: str = "car", **purse: Any) -> Car:
        made = Car(self, key, name, [f"hub-{self.hubs[0].port}"], **purse)
        self.cars.append(made)
        return made

    async def thief(self, key: Key, port: int = 0) -> Thief:
        thief = Thief(await connect(HOST, port or self.port, key))
        self.thieves.append(thief)
        return thief

    async def wait(self, seconds: int) -> None:
        """Let time pass, on the chain and for all."""
        await self.ground.wait(seconds)
        self.clock.offset += seconds
        for hub in self.hubs:
            hub.clock.offset += seconds

    async def look(self) -> None:
        """Everybody looks at the ledger: pole first, then the hubs from the last on."""
        await look(self.incomings)
        for hub in reversed(self.hubs):
            if hub.up:
                await hub.look()

    async def tokens(self) -> dict[str, int]:
        """What each has outside channels."""
        keys = {"car": CONSUMER, "pole": SUPPLIER, **{f"hub{at}": key for at, key in enumerate(HUBS, 1)}}
        return {name: (await self.ledger.holdings(key.address)).tokens for name, key in keys.items()}

    async def ended(self) -> dict[str, int]:
        """What each has gained since `begun`, once every channel was closed by its payer and settled."""
        keys = {key.address: key for key in (CONSUMER, *HUBS)}
        channels = {row.params.id: row.params for car in self.cars for row in book.channels(car.journal)}
        channels |= self.lent
        for params in channels.values():
            if (await self.ledger.channel(params)).status == "open":
                await self.ledger.close(keys[params.opener], params, None)
        for _ in range(2):
            await self.look()
        await self.wait(LIFE + 3 * DELTA + PERIOD)
        for _ in range(2):
            await self.look()
        for params in channels.values():
            if (await self.ledger.channel(params)).status == "closing":
                await self.ledger.settle(keys[params.opener], params)
        now = await self.tokens()
        return {name: now[name] - had for name, had in self.begun.items()}

    async def close(self) -> None:
        for thief in self.thieves:
            thief.leave()
        for car in self.cars:
            await car.leave()
        for hub in self.hubs:
            await hub.stop()
        if self.supplier.shell is not None:
            self.supplier.shell.abandon()
            await until(lambda: self.supplier.shell is None)
        await self.crash()


class Car:
    """A consumer that pays over hubs."""

    def __init__(self, street: HopStreet, key: Key, name: str, hubs: list[str], **purse: Any) -> None:
        self.street, self.key = street, key
        self.told = Events()
        self.links: list[Link] = []
        self.journal = SqliteJournal(street.directory / f"{name}.db")
        self.meter = LineMeter(street.directory / "line")
        dials = [partial(street.dial, one, key) for one in hubs]
        given = {"deposit": DEPOSIT, "period": PERIOD, "life": LIFE, **purse}
        self.purse = HopPurse(
            key, self.journal, self._ledger, dials, street.clock, self.told, street.ledger.domain, **given
        )
        self.consumer: Consumer
        self._gone = False

    async def _ledger(self) -> Any:
        return self.street.ledger

    async def _dial(self) -> Link:
        link = await connect(HOST, self.street.port, self.key, expect=SUPPLIER.address)
        self.links.append(link)
        return link

    async def buy(self, quantity: int | None = 50, budget: int = 1_000_000, **wish: Any) -> Session:
        """One session."""
        wanted = Wish(Price(450_000, 1_000), budget, quantity, **wish)
        self.consumer = Consumer(
            self.key, self.journal, self.meter, self._dial, wanted, self.street.clock, self.told, self.purse
        )
        return await self.consumer.buy()

    async def leave(self) -> None:
        if not self._gone:
            self._gone = True
            await self.purse.close()
            self.meter.detach()
            await self.journal.close()


@asynccontextmanager
async def hop_street(ground: Ground, directory: Path, **goods: Any) -> AsyncIterator[HopStreet]:
    """A street whose pole is open, and closed in the end."""
    made = HopStreet(ground, directory)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    made.begun = await made.tokens()
    await made.open(**goods)
    try:
        yield made
    finally:
        await made.close()
    assert faults == []
