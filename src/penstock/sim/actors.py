"""Who acts in a simulated world: a site with its poles, and cars. Each runs the real node, and survives its crashes."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from penstock.core.channel import ChannelParams
from penstock.core.codec import encode
from penstock.core.errors import JournalError, LedgerError, PenstockError
from penstock.core.grid import Orders
from penstock.core.identity import Key
from penstock.core.messages import Way
from penstock.core.ports import Ledger
from penstock.core.session import Patience, Role, Session
from penstock.core.units import Amount, Duration, Instant, Price
from penstock.node import book, ending
from penstock.node.channel_purse import ChannelPurse
from penstock.node.channel_till import ChannelTill
from penstock.node.consumer import Consumer, Wish
from penstock.node.lookout import Lookout
from penstock.node.rails import Purse
from penstock.node.sharing import Outlet as SharedOutlet
from penstock.node.sharing import SiteLimit
from penstock.node.site import Site
from penstock.node.steering import Steering
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.node.tasks import durable
from penstock.rails.stream import PAID_ROWS, PaidRow
from penstock.sim.cable import HOUR, Cable, Socket
from penstock.sim.car_meter import CarMeter, CarValve, MeterFaults
from penstock.sim.cheats import tamper_of
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.network import SimLink
from penstock.sim.scenario import PACKAGE, PER, PERIOD, PRICE, CarPlan, Purchase
from penstock.sim.tender import SimLedger
from penstock.sim.thief import Thief

if TYPE_CHECKING:
    from penstock.sim.world import World

PATIENCE = Patience(Duration(10_000), Duration(60_000), rest=Duration(600_000))
LIE = 300_000  # ppm by which a lying meter deviates
TRIES = 6  # at one purchase, while there is trouble


class Actor:
    """A machine with a key, a disk and a clock of its own, on which a process lives, dies and lives again."""

    def __init__(self, world: World, name: str, cheat: str) -> None:
        self.world, self.name, self.cheat = world, name, cheat
        self.rng = Random(world.rng.randbytes(16))  # noqa: S311 - a simulation has to be repeatable
        self.key = Key(self.rng.randbytes(32))
        self.skew = 0  # ms that its clock is ahead
        self.slow = 1.0  # by how much its disk is slower than usual
        self.ledger_slow = 1.0
        self.out_of_reach = self.dry = False
        self.disk = Disk(self.pace, lambda: self.rng.random() < 0.5)
        self.lives = 0
        self.brittle = 0  # so many lives, at most, end at an effect of their own
        self.fuse = 0  # the next life ends at this effect boundary
        self.disk.on_commit = self._on_commit
        self.life = Life(name, world.loop)
        self.gone = False  # for good, at its next death
        self.ledger = SimLedger(world.chain, world.domain, self.life, self._way_to_ledger)
        self._snapshot: dict[bytes, bytes] = {}

    def start(self) -> None:
        """Begin a life, the first or another."""
        self.lives += 1
        if self.cheat == "rollback" and self._snapshot and self.rng.random() < 0.5:
            self.disk.rows = dict(self._snapshot)
            self.tell("rolled back")
        self.life = Life(self.name, self.world.loop)
        self.life.on_death = self.died
        if self.brittle and not self.world.healed:
            self.brittle -= 1
            self.life.fuse = 1 + int(self.rng.random() ** 3 * 600)
        elif self.fuse:
            self.life.fuse, self.fuse = self.fuse, 0
        self.ledger = SimLedger(self.world.chain, self.world.domain, self.life, self._way_to_ledger)
        self.ledger.out_of_reach, self.ledger.dry = self.out_of_reach, self.dry
        self.tell("started")
        self.life.spawn(self._live(self.life))

    def crash(self) -> None:
        """Kill it now, if it has begun."""
        if self.lives and self.life.alive:
            self.life.end()
            self.died()

    def died(self) -> None:
        """Come back in a while, if ever."""
        self.tell("died")
        if self.gone:
            return
        self.world.loop.call_later(self.rng.choice((0.1, 2.0, 20.0)), self.start)

    def _on_commit(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        for key, value in rows:
            self.world.trace.quiet(self.name, "wrote", key + (value or b""))
        self.committed([key for key, _ in rows])

    def committed(self, keys: list[bytes]) -> None:
        """The rows under these keys have become durable."""

    def clock(self) -> Instant:
        return Instant(self.world.loop.instant() + self.skew)

    def tell(self, event: str, **facts: Any) -> None:
        self.world.trace(self.name, event, **facts)

    async def at(self) -> Ledger:
        """Its ledger."""
        return self.ledger

    def reach(self, reachable: bool) -> None:
        """Whether it reaches its ledger's node."""
        self.out_of_reach = self.ledger.out_of_reach = not reachable

    def drain(self, dry: bool) -> None:
        """Whether its account has no ether left."""
        self.dry = self.ledger.dry = dry

    async def _live(self, life: Life) -> None:
        try:
            await self.work(life, MemoryJournal(self.disk, life))
        except JournalError as error:
            self.tell("gave up", error=error.line())
        if life.alive:
            self.crash()

    async def close_all(self, life: Life) -> bool:
        """Do what can be done now to end our channels. Whether none is left."""
        journal, left = MemoryJournal(self.disk, life), 0
        for row in book.channels(journal):
            if row.settled:
                continue
            try:
                state = await self.ledger.channel(row.params)
                if state.status == "open":
                    await ending.close(journal, self.ledger, self.key, row)
                elif state.status == "closing" and await self.ledger.now() >= state.closes_at:
                    await ending.settle(journal, self.ledger, self.key, row)
                elif state.status in ("settled", "absent"):
                    continue
            except PenstockError as error:
                self.tell("not closed", error=error.line())
            left += 1
        return not left

    async def work(self, life: Life, journal: MemoryJournal) -> None:
        """What it lives for; ends only with a fault."""
        raise NotImplementedError

    def pace(self) -> float:
        return self.world.scenario.sync * self.rng.uniform(0.5, 3.0) * self.slow

    def _way_to_ledger(self) -> float:
        return self.rng.uniform(0.01, 0.1) * self.ledger_slow


