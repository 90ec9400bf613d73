"""The payee's half of hop locks: the channels that bring them to a pole or to a hub, from neighbours that pay it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec

from penstock.core.channel import MAX_LOCKS, MAX_PERIOD, ChannelParams
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import (
    BadMessage,
    BadTerms,
    JournalError,
    LedgerError,
    LedgerUnreachable,
    OutOfRange,
    PenstockError,
)
from penstock.core.hops import Incoming, InLock, Place, filing_of
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Add, Change, Enter, Entered, Message, Promise, Reach, Reached, SignedReach, Told
from penstock.core.ports import Journal, Ledger
from penstock.core.session import Role
from penstock.core.units import Amount, Instant
from penstock.node import book
from penstock.node.book import ChannelRow
from penstock.node.ledger_time import LedgerTime
from penstock.node.lookout import Lookout
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell

MOST_REACH = 60_000  # bytes of what we say of ourselves and others: a frame holds little more
PAUSE = 5.0  # seconds between two looks at our locks, at most


class Payer(Protocol):
    """Where a neighbour's messages come from, and where ours go."""

    gone: bool

    def send(self, message: Message) -> None: ...


class Taker(Protocol):
    """What becomes of locks: they pay sessions here, or others onward."""

    def take_up(self, incoming: Incoming) -> None:
        """These books come from the journal."""
        ...

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        """A promise was taken, and is durable."""
        ...

    def reached(self) -> list[SignedReach]:
        """What others said whom we reach."""
        ...

    def speaks(self, reached: Reached) -> Reached:
        """What we say of ourselves, filled in."""
        ...


class Terms(msgspec.Struct, frozen=True):
    """On which terms locks are taken. Periods, margins and lives in seconds.

    `min_period` is the shortest challenge period in which we trust ourselves to answer. What we can prove of a lock and
    were not paid is claimed on the ledger `margin` before it expires. A channel brings at most `locks` at once and
    `a_minute` in one; nothing is locked for longer than `longest`.
    """

    min_period: int = 600
    margin: int = 300
    locks: int = MAX_LOCKS
    a_minute: int = 600
    longest: int = min(MAX_PERIOD, 7 * 86_400)


