"""Looks at the channels that pay us, on their ledger, and answers for us if one closes behind our back.

What is secured leans on a ledger that was seen not too long ago: a payer could begin to close right after a session
began, or years after it ended, and be paid out after the challenge period. Streaming itself asks the ledger nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerError, PenstockError
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reason
from penstock.core.ports import ChannelState, Journal, Ledger
from penstock.core.session import Role
from penstock.core.units import Amount, Instant
from penstock.node import book
from penstock.node.tasks import durable
from penstock.node.tell import Tell

LOOKS = 20  # in a challenge period
SHORTEST, LONGEST = 1.0, 60.0  # seconds between two of them


class _Watched:
    """A channel that is looked at. `stop` ends the session that streams over it, if one does."""

    __slots__ = ("filed", "params", "seen", "stop")

    def __init__(self, params: ChannelParams, seen: Instant) -> None:
        self.params = params
        self.seen = seen
        self.stop: Callable[[Reason], None] | None = None
        self.filed = Amount(0)  # the worth of what we have filed in a challenge


class Lookout:
    """Watches every channel in the journal whose payee we are, until it is settled."""

    def __init__(self, ledger: Ledger, key: Key, journal: Journal, clock: Callable[[], Instant], tell: Tell) -> None:
        self._ledger, self._key, self._journal, self._clock, self._tell = ledger, key, journal, clock, tell
        self._channels: dict[bytes, _Watched] = {}
        for row in book.channels(journal):
            if row.role is Role.SUPPLIER and not row.settled:
                self.watch(row.params)

    def watch(self, params: ChannelParams) -> None:
        """Look at this channel from now on."""
        self._channels.setdefault(params.id, _Watched(params, self._clock()))

    def stream(self, channel: bytes, stop: Callable[[Reason], None]) -> None:
        """A session streams over the channel; `stop` it where the ledger says something else."""
        watched = self._channels[channel]
        watched.stop, watched.seen = stop, self._clock()

    def rest(self, channel: bytes) -> None:
        """No session streams over the channel any more."""
        if channel in self._channels:
            self._channels[channel].stop = None

    def forget(self, channel: bytes) -> None:
        """The channel is settled."""
        self._channels.pop(channel, None)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._pause())
            for watched in list(self._channels.values()):
                try:
                    await self._look(watched)
                except LedgerError as error:
                    self._unseen(watched, error)
                except PenstockError as error:  # no ether for the answer: somebody may send some before it is too late
                    self._tell("not answered", channel=to_hex(watched.params.id), error=error.line())

    def _pause(self) -> float:
        shortest = min((watched.params.period for watched in self._channels.values()), default=3_600)
        return min(LONGEST, max(SHORTEST, shortest / LOOKS))

    async def _look(self, watched: _Watched) -> None:
        state = await self._ledger.channel(watched.params)
        watched.seen = self._clock()
        if state.status == "open":
            return
        channel = to_hex(watched.params.id)
        if watched.stop is not None:
            self._tell("channel closing", channel=channel, status=state.status, closes_at=state.closes_at)
            watched.stop(Reason.CHANNEL_CLOSING)
        if state.status == "closing":
            await self._answer(watched, state)
        elif state.status == "settled" and watched.stop is None:
            await self._settled(watched)

    async def _answer(self, watched: _Watched, state: ChannelState) -> None:
        """File what we hold, again where it has become more; settle once the challenge is over."""
        params = watched.params
        if await self._ledger.now() >= state.closes_at:
            await self._ledger.settle(self._key, params)
            return
        row = book.channel_of(self._journal, params.id)
        filing = book.filing_of(self._journal, row) if row else None
        worth = book.worth_of(filing)
        if filing is not None and worth > watched.filed:
            mined = await self._ledger.file(self._key, params, filing)
            watched.filed = worth
            self._tell("filed", channel=to_hex(params.id), worth=worth, gas=sum(one.gas for one in mined))

    async def _settled(self, watched: _Watched) -> None:
        row = book.channel_of(self._journal, watched.params.id)
        self.forget(watched.params.id)
        if row is None or row.settled:
            return
        await durable(self._journal, msgspec.structs.replace(row, settled=True).rows())
        lost = max(0, book.worth_of(book.filing_of(self._journal, row)) - watched.filed)
        self._tell("settled elsewhere", channel=book.name_of(row), filed=watched.filed, lost=lost)

    def _unseen(self, watched: _Watched, error: LedgerError) -> None:
        age = self._clock() - watched.seen
        self._tell("ledger not seen", channel=to_hex(watched.params.id), error=error.line(), for_s=age // 1000)
        if watched.stop is not None and age > watched.params.period * 500:
            watched.stop(Reason.LEDGER_UNSEEN)
