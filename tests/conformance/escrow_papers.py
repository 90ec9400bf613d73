"""Everything that is signed about an escrow, each in a situation on the chain in which it is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from penstock.core.codec import encode
from penstock.core.escrow import (
    EscrowParams,
    MeterReading,
    SignedReading,
    authorization_nonce,
    deposit_digest,
    end_digest,
)
from penstock.core.identity import Digest, Key
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer
from penstock.core.ports import EscrowAuthorization, SignedEnd
from penstock.core.tariff import Bill, Step, Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.rails.escrow import EndNote
from penstock.testing.rail import Signed

from .fields import Fields, escrow_of, flat, of
from .ground import CONSUMER, STRANGER, SUPPLIER
from .tokens import transfer_digest

if TYPE_CHECKING:
    from .escrow import EscrowSetup

DEPOSIT, FOREVER = 50_000, 2**40
TURN = Instant(1_000)
TARIFF = Tariff(10, (Step(Instant(0), 400), Step(TURN, 1_000)))
READING = MeterReading(3, Instant(TURN + 5), Quantity(50), (Quantity(20),))
LAST = msgspec.structs.replace(READING, last=True)
LESS = msgspec.structs.replace(READING, total=Quantity(30))
Give = Callable[[Fields, bytes], Awaitable[object]]


class Agreed(msgspec.Struct, frozen=True):
    """What an end says."""

    amount: int


class Deposited(msgspec.Struct, frozen=True):
    """What a deposit by signature says, besides the escrow."""

    fee: int
    expiry: int


def signed(setup: EscrowSetup) -> Mapping[str, Callable[[], Awaitable[Signed]]]:
    """By name, what makes each."""
    makers = _Papers(setup)
    return {
        "reading to the payer": makers.reading_taken,
        "reading that is filed": lambda: makers.reading(READING, SUPPLIER),
        "last reading": lambda: makers.reading(LAST, STRANGER),
        "reading that is contested": lambda: makers.contest(READING, LESS),
        "reading that contests": lambda: makers.contest(LESS, READING),
        "end to the payee": makers.end_taken,
        "end by the payer": lambda: makers.end(False),
        "end by the payee": lambda: makers.end(True),
        "deposit": makers.deposit,
        "authorization": makers.authorization,
    }


def _reading_digest(fields: Fields) -> Digest:
    return Digest(of(MeterReading, fields).digest(escrow_of(fields)))


def _end_digest(fields: Fields) -> Digest:
    return end_digest(escrow_of(fields), fields["amount"])


def _offer() -> Offer:
    """What the rail's ends read of an offer: its tariff and its tick."""
    tolerance = Tolerance(0, 0)
    return Offer(
        SUPPLIER.address, "papers", "electricity", TARIFF, 700, 3, 2_100, "pay-after", tolerance, {}, "", Instant(0)
    )