class Incomings:
    """Every channel that brings us locks: takes promises, tells how they stand, and claims in time what is not paid."""

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Ledger,
        clock: Callable[[], Instant],
        tell: Tell,
        terms: Terms | None = None,
        time: LedgerTime | None = None,
    ) -> None:
        self.key, self.journal, self.ledger, self.clock, self.tell = key, journal, ledger, clock, tell
        self.terms = terms or Terms()
        self.time = time or LedgerTime(ledger, clock)
        self.channels: dict[bytes, Incoming] = {}
        self.taker: Taker | None = None
        self.lookout = Lookout(ledger, key, partial(book.evidence_of, journal), self._over, clock, tell)
        self._payers: dict[bytes, Payer] = {}
        self._claiming: set[bytes] = set()
        self.fail: Callable[[JournalError], None] = lambda error: None
        self.pays_else: Callable[[bytes], bool] = lambda channel: False
        """Whether a channel pays us in another way now."""
        self._added: dict[bytes, tuple[Instant, int]] = {}  # since when so many locks came over a channel
        self._tasks = Tasks()

    def begin(self, taker: Taker) -> None:
        """Take up from the journal what we were promised."""
        self.taker = taker
        for row in book.each_channel(self.journal):
            if row.role is Role.SUPPLIER and not row.settled:
                held, locks = book.hops_in(self.journal, row.params.id)
                if held.signature:
                    self.channels[row.params.id] = incoming = Incoming(row.params, row.deposit, self.key, held, locks)
                    self.lookout.watch(row.params)
                    taker.take_up(incoming)

    def start(self, tasks: Tasks) -> None:
        """Look after the channels from now on."""
        tasks.start(self.lookout.run())
        tasks.start(self._run())

    # ---- what a payer asks

    def reach(self) -> Reach:
        """On which terms we take locks, and whom we reach."""
        assert self.taker is not None
        said = Reached(self.key.address, self.ledger.domain, self.terms.min_period, 0, 0, 0, (), self.clock())
        known = [SignedReach.made(self.key, self.taker.speaks(said))]
        room = MOST_REACH - len(encode(known[0]))
        for one in self.taker.reached():  # others may have told us of more than a frame holds
            room -= len(encode(one)) + 1
            if room > 0:
                known.append(one)
        return Reach(tuple(known))

    async def enter(self, payer: Payer, peer: bytes, enter: Enter) -> None:
        """A neighbour pays us over this channel from now on, once the ledger says that it is good.

        Raises:
            BadTerms: the channel is not ours, not its, or not open. LedgerError: the ledger cannot tell.
        """
        params = self._checked(enter.params, peer)
        deposit = await self._deposit(params, self._free(params.id))
        row = self._free(params.id)  # nothing is waited for from here on until the channel is ours
        incoming = self.channels.get(params.id)
        if incoming is None:
            held, locks = book.hops_in(self.journal, params.id)
            self.channels[params.id] = incoming = Incoming(params, deposit, self.key, held, locks)
            fresh = msgspec.structs.replace(row or ChannelRow(params, Role.SUPPLIER, deposit), deposit=deposit)
            await durable(self.journal, fresh.rows())
            if row is None:
                self.tell("channel taken", channel=to_hex(params.id), deposit=deposit)
        elif deposit > incoming.deposit:
            incoming.deposit = deposit
            if row is not None:
                await durable(self.journal, msgspec.structs.replace(row, deposit=deposit).rows())
        self.lookout.watch(params)
        self._payers[params.id] = payer
        nonce, tolds = incoming.row.voucher.nonce, [self._told(incoming, number) for number in sorted(incoming.locks)]
        await durable(self.journal, ())  # some of it may only be about to be
        payer.send(Entered(params.id, nonce))
        for told in tolds:
            self._say(told)

    def _free(self, channel: bytes) -> ChannelRow | None:
        """What we know of a channel; None of one that is new.

        Raises:
            BadTerms: it cannot pay by hop locks: it is about to be closed, or its deposit stands for something else.
        """
        row = book.channel_of(self.journal, channel)
        if row is not None and row.over:
            raise BadTerms("the channel is closing", "open another channel")
        if channel not in self.channels and (self.pays_else(channel) or book.earned_of(self.journal, channel)[0]):
            raise BadTerms("the channel pays us in another way", "open another channel")
        return row

    def carries(self, channel: bytes) -> bool:
        """Whether a channel pays us by hop locks, and so in no other way."""
        return channel in self.channels or bool(book.hops_in(self.journal, channel)[0].signature)

    def _checked(self, params: ChannelParams, peer: bytes) -> ChannelParams:
        try:
            params.check()
        except OutOfRange as error:
            raise BadTerms(str(error)) from None
        if params.domain != self.ledger.domain:
            raise BadTerms("the channel is on another ledger than ours")
        if (params.opener, params.opener_key) != (peer, peer):
            raise BadTerms("the channel is somebody else's: its account and key have to be those of this link")
        if (params.partner, params.partner_key) != (self.key.address, self.key.address):
            raise BadTerms("the channel does not lead to us")
        if params.two_way:
            raise BadTerms("hop locks go over one-way channels", "open one")
        if params.period < self.terms.min_period:
            raise BadTerms(f"the channel's challenge period of {params.period} s is below {self.terms.min_period} s")
        return msgspec.structs.replace(params, domain=self.ledger.domain)

    async def _deposit(self, params: ChannelParams, row: ChannelRow | None) -> Amount:
        """What the payer has in the channel; as we saw it last where the ledger cannot be reached for now."""
        try:
            state = await self.ledger.channel(params)
        except LedgerUnreachable:
            if row is None or not row.deposit or not self.fresh(params):
                raise
            self.tell("leaning on an old view", channel=to_hex(params.id), seen_s=self._age())
            return row.deposit
        if state.status != "open":
            raise BadTerms(f"the channel is {state.status} on the ledger", "open one, and wait until it is final")
        if state.opener_drawn or state.partner_drawn:
            raise BadTerms("somebody has drawn from the channel", "open another channel")
        return state.opener_deposit

    def fresh(self, params: ChannelParams) -> bool:
        """Whether the ledger was seen so recently that nobody can have closed the channel behind our back."""
        return self.time.fresh(params.period // 2)

    def _age(self) -> int:
        return max(0, self.clock() - (self.time.seen or self.clock())) // 1000

    async def promise(self, payer: Payer, promise: Promise) -> None:
        """Take the next voucher of a channel.

        Raises:
            RemoteError: it is not what follows, or the channel is none to be promised in any more.
        """
        incoming = self.channels.get(promise.channel)
        if incoming is None or self._payers.get(promise.channel) is not payer:
            raise BadMessage("a promise in a channel that was not entered over this link")
        if incoming.row.voucher != promise.voucher:  # said again after a lost link, it is only answered
            if self.lookout.closing(promise.channel) or promise.channel in self._claiming:
                raise BadTerms("the channel is closing on the ledger", "open another channel")
            self._count(promise)
        took = incoming.take(promise, self.time.past + MAX_PERIOD)
        if took.rows:
            await durable(self.journal, took.rows)
        if took.changes:
            assert self.taker is not None
            await self.taker.changed(incoming, took.changes)
        if not payer.gone:
            payer.send(took.answer)

    def _count(self, promise: Promise) -> None:
        """Locks are cheap to ask for and dear to carry: who brings many in a minute is refused those beyond."""
        fresh, now = sum(isinstance(change, Add) for change in promise.changes), self.clock()
        since, count = self._added.get(promise.channel, (now, 0))
        if not 0 <= now - since < 60_000:
            since, count = now, 0
        self._added[promise.channel] = since, count + fresh

    def why_not(self, incoming: Incoming, held: InLock) -> str:
        """Why nothing may rest on a lock that has come; "" where it may."""
        channel = incoming.params.id
        if len(incoming.locks) > self.terms.locks or self._added.get(channel, (0, 0))[1] > self.terms.a_minute:
            return f"more than {self.terms.locks} locks at once, or {self.terms.a_minute} in a minute: try later"
        left = held.lock.expiry - self.time.latest
        if left > self.terms.longest:
            return f"locked for {left} s, more than {self.terms.longest} s"
        if self.time.behind:
            return f"our clock is {self.time.behind} s behind the ledger's"
        if not self.fresh(incoming.params):
            return "the ledger was not seen for too long here"
        return "the channel is closing on the ledger" if self.lookout.closing(channel) else ""

    # ---- what we say

    async def keep(self, incoming: Incoming, number: int, rows: Rows) -> None:
        """Make what we know of a lock durable, and tell its payer."""
        if rows:
            told = self._told(incoming, number)  # as it is now: what follows meanwhile is not durable by then
            await durable(self.journal, rows)
            self._say(told)

    @staticmethod
    def _told(incoming: Incoming, number: int) -> Told | None:
        held = incoming.locks.get(number)
        return held.told(Place(incoming.params.id, number)) if held else None

    def _say(self, told: Told | None) -> None:
        """Tell a lock's payer how it stands, where it is there to hear it."""
        payer = self._payers.get(told.channel) if told else None
        if payer is not None and not payer.gone and told is not None:
            payer.send(told)

    # ---- the ledger

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except JournalError as error:
                self.fail(error)
                return
            await asyncio.sleep(min(PAUSE, self.lookout.pause))

    async def look(self) -> None:
        """Let go of what has expired, and claim what is about to."""
        with suppress(LedgerError):  # the lookout says so
            await self.time.look()
        if self.time.behind:
            self.tell("clock is behind", seconds=self.time.behind)
        for incoming in list(self.channels.values()):
            await self._look(incoming)

    async def _look(self, incoming: Incoming) -> None:
        channel = incoming.params.id
        for number, held in list(incoming.locks.items()):
            if self.time.gone(held.lock.expiry) and held.done != 0 and not self.lookout.closing(channel):
                await self.keep(incoming, number, incoming.lapse(number))
            elif held.count and self.time.latest >= held.lock.expiry - self.terms.margin and self._open(channel):
                self._claiming.add(channel)
                self._tasks.start(self._claim(incoming))

    def _open(self, channel: bytes) -> bool:
        return channel not in self._claiming and not self.lookout.closing(channel)

    async def _claim(self, incoming: Incoming) -> None:
        """Close a channel whose payer does not pay what we can prove: the lookout goes on from there."""
        params = incoming.params
        self.tell("claiming", channel=to_hex(params.id), locks=len(incoming.locks))
        try:
            if (await self.ledger.channel(params)).status == "open":
                await self.ledger.close(self.key, params, filing_of(incoming.row, incoming.locks))
            await self.lookout.look()
        except PenstockError as error:
            self.tell("not claimed", channel=to_hex(params.id), error=error.line())
            await asyncio.sleep(self.lookout.pause)
        finally:
            self._claiming.discard(params.id)

    async def _over(self, params: ChannelParams, lost: Amount) -> None:
        """The lookout saw that the channel was paid out."""
        row = book.channel_of(self.journal, params.id)
        self.channels.pop(params.id, None)
        if row is not None and not row.settled:
            await durable(self.journal, msgspec.structs.replace(row, settled=True, lost=lost).rows())

    @property
    def locked(self) -> int:
        """What is locked in our favour (token units)."""
        return sum(incoming.row.voucher.locked for incoming in self.channels.values())

    async def close(self) -> None:
        """Do no more."""
        await self._tasks.cancel()
