"""Payments over hubs as the kit takes them: real channels in a row, and hubs that do what a hub's node does.

The hubs are honest and always there; they fold as soon as both sides have ended a session, and where one side leaves
alone they claim upstream what was claimed of them. For the kit they take no fees: what it holds is that not a unit goes
astray on the way. That they gain their fees, and no more, is in `test_hop_fees.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from penstock.core.channel import ChannelParams, Domain, Lock, Release, Voucher
from penstock.core.codec import encode
from penstock.core.errors import BadMessage, LedgerError
from penstock.core.hops import (
    NO_VOUCHER,
    Incoming,
    InLock,
    InRow,
    Outgoing,
    OutLock,
    OutRow,
    Place,
    decode_in,
    decode_in_lock,
    decode_out,
    decode_out_lock,
    filing_of,
)
from penstock.core.identity import Digest, Key
from penstock.core.messages import Add, Hop, Promise, Reached, Settle, SignedReach, Taken
from penstock.core.offer import Offer
from penstock.core.session import Role
from penstock.core.ticks import TickChain
from penstock.core.units import Amount, Instant
from penstock.ledgers.devnet.manifest import dev_key
from penstock.rails import hops
from penstock.rails.hops import END_ROWS, TICK_ROWS, HopOffer, HopPayee, HopPayer, HopTerms, SeedRow
from penstock.testing.rail import Books, Coded, Shares, Signed

from .fields import Fields, channel_of, flat, of
from .ground import CONSUMER, SUPPLIER, Ground

PERIOD, LIFE, DELTA = 3_600, 7_200, 600  # seconds
FOREVER = 2**39
HUBS = [dev_key(number) for number in (3, 4, 5)]
LOCK = Lock(b"\x11" * 32, 700, 5, 5_000_000_000)


class Channel:
    """One channel on the way: its payer's books and its payee's, and the two accounts."""

    def __init__(self, params: ChannelParams, deposit: int, payer: Key, payee: Key) -> None:
        self.params, self.payer, self.payee = params, payer, payee
        self.out = Outgoing(params, deposit, payer, OutRow(NO_VOUCHER), {})
        self.incoming = Incoming(params, deposit, payee, InRow(NO_VOUCHER), {})

    def exchange(self) -> None:
        """The next promise, and what its payee says to it."""
        made = self.out.promise()
        assert made is not None
        self.out.taken(self.incoming.take(made[1], FOREVER).answer)


class HopFunds:
    """A row of channels from consumer to supplier, each with the session's lock in it."""

    def __init__(self, setup: HopSetup, channels: list[Channel], ticks: int, tick_value: int, now: int) -> None:
        self.deposit, self._tick, self.channels = ticks * tick_value, tick_value, channels
        setup.seeds += 1
        self.seed = setup.seeds.to_bytes(32, "big")
        root = TickChain(self.seed, ticks).root
        for at, channel in enumerate(channels):
            expiry = now + LIFE + DELTA * (len(channels) - 1 - at)
            channel.out.add(Lock(root, tick_value + setup.fee * (len(channels) - 1 - at), ticks, expiry), 0, ())
            channel.exchange()
        self.terms = HopTerms(setup.ground.channels.domain, root, ticks, now + LIFE)
        self.rail_terms = encode(self.terms)
        self._ledger = setup.ground.channels
        self._setup, self._folded = setup, False

    def payer(self, books: Books) -> HopPayer:
        return self._setup.payer(self.terms, self._tick, self.seed, books.get(END_ROWS + self.terms.root))

    def payee(self, books: Books) -> HopPayee:
        ticks, end = books.get(TICK_ROWS + self.terms.root), books.get(END_ROWS + self.terms.root)
        return self._setup.payee(self.terms, self._tick, ticks, end)

    async def shares(self) -> Shares:
        consumer, supplier, contract = [
            await self._ledger.holdings(owner)
            for owner in (CONSUMER.address, SUPPLIER.address, self.terms.domain.contract)
        ]
        hubs = [(await self._ledger.holdings(hub.address)).wallet for hub in HUBS]
        held = contract.wallet - consumer.balance - supplier.balance + sum(hubs)
        # What stays free for the rest of a tick is no part of the session's money.
        state = await self._ledger.channel(self.channels[0].params)
        free = self._tick if state.status != "settled" and not state.opener_drawn else 0
        return Shares(consumer.tokens + free, supplier.tokens, held - free)

    async def leave(self, role: Role, books: Books) -> None:
        self._fold(books)
        if role is Role.CONSUMER:
            await self._close(self.channels[0], CONSUMER, filed=False)
            return
        count, preimage = self.payee(books).proof
        if not self._folded and count:
            self.channels[-1].incoming.prove(1, count, preimage)
        for channel in reversed(self.channels):
            await self._lift(channel)
            await self._close(channel, channel.payee, filed=True)

    async def answer(self, role: Role, books: Books) -> None:
        if role is Role.SUPPLIER:
            await self.leave(role, books)

    async def cheat(self, supplier: Books, consumer: Books) -> Role:
        self._fold(supplier)
        await self._close(self.channels[0], CONSUMER, filed=False)  # as if nothing had ever been paid
        return Role.SUPPLIER

    async def collect(self, role: Role) -> None:
        for channel in self.channels:
            if (await self._ledger.channel(channel.params)).status == "closing":
                await self._ledger.settle(channel.payee, channel.params)

    def _fold(self, books: Books) -> None:
        """Where the session has ended with its bill the hubs settle, downstream first, once the rest of a tick came."""
        end = books.get(END_ROWS + self.terms.root)
        if end is None or self._folded:
            return
        self._folded = True
        count, preimage, bill = hops.proof_in(end)
        rest = max(0, bill - count * self._tick)
        for channel in self.channels:
            if rest:
                channel.out.ask(1, count, preimage, rest)
                channel.exchange()
        for channel in reversed(self.channels):
            if count:
                channel.incoming.prove(1, count, preimage)
            fees = (channel.incoming.locks[1].lock.tick_value - self._tick) * count
            channel.incoming.done(1, bill - rest + fees)
            told = channel.incoming.locks[1].told(Place(channel.params.id, 1))
            assert told is not None
            channel.out.told(told)
            channel.out.settle(1, told.total)
            channel.exchange()

    async def _lift(self, channel: Channel) -> None:
        """A hub that pays through a later channel learns what was proven there."""
        at = self.channels.index(channel)
        if at + 1 == len(self.channels) or 1 not in channel.incoming.locks:
            return
        for proof in await self._ledger.proven(self.channels[at + 1].params):
            channel.incoming.prove(1, proof.count, proof.preimage)

    async def _close(self, channel: Channel, key: Key, *, filed: bool) -> None:
        state = await self._ledger.channel(channel.params)
        filing = filing_of(channel.incoming.row, channel.incoming.locks) if filed else None
        if state.status == "open":
            await self._ledger.close(key, channel.params, filing)
        elif filing is not None and state.status == "closing":
            await self._ledger.file(key, channel.params, filing)
        if not filed and self.channels[0] is channel:  # its payee answers at once, as it does in every challenge
            with suppress(LedgerError):
                ours = filing_of(channel.incoming.row, channel.incoming.locks)
                await self._ledger.file(channel.payee, channel.params, ours)


