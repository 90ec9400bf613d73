"""What both sides, or payer and payee, agree on: closes, claims and withdrawals, many of them in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from penstock.core.channel import ChannelParams, Withdrawal, compact
from penstock.core.errors import TransactionFailed
from penstock.core.identity import Key
from penstock.core.ports import Batch, Mined, SignedClose, SignedVoucher
from penstock.ledgers import forms
from penstock.ledgers.channels import ChannelContract

ROWS_PER_TRANSACTION = 50  # of the contract's 64: below a million gas

# Gas above the estimate for each row: what its opener can add to it before the block, so that nobody's row lets all
# fail. What is not used costs nothing.
_CLAIM_ROOM = 12_000  # the channel is closing: the row is skipped, with an event; measured: less than a claim
_CLOSE_ROOM = 32_000  # it is closing, and the opener's balance, which was withdrawn, takes a new slot; measured: 25,500
_TWO_WAY_ROOM = 64_000  # and what both filed in it has to be cleared; measured: 47,400, with one side's filing

_Row = TypeVar("_Row", SignedClose, SignedVoucher)


class Batches(ChannelContract):
    """How money leaves channels that nobody disputes."""

    async def close_together(self, key: Key, rows: list[SignedClose]) -> list[Mined]:
        return (await self.close_many(key, rows)).mined

    async def close_many(self, key: Key, rows: Sequence[SignedClose]) -> Batch:
        """As `close_together`, and tells which rows were skipped and why. A single row alone raises instead."""
        for row in rows:
            self._check(row.params)
        batch = Batch([], {})
        if len(rows) == 1:
            batch.mined.extend(await self._send(key, "close_together", forms.close_words(key.address, rows[0])))
            return batch
        short = [row for row in rows if forms.is_short(key.address, row.params)]
        others = [row for row in rows if not forms.is_short(key.address, row.params)]
        await self._send_short(key, short, batch, "close_mine", forms.close_row)
        await self._send_all(key, others, batch, "close_many", (), partial(forms.close_words, key.address))
        return batch

    async def claim(self, key: Key, row: SignedVoucher) -> list[Mined]:
        self._check(row.params)
        voucher = forms.voucher_words(row.voucher)
        return await self._send(key, "claim", forms.params_words(row.params), voucher, compact(row.signature))

    async def claim_many(self, key: Key, rows: list[SignedVoucher]) -> Batch:
        """As `claim`, many in one transaction; a row that the contract does not take is skipped.

        Rows that the contract takes only alone (vouchers with locks, openers with keys of their own) are sent so.
        """
        for row in rows:
            self._check(row.params)
        batch = Batch([], {})
        short = [row for row in rows if forms.is_short(key.address, row.params) and not row.voucher.locked]
        await self._send_short(key, short, batch, "claim_many", forms.claim_row)
        for row in rows:
            if row not in short:
                try:
                    batch.mined.extend(await self.claim(key, row))
                except TransactionFailed as error:
                    batch.skipped[row.params.id] = error.reason or str(error)
        return batch

    async def withdraw_together(
        self,
        key: Key,
        params: ChannelParams,
        withdrawal: Withdrawal,
        opener_signature: bytes,
        partner_signature: bytes,
    ) -> list[Mined]:
        self._check(params)
        split = forms.split_word(withdrawal.opener_total, withdrawal.partner_total, withdrawal.expiry)
        consent = forms.consent_words(key.address, params, split, opener_signature, partner_signature)
        return await self._send(key, "withdraw_together", consent)

    async def _send_short(
        self, key: Key, rows: Sequence[_Row], batch: Batch, name: str, form: Callable[[_Row], tuple[object, ...]]
    ) -> None:
        """Send rows in their short form, which leaves out the sender's voucher key: one for all in a transaction."""
        for voucher_key in sorted({row.params.partner_key for row in rows}):
            own = [row for row in rows if row.params.partner_key == voucher_key]
            resolved = 0 if voucher_key == key.address else forms.word_of(voucher_key)
            await self._send_all(key, own, batch, name, (resolved,), form)

    async def _send_all(
        self,
        key: Key,
        rows: Sequence[_Row],
        batch: Batch,
        name: str,
        before: tuple[int, ...],
        form: Callable[[_Row], tuple[object, ...]],
    ) -> None:
        for first in range(0, len(rows), ROWS_PER_TRANSACTION):
            part = rows[first : first + ROWS_PER_TRANSACTION]
            room = sum(map(_room, part))
            mined, skipped = await self._send_rows(key, name, before, [form(row) for row in part], room)
            batch.mined.append(mined)
            batch.skipped.update(skipped)


def _room(row: SignedClose | SignedVoucher) -> int:
    if isinstance(row, SignedVoucher):
        return _CLAIM_ROOM
    return _TWO_WAY_ROOM if row.params.two_way else _CLOSE_ROOM