class Outlet:
    """A pole as a thing: its cable, its meter's faults, and who is plugged in."""

    def __init__(self, world: World, name: str, lies: bool) -> None:
        self.name = name
        self.cable = Cable(world.loop, world.loop.instant, world.scenario.rate)
        self.faults = MeterFaults(LIE if lies else 0)
        self.spoiled = False  # valve or meter did not do what they should: the supplier may lose more than its limit
        self.car: str | None = None

    def plug(self, car: CarActor) -> bool:
        """Plug a car in, where none is or it is already."""
        if self.car is None:
            self.car = car.name
            self.cable.plug(True)
            car.meter.plug(self.cable)
        return self.car == car.name

    def unplug(self, car: CarActor) -> None:
        """Pull the car's plug."""
        if self.car == car.name:
            self.cable.plug(False)
            car.meter.plug(None)
            self.car = None


class SiteActor(Actor):
    """The supplier: one site, some poles."""

    def __init__(self, world: World, cheat: str) -> None:
        super().__init__(world, "site", cheat)
        self.outlets = {name: Outlet(world, name, cheat == "lying meter") for name in world.scenario.poles}
        self.suppliers: dict[str, Supplier] = {}
        self.site: Site | None = None
        self.sold: list[Session] = []
        self.orders = Orders()  # of the grid
        self._steering: Steering | None = None
        self._secrets = Random(f"secrets of the site {world.seed}")  # noqa: S311 - a simulation has to be repeatable

    async def work(self, life: Life, journal: MemoryJournal) -> None:
        site = self.site = self.account(journal)
        self.suppliers = {}
        sockets: dict[str, Socket] = {}
        for outlet in self.outlets.values():
            socket = Socket(outlet.cable, life, PACKAGE, outlet.faults)
            socket.on_allow = partial(self.world.checks.site.allows, outlet)
            sockets[outlet.name] = socket
            pole = Pole(outlet.name, socket, socket)
            self.suppliers[outlet.name] = Supplier(site, pole, self._goods(), PATIENCE, self._ended)
        if self.world.scenario.feed is not None:
            self._steer_by_grid(life, site, sockets)
        for name, supplier in self.suppliers.items():
            await supplier.restore()
            self.world.network.listen(name, life, self.key, self._door(supplier))
        life.spawn(self._settle(site))
        await site.failed.wait()
        for supplier in self.suppliers.values():
            await supplier.close()
        await site.close()

    def account(self, journal: MemoryJournal) -> Site:
        """What its poles share, and how it is paid."""
        till = ChannelTill(
            self.key, journal, self.ledger, self.clock, self._heard, PERIOD,
            stake=self.world.scenario.stake, entropy=self._secrets.randbytes,
        )  # fmt: skip
        return Site(self.key, journal, self.clock, self._heard, [till])

    def _goods(self) -> Goods:
        it = self.world.scenario
        return Goods("electricity", it.tariff, it.tick, PACKAGE, it.credit_limit, it.mode, feed=it.feed)

    def _steer_by_grid(self, life: Life, site: Site, sockets: dict[str, Socket]) -> None:
        """One limit for all poles, and the grid's orders as they are now, before anything flows."""
        most = self.world.scenario.rate * HOUR
        limit = site.limit = SiteLimit(
            [SharedOutlet(name, one, most, most) for name, one in sockets.items()], self._heard
        )
        life.at_death(limit.close)
        self._steering = Steering(self.suppliers.values(), limit, self._heard)
        self._steering.obey(self.orders)

    def obey(self, orders: Orders) -> None:
        """The grid asks for something else. Whoever is down hears of it when it comes back."""
        if self.world.healed or orders == self.orders:
            return
        self.orders = orders
        self.world.checks.site.ordered(orders)
        if self._steering is not None and self.life.alive:
            self.life.later(0, self._steering.obey, orders)

    def _door(self, supplier: Supplier) -> Any:
        def on_link(link: SimLink) -> None:
            link.tamper = tamper_of(self.cheat, self.rng, self.key)
            link.on_send = lambda frame: self._sends(supplier, frame)
            supplier.on_link(link)

        return on_link

    def _sends(self, supplier: Supplier, frame: bytes) -> None:
        self.world.trace.quiet(self.name, "sends", frame)
        self.world.checks.site.sends(supplier, frame)

    def committed(self, keys: list[bytes]) -> None:
        self.world.checks.site.committed(keys)

    def _ended(self, session: Session) -> None:
        self.sold.append(session)
        if self.cheat == "rollback" and self.rng.random() < 0.5:
            self._snapshot = dict(self.disk.rows)

    def _heard(self, event: str, **facts: Any) -> None:
        if self.life.alive:
            self.tell(event, **facts)

    async def _settle(self, site: Site) -> None:
        while True:
            await asyncio.sleep(2.0)
            if site.unsettled:
                try:
                    await site.settle()
                except LedgerError as error:
                    self.tell("not settled", error=error.line())
                    await asyncio.sleep(10.0)
                except JournalError:
                    self.crash()

    async def close_rest(self, life: Life) -> None:
        """At the end: close alone every channel that nobody else closes."""
        journal = MemoryJournal(self.disk, life)
        for row in book.channels(journal):
            if row.role is Role.SUPPLIER and not row.over:
                try:
                    await ending.close(journal, self.ledger, self.key, row)
                except PenstockError as error:
                    self.tell("not closed", error=error.line())