class HopSetup:
    """Sessions over so many hubs."""

    capabilities = hops.CAPABILITIES
    supplier, consumer = SUPPLIER, CONSUMER
    payer, payee, funds = HopPayer, HopPayee, HopFunds
    hubs = 1
    fee = 0  # token units of each tick, for each hub

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.seeds = 0
        self.deadline = LIFE + DELTA * self.hubs + 60

    async def now(self) -> Instant:
        return await self.ground.now()

    async def wait(self, seconds: int) -> None:
        await self.ground.wait(seconds)

    def checked(self) -> list[bytes]:
        return self.ground.checked()

    def details(self) -> bytes:
        return encode(HopOffer(self.ground.channels.domain, SUPPLIER.address, 60))

    async def fund(self, offer: Offer, deposit: int) -> HopFunds:
        parties, ticks = [CONSUMER, *HUBS[: self.hubs], SUPPLIER], deposit // offer.tick_value
        channels = []
        for payer, payee in itertools.pairwise(parties):
            params = self.params(payer, payee)
            deposit = Amount((ticks + 1) * (offer.tick_value + self.fee * self.hubs))
            await self.ground.channels.open(payer, params, deposit)
            channels.append(Channel(params, deposit, payer, payee))
        return self.funds(self, channels, ticks, offer.tick_value, await self.ground.channels.now())

    def params(self, payer: Key, payee: Key) -> ChannelParams:
        """A channel that is not open yet."""
        self.seeds += 1
        ends = (payer.address, payee.address)
        return ChannelParams(self.ground.channels.domain, *ends, *ends, PERIOD, False, 2**63 + self.seeds)

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        return {"promise": self._promise, "release of what came before": self._release, "reach": self._reach}

    async def _promise(self) -> Signed:
        params = self.params(CONSUMER, SUPPLIER)
        incoming = Incoming(params, 50_000, SUPPLIER, InRow(NO_VOUCHER), {})
        voucher = Voucher.over(1, 3, (LOCK,))

        async def give(fields: Fields, signature: bytes) -> None:
            where = channel_of(fields)
            books = incoming if where == params else Incoming(where, 50_000, SUPPLIER, InRow(NO_VOUCHER), {})
            books.take(Promise(where.id, of(Voucher, fields), signature, (Add(1, LOCK, 3, ()),)), FOREVER)

        async def state() -> object:
            return incoming.row, dict(incoming.locks)

        def digest(fields: Fields) -> Digest:
            return Digest(of(Voucher, fields).digest(channel_of(fields)))

        fields = flat(params, voucher)
        return Signed(fields, digest, CONSUMER.sign(digest(fields)), CONSUMER.address, give, state, on_ledger=False)

    async def _release(self) -> Signed:
        params = self.params(CONSUMER, SUPPLIER)
        out = Outgoing(params, 50_000, CONSUMER, OutRow(NO_VOUCHER), {})
        out.add(LOCK, 3, ())
        out.promise()

        async def give(fields: Fields, signature: bytes) -> None:
            where, release = channel_of(fields), of(Release, fields)
            if where != params or release.amount != 3:
                books = Outgoing(where, 50_000, CONSUMER, OutRow(NO_VOUCHER), {})
                books.add(LOCK, release.amount, ())
                books.promise()
            else:
                books = out
            rows, _ = books.taken(Taken(where.id, release.nonce, signature))
            if not rows and not books.row.released:
                raise BadMessage("nothing was waiting for that")

        async def state() -> object:
            return out.row

        def digest(fields: Fields) -> Digest:
            return Digest(of(Release, fields).digest(channel_of(fields)))

        fields = flat(params, Release(1, 3))
        return Signed(fields, digest, SUPPLIER.sign(digest(fields)), SUPPLIER.address, give, state, on_ledger=False)

    async def _reach(self) -> Signed:
        heard: list[SignedReach] = []
        reached = Reached(SUPPLIER.address, self.ground.channels.domain, 600, 5, 6, 7, (), Instant(8))
        fields: Fields = {"node": reached.node, "min_period": 600, "fee_ppm": 5, "holding_ppm": 6, "delta": 7, "at": 8}

        def made(fields: Fields) -> Reached:
            return Reached(**{"domain": reached.domain, "edges": (), **fields})

        async def give(fields: Fields, signature: bytes) -> None:
            one = SignedReach(made(fields), signature)
            one.check()
            heard.append(one)

        async def state() -> object:
            return tuple(heard[:1])

        def digest(fields: Fields) -> Digest:
            return made(fields).digest()

        return Signed(fields, digest, SUPPLIER.sign(digest(fields)), SUPPLIER.address, give, state, on_ledger=False)

    @property
    def coded(self) -> Sequence[Coded]:
        domain, place = Domain(1, SUPPLIER.address, CONSUMER.address), Place(b"\x44" * 32, 7)
        add = Add(3, LOCK, 2**90, (Hop(SUPPLIER.address, 700, 9, 4),))
        voucher = Voucher.over(3, 50, (LOCK,))
        values: list[tuple[str, Any, Callable[[bytes], object]]] = [
            ("offer's part", HopOffer(domain, SUPPLIER.address, 60), hops.decode_offer),
            ("terms' part", HopTerms(domain, b"\x33" * 32, 9, 7_000), hops.decode_terms),
            ("chain's row", SeedRow(b"\x55" * 32, 9, b"\x44" * 32, 7, 707, 3), hops.decode_seed),
            ("payer's row", OutRow(voucher, b"\x22" * 65, (add, Settle(2, 5)), 2, 40), decode_out),
            ("payer's lock", OutLock(LOCK, place, placed=True), decode_out_lock),
            ("payee's row", InRow(voucher, b"\x22" * 65, 3), decode_in),
            ("payee's lock", InLock(add, 4, b"\x66" * 32, place, placed=True), decode_in_lock),
        ]
        return [Coded(name, value, encode, decode) for name, value, decode in values]


class TwoHubs(HopSetup):
    """The same over two hubs."""

    hubs = 2


class ThreeHubs(HopSetup):
    """The same over three."""

    hubs = 3
