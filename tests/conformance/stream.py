"""The stream channel as the kit takes it: channels of the real contract, and how each side ends one alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.core import rail
from penstock.core.channel import ChannelParams, Domain, Lock, Voucher
from penstock.core.codec import encode
from penstock.core.identity import Key
from penstock.core.offer import Offer
from penstock.core.ports import Filing
from penstock.core.session import Role
from penstock.core.units import Amount, Instant
from penstock.core.watcher import Act, Evidence, next_act
from penstock.rails import stream
from penstock.rails.stream import (
    EARNED_ROWS,
    PAID_ROWS,
    TICK_ROWS,
    EarnedRow,
    PaidRow,
    StreamBack,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    VoucherNote,
)
from penstock.testing.rail import Books, Coded, Shares, Signed

from . import stream_papers
from .ground import CONSUMER, SUPPLIER, Ground

PERIOD = 3_600
SECRET, BACK_SECRET = b"\x07" * 32, b"\x08" * 32
CONSUMER_KEY, SUPPLIER_KEY = Key(b"\x0c" * 32), Key(b"\x0d" * 32)


class StreamFunds:
    """One channel, open and unused."""

    def __init__(self, setup: StreamSetup, params: ChannelParams, deposit: int, tick_value: int) -> None:
        self.params, self.deposit = params, deposit
        self.terms = StreamTerms(params, 0, 0, tick_value)
        self.rail_terms = encode(self.terms)
        self._setup, self._ledger = setup, setup.ground.channels

    def payer(self, books: Books) -> StreamPayer:
        row = books.get(PAID_ROWS + self.params.id)
        paid = stream.decode_paid(row) if row else None
        return self._setup.payer(self.terms, self.deposit, CONSUMER_KEY, SECRET, paid)

    def payee(self, books: Books) -> StreamPayee:
        row, ticks = books.get(EARNED_ROWS + self.params.id), books.get(TICK_ROWS + self.params.id)
        return self._setup.payee(self.terms, self.deposit, stream.decode_earned(row) if row else None, ticks)

    async def shares(self) -> Shares:
        consumer, supplier, contract = [
            await self._ledger.holdings(owner)
            for owner in (CONSUMER.address, SUPPLIER.address, self.params.domain.contract)
        ]
        held = contract.wallet - consumer.balance - supplier.balance
        return Shares(consumer.tokens, supplier.tokens, held)

    async def leave(self, role: Role, books: Books) -> None:
        key, filing = (SUPPLIER, self.filing(books)) if role is Role.SUPPLIER else (CONSUMER, None)
        await self._ledger.close(key, self.params, filing)

    async def answer(self, role: Role, books: Books) -> None:
        filing = self.filing(books) if role is Role.SUPPLIER else None
        if filing is None:
            return
        filed = await self._ledger.filed(self.params, True)
        act = next_act(Evidence(self.params, True, filing), filed.channel, filed, await self._ledger.now())
        if act is Act.FILE:
            await self._ledger.file(SUPPLIER, self.params, filing)

    async def cheat(self, supplier: Books, consumer: Books) -> Role:
        await self._ledger.close(CONSUMER, self.params, None)  # as if nothing had ever been paid
        return Role.SUPPLIER

    async def collect(self, role: Role) -> None:
        if (await self._ledger.channel(self.params)).status == "closing":
            await self._ledger.settle(SUPPLIER if role is Role.SUPPLIER else CONSUMER, self.params)

    def filing(self, books: Books) -> Filing | None:
        """The best that a payee's journal can show."""
        row = books.get(EARNED_ROWS + self.params.id)
        if row is None:
            return None
        earned = stream.decode_earned(row)
        note = earned.note
        proofs = (stream.proof_of(earned, books.get(TICK_ROWS + self.params.id)),) if note.locks else ()
        return Filing(note.voucher, note.signature, note.locks, proofs)


