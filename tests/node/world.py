"""A pole and its cars in one process: real TLS links, journals, lines and a real ledger; thieves with raw links."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from penstock.core.channel import ChannelParams
from penstock.core.codec import decode, encode
from penstock.core.errors import PenstockError
from penstock.core.identity import Key, parse_address
from penstock.core.messages import (
    Accepted,
    AskOffer,
    Final,
    Message,
    Metered,
    Offered,
    Propose,
    Refused,
    Resume,
    Resumed,
    Stop,
    Way,
)
from penstock.core.offer import Offer, Terms, propose_digest
from penstock.core.session import Patience, Session
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Duration, Instant, Price, Quantity
from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.evm import EvmLedger
from penstock.node import clock
from penstock.node.channel_purse import ChannelPurse
from penstock.node.channel_till import ChannelTill
from penstock.node.consumer import Consumer, Wish
from penstock.node.lookout import Lookout
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.rails.stream import NAME, StreamPayer, StreamTerms, decode_offer
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Server, TlsLink, connect, serve

HOST = "127.0.0.1"
PRICE, TICK, PACKAGE, LIMIT = 400_000, 1_000, 3, 2_000
SPEED = 600.0  # at 6,600 W: 1,100 Wh a second
SOON = 10.0  # seconds in which anything must have happened
PATIENT = 3 * SOON  # where much has to happen, on a machine that is busy with other things
SHORT = Patience(Duration(500), Duration(700))

_T = TypeVar("_T")


async def until(met: Callable[[], _T], what: str = "it did not happen") -> _T:
    """Wait until `met()` is true, and return it."""
    for _ in range(int(PATIENT / 0.005)):
        if found := met():
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(what)


class Told:
    """What a node told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.events if name == event]


