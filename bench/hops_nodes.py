"""The processes of `bench.hops`: hubs, a supplier's end, a consumer's end, and a crowd that pays one hub.

The ledger alone is stood in for: it says of every channel that it is open with a deposit, and takes every opening.
Hubs, links, journals, locks and sessions are the real ones. Each process says what it has to say as lines of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvloop
from bench.sessions_load import cpu_of, memory_of
from bench.sessions_node import OpenLedger, room
from bench.streams import CONSUMER, SUPPLIER, Sample, Watched, say
from bench.streams import TICK as TICK_VALUE
from bench.streams import terms as stream_terms
from msgspec.structs import replace

from penstock.core.channel import ChannelParams, Lock
from penstock.core.codec import decode_part, encode
from penstock.core.errors import PeerRefused, PenstockError
from penstock.core.hops import Incoming, OutLock
from penstock.core.identity import Address, Key
from penstock.core.messages import Add, Change, Hop, Reached, Reason, SignedReach, Told
from penstock.core.offer import Terms, accept_digest, propose_digest
from penstock.core.ports import ChannelState, Link, Mined
from penstock.core.rail import Ends
from penstock.core.session import Role, Session, SessionRow
from penstock.core.ticks import TickChain
from penstock.core.units import Amount, Quantity
from penstock.node.book import ChannelRow
from penstock.node.clock import now
from penstock.node.hop_purse import HopPurse
from penstock.node.hop_till import HopTill
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings
from penstock.node.incoming import Terms as LockTerms
from penstock.node.outgoing import Neighbour
from penstock.node.relay import Fees
from penstock.node.shell import SessionShell
from penstock.node.site import Site
from penstock.node.tasks import durable
from penstock.node.visit import Asked, Visit, Visits
from penstock.rails.hops import NAME, HopOffer
from penstock.rails.stream import StreamPayee, StreamPayer, decode_terms
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import TlsLink, connect, serve

HOST = "127.0.0.1"
DEPOSIT = 2**60  # token units in every channel
PERIOD = 3_600  # seconds
LEAST_LIFE = 900  # seconds that a lock must still have to go
LOCK_TICKS = 100  # of each lock of the crowd's
USED_TICKS = 60  # of them that its session came to
CROWD_TICKS = 60.0  # seconds that all of them get


class Ledger(OpenLedger):
    """A ledger on which every channel is open, and has been for long."""

    async def channel(self, params: ChannelParams) -> ChannelState:
        return ChannelState("open", Amount(DEPOSIT))

    async def now(self) -> int:
        return int(time.time())

    async def next_counter(self, opener: Address) -> int:
        return 0

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        return []

    async def final(self, params: ChannelParams) -> bool:
        return True


LEDGER: Any = Ledger()  # of the ledger's calls, those that are made here


async def _ledger() -> Any:
    return LEDGER


def _untold(event: str, **_: Any) -> None:
    """Nobody asks what happened."""


def _dial(port: int, key: Key) -> Callable[[], Any]:
    return partial(connect, HOST, port, key)


# ---- a hub


async def hub(directory: Path, number: int, onward: int) -> None:
    """One hub that pays whoever listens at port `onward`; says how many messages about locks it had, when asked."""
    key, journal = Key(bytes((0x60 + number,)) * 32), SqliteJournal(directory / f"hub{number}.sqlite")
    reach = {f"{HOST}:{onward}": _dial(onward, key)}
    limits = LockTerms(min_period=PERIOD)
    one = Hub(key, journal, LEDGER, now, _untold, reach, DEPOSIT, Fees(share=100), limits, PERIOD)
    await one.incomings.look()
    await one.start()
    server = await serve(HOST, 0, key, one.on_link)
    while not (one.relay.neighbours and all(each.ready.is_set() for each in one.relay.neighbours.values())):  # noqa: ASYNC110 - tells nobody
        await asyncio.sleep(0.01)
    say({"port": server.port})
    while await asyncio.to_thread(sys.stdin.readline):
        nonces = [each.row.voucher.nonce for each in one.incomings.channels.values()]
        nonces += [each.outgoing.row.voucher.nonce for each in one.relay.neighbours.values() if each.outgoing]
        say({"messages": one.relay.messages, "vouchers": sum(nonces)})
    await server.close()
    await one.close()
    await journal.close()


# ---- both ends of a session


class Door:
    """Where hubs pay us; a session's own link goes to a port of its own."""

    def __init__(self, site: Site) -> None:
        self.site, self.visits = site, Visits()

    def on_link(self, link: Link) -> None:
        self.visits.add(Visit(self, link))  # type: ignore[arg-type]  # it sells nothing

    def pole_for(self, asked: Asked) -> Any:
        raise PeerRefused("nothing is sold here")

    def left(self, visit: Visit, in_order: bool) -> None:
        self.visits.discard(visit)


