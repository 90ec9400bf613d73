"""A hub's heart: it pairs the locks that come in with those that go out, one to one, and is paid for lending between.

What it knows of a pair is durable in this order, so that a crash between any two steps leaves it whole: the incoming
lock names the outgoing one before that is promised; what the incoming one will end at is written before the outgoing
one is settled; and its payer is told so only when the outgoing one has been released.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from penstock.core.channel import Lock
from penstock.core.errors import BadTerms, PeerRefused, PenstockError
from penstock.core.hops import Incoming, InLock, OutLock, Place
from penstock.core.identity import Address, to_hex
from penstock.core.messages import Add, Ask, Change, Edge, Hop, Reached, Settle, SignedReach, Told
from penstock.node.incoming import Incomings
from penstock.node.outgoing import Neighbour
from penstock.node.tasks import durable
from penstock.node.tell import Tell

MILLION = 1_000_000
HOUR = 3_600
RECENT = 200  # ends that are remembered for the operator


class Fees(msgspec.Struct, frozen=True):
    """What a hub takes: millionths of each tick's value, millionths of what it locks for each hour, and for safety an
    incoming lock that expires `delta` seconds later. One neighbour may hold `share` percent of a channel onward.
    """

    fee_ppm: int = 10_000
    holding_ppm: int = 100
    delta: int = 1_800
    share: int = 75

    def tick(self, value: int) -> int:
        """What a tick costs whoever pays us, where the next one gets `value` (token units)."""
        return value + -(-value * self.fee_ppm // MILLION)

    def holding(self, locked: int, seconds: int) -> int:
        """The fee for locking so much for so long (token units)."""
        return -(-locked * self.holding_ppm * max(0, seconds) // (MILLION * HOUR))


class Relay:
    """Lends onward what comes in: the taker of a hub's incoming locks, and who hears of its outgoing ones."""

    def __init__(self, incomings: Incomings, fees: Fees, tell: Tell) -> None:
        self.incomings, self.fees, self.tell = incomings, fees, tell
        self.neighbours: dict[Address, Neighbour] = {}  # by whom they pay: where locks go now
        self.former: list[Neighbour] = []  # whose channels still have locks, though none goes there any more
        self.pairs: dict[Place, Place] = {}  # outgoing to incoming
        self.earned = 0
        """Fees of locks that were settled and of holding, since we were started (token units)."""
        self.carried = 0
        self.heard: deque[str] = deque(maxlen=RECENT)
        self.messages = 0
        """How many there were from and to neighbours about locks."""

    # ---- incoming

    def take_up(self, incoming: Incoming) -> None:
        for number, held in incoming.locks.items():
            if held.out is not None and held.done is None:
                self.pairs[held.out] = Place(incoming.params.id, number)

    async def resume(self) -> None:
        """Go on where a crash has left our pairs: to be called once all neighbours have their books."""
        books = {one.outgoing.params.id: one.outgoing.all for one in self._all() if one.outgoing}
        for incoming in list(self.incomings.channels.values()):
            for number, held in list(incoming.locks.items()):
                if held.done is not None:
                    continue
                if held.out is None:
                    await self._refuse(incoming, number, "the hub was restarted: try again")
                elif held.out.channel not in books:
                    self.tell("channel onward unknown", channel=to_hex(held.out.channel))
                elif held.out.number not in books[held.out.channel]:  # settled, or never promised
                    await self._finish(incoming, number, held.ending or 0)
                elif held.asked and (neighbour := self._neighbour(held.out)) is not None:
                    neighbour.ask(held.out.number, held.count, held.preimage, held.rest)  # once, if it was not heard

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        self._count(*(type(change).__name__ for change in changes))
        # Side by side, so that what they write shares a commit; each has done what must keep its order when it waits.
        await asyncio.gather(*(self._change(incoming, change) for change in changes))

    def _count(self, *kinds: str) -> None:
        for kind in kinds:
            self.messages += 1
            self.tell("about a lock", kind=kind, messages=self.messages)

    async def _change(self, incoming: Incoming, change: Change) -> None:
        match change:
            case Add():
                await self._forward(incoming, change)
            case Ask():
                await self._asked(incoming, change)
            case Settle(total=total):
                self.earned += total

    async def _forward(self, incoming: Incoming, add: Add) -> None:
        number, origin = add.number, Place(incoming.params.id, add.number)
        self.earned += add.holding
        try:
            neighbour, hop = self._checked(incoming, incoming.locks[number])
            lock = Lock(add.lock.root, hop.tick_value, add.lock.ticks, hop.expiry)
            self._check_share(incoming, neighbour, lock)
            out = Place(self._channel(neighbour), neighbour.add(lock, hop.holding, add.onward[1:], origin))
        except PenstockError as error:
            await self._refuse(incoming, number, error.line())
            return
        self.earned -= hop.holding
        self.carried += 1
        self.pairs[out] = origin
        # In the journal before the promise is: `Neighbour` writes that later, and rows become durable in their order.
        await durable(self.incomings.journal, incoming.forward(number, out))
        self.tell("lock forwarded", incoming=number, outgoing=out.number, value=lock.value, until=lock.expiry)

    def _checked(self, incoming: Incoming, held: InLock) -> tuple[Neighbour, Hop]:
        """Where a lock goes, and on which terms.

        Raises:
            PeerRefused, BadTerms: nowhere, or on none of ours.
        """
        add = held.add
        if why := self.incomings.why_not(incoming, held):
            raise PeerRefused(why)
        if not add.onward:
            raise BadTerms("the lock ends here, and a hub sells nothing", "name a route")
        hop = add.onward[0]
        neighbour = self.neighbours.get(hop.payee)
        if neighbour is None:
            raise PeerRefused(f"no channel from here to {to_hex(hop.payee)}")
        if add.lock.tick_value < self.fees.tick(hop.tick_value) or hop.tick_value <= 0:
            raise BadTerms(f"a tick of {hop.tick_value} costs {self.fees.tick(hop.tick_value)} here")
        if add.lock.expiry - hop.expiry < self.fees.delta:
            raise BadTerms(f"an incoming lock has to expire {self.fees.delta} s after the outgoing one")
        lasts = add.lock.expiry - self.incomings.time.latest
        least = self.fees.holding(hop.tick_value * add.lock.ticks, lasts)
        if add.holding - hop.holding < least:
            raise BadTerms(f"holding so much for so long costs {least} here, not {add.holding - hop.holding}")
        if hop.expiry <= self.incomings.time.latest:
            raise BadTerms("the lock would have expired at the next hop")
        return neighbour, hop

    def _check_share(self, incoming: Incoming, neighbour: Neighbour, lock: Lock) -> None:
        """No neighbour may keep the others from a channel."""
        out = neighbour.outgoing
        if out is None:
            raise PeerRefused(f"no way onward: {neighbour.why}")
        most = out.deposit * self.fees.share // 100
        if out.lent(incoming.params.id) + lock.value > most:
            raise PeerRefused(f"at most {most} token units of this channel are lent to one neighbour")

    @staticmethod
    def _channel(neighbour: Neighbour) -> bytes:
        assert neighbour.outgoing is not None
        return neighbour.outgoing.params.id

    async def _asked(self, incoming: Incoming, ask: Ask) -> None:
        held = incoming.locks.get(ask.number)
        if held is None or held.out is None:
            return
        try:
            rows = incoming.prove(ask.number, ask.count, ask.preimage)
        except PenstockError as error:
            self.tell("not proven", lock=ask.number, error=error.line())
            return
        if rows:
            await durable(self.incomings.journal, rows)
        neighbour = self._neighbour(held.out)
        if neighbour is not None:
            neighbour.ask(held.out.number, ask.count, ask.preimage, ask.rest)

    def _all(self) -> list[Neighbour]:
        return [*self.neighbours.values(), *self.former]

    def _neighbour(self, out: Place) -> Neighbour | None:
        for one in self._all():
            if one.outgoing is not None and one.outgoing.params.id == out.channel:
                return one
        return None

    async def _refuse(self, incoming: Incoming, number: int, why: str) -> None:
        self.tell("lock refused", incoming=number, error=why)
        self.heard.append(why)
        await self.incomings.keep(incoming, number, incoming.done(number, 0, why))

    async def _finish(self, incoming: Incoming, number: int, total: int, why: str = "") -> None:
        """The outgoing lock is gone: the incoming one is done."""
        held = incoming.locks.get(number)
        if held is None:
            return
        if held.out is not None:
            self.pairs.pop(held.out, None)
        await self.incomings.keep(incoming, number, incoming.done(number, total, why))

    def reached(self) -> list[SignedReach]:
        found: dict[bytes, SignedReach] = {}
        for neighbour in self.neighbours.values():
            for one in neighbour.known[:16]:
                known = found.get(one.reached.node)
                if one.reached.node != self.incomings.key.address and (
                    known is None or known.reached.at < one.reached.at
                ):
                    found[one.reached.node] = one
        return list(found.values())[:48]

    def speaks(self, reached: Reached) -> Reached:
        edges = tuple(
            Edge(payee, _rounded(one.outgoing.free))
            for payee, one in self.neighbours.items()
            if one.outgoing is not None and one.ready.is_set() and not one.closing
        )
        fees = self.fees
        return msgspec.structs.replace(
            reached, fee_ppm=fees.fee_ppm, holding_ppm=fees.holding_ppm, delta=fees.delta, edges=edges
        )

    # ---- outgoing

    def _origin(self, channel: bytes, number: int) -> tuple[Incoming, int] | None:
        place = self.pairs.get(Place(channel, number))
        incoming = self.incomings.channels.get(place.channel) if place else None
        return (incoming, place.number) if incoming is not None and place and place.number in incoming.locks else None

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        self._count("in place")
        if (found := self._origin(channel, number)) is not None:
            incoming, origin = found
            await self.incomings.keep(incoming, origin, incoming.place(origin))

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        self._count("done")
        found = self._origin(channel, told.number)
        late = self.incomings.time.latest >= lock.lock.expiry
        if found is None or late or found[0].locks[found[1]].done is not None:
            return told.total == 0  # nobody pays us for it any more: the ledger would not give it more either
        incoming, origin = found
        rows = incoming.prove(origin, told.count, told.preimage) if told.count else ()
        fee = incoming.locks[origin].lock.tick_value - lock.lock.tick_value
        rows += incoming.end(origin, told.total + fee * told.count)
        if told.why:
            self.heard.append(told.why[:200])
        await durable(self.incomings.journal, rows)
        self.earned -= told.total
        return True

    async def settled(self, channel: bytes, number: int) -> None:
        if (found := self._origin(channel, number)) is not None:
            incoming, origin = found
            await self._finish(incoming, origin, incoming.locks[origin].ending or 0)

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None:
        if (found := self._origin(channel, number)) is None:
            return
        incoming, origin = found
        rows = incoming.prove(origin, count, preimage)
        if rows:
            await durable(self.incomings.journal, rows)
            self.tell("preimage lifted", lock=origin, ticks=count)
        if count == lock.lock.ticks:
            await self._finish(incoming, origin, incoming.locks[origin].worth)

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None:
        if (found := self._origin(channel, number)) is not None:
            incoming, origin = found
            await self._finish(incoming, origin, incoming.locks[origin].worth, "nothing came of it before it expired")


def _rounded(capacity: int) -> int:
    """What is told of a capacity: its four highest bits, so that asking again and again shows no single payment."""
    keep = max(0, capacity.bit_length() - 4)
    return capacity >> keep << keep