class CarActor(Actor):
    """A consumer that makes its purchases one after another, and gives up on one that fails too often."""

    def __init__(self, world: World, plan: CarPlan) -> None:
        super().__init__(world, plan.name, plan.cheat)
        self.plan = plan
        self.wanted = list(plan.purchases)
        self.meter = CarMeter(world.loop.instant, MeterFaults(-LIE if plan.cheat == "lying meter" else 0))
        self.consumer: Consumer | None = None  # the newest
        self.bought: list[Session] = []
        self.spoiled = False  # its own meter did not do what it should
        self.mangled = False  # its links did not keep their promise
        self.done = False
        self._thief = Thief(self.rng, self.key) if plan.cheat == "steal" else None
        self._tries = 0

    async def work(self, life: Life, journal: MemoryJournal) -> None:
        self.consumer = None
        if self.world.scenario.feed is not None:
            life.spawn(self._look_out(life, journal))
        while True:
            if self.wanted:
                await self._purchase(life, journal, self.wanted[0])
            elif self.world.healed:
                await self._leave(life, journal)
                await asyncio.get_running_loop().create_future()  # for good
            else:
                await asyncio.sleep(1.0)

    async def _purchase(self, life: Life, journal: MemoryJournal, wanted: Purchase) -> None:
        outlet = self.world.site.outlets[wanted.pole]
        if not outlet.plug(self):
            await asyncio.sleep(self.rng.uniform(0.5, 2.0))
            return
        try:
            session = await self._consumer(life, journal, wanted).buy()
        except JournalError:
            raise
        except PenstockError as error:
            self.tell("not bought", error=error.line())
            self._tries += 1
            await asyncio.sleep(self.rng.uniform(1.0, 5.0))
            if self._tries < (20 * TRIES if self.sure else TRIES):
                return
        else:
            self.bought.append(session)
            if self.world.healed and session.terms.quantity_limit != wanted.quantity and not self.cheat:
                return  # this was one that had been left unfinished
            self.tell("bought", total=session.meter.total, paid=session.paid, complete=session.complete)
            if self.cheat == "vanish" or (self.cheat == "stale close" and self.rng.random() < 0.5):
                self.wanted = self.wanted[:1]
            if self.cheat == "rollback" and self.rng.random() < 0.5:
                self._snapshot = dict(self.disk.rows)
            self._cook_books()
        self._tries = 0
        self.wanted = self.wanted[1:]
        outlet.unplug(self)

    @property
    def sure(self) -> bool:
        """Whether nothing keeps it from buying any more."""
        return self.world.healed

    def _cook_books(self) -> None:
        """A thief goes on from what it has really paid, so that its next session does not make it good."""
        for channel, note in self._thief.forged.items() if self._thief else ():
            paid = book.paid_of(self.disk, channel)
            if paid is not None and paid.note.voucher.nonce == note.voucher.nonce:
                self.disk.rows[PAID_ROWS + channel] = encode(PaidRow(note))

    def _consumer(self, life: Life, journal: MemoryJournal, wanted: Purchase) -> Consumer:
        async def dial() -> SimLink:
            link = await self.world.network.dial(life, self.name, self.key, wanted.pole)
            link.tamper = self._thief or tamper_of(self.cheat, self.rng, self.key)
            link.on_send = on_send
            return link

        def on_send(frame: bytes) -> None:
            self.world.trace.quiet(self.name, "sends", frame)
            self.world.checks.cars.sends(self, consumer, frame)

        wish = Wish(
            Price(PRICE + 50_000, PER),
            wanted.budget,
            wanted.quantity,
            keep=wanted.keep,
            feed=wanted.feed,
            min_feed=None if wanted.min_feed is None else Price(wanted.min_feed, PER),
        )

        def heard(event: str, **facts: Any) -> None:
            self._heard(event, **facts)
            if event == "accepted":
                for turn in wanted.turns:
                    life.later(turn.at, self._direct, consumer, turn.way)

        purse = self.purse(life, journal, wanted)
        entropy = self.rng.randbytes
        valve = CarValve(self.meter, life) if self.world.scenario.feed is not None else None
        consumer = self.consumer = Consumer(
            self.key, journal, self.meter, dial, wish, self.clock, heard, purse, PATIENCE, entropy, None, valve
        )
        return consumer

    def purse(self, life: Life, journal: MemoryJournal, wanted: Purchase) -> Purse:
        """What a purchase is paid from."""
        purse = ChannelPurse(self.key, journal, self.at, self._heard, wanted.deposit or 0, PERIOD)
        if self.cheat == "steal":
            purse._broken = set  # type: ignore[method-assign]  # a thief asks for credit again where it owes
        return purse

    def _direct(self, consumer: Consumer, way: Way) -> None:
        if consumer is self.consumer:
            self.tell("asks", way=way.name)
            consumer.direct(way)

    async def _look_out(self, life: Life, journal: MemoryJournal) -> None:
        """Answer for what channels pay us, as a watcher would, whether a session runs over them or not."""

        async def over(params: ChannelParams, lost: Amount) -> None:
            row = book.channel_of(journal, params.id)
            if row is not None and not row.settled:
                await durable(journal, replace(row, settled=True, lost=lost).rows())

        show = partial(book.evidence_of, journal)
        lookout = Lookout(self.ledger, self.key, show, over, self.clock, self._heard)
        life.spawn(lookout.run())
        while True:
            for row in book.channels(journal):
                if row.params.two_way and not row.settled:
                    lookout.watch(row.params, partner=False)
            await asyncio.sleep(5.0)

    def committed(self, keys: list[bytes]) -> None:
        self.world.checks.cars.committed(self, keys)

    def _heard(self, event: str, **facts: Any) -> None:
        if self.life.alive:
            self.tell(event, **facts)
            if event == "accepted" and self.cheat in ("stale close", "vanish"):
                self.life.later(self.rng.uniform(0.1, 20.0), self._cheat)

    def _cheat(self) -> None:
        """In the middle of a session: close behind the supplier's back, or go."""
        if self.cheat == "vanish":
            self.crash()
        else:
            self.life.spawn(self.close_all(self.life))

    async def _leave(self, life: Life, journal: MemoryJournal) -> None:
        """All is healed, and everything was bought: end every session, and every channel."""
        for row in book.unfinished(journal, Role.CONSUMER):
            pole = row.terms.offer.name
            purchase = Purchase(pole, 3, 1_000_000, True, None)
            while not self.world.site.outlets[pole].plug(self):  # noqa: ASYNC110 - people wait so, too
                await asyncio.sleep(1.0)
            try:
                await self._consumer(life, journal, purchase).buy()
            except PenstockError as error:
                self.tell("not ended", error=error.line())
            self.world.site.outlets[pole].unplug(self)
        calm = 0
        while calm < 2:  # an opening may still be on its way when we first look
            calm = calm + 1 if await self.close_all(life) else 0
            await asyncio.sleep(30.0)
        self.done = True
        self.tell("done")