class Thief:
    """A raw link to the pole, whose messages are made by hand."""

    def __init__(self, link: TlsLink) -> None:
        self.link = link
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.ended: asyncio.Future[PenstockError] = asyncio.get_running_loop().create_future()
        link.attach(lambda frame: self.inbox.put_nowait(decode(frame)), self.ended.set_result)

    def send(self, message: Message | bytes) -> None:
        self.link.send(message if isinstance(message, bytes) else encode(message))

    async def hear(self, kind: Any) -> Any:
        """The next message of that kind (or of several); those of a running session are passed over."""
        async with asyncio.timeout(SOON):
            while True:
                if self.inbox.empty() and self.ended.done():
                    raise AssertionError(f"cut off: {self.ended.result().line()}")
                getting: asyncio.Future[Any] = asyncio.ensure_future(self.inbox.get())
                try:
                    await asyncio.wait([getting, self.ended], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    getting.cancel()
                if not getting.done():
                    continue
                message = getting.result()
                if isinstance(message, kind):
                    return message
                assert isinstance(message, Metered | Stop | Final), message

    async def ask(self, message: Message, answer: Any) -> Any:
        self.send(message)
        return await self.hear(answer)

    async def resumes(self, digest: bytes) -> Resumed | Refused:
        """Ask to take a session up again."""
        answer: Resumed | Refused = await self.ask(Resume(digest, b"", Way.SUPPLY), (Resumed, Refused))
        return answer

    async def cut_off(self) -> str:
        """Why the pole ended the link."""
        return (await asyncio.wait_for(asyncio.shield(self.ended), SOON)).line()

    def leave(self) -> None:
        self.link.close()


class Street:
    """One pole that sells, and what a test needs around it."""

    def __init__(
        self, directory: Path, manifest: Manifest, ledger: EvmLedger, fresh_key: Callable[[], Key], key: Key | None
    ) -> None:
        self.directory, self.manifest, self.ledger, self.fresh_key = directory, manifest, ledger, fresh_key
        self.told = Told()
        self.sessions: list[Session] = []
        self.faults: list[dict[str, Any]] = []
        self.skew = 0  # ms that the pole's clock is ahead
        self.key = key or fresh_key()
        self.last_key = self.key  # of the last thief whose session was accepted
        self.supplier: Supplier
        self.server: Server
        self.thieves: list[Thief] = []

    # ---- the pole

    @property
    def lookout(self) -> Lookout:
        till = self.site.tills[ChannelTill.name]
        assert isinstance(till, ChannelTill)
        return till.lookout

    async def open(self, patience: Patience | None = None, speed: float | None = None, **goods: Any) -> None:
        """Open the pole, or open it again after `crash`."""
        self.journal = SqliteJournal(self.directory / "pole.db")
        self.line = LineSupply(self.directory / "line", 6_600, speed, package=Quantity(2), feed_w=5_000)
        self.site = Site.with_channels(self.key, self.journal, self.ledger, self.pole_clock, self.told)
        sold = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, PACKAGE, LIMIT)._replace(**goods)
        self.supplier = Supplier(self.site, Pole("pole", self.line, self.line), sold, patience, self.sessions.append)
        await self.supplier.restore()
        self.server = await serve(HOST, 0, self.key, self.supplier.on_link)

    async def close(self) -> None:
        await self.supplier.close()
        await self.site.close()
        await self.server.close()
        self.line.detach()
        await self.journal.close()

    async def crash(self) -> None:
        """End the pole as kill -9 would, as far as one process can: nothing more is written or said."""
        await self.site.close()
        if self.supplier.shell is not None:
            self.supplier.shell.over = True  # what is still being written comes back to nobody
        self.supplier.shell = None
        await self.server.close()
        self.line.detach()
        await self.journal.close()

    def pole_clock(self) -> Instant:
        return Instant(clock.now() + self.skew)

    # ---- those who come

    async def thief(self, key: Key) -> Thief:
        thief = Thief(await connect(HOST, self.server.port, key))
        self.thieves.append(thief)
        return thief

    async def offered(self, thief: Thief) -> Offer:
        offered: Offered = await thief.ask(AskOffer(), Offered)
        return offered.offer

    async def channel(self, key: Key, deposit: int = 1_000_000, **changes: Any) -> ChannelParams:
        """A channel from `key` to the pole, open on the chain."""
        details = decode_offer(self.supplier.offer().offer.rails[NAME])
        params = ChannelParams(
            domain=details.domain,
            opener=key.address,
            partner=details.payee,
            opener_key=key.address,
            partner_key=details.payee_key,
            period=3_600,
            two_way=False,
            counter=await self.ledger.next_counter(key.address),
        )
        params = msgspec.structs.replace(params, **changes)
        await self.ledger.open(key, params, Amount(deposit))
        return params

    def proposal(
        self,
        key: Key,
        offer: Offer,
        params: ChannelParams,
        deposit: int = 1_000_000,
        stream: tuple[int, int] = (0, 0),
        **changes: Any,
    ) -> tuple[Propose, StreamPayer]:
        """A proposal in every respect good, but for `changes` to its terms."""
        rail = StreamTerms(params, *stream, offer.tick_value)
        payer = StreamPayer(rail, deposit, key, os.urandom(32))
        evidence = payer.open().data
        terms = Terms(
            offer=offer,
            consumer=key.address,
            rail=NAME,
            rail_terms=encode(rail),
            quantity_limit=50_000,
            budget=1_000_000,
            at=clock.now(),
            nonce=os.urandom(16),
        )
        terms = msgspec.structs.replace(terms, **changes)
        return Propose(terms, key.sign(propose_digest(terms.digest())), evidence), payer

    async def robs(self, key: Key | None = None) -> tuple[Thief, Propose, StreamPayer]:
        """A thief with a real channel whose session has just been accepted."""
        key = self.last_key = key or self.fresh_key()
        thief = await self.thief(key)
        propose, payer = self.proposal(key, await self.offered(thief), await self.channel(key))
        await thief.ask(propose, Accepted)
        return thief, propose, payer

    def car(self, key: Key | None = None, name: str = "car", **changes: Any) -> Car:
        return Car(self, key or self.fresh_key(), name, **changes)

    async def until_accepted(self) -> None:
        """Wait for a session, not a turn of the event loop longer: its consumer has yet to hear of it."""
        for _ in range(1_000_000):
            if self.supplier.shell is not None:
                return
            await asyncio.sleep(0)
        raise AssertionError("no session")

    async def serves(self) -> None:
        """The pole sells to the next honest car."""
        async with self.car(name=f"honest{len(self.sessions)}") as car:
            bought = await car.buy(quantity=20)
            assert bought.complete
            assert bought.receipt is not None
            assert bought.receipt.paid == 20 * PRICE // 1_000


