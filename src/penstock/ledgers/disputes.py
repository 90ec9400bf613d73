"""Ending a channel alone: close, file, answer for somebody, prove ticks, hold to a release, settle."""

from __future__ import annotations

import asyncio

from penstock.core.channel import ChannelParams, Release, compact
from penstock.core.errors import OutOfGas, TransactionFailed
from penstock.core.identity import Key
from penstock.core.ports import Filing, Mined
from penstock.ledgers import forms
from penstock.ledgers.channels import ChannelContract
from penstock.ledgers.forms import Row

_PROVEN = "channel: ticks already proven"  # by all proofs of a transaction: somebody was quicker
_AT_ONCE = 16  # transactions of an account that every node's pool holds; geth's own figure
_PAST = {_PROVEN, "channel: lock expired"}  # what a proof may be without being wrong


class Disputes(ChannelContract):
    """How each side gets out alone, with what it is owed."""

    async def close(self, key: Key, params: ChannelParams, filing: Filing | None) -> list[Mined]:
        """Begin a unilateral close, filing the best voucher received, if any; settled at once where `file` would be."""
        self._check(params)
        if filing is None:
            return await self._send(key, "close", forms.params_words(params))
        return await self._file(key, params, filing, begin=True)

    async def file(self, key: Key, params: ChannelParams, filing: Filing) -> list[Mined]:
        """Answer within the challenge period with the best voucher received, and the ticks that can still be proven.

        The payee of a one-way channel is paid in this very transaction where its voucher holds nothing that could still
        be proven later (no lock with an expiry, and few enough claims): the channel is settled then.
        """
        self._check(params)
        async with self._challenged(params):
            return await self._file(key, params, filing, begin=False)

    async def _file(self, key: Key, params: ChannelParams, filing: Filing, begin: bool) -> list[Mined]:
        waves = forms.proof_waves(filing)
        parts = [part for wave in waves for part in forms.in_transactions(wave)]
        final = all(lock.expiry == 0 for lock in filing.locks) and len(parts) <= 1
        if not params.two_way and key.address == params.partner and final:
            return await self._send(key, "finish", *_filing(params, filing), forms.joined(parts[0] if parts else []))
        return await self._file_and_prove(key, params, filing, waves, begin)

    async def _file_and_prove(
        self, key: Key, params: ChannelParams, filing: Filing, waves: list[list[Row]], begin: bool
    ) -> list[Mined]:
        if any(lock.expiry for lock in filing.locks):
            now = await self.now()  # a proof that comes too late must not keep the voucher from being filed
            waves = [[row for row in wave if row.lock.expiry == 0 or now < row.lock.expiry] for wave in waves]
        first, *rest = [forms.in_transactions(wave) for wave in waves] or [[]]
        mined = await self._send(key, "file", *_filing(params, filing), forms.joined(first[0] if first else []), begin)
        for parts in (first[1:], *rest):
            mined += await self._prove_all(key, params, key.address == params.partner, parts)
        return mined

    async def answer(
        self, key: Key, params: ChannelParams, partner: bool, filing: Filing, sequence: int, consent: bytes
    ) -> list[Mined]:
        self._check(params)
        where, voucher, signature = _filing(params, filing)
        async with self._challenged(params):
            mined = await self._send(key, "answer", where, partner, voucher, signature, sequence, compact(consent))
        return mined + await self.prove(key, params, partner, filing)

    async def prove(self, key: Key, params: ChannelParams, partner: bool, filing: Filing) -> list[Mined]:
        """Prove ticks under the voucher that was filed, in as many transactions as they need.

        A transaction of which nothing is new is left out, as are proofs that came too late: nothing may be sent at all.
        Somebody who is quicker with some of them spoils none of the others.

        Raises:
            TransactionFailed: nothing is filed, or not this voucher.
        """
        self._check(params)
        mined: list[Mined] = []
        async with self._challenged(params):
            for wave in forms.proof_waves(filing):
                provable = await self._provable(key, params, partner, wave)
                mined += await self._prove_all(key, params, partner, forms.in_transactions(provable))
        return mined

    async def _prove_all(self, key: Key, params: ChannelParams, partner: bool, parts: list[list[Row]]) -> list[Mined]:
        """Prove, side by side, what does not build on one another. The first failure is told when all were tried."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def prove(part: list[Row]) -> list[Mined]:
            async with room:
                return await self._prove(key, params, partner, part)

        mined: list[Mined] = []
        failures: list[BaseException] = []
        proving = await asyncio.gather(*map(prove, parts), return_exceptions=True)
        for part, done in zip(parts, proving, strict=True):
            if isinstance(done, OutOfGas):  # the account cannot pay for so many that wait together
                mined += await self._prove(key, params, partner, part)
            elif isinstance(done, BaseException):
                failures.append(done)
            else:
                mined += done
        if failures:
            raise failures[0]
        return mined

    async def _prove(self, key: Key, params: ChannelParams, partner: bool, part: list[Row]) -> list[Mined]:
        try:
            return await self._send(key, "prove", forms.params_words(params), partner, forms.joined(part))
        except TransactionFailed as error:
            if error.reason != _PROVEN:
                raise
            return []

    async def _provable(self, key: Key, params: ChannelParams, partner: bool, wave: list[Row]) -> list[Row]:
        """The proofs that the contract would take now, and those that are wrong in a way that nobody expects.

        They are asked for by transactions, and what is refused, in halves. Among others the contract passes over what
        is proven already; a transaction of nothing else it refuses.
        """
        found: list[Row] = []
        where, waiting = forms.params_words(params), forms.in_transactions(wave)
        while waiting:
            part = waiting.pop(0)
            said = await self._refusal(key, "prove", where, partner, forms.joined(part))
            if said is None or (len(part) == 1 and said not in _PAST):
                found += part
            elif said != _PROVEN and len(part) > 1:
                waiting[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
        return found

    async def release(
        self,
        key: Key,
        params: ChannelParams,
        partner: bool,
        release: Release,
        signature: bytes,
        consent: bytes | None = None,
    ) -> list[Mined]:
        self._check(params)
        leave = forms.SPARED if consent is None else compact(consent)
        where = forms.params_words(params)
        async with self._challenged(params):
            return await self._send(
                key, "release", where, partner, release.nonce, release.amount, compact(signature), leave
            )

    async def settle(self, key: Key, params: ChannelParams) -> list[Mined]:
        self._check(params)
        return await self._send(key, "settle", forms.params_words(params))


def _filing(params: ChannelParams, filing: Filing) -> tuple[tuple[int, ...], tuple[object, ...], tuple[int, int]]:
    """A filing but for its proofs."""
    return forms.params_words(params), forms.voucher_words(filing.voucher), compact(filing.signature)