class End:
    """One side of a session in this process: what it did by when."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.over: asyncio.Future[PenstockError | None] = asyncio.get_running_loop().create_future()

    def end(self, error: PenstockError | None) -> None:
        if not self.over.done():
            self.over.set_result(error)

    async def finish(self, shell: SessionShell) -> None:
        error = await asyncio.wait_for(self.over, 60)
        if error is not None or not shell.session.complete:
            raise SystemExit(f"the session broke: {error or shell.session.reason} {shell.session.fault}")

    def sample(self, ticks: int) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.samples.append(Sample(time.monotonic(), ticks, used.ru_utime + used.ru_stime))


def _signed(terms: Terms) -> tuple[bytes, bytes]:
    digest = terms.digest()
    return CONSUMER.sign(propose_digest(digest)), SUPPLIER.sign(accept_digest(digest))


async def supply(directory: Path) -> None:
    """The supplier: takes locks over hubs at one port, and one session at another, over either rail."""
    journal, end = SqliteJournal(directory / "supplier.sqlite"), End()
    incomings = Incomings(SUPPLIER, journal, LEDGER, now, _untold, LockTerms(min_period=PERIOD))
    await incomings.look()
    till = HopTill(incomings)
    site = Site(SUPPLIER, journal, now, _untold, [till])  # type: ignore[list-item]  # one till of two
    site.incomings = incomings
    till.start(site.tasks)
    door = await serve(HOST, 0, SUPPLIER, Door(site).on_link)
    links: asyncio.Queue[TlsLink] = asyncio.Queue()
    server = await serve(HOST, 0, SUPPLIER, links.put_nowait)
    line = LineSupply(directory / "line", 10**9, package=Quantity(1))
    say({"port": server.port, "door": door.port})
    link = await links.get()
    frames: asyncio.Queue[bytes] = asyncio.Queue()
    link.attach(frames.put_nowait, lambda error: None)
    terms, opening = decode_part(await frames.get(), Terms), await frames.get()
    if terms.rail == NAME:
        ends, rows = await till.admit(terms, b"")
    else:
        payee = StreamPayee(decode_terms(terms.rail_terms), DEPOSIT)
        ends, rows = Ends(None, payee), payee.take(opening)
    await durable(journal, rows)
    session = Session(SessionRow(Role.SUPPLIER, terms, *_signed(terms), line.read()), ends, SUPPLIER, now())
    shell = SessionShell(session, journal, line, line, now, end.end)
    line.watch(shell.on_reading)
    if terms.rail == NAME:
        till.begin(terms, shell.stop)
    link.attach(shell.on_frame, end.end)
    shell.begin(link)
    while not end.over.done():
        end.sample(0)
        await asyncio.sleep(0.01)
    await end.finish(shell)
    if terms.rail == NAME:
        till.release(session.row)
        while till.folding:  # noqa: ASYNC110 - tells nobody
            await asyncio.sleep(0.01)
    say({"samples": end.samples})
    await asyncio.to_thread(sys.stdin.readline)
    await server.close()
    await door.close()
    await site.close()
    await journal.close()


async def consume(directory: Path, rail: str, window: int, ticks: int, port: int, first: int) -> None:
    """The consumer: locks over the hub at port `first`, or opens a channel, and streams so many ticks."""
    journal, end = SqliteJournal(directory / "consumer.sqlite"), End()
    terms, purse = stream_terms(window, now()), None
    if rail == NAME:
        details = encode(HopOffer(LEDGER.domain, SUPPLIER.address, LEAST_LIFE))
        offer = replace(terms.offer, rails={NAME: details})
        hubs = [_dial(first, CONSUMER)]
        purse = HopPurse(CONSUMER, journal, _ledger, hubs, now, _untold, LEDGER.domain, DEPOSIT, PERIOD)
        locked = await purse.fund(offer, ticks * TICK_VALUE)
        terms = replace(terms, offer=offer, rail=NAME, rail_terms=locked)
        payer: Any = purse.ends(terms, b"", again=False).payer
    else:
        payer = StreamPayer(decode_terms(terms.rail_terms), DEPOSIT, CONSUMER, bytes(32))
    say({"ready": True})
    await asyncio.to_thread(sys.stdin.readline)
    link, opening = await connect(HOST, port, CONSUMER, expect=SUPPLIER.address), payer.open()
    await durable(journal, opening.rows)
    meter = LineMeter(directory / "line")
    row = SessionRow(Role.CONSUMER, terms, *_signed(terms), meter.read())
    session = Session(row, Ends(payer, None), CONSUMER, now())
    shell = Watched(session, journal, meter, None, now, end.end)
    shell.acknowledged, shell.sent, shell.trips = 0, 0.0, []
    link.attach(shell.on_frame, end.end)
    gc.collect()
    link.send(encode(terms))
    link.send(opening.data or b"-")
    shell.begin(link)
    while shell.acknowledged < ticks * 9 // 10 * TICK_VALUE and not end.over.done():
        end.sample(shell.acknowledged // TICK_VALUE)
        await asyncio.sleep(0.005)
    end.sample(shell.acknowledged // TICK_VALUE)
    shell.stop(Reason.OPERATOR)
    await end.finish(shell)
    say({"samples": end.samples, "trips": shell.trips})
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    if purse is not None:
        await purse.finish(terms)
        say({"fold_s": time.perf_counter() - began})
        await purse.close()
    link.close()
    await journal.close()


# ---- many at one hub


class Payee:
    """Says of each lock at once that it is in place, and of all that they are done, when it is told to."""

    def __init__(self, incomings: Incomings, chains: dict[bytes, TickChain]) -> None:
        self.incomings, self.chains = incomings, chains
        incomings.begin(self)

    def take_up(self, incoming: Incoming) -> None: ...

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        await asyncio.gather(
            *(
                self.incomings.keep(incoming, change.number, incoming.place(change.number))
                for change in changes
                if isinstance(change, Add)
            )
        )

    def reached(self) -> list[SignedReach]:
        return []

    def speaks(self, reached: Reached) -> Reached:
        return reached

    async def done(self) -> None:
        """Every session is over."""
        (incoming,) = self.incomings.channels.values()
        rows = {
            number: incoming.prove(number, USED_TICKS, self.chains[held.lock.root].preimage(USED_TICKS))
            + incoming.done(number, USED_TICKS * TICK_VALUE)
            for number, held in incoming.locks.items()
        }
        await asyncio.gather(*(self.incomings.keep(incoming, number, what) for number, what in rows.items()))


class Crowd:
    """Those who pay, each over a channel of its own; counts what they hear."""

    def __init__(self, count: int) -> None:
        self.count, self.in_place, self.gone = count, 0, 0
        self.changed = asyncio.Event()

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        self.in_place += 1
        self._look(self.in_place)

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        if told.total == 0:
            raise SystemExit(f"a lock came to nothing: {told.why}")
        return True

    async def settled(self, channel: bytes, number: int) -> None:
        self.gone += 1
        self._look(self.gone)

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None: ...

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None: ...

    def _look(self, number: int) -> None:
        if number == self.count:
            self.changed.set()

    async def all(self) -> None:
        await asyncio.wait_for(self.changed.wait(), CROWD_TICKS)
        self.changed.clear()


async def crowd(directory: Path, count: int) -> None:
    """So many sessions at once, at a hub that is started once we listen: its process and port come on our input."""
    journal, chains = SqliteJournal(directory / "payee.sqlite"), {}
    incomings = Incomings(SUPPLIER, journal, LEDGER, now, _untold, LockTerms(min_period=PERIOD))
    await incomings.look()
    payee = Payee(incomings, chains)
    site = Site(SUPPLIER, journal, now, _untold, [])
    site.incomings = incomings
    server = await serve(HOST, 0, SUPPLIER, Door(site).on_link)
    say({"door": server.port})
    facts = json.loads(await asyncio.to_thread(sys.stdin.readline))
    process, hub_key = facts["pid"], Key(b"\x60" * 32).address
    listener, paid = Crowd(count), SqliteJournal(directory / "crowd.sqlite")

    def neighbour(number: int) -> Neighbour:
        key = Key(sha256(b"bench crowd %d" % number).digest())

        async def find(reached: Reached) -> ChannelRow:
            ends = (key.address, reached.node)
            row = ChannelRow(
                ChannelParams(LEDGER.domain, *ends, *ends, PERIOD, False, 0), Role.CONSUMER, Amount(DEPOSIT)
            )
            await durable(paid, row.rows())
            return row

        return Neighbour(key, paid, _dial(facts["port"], key), find, _ledger, None, _untold, listener)

    all_ = [neighbour(number) for number in range(count)]
    running = [asyncio.ensure_future(one.run()) for one in all_]
    for one in all_:
        await asyncio.wait_for(one.ready.wait(), CROWD_TICKS)
    fees, expiry = Fees(), int(time.time()) + 7_200
    hop = Hop(SUPPLIER.address, TICK_VALUE, expiry, 0)
    value, until = fees.tick(TICK_VALUE), expiry + fees.delta
    holding = fees.holding(TICK_VALUE * LOCK_TICKS, until - int(time.time()) + 60)
    made = [TickChain(sha256(b"bench chain %d" % number).digest(), LOCK_TICKS) for number in range(count)]
    chains.update({chain.root: chain for chain in made})
    assert hub_key == all_[0].outgoing.params.partner  # type: ignore[union-attr]  # it has been let in
    memory = memory_of(process)

    def marks() -> tuple[float, float]:
        return cpu_of(process), time.perf_counter()

    first = marks()
    for one, chain in zip(all_, made, strict=True):
        one.add(Lock(chain.root, value, LOCK_TICKS, until), holding, (hop,))
    await listener.all()
    locked, full = marks(), memory_of(process)
    await payee.done()
    await listener.all()
    settled = marks()
    earned = sum(one.outgoing.row.voucher.amount for one in all_ if one.outgoing is not None)
    (incoming,) = incomings.channels.values()
    assert incoming.row.voucher.amount == count * USED_TICKS * TICK_VALUE
    say(
        {
            "lock_cpu_s": locked[0] - first[0],
            "lock_s": locked[1] - first[1],
            "settle_cpu_s": settled[0] - locked[0],
            "settle_s": settled[1] - locked[1],
            "kb_each": (full - memory) * 1.024 / count,
            "hub_earned": earned - incoming.row.voucher.amount,
        }
    )
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await server.close()
    await incomings.close()


WORK: dict[str, Callable[..., Any]] = {
    "hub": lambda directory, number, onward: hub(Path(directory), int(number), int(onward)),
    "supply": lambda directory: supply(Path(directory)),
    "consume": lambda directory, rail, *numbers: consume(Path(directory), rail, *map(int, numbers)),
    "crowd": lambda directory, count: crowd(Path(directory), int(count)),
}

if __name__ == "__main__":
    room(4_096)
    uvloop.run(WORK[sys.argv[1]](*sys.argv[2:]))