class Car:
    """A consumer with a journal and a meter of its own."""

    def __init__(self, street: Street, key: Key, name: str, patience: Patience | None = None, **meter: Any) -> None:
        self.street, self.key, self.patience = street, key, patience
        self.told = Told()
        self.skew = 0
        self.port = street.server.port
        self.expect = street.key.address
        self.links: list[TlsLink] = []
        self._path = street.directory / f"{name}.db"
        self._meter = meter
        self.consumer: Consumer

    async def __aenter__(self) -> Self:
        self.journal = SqliteJournal(self._path)
        self.meter = LineMeter(self.street.directory / "line", **self._meter)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.meter.detach()
        await self.journal.close()

    async def _dial(self) -> TlsLink:
        link = await connect(HOST, self.port, self.key, expect=self.expect)
        self.links.append(link)
        return link

    async def _ledger(self) -> EvmLedger:
        return self.street.ledger

    def _clock(self) -> Instant:
        return Instant(clock.now() + self.skew)

    async def buy(
        self,
        quantity: int | None = 50_000,
        keep: bool = False,
        budget: int = 1_000_000,
        feed: int | None = None,
        max_price: int = 450_000,
        **wish: Any,
    ) -> Session:
        """One session; one that may turn round, where `feed` says how much goes back at most."""
        wanted = Wish(Price(max_price, 1_000), budget, quantity, keep=keep, feed=feed, **wish)
        purse = ChannelPurse(self.key, self.journal, self._ledger, self.told)
        self.consumer = Consumer(
            self.key,
            self.journal,
            self.meter,
            self._dial,
            wanted,
            self._clock,
            self.told,
            purse,
            self.patience,
            valve=self.meter if feed is not None else None,
        )
        return await self.consumer.buy()


def descriptors(apart_from: int) -> int:
    """Open files and sockets, without the connections to the ledger's port `apart_from`, which come and go."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f":{apart_from:04X}"
    ledgers = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) or row[2].endswith(port)}
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            count += os.readlink(file) not in ledgers
    return count


@asynccontextmanager
async def street(
    directory: Path,
    manifest: Manifest,
    fresh_key: Callable[[], Key],
    *,
    serves: bool = True,
    key: Key | None = None,
    **pole: Any,
) -> AsyncIterator[Street]:
    """A street that must be left as it was found: no task, descriptor or fault stays, and the pole still sells."""
    ledger = await EvmLedger.connect(manifest.url, parse_address(manifest.contracts["CryptoEuroChannel"]))
    made = Street(directory, manifest, ledger, fresh_key, key)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: made.faults.append(context))
    try:
        await made.open(**pole)
        async with made.car(name="first") as car:  # whatever is made once, is made now
            await car.buy(quantity=10)
        await until(lambda: not made.supplier.visits)
        node = int(manifest.url.rpartition(":")[2])
        tasks, files = len(asyncio.all_tasks()), descriptors(node)
        yield made
        if serves:
            if made.supplier.shell is not None:  # its patience is what other tests wait for
                made.supplier.shell.abandon()
            await until(lambda: made.supplier.shell is None, "the pole is still busy")
            await made.serves()
        for thief in made.thieves:
            thief.leave()
        await until(lambda: not made.supplier.visits, "visits stay")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks stay")
        await until(lambda: descriptors(node) <= files, "descriptors stay")
    finally:
        for thief in made.thieves:
            thief.leave()
        await made.close()
        await ledger.disconnect()
    assert made.faults == []
