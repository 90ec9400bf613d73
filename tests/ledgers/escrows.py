"""Parties and papers for tests of escrows: a payee with its meter, its payers, and what they sign."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from penstock.core.escrow import EscrowParams, MeterReading, SignedReading, end_digest, tariff_hash
from penstock.core.identity import Address, Key, keccak, parse_address
from penstock.core.ports import SignedEnd
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.fees import Fees

PAYEE = dev_key(39)
PAYEE_KEY = Key(keccak(b"the payee's session key"))
METER = Key(keccak(b"the meter's key"))
WINDOW = 600  # seconds
LIFE = 86_400  # seconds from the deposit to the deadline
DEPOSIT = 10_000
NOON = Instant(1_700_000_000_000)
# 4 token units per 10 of the medium, and 10 from noon on.
TARIFF = Tariff(10, (Step(Instant(0), 4), Step(NOON, 10)))


@contextlib.asynccontextmanager
async def escrows_of(
    manifest: Manifest,
    name: str = "CryptoEuroEscrow",
    confirmations: int = 0,
    url: str = "",
    fees: Fees | None = None,
) -> AsyncIterator[EvmEscrows]:
    contract = parse_address(manifest.contracts[name])
    escrows = await EvmEscrows.connect(url or manifest.url, contract, manifest.chain_id, confirmations, fees)
    try:
        yield escrows
    finally:
        await escrows.disconnect()


def payer_key(payer: Key) -> Key:
    """The plain key that agrees on an end in this payer's name."""
    return Key(keccak(b"session key of " + payer.address))


async def escrow_of(
    escrows: EvmEscrows,
    payer: Key,
    counter: int = 0,
    deposit: int = DEPOSIT,
    window: int = WINDOW,
    payee: Address = PAYEE.address,
    tariff: Tariff = TARIFF,
) -> EscrowParams:
    """An escrow from `payer`, with session keys of their own, that lives for LIFE from now on."""
    return EscrowParams(
        escrows.domain,
        payer.address,
        payee,
        payer_key(payer).address,
        PAYEE_KEY.address,
        METER.address,
        tariff_hash(tariff),
        deposit,
        await escrows.now() + LIFE,
        window,
        counter,
    )


def reading(
    params: EscrowParams,
    sequence: int,
    total: int,
    last: bool = False,
    at: int = NOON - 1,
    turns: tuple[int, ...] = (),
    meter: Key = METER,
) -> SignedReading:
    """What the meter signs; before noon, where nothing else is said."""
    said = MeterReading(sequence, Instant(at), Quantity(total), tuple(map(Quantity, turns)), last)
    return SignedReading(said, meter.sign(said.digest(params)))


def signed_end(payer: Key, params: EscrowParams, amount: int) -> SignedEnd:
    """An end that both session keys signed."""
    digest = end_digest(params, amount)
    return SignedEnd(params, Amount(amount), payer_key(payer).sign(digest), PAYEE_KEY.sign(digest))
