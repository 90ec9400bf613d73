"""The escrow as the kit takes it: deposits in the real contract, and how each side gets out of one alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.core.codec import encode
from penstock.core.escrow import EscrowDomain, EscrowParams, MeterReading, SignedReading, end_digest, tariff_hash
from penstock.core.identity import Key
from penstock.core.offer import Offer
from penstock.core.ports import SignedEnd
from penstock.core.session import Role
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.rails import escrow
from penstock.rails.escrow import END_ROWS, READING_ROWS, EndNote, EscrowOffer, EscrowPayee, EscrowPayer, EscrowTerms
from penstock.testing.rail import Books, Coded, Shares, Signed

from . import escrow_papers
from .ground import CONSUMER, SUPPLIER, Ground

WINDOW, LIFE = 600, 7_200  # seconds
CONSUMER_KEY, SUPPLIER_KEY, METER = Key(b"\x0c" * 32), Key(b"\x0d" * 32), Key(b"\x0e" * 32)


class EscrowFunds:
    """One deposit, of which nothing is claimed."""

    def __init__(self, setup: EscrowSetup, params: EscrowParams, offer: Offer) -> None:
        self.params, self.offer, self.deposit = params, offer, params.deposit
        self.rail_terms = encode(EscrowTerms(params))
        self._setup, self._ledger = setup, setup.ground.escrows

    def payer(self, books: Books) -> EscrowPayer:
        return self._setup.payer(self.params, self.offer, CONSUMER_KEY, *self.rows(books))

    def payee(self, books: Books) -> EscrowPayee:
        return self._setup.payee(self.params, self.offer, METER, *self.rows(books))

    def rows(self, books: Books) -> tuple[SignedReading | None, EndNote | None]:
        """The newest reading and the payer's end, as a journal has them."""
        reading, end = books.get(READING_ROWS + self.params.id), books.get(END_ROWS + self.params.id)
        return escrow.decode_reading(reading) if reading else None, escrow.decode_end(end) if end else None

    async def shares(self) -> Shares:
        consumer, supplier, contract = [
            await self._ledger.holdings(owner)
            for owner in (CONSUMER.address, SUPPLIER.address, self.params.domain.contract)
        ]
        held = contract.wallet - consumer.balance - supplier.balance
        return Shares(consumer.tokens, supplier.tokens, held)

    async def leave(self, role: Role, books: Books) -> None:
        signed, end = self.rows(books)
        if role is Role.CONSUMER:
            return  # the deposit comes back when the deadline has passed
        if end is not None:
            own = SUPPLIER_KEY.sign(end_digest(self.params, end.amount))
            await self._ledger.end(SUPPLIER, [SignedEnd(self.params, Amount(end.amount), end.signature, own)])
        elif signed is not None and (signed.reading.last or signed.reading.due(self.offer.tariff, self.deposit)):
            await self._ledger.release(SUPPLIER, self.params, self.offer.tariff, signed)

    async def answer(self, role: Role, books: Books) -> None:
        own = self.rows(books)[0]
        if role is not Role.CONSUMER or own is None:
            return
        for filed in await self._ledger.filed(self.params):
            if own.reading.contradicts(filed.reading):
                await self._ledger.contest(CONSUMER, self.params, self.offer.tariff, own, filed)

    async def cheat(self, supplier: Books, consumer: Books) -> Role:
        """The meter's key signs once more what it signed, with more in it."""
        seen = self.rows(consumer)[0]
        if seen is None:
            await self.leave(Role.SUPPLIER, supplier)
        else:
            more = msgspec.structs.replace(seen.reading, total=Quantity(seen.reading.total + 7))
            signed = SignedReading(more, METER.sign(more.digest(self.params)))
            await self._ledger.release(SUPPLIER, self.params, self.offer.tariff, signed)
        return Role.CONSUMER

    async def collect(self, role: Role) -> None:
        if (await self._ledger.escrow(self.params)).status != "ended":
            await self._ledger.settle(SUPPLIER if role is Role.SUPPLIER else CONSUMER, self.params)


class EscrowSetup:
    """Escrows of one consumer for one supplier, whose meter signs."""

    capabilities = escrow.CAPABILITIES
    supplier, consumer = SUPPLIER, CONSUMER
    deadline = LIFE + WINDOW
    payer, payee, funds = EscrowPayer, EscrowPayee, EscrowFunds

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
        domain = self.ground.escrows.domain
        return encode(EscrowOffer(domain, SUPPLIER.address, SUPPLIER_KEY.address, METER.address, WINDOW, LIFE // 2))

    async def fund(self, offer: Offer, deposit: int) -> EscrowFunds:
        params = await self.params(offer.tariff, deposit)
        await self.ground.escrows.fund(CONSUMER, params)
        return self.funds(self, params, offer)

    async def params(self, tariff: Tariff, deposit: int) -> EscrowParams:
        """An escrow whose deposit is not made yet."""
        self._counter += 1
        return EscrowParams(
            self.ground.escrows.domain,
            CONSUMER.address,
            SUPPLIER.address,
            CONSUMER_KEY.address,
            SUPPLIER_KEY.address,
            METER.address,
            tariff_hash(tariff),
            deposit,
            await self.ground.escrows.now() + LIFE,
            WINDOW,
            self._counter,
        )

    @property
    def signed(self) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
        return escrow_papers.signed(self)

    @property
    def coded(self) -> Sequence[Coded]:
        one, two, three, four, five = (Key(bytes((n,)) * 32).address for n in range(1, 6))
        domain = EscrowDomain(1, four, five)
        params = EscrowParams(domain, one, two, three, four, five, b"\x08" * 32, 2**96 - 1, 2**63 - 1, 0, 2**64 - 1)
        reading = SignedReading(MeterReading(2, Instant(5), Quantity(9), (Quantity(3),), True), b"\x22" * 65)
        values: list[tuple[str, Any, Callable[[bytes], object]]] = [
            ("offer's part", EscrowOffer(domain, one, two, three, 60, 70), escrow.decode_offer),
            ("terms' part", EscrowTerms(params), escrow.decode_terms),
            ("reading's row", reading, escrow.decode_reading),
            ("end's row", EndNote(5, b"\x22" * 65), escrow.decode_end),
        ]
        return [Coded(name, value, encode, decode) for name, value, decode in values]
