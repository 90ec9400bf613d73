"""Opening channels and adding to them: from the contract's balance, from the wallet, or by a signature alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from penstock.core.channel import (
    APART,
    ChannelParams,
    SignedAddition,
    SignedOpening,
    authorization_nonce,
    compact,
)
from penstock.core.errors import PenstockError, UsageError
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Authorization, Mined
from penstock.core.units import Amount
from penstock.ledgers import forms
from penstock.ledgers.channels import ChannelContract


class Opening(NamedTuple):
    """A channel to open, by whom, and with how much."""

    key: Key
    params: ChannelParams
    deposit: Amount


class Openings(ChannelContract):
    """How money comes into channels and into the contract's balances."""

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        return await self._open(Opening(key, params, deposit), None)

    async def open_many(self, openings: Iterable[Opening]) -> list[list[Mined] | PenstockError]:
        """Open channels of many payers at once; they share blocks. For each what `open` returns, or what it raises.

        Gas is estimated once for each way of opening, and others get room for a dearer case.
        """
        rows = list(openings)
        limits: dict[str, int] = {}
        results: list[list[Mined] | BaseException] = []
        if rows:
            results += await asyncio.gather(self._open(rows[0], limits), return_exceptions=True)
            results += await asyncio.gather(*(self._open(row, limits) for row in rows[1:]), return_exceptions=True)
        kept: list[list[Mined] | PenstockError] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PenstockError):
                raise result
            kept.append(result)
        return kept

    async def _open(self, opening: Opening, limits: dict[str, int] | None) -> list[Mined]:
        key, params, deposit = opening
        self._check_opener(key, params)
        place = forms.place_words(params, deposit)
        plain = place[2:] == (0, 0)
        way = await self._way_in(key, deposit, lambda until: self.authorize(key, params, deposit, Amount(0), until))
        if way.authorization is not None:
            return way.mined + await self._open_authorized(key, params, way.authorization, limits)
        call: tuple[object, ...]
        if way.permit is not None:
            name, call = "open_with_permit", (*place, *way.permit)
        elif way.from_balance:
            name, call = ("open", place[:2]) if plain and params.counter < APART else ("open_with_keys", place)
        else:
            short = plain and params.counter >= APART
            name, call = ("open_from_token", place[:2]) if short else ("open_from_token_with_keys", place)
        return way.mined + await self._send(key, name, *call, limits=limits)

    async def open_signed(
        self, key: Key, params: ChannelParams, opening: SignedOpening, signature: bytes
    ) -> list[Mined]:
        self._check(params)
        params.check()
        signed = forms.account_signature(signature, opening.digest(params), params.opener)
        sums = forms.sums_word(opening.deposit, opening.fee)
        return await self._send(key, "open_signed", forms.params_words(params), sums, opening.expiry, signed)

    async def authorize(
        self, key: Key, params: ChannelParams, deposit: Amount, fee: Amount, valid_before: int
    ) -> Authorization:
        self._check_opener(key, params)
        if deposit == 0:
            raise UsageError("an authorization over nothing opens no channel", "authorize a deposit")
        await self._check_wallet(key, deposit + fee)
        nonce = authorization_nonce(params, deposit, fee)
        signature = await self._token.authorization(key, self.domain.contract, deposit + fee, 0, valid_before, nonce)
        return Authorization(deposit, fee, 0, valid_before, signature)

    async def open_authorized(self, key: Key, params: ChannelParams, authorization: Authorization) -> list[Mined]:
        self._check(params)
        params.check()
        return await self._open_authorized(key, params, authorization, None)

    async def _open_authorized(
        self, key: Key, params: ChannelParams, authorization: Authorization, limits: dict[str, int] | None
    ) -> list[Mined]:
        return await self._send(
            key,
            "open_with_authorization",
            forms.params_words(params),
            forms.sums_word(authorization.deposit, authorization.fee),
            authorization.valid_after,
            authorization.valid_before,
            compact(authorization.signature),
            limits=limits,
        )

    async def add(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        self._check(params)
        balance, wallet = await asyncio.gather(self._balance(key.address), self._token.balance(key.address))
        if balance >= deposit:
            return await self._send(key, "add", forms.params_words(params), deposit)
        mined = await self._to_wallet(key, wallet, balance, deposit)
        mined += await self.approve(key, deposit)
        return mined + await self._send(key, "add_from_token", forms.params_words(params), deposit)

    async def add_signed(
        self, key: Key, params: ChannelParams, owner: Address, addition: SignedAddition, signature: bytes
    ) -> list[Mined]:
        self._check(params)
        return await self._send(
            key,
            "add_signed",
            forms.params_words(params),
            forms.word_of(owner),
            forms.sums_word(addition.total, addition.fee),
            addition.expiry,
            forms.account_signature(signature, addition.digest(params), owner),
        )

    async def deposit(self, key: Key, amount: Amount) -> list[Mined]:
        return await self.approve(key, amount) + await self._send(key, "deposit", amount)

    def _check_opener(self, key: Key, params: ChannelParams) -> None:
        self._check(params)
        params.check()
        if key.address != params.opener:
            raise UsageError(f"{to_hex(key.address)} is not the opener of this channel", "open with the opener's key")
