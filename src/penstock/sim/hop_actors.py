"""Those who play in a world of hubs: payers, hubs and payees over all their lives, honest or not.

A hub is the real node. A payer and a payee are the real halves of one (`node/outgoing.py`, `node/incoming.py`), with
what a session would do in the place of a session: the payer reveals ticks straight to the payee, one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.core.channel import ChannelParams, Lock
from penstock.core.errors import JournalError, LedgerError, PeerRefused, PenstockError
from penstock.core.hops import Incoming, InLock, OutLock, filing_of
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Add, Change, Reached, SignedReach, Told
from penstock.core.ports import Filing, Link
from penstock.core.ticks import TickChain
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.book import ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings, Terms
from penstock.node.outgoing import Neighbour
from penstock.node.relay import Fees
from penstock.node.routes import newest, routes
from penstock.node.site import Site
from penstock.node.visit import Asked, Visit, Visits
from penstock.rails.stream import StreamOffer
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger

if TYPE_CHECKING:
    from penstock.sim.hop_world import HopWorld

PERIOD, LIFE, DELTA, MARGIN, LINGER = 120, 300, 240, 80, 30  # seconds
LEND = 1_000_000  # token units
FEES = Fees(fee_ppm=10_000, holding_ppm=100, delta=DELTA, share=90)
TAKEN, REACH = b"[23,", b"[19,"  # where every `Taken` and `Reach` begins
TERMS = Terms(min_period=60, margin=MARGIN)


class HopActor:
    """One of them. `down` is how long it stays away after a crash (s)."""

    cheat = ""

    def __init__(self, world: HopWorld, name: str, key: Key) -> None:
        self.world, self.name, self.key = world, name, key
        self.rng: Random = world.child()
        self.disk = Disk(pace=lambda: self.rng.uniform(0.0, 0.01), survives=lambda: self.rng.random() < 0.5)
        self.skew = 0  # ms
        self.lives = 0
        self.gone = False  # it will not come back
        self.life = Life(name, world.loop)
        self.ledger: SimLedger

    def clock(self) -> Instant:
        return Instant(self.world.loop.instant() + self.skew)

    def start(self) -> None:
        """Begin a life."""
        self.lives += 1
        self.life = Life(self.name, self.world.loop)
        self.life.on_death = self._come_back
        self.ledger = SimLedger(self.world.chain, self.world.domain, self.life, lambda: self.rng.uniform(0.01, 0.2))
        self.life.spawn(self._live(self.life, MemoryJournal(self.disk, self.life)))

    def crash(self) -> None:
        """Die now, and come back after a while."""
        if self.life.alive:
            self.life.end()
            self._come_back()

    def _come_back(self) -> None:
        self.world.trace(self.name, "is dead")
        self.world.loop.call_later(self.rng.uniform(1, 12), self.again)

    def vanish(self) -> None:
        """Die for good."""
        self.gone = True
        self.life.end()

    def again(self) -> None:
        """Come back."""
        if not self.life.alive and not self.gone:
            self.start()

    def tell(self, event: str, **facts: Any) -> None:
        self.world.trace(self.name, event, **facts)

    async def _live(self, life: Life, journal: MemoryJournal) -> None:
        raise NotImplementedError

    async def dial(self, where: str) -> Link:
        return await self.world.network.dial(self.life, self.name, self.key, where)

    async def at(self) -> SimLedger:
        return self.ledger

    async def _through(self, send: Callable[[], Any]) -> None:
        """Send something to the ledger, again and again until it is taken or cannot be."""
        for _ in range(5):
            try:
                await send()
                return
            except LedgerError:
                await asyncio.sleep(7)


class HubActor(HopActor):
    """A hub, which reaches whoever listens at the names in `onward`."""

    def __init__(self, world: HopWorld, name: str, key: Key, onward: list[str]) -> None:
        super().__init__(world, name, key)
        self.onward = onward
        self.hub: Hub | None = None

    async def _live(self, life: Life, journal: MemoryJournal) -> None:
        reach = {name: (lambda name=name: self.dial(name)) for name in self.onward}
        hub = Hub(
            self.key, journal, self.ledger, self.clock, self.tell, reach, LEND, FEES, TERMS, PERIOD, LINGER
        )  # fmt: skip
        self.hub = hub
        with suppress(JournalError):  # a disk that is full at the start, too, ends it
            await hub.start()
            self.world.network.listen(self.name, life, self.key, hub.on_link)
            await hub.site.failed.wait()
        self.crash()  # its operator starts it again


class PayeeActor(HopActor):
    """A payee: takes locks, learns ticks, says when it is done. A door, and the taker of its locks."""

    incomings: Incomings

    def __init__(self, world: HopWorld, name: str, key: Key) -> None:
        super().__init__(world, name, key)
        self.visits = Visits()
        self.old: dict[bytes, list[Incoming]] = {}  # what a thief kept, by channel
        self._worth: dict[bytes, int] = {}  # by root: what it could prove, durably, and was not given back
        self.lingers = Random(f"late {world.seed} {name}").random() < 0.5  # noqa: S311 - if it cheats by silence
        self._kept: list[Callable[[], None]] = []  # releases that it holds back
        self.site: Site

    async def _live(self, life: Life, journal: MemoryJournal) -> None:
        self.incomings = incomings = Incomings(self.key, journal, self.ledger, self.clock, self.tell, TERMS)
        incomings.time.linger = LINGER
        self.site = Site(self.key, journal, self.clock, self.tell, [])
        self.site.incomings, incomings.fail = incomings, self.site.fail
        incomings.begin(self)
        incomings.start(self.site.tasks)
        self.world.network.listen(self.name, life, self.key, self.on_link)
        if self.cheat == "last block":
            life.spawn(self._wait_for_the_last_block())
        await self.site.failed.wait()
        self.crash()

    # ---- a door

    def on_link(self, link: Link) -> None:
        if self.cheat == "silent":
            (self._hold_back if self.lingers else self._mute)(link)
        self.visits.add(Visit(self, link))

    def _mute(self, link: Link) -> None:
        """Leave out half of all answers to promises."""
        whole = link.send

        def some(frame: bytes) -> None:
            if not frame.startswith(TAKEN) or self.rng.random() < 0.5:
                whole(frame)

        link.send = some  # type: ignore[method-assign]

    def _hold_back(self, link: Link) -> None:
        """Keep what would release a lock, and rob while it is kept; meanwhile give no reason for another channel."""
        whole = link.send

        def some(frame: bytes) -> None:
            if self._kept and frame.startswith(REACH):
                return
            if not frame.startswith(TAKEN) or any(one.locks for one in self.incomings.channels.values()):
                whole(frame)
                return
            if not self._kept:
                self.life.spawn(self._rob_and_release())
            self._kept.append(partial(whole, frame))

        link.send = some  # type: ignore[method-assign]

    async def _rob_and_release(self) -> None:
        await self.rob()
        await asyncio.sleep(PERIOD + 60)  # the ledger takes no release any more
        while self._kept:
            self._kept.pop()()

    def pole_for(self, asked: Asked) -> Any:
        raise PeerRefused("nothing is sold here")

    def left(self, visit: Visit, in_order: bool) -> None:
        self.visits.discard(visit)

    # ---- a taker

    def take_up(self, incoming: Incoming) -> None:
        pass

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        if self.cheat:
            self.old.setdefault(incoming.params.id, []).append(
                Incoming(incoming.params, incoming.deposit, self.key, incoming.row, dict(incoming.locks))
            )
        for change in changes:
            if isinstance(change, Add):
                if why := self.incomings.why_not(incoming, incoming.locks[change.number]):
                    await self.incomings.keep(incoming, change.number, incoming.done(change.number, 0, why))
                else:
                    await self.incomings.keep(incoming, change.number, incoming.place(change.number))

    def reached(self) -> list[SignedReach]:
        return []

    def speaks(self, reached: Reached) -> Reached:
        return reached

    # ---- what a session would do

    def find(self, root: bytes) -> tuple[Incoming, int, InLock] | None:
        """Where a lock stands, if it does."""
        if not self.life.alive or not hasattr(self, "incomings"):
            return None
        for incoming in self.incomings.channels.values():
            for number, held in incoming.locks.items():
                if held.lock.root == root:
                    return incoming, number, held
        return None

    async def learn(self, root: bytes, count: int, preimage: bytes) -> bool:
        """A tick comes straight from its payer. Whether it counts now."""
        found = self.find(root)
        if found is None or found[2].done is not None or not found[2].placed:
            return False
        incoming, number, held = found
        if held.lock.expiry - self.incomings.time.latest < 2 * MARGIN or self.incomings.lookout.closing(
            incoming.params.id
        ):
            return False
        await self.incomings.keep(incoming, number, incoming.prove(number, count, preimage))
        self._worth[root] = count * held.lock.tick_value
        return True

    @property
    def least(self) -> int:
        """What it must have in the end (token units)."""
        return sum(self._worth.values())

    async def within(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What comes of work in this life; None where it ends before that is done."""
        task = self.life.spawn(work)
        await asyncio.wait([task], timeout=20)
        failed = not task.done() or task.cancelled() or task.exception() is not None
        return None if failed else task.result()

    async def end(self, root: bytes, less: int = 0) -> None:
        """The session is over: say what it came to, `less` than it proves where it was paid ahead."""
        found = self.find(root)
        if found is not None:
            incoming, number, held = found
            less = held.worth if self.cheat == "silent" and self.lingers else min(less, held.worth)
            self._worth[root] = self._worth.get(root, 0) - less
            await self.incomings.keep(incoming, number, incoming.done(number, held.worth - less))

    # ---- what a thief does

    def best(self, incoming: Incoming) -> Filing:
        """What it can file on these books with all the ticks that it was ever told, by whatever way."""
        locks = {
            number: msgspec.structs.replace(held, count=count, preimage=preimage)
            for number, held in incoming.locks.items()
            for count, preimage in [self.world.known(held.lock.root)]
        }
        return filing_of(incoming.row, locks)

    async def rob(self) -> None:
        """File the old voucher that is worth most with everything that is known."""
        for kept in list(self.old.values()):
            chosen = self.rng.choice(kept)
            filing = self.best(chosen)
            if filing.signature:
                await self._through(partial(self.ledger.close, self.key, chosen.params, filing))

    async def _wait_for_the_last_block(self) -> None:
        while True:
            await asyncio.sleep(1)
            for incoming in list(self.incomings.channels.values()):
                expiry = min((held.lock.expiry for held in incoming.locks.values()), default=None)
                if expiry is not None and 0 < expiry - self.world.loop.seconds() < 12:
                    filing = self.best(incoming)
                    await self._through(partial(self.ledger.close, self.key, incoming.params, filing))


