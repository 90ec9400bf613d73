"""Looks at the channels that pay somebody, on their ledger, and answers where one closes behind the payee's back.

A supplier has one for the channels that pay it, since what is secured leans on a ledger that was seen not too long ago:
a payer could begin to close right after a session began, or years after it ended, and be paid out after the challenge
period. `penstock watch` is one, too, for whatever it is given to watch. Streaming itself asks the ledger nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerError, PenstockError
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reason
from penstock.core.ports import ChannelState, Filed, Ledger, Mined
from penstock.core.units import Amount, Instant
from penstock.core.watcher import Act, Evidence, at_risk, next_act, worth
from penstock.node.tasks import Tasks
from penstock.node.tell import Tell

LOOKS = 20  # in a challenge period
SHORTEST, LONGEST = 1.0, 60.0  # seconds between two of them
ANSWER_GAS = 250_000  # what an answer may take without ticks; the purse must have it for each channel

Show = Callable[[bytes], Evidence | None]
"""What can be shown of the channel with this id, now."""


class _Watched:
    """A channel that is looked at. `stop` ends the session that streams over it, if one does."""

    __slots__ = ("acting", "filed", "params", "partner", "seen", "stop", "told")

    def __init__(self, params: ChannelParams, partner: bool, seen: Instant) -> None:
        self.params = params
        self.partner = partner  # whether the payee is
        self.seen = seen
        self.stop: Callable[[Reason], None] | None = None
        self.filed: Filed | None = None  # what stood in the payee's favour when the challenge was last looked at
        self.told = ""  # the last status that was told of
        self.acting = False  # a transaction for it is on its way


class Lookout:
    """Watches channels until they are settled for good."""

    def __init__(
        self,
        ledger: Ledger,
        key: Key,
        show: Show,
        over: Callable[[ChannelParams], Awaitable[None]],
        clock: Callable[[], Instant],
        tell: Tell,
    ) -> None:
        """`key` sends the answers and pays for them; `over` hears of each channel that has been settled for good."""
        self._ledger, self._key, self._show, self._over = ledger, key, show, over
        self._clock, self._tell = clock, tell
        self._channels: dict[bytes, _Watched] = {}
        self._tasks = Tasks()

    def watch(self, params: ChannelParams, partner: bool = True) -> None:
        """Look at this channel from now on, for the partner or for the opener."""
        self._channels.setdefault(params.id, _Watched(params, partner, self._clock()))

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

    @property
    def watching(self) -> int:
        """How many channels are looked at."""
        return len(self._channels)

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                await asyncio.sleep(self.pause)
                await self.look()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop waiting for what was sent; it may still be mined."""
        await self._tasks.cancel()

    async def look(self) -> None:
        """Look at every channel once. What has to be sent is sent beside, so that no channel waits for another's."""
        for watched in list(self._channels.values()):
            if watched.acting:
                continue
            try:
                await self._look(watched)
            except LedgerError as error:
                self._unseen(watched, error)
            except PenstockError as error:
                self._tell("not looked at", channel=to_hex(watched.params.id), error=error.line())
        await self._check_purse()

    @property
    def pause(self) -> float:
        """How long to wait between two looks, in seconds."""
        shortest = min((watched.params.period for watched in self._channels.values()), default=3_600)
        return min(LONGEST, max(SHORTEST, shortest / LOOKS))

    async def _look(self, watched: _Watched) -> None:
        params = watched.params
        state = await self._ledger.channel(params)
        watched.seen = self._clock()
        closing = state.status == "closing"
        filed = await self._ledger.filed(params, watched.partner) if closing else None
        now = await self._ledger.now() if closing else 0
        shown = self._show(params.id)  # after all that takes time: a session may have brought more meanwhile
        filing = shown.filing if shown else None
        self._say(watched, state, at_risk(filing, state, filed))
        if state.status == "open":
            return
        if watched.stop is not None:
            watched.stop(Reason.CHANNEL_CLOSING)
        watched.filed = filed or watched.filed
        act = next_act(shown, state, filed, now)
        if act in (Act.FILE, Act.PROVE) and watched.stop is not None and state.closes_at - now > params.period // 2:
            return  # the session that we have just stopped is still being paid, and what is filed may be final
        if act is Act.END and watched.stop is None:
            await self._end(watched)
        elif act in (Act.FILE, Act.PROVE, Act.SETTLE):
            watched.acting = True
            self._tasks.start(self._act(watched, act, shown))

    def _say(self, watched: _Watched, state: ChannelState, risk: Amount) -> None:
        """Tell of a status that is new: a reorganisation can bring an old one back."""
        if state.status == watched.told or (not watched.told and state.status == "open"):
            watched.told = state.status
            return
        watched.told = state.status
        channel = to_hex(watched.params.id)
        if state.status == "closing":
            self._tell("channel closing", channel=channel, closes_at=state.closes_at, at_risk=risk)
        else:
            self._tell(f"channel {state.status}", channel=channel)

    async def _act(self, watched: _Watched, act: Act, shown: Evidence | None) -> None:
        """Send what is due, and look again at the next turn, whatever came of it."""
        channel = to_hex(watched.params.id)
        try:
            mined = await self._send(watched, act, shown)
            did = "settled" if act is Act.SETTLE else "filed"
            self._tell(
                did, channel=channel, worth=worth(shown.filing if shown else None), gas=sum(one.gas for one in mined)
            )
        except PenstockError as error:  # somebody may send ether, or the ledger come back, before it is too late
            self._tell("not answered", channel=channel, error=error.line())
        finally:
            watched.acting = False

    async def _send(self, watched: _Watched, act: Act, shown: Evidence | None) -> list[Mined]:
        params, ledger, key = watched.params, self._ledger, self._key
        if act is Act.SETTLE or shown is None:
            return await ledger.settle(key, params)
        if act is Act.PROVE:
            return await ledger.prove(key, params, shown.partner, shown.filing)
        if shown.consent:
            return await ledger.answer(key, params, shown.partner, shown.filing, shown.answer.sequence, shown.consent)
        return await ledger.file(key, params, shown.filing)

    async def _end(self, watched: _Watched) -> None:
        if not await self._ledger.final(watched.params):
            return  # a reorganisation may still take it back
        shown = self._show(watched.params.id)
        self.forget(watched.params.id)
        await self._over(watched.params)
        filed = watched.filed
        lost = max(0, worth(shown.filing if shown else None) - filed.amount) if filed is not None else None
        self._tell("settled for good", channel=to_hex(watched.params.id), filed=filed and filed.amount, lost=lost)

    async def _check_purse(self) -> None:
        """Say loudly, at every look, when the key could not pay for an answer in each channel."""
        if not self._channels:
            return
        try:
            ether = (await self._ledger.holdings(self._key.address)).ether
            needed = len(self._channels) * ANSWER_GAS * await self._ledger.gas_price()
        except LedgerError:
            return  # the looks have told of it
        if ether < needed:
            self._tell("WALLET CANNOT PAY for answers", account=to_hex(self._key.address), wei=ether, needed_wei=needed)

    def _unseen(self, watched: _Watched, error: LedgerError) -> None:
        watched.seen = min(watched.seen, self._clock())  # a clock that was set back must not make it look fresh
        age = self._clock() - watched.seen
        self._tell("ledger not seen", channel=to_hex(watched.params.id), error=error.line(), for_s=age // 1000)
        if watched.stop is not None and age > watched.params.period * 500:
            watched.stop(Reason.LEDGER_UNSEEN)
