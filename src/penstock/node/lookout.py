"""Looks at the channels that pay somebody, on their ledger, and answers where one closes behind the payee's back.

A supplier has one for the channels that pay it, and a consumer for the channel that pays it while it may feed in, since
what is secured leans on a ledger that was seen not too long ago: a payer could begin to close right after a session
began, or years after it ended, and be paid out after the challenge period. `penstock watch` is one, too, for whatever
it is given to watch. Streaming itself asks the ledger nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from penstock.core.channel import ChannelParams
from penstock.core.errors import LedgerError, PenstockError
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reason
from penstock.core.ports import ChannelState, Ledger, Mined
from penstock.core.units import Amount, Instant, format_decimal
from penstock.core.watcher import Act, Evidence, at_risk, next_act, worth
from penstock.node.tasks import Tasks
from penstock.node.tell import Tell

LOOKS = 20  # in a challenge period
SHORTEST, LONGEST = 1.0, 60.0  # seconds between two of them
LAST = 10.0  # seconds that the last look of somebody who leaves may take
AT_ONCE = 32  # channels that are asked for side by side
AGAIN = 60.0  # seconds until the same complaint is made again
ANSWER_GAS = 250_000  # what an answer may take without ticks; the purse must have it for each channel

Show = Callable[[bytes], Evidence | None]
"""What can be shown of the channel with this id, now."""

Over = Callable[[ChannelParams, Amount], Awaitable[None]]
"""Hears of a channel that has been settled for good, and of what was lost in it."""


class _Watched:
    """A channel that is looked at. `stop` ends the session that streams over it, if one does."""

    __slots__ = ("acting", "params", "partner", "pot", "secured", "seen", "settling", "stop", "told")

    def __init__(self, params: ChannelParams, partner: bool, seen: Instant) -> None:
        self.params = params
        self.partner = partner  # whether the payee is
        self.seen = seen
        self.stop: Callable[[Reason], None] | None = None
        self.secured: Amount | None = None  # what stands in the payee's favour in the challenge, as far as we saw
        self.pot = 0  # all that was put in: nobody can lose more
        self.told = ""  # the last status that was told of
        self.acting = False  # a transaction for it is on its way
        self.settling = False  # somebody of ours settles it


class _Due(NamedTuple):
    """What has to be sent for a channel, and how much it saves."""

    watched: _Watched
    act: Act
    shown: Evidence | None
    risk: Amount


class Lookout:
    """Watches channels until they are settled for good."""

    def __init__(
        self, ledger: Ledger, key: Key, show: Show, over: Over, clock: Callable[[], Instant], tell: Tell
    ) -> None:
        """`key` sends the answers and pays for them."""
        self._ledger, self._key, self._show, self._over = ledger, key, show, over
        self._clock, self._tell = clock, tell
        self.seen = clock()  # when the ledger answered last; whoever made us has just asked it
        self._channels: dict[bytes, _Watched] = {}
        self._tasks = Tasks()
        self._complained: dict[str, float] = {}

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

    def settling(self, channel: bytes, on: bool) -> None:
        """The channel is being settled by us, or no more: meanwhile only another's close of it counts.

        It is not forgotten: a batch can take longer than a challenge period.
        """
        if channel in self._channels:
            self._channels[channel].settling = on

    def closing(self, channel: bytes) -> bool:
        """Whether the channel was not open any more when we looked last."""
        watched = self._channels.get(channel)
        return watched is not None and watched.told not in ("", "open")

    def forget(self, channel: bytes) -> None:
        """The channel is settled."""
        self._channels.pop(channel, None)

    @property
    def watching(self) -> int:
        """How many channels are looked at."""
        return len(self._channels)

    @property
    def pause(self) -> float:
        """How long to wait between two looks, in seconds."""
        return rest_for(watched.params.period for watched in self._channels.values())

    async def run(self) -> None:
        """Look until cancelled."""
        clock, rest = asyncio.get_running_loop().time, self.pause
        try:
            while True:
                await asyncio.sleep(rest)
                began = clock()
                await self.look(self.pause / 2)
                rest = max(self.pause / 2, self.pause - (clock() - began))
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop waiting for what was sent; it may still be mined."""
        await self._tasks.cancel()

    async def answer(self) -> None:
        """Look once more, and wait for what is sent: nobody is going to look after this."""
        await self._tasks.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.look(), LAST)
        await self._tasks.wait()

    async def look(self, over: float = 0.0) -> None:
        """Look at every channel once. What has to be sent is sent beside, the most valuable first.

        Where they are many, the looks are spread over so many seconds: ten thousand at once would keep every payment
        waiting for as long as they take.
        """
        channels = sorted(self._channels.values(), key=lambda watched: watched.params.period)
        found: list[_Due | None] = []
        for at in range(0, len(channels), AT_ONCE):
            if at:
                await asyncio.sleep(over * AT_ONCE / len(channels))
            found += await asyncio.gather(*map(self._turn, channels[at : at + AT_ONCE]))
        for due in sorted((one for one in found if one is not None), key=lambda one: -one.risk):
            due.watched.acting = True
            self._tasks.start(self._act(due))
        await self._check_purse()
        await self._glance()

    async def _glance(self) -> None:
        """Where there is no channel to look at, see at least that the ledger is there, before somebody brings one."""
        if self._channels:
            return
        try:
            await self._ledger.now()
            self.seen = self._clock()
        except LedgerError as error:
            age = max(0, self._clock() - self.seen) // 1000
            self._complain("ledger not seen", error=error.line(), for_s=str(age))

    async def _turn(self, watched: _Watched) -> _Due | None:
        if watched.acting or watched.params.id not in self._channels:  # it may have been settled since the round began
            return None
        try:
            return await self._look(watched)
        except LedgerError as error:
            self._unseen(watched, error)
        except PenstockError as error:
            self._tell("not looked at", channel=to_hex(watched.params.id), error=error.line())
        return None

    async def _look(self, watched: _Watched) -> _Due | None:
        params = watched.params
        state = await self._ledger.channel(params)
        self.seen = watched.seen = self._clock()
        closing = state.status == "closing"
        if watched.settling and not closing:
            return None
        filed = await self._ledger.filed(params, watched.partner) if closing else None
        now = await self._ledger.now() if closing else 0
        shown = self._show(params.id)  # after all that takes time: a session may have brought more meanwhile
        risk = at_risk(shown, state, filed)
        self._say(watched, state, risk)
        if state.status == "open":
            watched.secured = None
            return None
        if filed is not None:
            watched.secured, watched.pot = filed.amount, state.opener_deposit + state.partner_deposit
        if watched.stop is not None:
            watched.stop(Reason.CHANNEL_CLOSING)
            if closing and not params.two_way and now < state.closes_at - params.period // 2:
                return None  # the session's last voucher may be on its way, and an answer ends the channel
        act = next_act(shown, state, filed, now)
        if act is Act.END and watched.stop is None:
            await self._end(watched, shown)
        return _Due(watched, act, shown, risk) if act in (Act.FILE, Act.PROVE, Act.SETTLE) else None

    def _say(self, watched: _Watched, state: ChannelState, risk: Amount) -> None:
        """Tell of a status that is new: a reorganisation can bring an old one back."""
        told, watched.told = watched.told, state.status
        if state.status == told or (not told and state.status == "open"):
            return
        channel = to_hex(watched.params.id)
        if state.status == "closing":
            self._tell("channel closing", channel=channel, closes_at=state.closes_at, at_risk=risk)
        else:
            self._tell(f"channel {state.status}", channel=channel)

    async def _act(self, due: _Due) -> None:
        """Send what is due, and look again at the next turn, whatever came of it."""
        watched, channel = due.watched, to_hex(due.watched.params.id)
        value = worth(due.shown.filing if due.shown else None)
        try:
            gas = sum(one.gas for one in await self._send(watched, due.act, due.shown))
            if due.act is Act.SETTLE:
                self._tell("paid out", channel=channel, secured=watched.secured, gas=gas)
            else:
                watched.secured = value
                self._tell("filed", channel=channel, worth=value, gas=gas)
        except PenstockError as error:  # somebody may send ether, or the ledger come back, before it is too late
            self._complain("not answered", channel=channel, error=error.line())
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

    async def _end(self, watched: _Watched, shown: Evidence | None) -> None:
        if not await self._ledger.final(watched.params):
            return  # a reorganisation may still take it back
        value, secured = worth(shown.filing if shown else None), watched.secured
        lost = Amount(max(0, min(value - secured, watched.pot))) if secured is not None else Amount(0)
        await self._over(watched.params, lost)
        self.forget(watched.params.id)
        channel = to_hex(watched.params.id)
        self._tell("settled for good", channel=channel, secured=secured)
        if lost:
            self._tell("LOST: no answer came in time", channel=channel, worth=value, lost=lost)

    async def _check_purse(self) -> None:
        """Say loudly when the key could not pay for an answer in each channel."""
        if not self._channels:
            return
        try:
            ether = (await self._ledger.holdings(self._key.address)).ether
            needed = len(self._channels) * ANSWER_GAS * await self._ledger.gas_price()
        except LedgerError:
            return  # the looks have told of it
        if ether < needed:
            has, wants = (format_decimal(wei, 18) for wei in (ether, needed))
            self._complain("WALLET CANNOT PAY for answers", account=to_hex(self._key.address), ether=has, needs=wants)

    def _complain(self, event: str, **facts: str) -> None:
        """Tell, but the same of the same not over and over."""
        what = event + facts.get("channel", facts.get("account", ""))
        now = asyncio.get_running_loop().time()
        if now - self._complained.get(what, -AGAIN) >= AGAIN:
            self._complained[what] = now
            self._tell(event, **facts)

    def _unseen(self, watched: _Watched, error: LedgerError) -> None:
        watched.seen = min(watched.seen, self._clock())  # a clock that was set back must not make it look fresh
        age = self._clock() - watched.seen
        self._complain("ledger not seen", channel=to_hex(watched.params.id), error=error.line(), for_s=str(age // 1000))
        if watched.stop is not None and age > watched.params.period * 500:
            watched.stop(Reason.LEDGER_UNSEEN)


def rest_for(periods: Iterable[int]) -> float:
    """How long to wait between two looks at channels with these challenge periods, in seconds."""
    return min(LONGEST, max(SHORTEST, min(periods, default=3_600) / LOOKS))