class StreamBothFunds:
    """One two-way channel, funded by its opener, and unused."""

    payee = StreamPayee

    def __init__(self, setup: StreamSetup, params: ChannelParams, deposit: int, ticks: tuple[int, int]) -> None:
        self.params, self.deposit = params, deposit
        self.terms = StreamTerms(params, 0, 0, ticks[0], StreamBack(0, 0, ticks[1]))
        self.rail_terms = encode(self.terms)
        self._ledger, self._one_way = setup.ground.channels, StreamFunds(setup, params, deposit, ticks[0])

    def both(self, role: Role, books: Books) -> rail.Ends:
        paid, earned = books.get(PAID_ROWS + self.params.id), books.get(EARNED_ROWS + self.params.id)
        back, ticks = role is Role.SUPPLIER, books.get(TICK_ROWS + self.params.id)
        key, secret = (SUPPLIER_KEY, BACK_SECRET) if back else (CONSUMER_KEY, SECRET)
        ours, theirs = (0, self.deposit) if back else (self.deposit, 0)
        payer = StreamPayer(self.terms, ours, key, secret, stream.decode_paid(paid) if paid else None, back=back)
        held = stream.decode_earned(earned) if earned else None
        return stream.pair(payer, self.payee(self.terms, theirs, held, ticks, back=not back))

    async def shares(self) -> Shares:
        return await self._one_way.shares()

    async def leave(self, role: Role, books: Books) -> None:
        await self._ledger.close(_account(role), self.params, self._one_way.filing(books))

    async def answer(self, role: Role, books: Books) -> None:
        filing, partner = self._one_way.filing(books), role is Role.SUPPLIER
        if filing is None:
            return
        filed = await self._ledger.filed(self.params, partner)
        act = next_act(Evidence(self.params, partner, filing), filed.channel, filed, await self._ledger.now())
        if act is Act.FILE:
            await self._ledger.file(_account(role), self.params, filing)

    async def collect(self, role: Role) -> None:
        if (await self._ledger.channel(self.params)).status == "closing":
            await self._ledger.settle(_account(role), self.params)


def _account(role: Role) -> Key:
    return SUPPLIER if role is Role.SUPPLIER else CONSUMER


class StreamSetup:
    """Stream channels from one consumer to one supplier."""

    capabilities = stream.CAPABILITIES
    supplier, consumer = SUPPLIER, CONSUMER
    deadline = PERIOD + 1
    payer, payee, funds, both_funds = StreamPayer, StreamPayee, StreamFunds, StreamBothFunds

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._counter = 0

    async def now(self) -> Instant:
        return await self.ground.now()

    async def wait(self, seconds: int) -> None:
        await self.ground.wait(seconds)

    def checked(self) -> list[bytes]:
        return self.ground.checked()

    def details(self) -> bytes:
        return encode(StreamOffer(self.ground.channels.domain, SUPPLIER.address, SUPPLIER_KEY.address, PERIOD))

    async def fund(self, offer: Offer, deposit: int) -> StreamFunds:
        params = self.params()
        await self.ground.channels.open(CONSUMER, params, Amount(deposit))
        return self.funds(self, params, deposit, offer.tick_value)

    async def fund_both(self, offer: Offer, deposit: int) -> StreamBothFunds:
        assert offer.feed is not None
        params = msgspec.structs.replace(self.params(), two_way=True)
        await self.ground.channels.open(CONSUMER, params, Amount(deposit))
        return self.both_funds(self, params, deposit, (offer.tick_value, offer.feed.tick_value))

    def params(self) -> ChannelParams:
        """A channel that is not open yet."""
        self._counter += 1
        return ChannelParams(
            self.ground.channels.domain,
            CONSUMER.address,
            SUPPLIER.address,
            CONSUMER_KEY.address,
            SUPPLIER_KEY.address,
            PERIOD,
            False,
            self._counter,
        )

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        return stream_papers.signed(self)

    @property
    def coded(self) -> Sequence[Coded]:
        lock = Lock(b"\x11" * 32, 700, 9)
        note = VoucherNote(Voucher.over(3, 50, (lock,)), b"\x22" * 65, (lock,))
        domain = Domain(1, SUPPLIER.address, CONSUMER.address)
        one, two, three, four = (Key(bytes((n,)) * 32).address for n in range(1, 5))
        params = ChannelParams(domain, one, two, three, four, 60, True, 2**64 - 1)
        values: list[tuple[str, Any, Callable[[bytes], object]]] = [
            ("offer's part", StreamOffer(domain, SUPPLIER.address, CONSUMER.address, 60), stream.decode_offer),
            ("terms' part", StreamTerms(params, 2, 40, 700), stream.decode_terms),
            ("payer's row", PaidRow(note, 2, 9, 4, 5), stream.decode_paid),
            ("payee's row", EarnedRow(note, 6), stream.decode_earned),
        ]
        return [Coded(name, value, encode, decode) for name, value, decode in values]
