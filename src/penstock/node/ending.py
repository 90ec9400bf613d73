"""Ending a channel on the ledger without the other side: close, answer, settle."""

from __future__ import annotations

import msgspec

from penstock.core.errors import TransactionFailed, UsageError
from penstock.core.identity import Key, to_hex
from penstock.core.ports import ChannelState, Journal, Ledger, Mined, SignedClose
from penstock.core.session import Role
from penstock.node import book
from penstock.node.book import ChannelRow
from penstock.node.tasks import durable


async def close(
    journal: Journal, ledger: Ledger, key: Key, row: ChannelRow, anyway: bool = False
) -> tuple[list[Mined], ChannelState]:
    """End the channel with the best that we hold: a close that both signed, else our voucher. Returns its new state.

    Whoever is paid by the channel and whose journal was restored may hold too little, and would give up the rest: it
    does so only `anyway`.

    Raises:
        UsageError: the key is not a party's, the channel is over, or our voucher may not be the newest.
        LedgerError: the ledger did not take it.
    """
    _check_party(row, key)
    state = await ledger.channel(row.params)
    filing = book.filing_of(journal, row)
    signed_off = row.close is not None and row.opener_signature and row.partner_signature
    if row.close is not None and signed_off and state.status == "open" and await ledger.now() <= row.close.expiry:
        signed = SignedClose(row.params, row.close, row.opener_signature, row.partner_signature)
        mined = await ledger.close_together(key, [signed])
    elif state.status == "open":
        if row.restored and row.earns and not anyway:
            raise UsageError(
                "the journal comes from a backup, and the other side may have paid more than it knows",
                "wait for its next session or its close; --anyway takes what the journal has, and gives up the rest",
            )
        mined = await ledger.close(key, row.params, filing)
    elif state.status == "closing" and filing is not None:
        mined = await ledger.file(key, row.params, filing)
    else:
        raise UsageError(f"the channel is {state.status} on the ledger", "there is nothing to close")
    return await _keep(journal, ledger, row, mined)


async def settle(journal: Journal, ledger: Ledger, key: Key, row: ChannelRow) -> tuple[list[Mined], ChannelState]:
    """Pay out a channel after its challenge period. Returns its new state.

    Raises:
        UsageError: nobody has begun to close it, or it is over. TransactionFailed: the period is not over yet.
    """
    state = await ledger.channel(row.params)
    if state.status != "closing":
        raise UsageError(f"the channel is {state.status} on the ledger", "only a closing channel can be settled")
    left = state.closes_at - await ledger.now()
    if left > 0:
        raise TransactionFailed(f"the challenge period has {left} s to go", "settle after it")
    return await _keep(journal, ledger, row, await ledger.settle(key, row.params))


async def _keep(
    journal: Journal, ledger: Ledger, row: ChannelRow, mined: list[Mined]
) -> tuple[list[Mined], ChannelState]:
    state = await ledger.channel(row.params)
    settled = state.status == "settled" and await ledger.final(row.params)  # not what a reorganisation may take back
    closing = state.status in ("closing", "settled") and not settled
    kept = msgspec.structs.replace(row, settled=settled, closing=closing, mined=(*row.mined, *mined))
    await durable(journal, kept.rows())
    return mined, state


def _check_party(row: ChannelRow, key: Key) -> None:
    ours = row.params.opener if row.role is Role.CONSUMER else row.params.partner
    if key.address != ours:
        raise UsageError(
            f"key {to_hex(key.address)} is not our side of this channel, {to_hex(ours)}", "choose another with --key"
        )
