"""Escrows on an EVM chain: `core.ports.EscrowLedger` over any JSON-RPC node, against `contracts/Escrow.vy`.

Importing this module costs a second or two (eth-account): only what touches a ledger may.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from penstock.core.channel import compact
from penstock.core.errors import BadSignature, OutOfRange, UsageError, WrongLedger
from penstock.core.escrow import (
    EscrowDomain,
    EscrowParams,
    MeterReading,
    SignedReading,
    authorization_nonce,
    deposit_digest,
    step_words,
    tariff_hash,
)
from penstock.core.identity import Key, to_hex
from penstock.core.ports import Batch, EscrowAuthorization, EscrowState, Mined, SignedEnd
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_AMOUNT, Amount
from penstock.ledgers.contract import Contract
from penstock.ledgers.forms import account_signature, word_of
from penstock.ledgers.readings import filed_since

ROWS_PER_TRANSACTION = 50  # of the contract's 64: one to two million gas

# Gas above the estimate for each end: what both sides can add to it before the block, so that nobody's row lets all
# fail. Each may have withdrawn its balance, which then takes a new slot: 17,100 each. What is not used costs nothing.
_END_ROOM = 36_000

# An escrow's word: claimed (96 bits) | drawn (96) | since (40, seconds) | flags.
_UINT96 = 2**96 - 1
_FLAGS, _EXISTS, _LAST, _CONTESTED, _ENDED = 232, 1, 2, 4, 8


class EvmEscrows(Contract):
    """An escrow contract behind a JSON-RPC node. Made by `connect`; close it when done."""

    artifact = "Escrow"
    keeps = "escrow"
    domain_type = EscrowDomain
    domain: EscrowDomain

    async def escrow(self, params: EscrowParams) -> EscrowState:
        state = await self._state(params)
        if state.status != "open" or not self._depth:
            return state
        deep = await self._deep(params)
        return deep if deep.status == "absent" else state

    async def final(self, params: EscrowParams) -> bool:
        state = await self._state(params)
        return state.status == "ended" and (await self._deep(params)).status == "ended"

    def fresh_counter(self) -> int:
        return time.time_ns() // 10**6

    async def _state(self, params: EscrowParams, block: str = "latest") -> EscrowState:
        self._check(params)
        return state_of(params, (await self._read("escrow", params_words(params), block=block))[0])

    async def _deep(self, params: EscrowParams) -> EscrowState:
        """The escrow as it was when the newest final block was the newest."""
        try:
            return await self._state(params, await self._sender.block_below(self._depth))
        except WrongLedger:  # the contract itself is younger than that
            self._check(params)
            return EscrowState("absent")

    # Funding

    async def fund(self, key: Key, params: EscrowParams) -> list[Mined]:
        self._check_payer(key, params)
        way = await self._way_in(key, params.deposit, lambda until: self.authorize(key, params, Amount(0), until))
        if way.authorization is not None:
            return way.mined + await self.fund_authorized(key, params, way.authorization)
        words = params_words(params)
        if way.permit is not None:
            return way.mined + await self._send(key, "deposit_with_permit", words, *way.permit)
        return way.mined + await self._send(key, "deposit_from_balance" if way.from_balance else "deposit", words)

    async def fund_signed(
        self, key: Key, params: EscrowParams, fee: Amount, expiry: int, signature: bytes
    ) -> list[Mined]:
        self._check_fees(params, fee, expiry)
        signed = account_signature(signature, deposit_digest(params, fee, expiry), params.payer)
        return await self._send(key, "deposit_signed", params_words(params), fee, expiry, signed)

    async def authorize(self, key: Key, params: EscrowParams, fee: Amount, valid_before: int) -> EscrowAuthorization:
        self._check_payer(key, params)
        self._check_fees(params, fee, valid_before)
        total, nonce = params.deposit + fee, authorization_nonce(params, fee)
        await self._check_wallet(key, total)
        signature = await self._token.authorization(key, self.domain.contract, total, 0, valid_before, nonce)
        return EscrowAuthorization(fee, 0, valid_before, signature)

    async def fund_authorized(self, key: Key, params: EscrowParams, authorization: EscrowAuthorization) -> list[Mined]:
        self._check_fees(params, authorization.fee, authorization.valid_before)
        return await self._send(
            key,
            "deposit_with_authorization",
            params_words(params),
            authorization.fee,
            authorization.valid_after,
            authorization.valid_before,
            signature_words(authorization.signature),
        )

    def _check_fees(self, params: EscrowParams, fee: int, until: int) -> None:
        """Pass where such a deposit, with a fee and good until a time, can be signed and sent."""
        self._check(params)
        params.check()
        if not 0 <= fee <= MAX_AMOUNT or not 0 <= until < 2**64:
            raise OutOfRange(f"a fee of {fee} until {until} is none: a fee is within uint96, a time in seconds")

    def _check_payer(self, key: Key, params: EscrowParams) -> None:
        self._check(params)
        params.check()
        if key.address != params.payer:
            raise UsageError(f"{to_hex(key.address)} is not the payer of this escrow", "deposit with the payer's key")

    # Releasing

    async def release(self, key: Key, params: EscrowParams, tariff: Tariff, signed: SignedReading) -> list[Mined]:
        self._check_tariff(params, tariff)

        async def deadline() -> int:
            return params.deadline

        words = (params_words(params), tariff_words(tariff), *signed_words(signed))
        async with self._pressing("no readings are taken", deadline):
            return await self._send(key, "release", *words)

    async def end(self, key: Key, rows: list[SignedEnd]) -> list[Mined]:
        return (await self.end_many(key, rows)).mined

    async def end_many(self, key: Key, rows: Sequence[SignedEnd]) -> Batch:
        """As `end`, and tells which rows were skipped and why. A single row alone raises instead."""
        for row in rows:
            self._check(row.params)
        batch = Batch([], {})
        if len(rows) == 1:
            batch.mined.extend(await self._send(key, "end", end_words(rows[0])))
            return batch
        for first in range(0, len(rows), ROWS_PER_TRANSACTION):
            part: list[object] = [end_words(row) for row in rows[first : first + ROWS_PER_TRANSACTION]]
            mined, skipped = await self._send_rows(key, "end_many", (), part, _END_ROOM * len(part))
            batch.mined.append(mined)
            batch.skipped.update(skipped)
        return batch

    async def contest(
        self, key: Key, params: EscrowParams, tariff: Tariff, first: SignedReading, second: SignedReading
    ) -> list[Mined]:
        self._check_tariff(params, tariff)
        words = (params_words(params), tariff_words(tariff), *signed_words(first), *signed_words(second))
        async with self._in_window(params):
            return await self._send(key, "contest", *words)

    async def filed(self, params: EscrowParams) -> list[SignedReading]:
        """The readings that were filed within the last window, oldest first: those that can still be contested."""
        self._check(params)
        since = await self.now() - params.window  # what was filed then has matured
        return await filed_since(self._node, self._contract, params, since + 1)

    async def settle(self, key: Key, params: EscrowParams) -> list[Mined]:
        self._check(params)
        return await self._send(key, "settle", params_words(params))

    def _in_window(self, params: EscrowParams) -> AbstractAsyncContextManager[None]:
        """What is sent in here must be in a block before the claim matures."""

        async def matures_at() -> int:
            return (await self._state(params)).matures_at

        return self._pressing("the claim matures", matures_at)

    def _check_tariff(self, params: EscrowParams, tariff: Tariff) -> None:
        self._check(params)
        if tariff_hash(tariff) != params.tariff:
            raise UsageError("this is not the tariff that the escrow was deposited under", "give the escrow's own")


# The words in which the contract takes and keeps what it is about.


def params_words(params: EscrowParams) -> tuple[object, ...]:
    """An escrow."""
    parties = (params.payer, params.payee, params.payer_key, params.payee_key, params.meter)
    return (*map(word_of, parties), params.tariff, params.terms)


def tariff_words(tariff: Tariff) -> tuple[object, ...]:
    """A tariff."""
    return (tariff.per, step_words(tariff))


def reading_words(reading: MeterReading) -> tuple[object, ...]:
    """A reading."""
    return (reading.sequence, reading.at, reading.total, list(reading.turns), reading.last)


def signed_words(signed: SignedReading) -> tuple[object, ...]:
    """A reading, and its meter's signature."""
    return (reading_words(signed.reading), signature_words(signed.signature))


def end_words(row: SignedEnd) -> tuple[object, ...]:
    """An end that both keys signed."""
    return (
        params_words(row.params),
        row.amount,
        signature_words(row.payer_signature),
        signature_words(row.payee_signature),
    )


def signature_words(signature: bytes) -> tuple[int, int]:
    """A plain key's signature (EIP-2098).

    Raises:
        BadSignature: no plain key makes such a one.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise BadSignature("a signature has 65 bytes, the last of them 27 or 28")
    return compact(signature)


def state_of(params: EscrowParams, word: int) -> EscrowState:
    """An escrow from its word."""
    flags = word >> _FLAGS
    if not flags & _EXISTS:
        return EscrowState("absent")
    claimed, drawn, since = word & _UINT96, word >> 96 & _UINT96, word >> 192 & (2**40 - 1)
    matures_at = since + params.window if claimed > drawn else 0
    status: Literal["open", "ending", "ended"] = "ending" if flags & (_LAST | _CONTESTED) else "open"
    if flags & _ENDED:
        status = "ended"
    return EscrowState(status, Amount(claimed), Amount(drawn), matures_at, bool(flags & _CONTESTED))
