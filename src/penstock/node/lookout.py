"""Looks at a channel on its ledger while a session streams over it, and answers for us if it closes meanwhile.

What is secured leans on a ledger that was seen not too long ago: a payer could begin to close right after the session
began, and be paid out after the challenge period. Streaming itself asks the ledger nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerError
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reason
from penstock.core.ports import Filing, Ledger
from penstock.core.units import Instant
from penstock.node.tell import Tell

LOOKS = 20  # in a challenge period
SHORTEST, LONGEST = 1.0, 60.0  # seconds between two of them


async def look_out(
    ledger: Ledger, params: ChannelParams, clock: Callable[[], Instant], stop: Callable[[Reason], None], tell: Tell
) -> None:
    """Watch until the channel is not open, or its ledger was not seen for half a challenge period; then `stop`."""
    pause = min(LONGEST, max(SHORTEST, params.period / LOOKS))
    seen = clock()
    while True:
        await asyncio.sleep(pause)
        try:
            state = await ledger.channel(params)
        except LedgerError as error:
            tell("ledger not seen", error=error.line(), for_s=(clock() - seen) // 1000)
            if clock() - seen > params.period * 500:
                return stop(Reason.LEDGER_UNSEEN)
            continue
        seen = clock()
        if state.status != "open":
            tell("channel closing", channel=to_hex(params.id), status=state.status, closes_at=state.closes_at)
            return stop(Reason.CHANNEL_CLOSING)


async def answer(ledger: Ledger, key: Key, params: ChannelParams, filing: Filing, tell: Tell) -> None:
    """File our best voucher in a challenge, as often as it takes, until it is mined or the challenge is over."""
    while True:
        try:
            state = await ledger.channel(params)
            if state.status != "closing":
                return
            mined = await ledger.file(key, params, filing)
        except LedgerError as error:
            tell("not filed", channel=to_hex(params.id), error=error.line())
            await asyncio.sleep(min(LONGEST, max(SHORTEST, params.period / LOOKS)))
        else:
            tell("filed", channel=to_hex(params.id), gas=sum(one.gas for one in mined))
            return