class PayerActor(HopActor):
    """A payer: locks over the hubs to a payee, and reveals ticks to it."""

    neighbour: Neighbour

    def __init__(self, world: HopWorld, name: str, key: Key, hub: str) -> None:
        super().__init__(world, name, key)
        self.hub = hub
        self.places: set[int] = set()
        self.revealed: dict[bytes, int] = {}  # ticks that left it, by root
        self.values: dict[bytes, tuple[int, int]] = {}  # what a tick costs, and what was paid for holding

    async def _live(self, life: Life, journal: MemoryJournal) -> None:
        purse = ChannelPurse(self.key, journal, self.at, self.tell, LEND, PERIOD, self.world.domain)

        async def find(reached: Reached) -> ChannelRow:
            wanted = StreamOffer(reached.domain, reached.node, reached.node, reached.min_period)
            return await purse.channel(wanted, 1, LEND, PERIOD)

        self.neighbour = Neighbour(self.key, journal, lambda: self.dial(self.hub), find, self.at, None, self.tell, self)
        await self.neighbour.run()

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        self.places.add(number)

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        return self.cheat != "never settles"

    async def settled(self, channel: bytes, number: int) -> None:
        pass

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None:
        pass

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None:
        pass

    async def pay(self, payee: PayeeActor, ticks: int, tick_value: int, wanted: int, pace: float) -> None:
        """One session's worth: lock, reveal `wanted` ticks, and let the payee end it."""
        self.world.seeds += 1
        chain = TickChain(self.world.seeds.to_bytes(32, "big"), ticks)
        self.world.chains[chain.root] = chain
        expiry = self.clock() // 1_000 + LIFE
        try:
            number = await self._lock(payee, chain, ticks, tick_value, expiry)
        except PenstockError as error:
            self.tell("not locked", error=error.line()[:80])
            return
        for _ in range(60):
            if number in self.places:
                break
            await asyncio.sleep(1)
        else:
            return
        self.tell("streams", lock=number, ticks=wanted)
        for count in range(1, wanted + 1):
            await asyncio.sleep(pace)
            # What left may have arrived, whoever crashes then.
            self.revealed[chain.root] = count
            if not await payee.within(payee.learn(chain.root, count, chain.preimage(count))):
                break
        await payee.within(payee.end(chain.root, less=self.rng.choice((0, 0, 1)) if wanted else 0))

    async def _lock(self, payee: PayeeActor, chain: TickChain, ticks: int, value: int, expiry: int) -> int:
        neighbour = self.neighbour
        told = newest(neighbour.known)
        first = [neighbour.reached.node] if neighbour.reached else []
        ways = routes(told, first, payee.key.address, value, ticks, expiry, self.clock() // 1_000)
        if not ways:
            raise PeerRefused("no way")
        way = self.rng.choice(ways[:2])
        lock = Lock(chain.root, way.tick_value, ticks, way.expiry)
        number = neighbour.add(lock, way.holding, way.onward)
        self.values[chain.root] = way.tick_value, way.holding
        return number

    @property
    def params(self) -> ChannelParams | None:
        """Its channel to the hub."""
        rows = [row for row in book.each_channel(self.disk) if row.deposit]
        return rows[0].params if rows else None

    async def close_early(self) -> None:
        """End its channel alone, as if nothing had ever been promised in it."""
        if (params := self.params) is not None:
            self.tell("closes early", channel=to_hex(params.id)[:10])
            await self._through(lambda: self.ledger.close(self.key, params, None))
