"""The payer's half of hop locks: one neighbour that we pay through a channel, the link to it, and the ledger's view."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from penstock.core.channel import ChannelParams, Lock
from penstock.core.codec import decode, encode
from penstock.core.errors import (
    BadMessage,
    JournalError,
    LedgerError,
    LinkLost,
    PeerRefused,
    PenstockError,
    RemoteError,
)
from penstock.core.hops import Outgoing, OutLock, Place
from penstock.core.identity import Key, to_hex
from penstock.core.messages import (
    AskReach,
    Change,
    Enter,
    Entered,
    Hop,
    Message,
    Promise,
    Reach,
    Reached,
    Refused,
    Settle,
    SignedReach,
    Taken,
    Told,
)
from penstock.core.ports import Journal, Ledger, Link
from penstock.core.units import Instant
from penstock.node import book, onward
from penstock.node.book import ChannelRow
from penstock.node.ledger_time import LedgerTime
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell

AGAIN = 20.0  # seconds between two questions whom the neighbour reaches
WAITS = (0.2, 5.0)  # seconds before we dial again: at first, and at last
STEADY = 10.0  # seconds that a link lasts that was a good one
MAX_FRAMES = 4_096  # of the neighbour's that we have not got to
MAX_KNOWN = 64  # nodes that a neighbour may tell of


class Heard(Protocol):
    """Who wants to know how the locks of a channel (its id) fare. Each call is made once what it says is durable."""

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        """A lock is in place, all the way."""
        ...

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        """The payee is done with a lock: make durable what follows. Whether the lock may be settled at what it says."""
        ...

    async def settled(self, channel: bytes, number: int) -> None:
        """A lock is gone: the payee has released it."""
        ...

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None:
        """The payee has proven ticks on the ledger."""
        ...

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None:
        """A lock has expired on the ledger: nothing more can be claimed of it."""
        ...


class Neighbour:
    """One neighbour, and the channel through which we pay it with hop locks."""

    def __init__(
        self,
        key: Key,
        journal: Journal,
        dial: Callable[[], Awaitable[Link]],
        find: Callable[[Reached], Awaitable[ChannelRow]],
        ledger: Callable[[], Awaitable[Ledger]],
        time: LedgerTime | None,
        tell: Tell,
        heard: Heard,
        fail: Callable[[JournalError], None] = lambda error: None,
    ) -> None:
        """`find` gives the channel to a neighbour that has just said what it is. With a `time` the ledger is looked at,
        for what the neighbour does to our channel there: a hub needs that, and a consumer does not. `fail` hears that
        our journal failed.
        """
        self._fail = fail
        self.key, self.journal, self.tell, self.heard = key, journal, tell, heard
        self._dial, self._find, self._ledger, self._time = dial, find, ledger, time
        self.outgoing: Outgoing | None = None
        self.known: tuple[SignedReach, ...] = ()
        self.ready = asyncio.Event()  # the channel was entered over the link that we have
        self.why = "not reached yet"
        self.closing = False  # the ledger has the channel in its challenge, or has ended it
        self.refused = False  # the neighbour did not let us into our channel when we asked last
        self.missing = False  # the ledger does not have it: a reorganisation took its opening out
        self._open: Instant | None = None  # when, by our clock, the ledger was last seen to have it open
        self._entering = False  # we have asked to be let in over this link
        self._finding = False  # a channel to the neighbour is looked for, or opened
        self._wake = asyncio.Event()
        self._link: Link | None = None
        self._sent = 0  # the nonce of the promise that left over this link

    @property
    def opening(self) -> bool:
        """Whether a channel is being opened, or was and the neighbour, which is there, does not let us into it: it may
        want more blocks above the opening than we do."""
        return self._finding or (self.refused and self.outgoing is not None and not self.outgoing.row.signature)

    @property
    def reached(self) -> Reached | None:
        """What the neighbour says of itself; None before it did."""
        return self.known[0].reached if self.known else None

    def take_up(self, row: ChannelRow) -> Outgoing:
        """Our books of a channel, from the journal."""
        self.outgoing = Outgoing(row.params, row.deposit, self.key, *book.hops_out(self.journal, row.params.id))
        self._open = None
        return self.outgoing

    # ---- what we promise

    def add(self, lock: Lock, holding: int, onward: tuple[Hop, ...], origin: Place | None = None) -> int:
        """Promise a lock. Returns its number.

        Raises:
            PeerRefused: the neighbour is not there. OutOfFunds: the channel has not so much left.
        """
        if self.outgoing is None or not self.ready.is_set() or self.closing or self.missing:
            raise PeerRefused("the channel onward is closing" if self.closing else f"no way onward: {self.why}")
        number = self.outgoing.add(lock, holding, onward, origin)
        self._wake.set()
        return number

    def ask(self, number: int, count: int, preimage: bytes, rest: int) -> None:
        """Ask for a lock's end."""
        if self.outgoing is not None:
            self.outgoing.ask(number, count, preimage, rest)
            self._wake.set()

    def settle(self, number: int, total: int) -> None:
        """Pay for a lock, and remove it."""
        if self.outgoing is not None:
            self.outgoing.settle(number, total)
            self._wake.set()

    # ---- the link

    async def run(self) -> None:
        """Keep a link to the neighbour, until cancelled."""
        pause = WAITS[0]
        tasks = Tasks()
        if self._time is not None:
            tasks.start(self._watch())
        try:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._talk()
                except JournalError as error:
                    self.why = error.line()
                    self._fail(error)
                    return
                except PenstockError as error:
                    if self.why != error.line():
                        self.why = error.line()
                        self.tell("neighbour not reached", error=self.why)
                if asyncio.get_running_loop().time() - began > STEADY:
                    pause = WAITS[0]
                await asyncio.sleep(pause)
                pause = min(WAITS[1], pause * 1.7)
        finally:
            await tasks.cancel()
            if self._link is not None:
                self._link.close("done")

    async def _talk(self) -> None:
        """One link, until it is lost.

        Raises:
            PenstockError: why it was.
        """
        try:
            link = await self._dial()
        except PenstockError:
            self.refused = False  # it may be gone
            raise
        self._link, self._sent, self._entering = link, 0, False
        frames: asyncio.Queue[bytes | PenstockError] = asyncio.Queue()

        def take(frame: bytes) -> None:
            if frames.qsize() < MAX_FRAMES:
                frames.put_nowait(frame)
            else:
                link.close("more than was asked for")
                frames.put_nowait(BadMessage("the neighbour sends more than it was asked for"))

        link.attach(take, frames.put_nowait)
        beside = Tasks()
        beside.start(self._ask())
        beside.start(self._promising(link, frames.put_nowait))
        try:
            while True:
                frame = await frames.get()
                if isinstance(frame, PenstockError):
                    raise frame
                await self._take(link, decode(frame))
        except RemoteError as error:
            if not isinstance(error, LinkLost):
                link.close(error.line())
            raise
        finally:
            self._link = None
            self.ready.clear()
            await beside.cancel()
            link.close("done")

    def ask_reach(self) -> None:
        """Ask the neighbour whom it reaches by now."""
        if self._link is not None:
            self._link.send(encode(AskReach()))

    async def _ask(self) -> None:
        while True:
            self.ask_reach()
            await asyncio.sleep(AGAIN)

    async def _take(self, link: Link, message: Message) -> None:
        match message:
            case Reach():
                await self._reached(link, message)
            case Entered():
                self._entered(message)
            case Taken():
                await self._taken(message)
            case Told():
                await self._told(message)
            case Refused():
                self.refused = self._entering
                raise PeerRefused(message.why[:300])
            case _:
                raise BadMessage(f"{type(message).__name__} does not belong between neighbours")

    async def _reached(self, link: Link, message: Reach) -> None:
        if not 0 < len(message.known) <= MAX_KNOWN:
            raise BadMessage("a neighbour says what it is, and tells of a few others")
        for one in message.known:
            one.check()
        node = message.known[0].reached
        if node.node != link.peer:
            raise BadMessage("the neighbour says that it is somebody else than its link proves")
        self.known = message.known
        if self.closing and self.ready.is_set():  # over a link that holds, too, another channel is looked for
            self.ready.clear()
            self._entering = False
        if self.ready.is_set() or self._entering:
            return
        self._entering = True
        again = self.refused and self._time is None  # who looks at the ledger would know what became of the channel
        if self.outgoing is None or self.outgoing.params.partner != node.node or self.closing or again:
            self._finding = True
            try:
                row = await self._find(node)
            finally:
                self._finding = False
            if self.outgoing is None or row.params.id != self.outgoing.params.id:
                self.take_up(row)
        assert self.outgoing is not None
        if not self._answerable:
            with suppress(LedgerError):
                await self.look()
        link.send(encode(Enter(self.outgoing.params)))

    def _entered(self, message: Entered) -> None:
        out = self.outgoing
        if out is None or message.channel != out.params.id:
            raise BadMessage("the neighbour has let us into another channel")
        held = {out.row.released, out.row.voucher.nonce}
        if message.nonce not in held:
            raise BadMessage(
                f"the neighbour holds voucher {message.nonce} of ours, our journal has {out.row.voucher.nonce}",
                "one of the two is a backup: close the channel on the ledger, and open another",
            )
        self.ready.set()
        self.refused = False
        self.why = ""
        self._wake.set()
        self.tell("neighbour entered", channel=to_hex(out.params.id), free=out.free)

    async def _promising(self, link: Link, fail: Callable[[PenstockError], None]) -> None:
        """Promise until the journal does not take one: what it does not hold must not be sent over another link."""
        try:
            await self._promise(link)
        except JournalError as error:
            fail(error)

    async def _promise(self, link: Link) -> None:
        """Promise what is queued, one voucher at a time."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            out = self.outgoing
            if out is None or not self.ready.is_set() or self.closing:
                continue
            made = out.promise()
            promise: Promise | None = out.waiting
            if made is not None:
                rows, promise = made
                await durable(self.journal, rows)
            if promise is not None and promise.voucher.nonce != self._sent:
                self._sent = promise.voucher.nonce
                link.send(encode(promise))

    @property
    def _answerable(self) -> bool:
        """Whether a release would still bind the payee on the ledger, whatever it files there from now on or has filed
        since we looked: half a challenge is left to show it in. Only who owes somebody the same lock has to ask."""
        if self._time is None:
            return True
        return self.outgoing is not None and self._time.near(self._open, self.outgoing.params.period // 2)

    async def _taken(self, message: Taken) -> None:
        out = self._out(message.channel)
        if not self._answerable:  # the locks may be paid all the same; `look` asks for it again where they cannot be
            self.tell("release not counted", channel=to_hex(message.channel), nonce=message.nonce)
            return
        rows, changes = out.taken(message)
        if rows:
            await durable(self.journal, rows)
        await self._gone(message.channel, changes)
        self._wake.set()

    async def _gone(self, channel: bytes, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change, Settle):
                await self.heard.settled(channel, change.number)

    async def _told(self, message: Told) -> None:
        out = self._out(message.channel)
        rows, lock = out.told(message)
        if rows:
            await durable(self.journal, rows)
        if lock is None:
            return
        if not message.done:
            await self.heard.placed(message.channel, message.number, lock)
            return
        if await self.heard.done(message.channel, message, lock):
            self.settle(message.number, message.total)

    def _out(self, channel: bytes) -> Outgoing:
        if self.outgoing is None or channel != self.outgoing.params.id:
            raise BadMessage("that is another channel than ours")
        return self.outgoing

    # ---- the ledger

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except LedgerError as error:
                self.tell("ledger not seen", error=error.line())
            except JournalError as error:
                self._fail(error)
                return
            except PenstockError as error:  # whatever it is, nobody else looks after the channel
                self.tell("not looked at", error=error.line())
            period = self.outgoing.params.period if self.outgoing else 3_600
            await asyncio.sleep(min(10.0, max(1.0, period / 60)))

    async def look(self) -> None:
        """See what became of the channel on its ledger, and answer.

        Raises:
            LedgerError: it does not say.
        """
        out = self.outgoing
        if out is None or self._time is None:
            return
        await self._time.look()
        ledger = await self._ledger()
        seen, state = self._time.seen, await ledger.channel(out.params)
        if out is not self.outgoing:
            return  # there is another channel by now
        was, self.closing = self.closing, state.status in ("closing", "settled")
        self.missing = state.status == "absent"
        again = not self._answerable
        self._open = seen if state.status == "open" else None
        if again and self._answerable:
            self._sent = 0  # a release that did not count is asked for again
            self._wake.set()
        if self.closing:
            if not was:
                self.tell("channel onward closing", channel=to_hex(out.params.id), locks=len(out.all))
                await self._mark(out.params, closing=True)
            for number, lock, proof in await onward.shown(ledger, out):
                await self.heard.proven(out.params.id, number, lock, proof.count, proof.preimage)
            await onward.answer(ledger, self.key, out, state, self.tell)
        for number, lock in out.all.items():
            if self._time.gone(lock.lock.expiry):
                await self.heard.expired(out.params.id, number, lock)
        if state.status == "settled" and await ledger.final(out.params):
            await self._mark(out.params, closing=False, settled=True)

    async def _mark(self, params: ChannelParams, **fields: bool) -> None:
        """The journal's record of the channel: no lock goes over one that is over."""
        row = book.channel_of(self.journal, params.id)
        if row is not None and not row.settled:
            await durable(self.journal, msgspec.structs.replace(row, **fields).rows())