class _Papers:
    def __init__(self, setup: EscrowSetup) -> None:
        from .escrow import CONSUMER_KEY, METER, SUPPLIER_KEY

        self._setup, self._ledger = setup, setup.ground.escrows
        self._keys, self._meter = (CONSUMER_KEY, SUPPLIER_KEY), METER

    async def _funded(self) -> EscrowParams:
        params = await self._setup.params(TARIFF, DEPOSIT)
        await self._ledger.fund(CONSUMER, params)
        return params

    def _thing(
        self,
        params: EscrowParams,
        part: msgspec.Struct,
        digest: Callable[[Fields], Digest],
        signer: Key,
        give: Give,
    ) -> Signed:
        fields = flat(params, part)

        async def state() -> object:
            holdings = [await self._ledger.holdings(key.address) for key in (CONSUMER, SUPPLIER)]
            return [(one.wallet, one.balance) for one in holdings], await self._ledger.escrow(params)

        async def give_it(fields: Fields, signature: bytes) -> None:
            await give(fields, signature)

        return Signed(fields, digest, signer.sign(digest(fields)), signer.address, give_it, state)

    async def reading_taken(self) -> Signed:
        params = await self._funded()
        offer = _offer()
        made = self._setup.payer
        end = made(params, offer, self._keys[0])

        async def give(fields: Fields, signature: bytes) -> None:
            taker = end if escrow_of(fields) == params else made(escrow_of(fields), offer, self._keys[0])
            evidence = encode(SignedReading(of(MeterReading, fields), signature))
            taker.metered(evidence, Bill(TARIFF, READING.turns), READING.total, READING.at, False)

        async def state() -> object:
            return end.paid

        fields = flat(params, READING)
        signature = self._meter.sign(_reading_digest(fields))
        return Signed(fields, _reading_digest, signature, self._meter.address, give, state, on_ledger=False)

    async def reading(self, reading: MeterReading, sender: Key) -> Signed:
        async def give(fields: Fields, signature: bytes) -> object:
            signed = SignedReading(of(MeterReading, fields), signature)
            return await self._ledger.release(sender, escrow_of(fields), TARIFF, signed)

        return self._thing(await self._funded(), reading, _reading_digest, self._meter, give)

    async def contest(self, reading: MeterReading, against: MeterReading) -> Signed:
        params = await self._funded()
        filed, other = (self._meter_signed(one, params) for one in (READING, against))
        await self._ledger.release(SUPPLIER, params, TARIFF, filed)

        async def give(fields: Fields, signature: bytes) -> object:
            signed = SignedReading(of(MeterReading, fields), signature)
            return await self._ledger.contest(CONSUMER, escrow_of(fields), TARIFF, signed, other)

        return self._thing(params, reading, _reading_digest, self._meter, give)

    async def end_taken(self) -> Signed:
        params = await self._funded()
        offer = _offer()
        made = self._setup.payee
        end = made(params, offer, self._meter)

        async def give(fields: Fields, signature: bytes) -> None:
            where = escrow_of(fields)
            taker = end if where == params else made(where, offer, self._meter)
            taker.take(encode(EndNote(fields["amount"], signature)), least=fields["amount"])

        async def state() -> object:
            return end.secured

        fields = flat(params, Agreed(900))
        signature = self._keys[0].sign(_end_digest(fields))
        return Signed(fields, _end_digest, signature, self._keys[0].address, give, state, on_ledger=False)

    async def end(self, payee: bool) -> Signed:
        params = await self._funded()
        other = self._keys[not payee].sign(end_digest(params, 900))

        async def give(fields: Fields, signature: bytes) -> object:
            both = (other, signature) if payee else (signature, other)
            return await self._ledger.end(STRANGER, [SignedEnd(escrow_of(fields), fields["amount"], *both)])

        return self._thing(params, Agreed(900), _end_digest, self._keys[payee], give)

    async def deposit(self) -> Signed:
        await self._balance(DEPOSIT + 100)

        async def give(fields: Fields, signature: bytes) -> object:
            how = Amount(fields["fee"]), fields["expiry"], signature
            return await self._ledger.fund_signed(SUPPLIER, escrow_of(fields), *how)

        def digest(fields: Fields) -> Digest:
            return deposit_digest(escrow_of(fields), fields["fee"], fields["expiry"])

        params = await self._setup.params(TARIFF, DEPOSIT)
        return self._thing(params, Deposited(100, FOREVER), digest, CONSUMER, give)

    async def authorization(self) -> Signed:
        separator = await self._setup.ground.token_separator()

        async def give(fields: Fields, signature: bytes) -> object:
            authorization = of(EscrowAuthorization, {**fields, "signature": signature})
            return await self._ledger.fund_authorized(SUPPLIER, escrow_of(fields), authorization)

        def digest(fields: Fields) -> Digest:
            params, fee = escrow_of(fields), fields["fee"]
            times = fields["valid_after"], fields["valid_before"]
            where = CONSUMER.address, params.domain.contract, params.deposit + fee
            return transfer_digest(separator, *where, *times, authorization_nonce(params, fee))

        params = await self._setup.params(TARIFF, DEPOSIT)
        authorization = EscrowAuthorization(Amount(100), 1, FOREVER, b"")
        thing = self._thing(params, authorization, digest, CONSUMER, give)
        del thing.fields["signature"]
        return thing

    async def _balance(self, least: int) -> None:
        """Give the payer a balance in the contract, as an escrow that ends does."""
        params = await self._setup.params(TARIFF, least)
        await self._ledger.fund(CONSUMER, params)
        both = (key.sign(end_digest(params, 0)) for key in self._keys)
        await self._ledger.end(CONSUMER, [SignedEnd(params, Amount(0), *both)])

    def _meter_signed(self, reading: MeterReading, params: EscrowParams) -> SignedReading:
        return SignedReading(reading, self._meter.sign(reading.digest(params)))
