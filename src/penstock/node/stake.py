"""What a supplier puts into a two-way channel of its own, so that it can pay before it has earned anything in it.

Its consumer sees the deposit on the ledger and counts on it from then on; both may be in the middle of a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerError, LedgerUnreachable, PenstockError
from penstock.core.identity import Key, to_hex
from penstock.core.ports import Journal, Ledger
from penstock.core.units import MAX_AMOUNT, Amount
from penstock.node import book
from penstock.node.tasks import durable
from penstock.node.tell import Tell

SHORTEST, LONGEST = 1.0, 10.0  # seconds between two looks: a session goes on once both have seen what was added

Grown = Callable[[int], None]
"""Hears of the partner's deposit when the ledger has it for good, and the journal too."""


async def put_in(
    journal: Journal, ledger: Ledger, key: Key, params: ChannelParams, stake: int, grown: Grown, tell: Tell
) -> None:
    """Bring the partner's deposit up to `stake`, once in a channel's life, and wait until it counts.

    It is never more than the opener's own: whoever wants us to lock up money has to lock up as much. That we set out to
    do it is kept before any money moves: what a crash cut short is not sent a second time.
    """
    row = book.channel_of(journal, params.id)
    if row is None or row.over:
        return
    stake = min(stake, row.deposit)
    missing = Amount(stake - row.partner_deposit)
    try:
        if missing > 0 and not row.staked:
            await durable(journal, msgspec.structs.replace(row, staked=True).rows())
            tell("adding", channel=to_hex(params.id), amount=missing)
            await _add(journal, ledger, key, params, missing)
        await follow(journal, ledger, params, grown, stake)
    except PenstockError as error:
        tell("stake not added", channel=to_hex(params.id), error=error.line())


async def _add(journal: Journal, ledger: Ledger, key: Key, params: ChannelParams, missing: Amount) -> None:
    try:
        await ledger.add(key, params, missing)
    except LedgerUnreachable:
        raise  # it may be mined all the same
    except PenstockError:
        row = book.channel_of(journal, params.id)
        assert row is not None, "a session runs over it"
        await durable(journal, msgspec.structs.replace(row, staked=False).rows())
        raise


async def follow(
    journal: Journal, ledger: Ledger, params: ChannelParams, grown: Grown, enough: int = MAX_AMOUNT
) -> None:
    """Note what the partner's deposit becomes, until it is `enough`, the channel is not open, or we are cancelled."""
    pause = SHORTEST
    while True:
        try:
            state = await ledger.channel(params)
        except LedgerError:
            state = None  # the lookout says so
        row = book.channel_of(journal, params.id)
        if row is None or row.over or (state is not None and state.status != "open"):
            return
        if state is not None and state.partner_deposit > row.partner_deposit:
            await durable(journal, msgspec.structs.replace(row, partner_deposit=state.partner_deposit).rows())
            grown(state.partner_deposit)
        if state is not None and state.partner_deposit >= enough:
            return
        await asyncio.sleep(pause)
        pause = min(LONGEST, pause * 1.5)
