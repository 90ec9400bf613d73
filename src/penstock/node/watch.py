"""A watcher: a lookout for each contract whose channels it is shown, over whatever it is shown next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from penstock.core.channel import ChannelParams, Domain
from penstock.core.errors import LedgerError, LedgerUnreachable, UsageError
from penstock.core.identity import Key, to_hex
from penstock.core.ports import Ledger
from penstock.core.units import Amount, Instant
from penstock.core.watcher import Evidence, worth
from penstock.node.clock import now
from penstock.node.lookout import LONGEST, Lookout
from penstock.node.stand_in import StandIn
from penstock.node.tell import Tell

Read = Callable[[], Mapping[bytes, Evidence]]
"""Everything that can be shown now, by channel."""


class Watch:
    """Follows channels until they are settled for good. `connect` gives the ledger of a channel's domain."""

    def __init__(
        self,
        key: Key,
        read: Read,
        connect: Callable[[Domain], Awaitable[Ledger]],
        tell: Tell,
        stand_in: StandIn | None = None,
    ) -> None:
        """With a `stand_in`, it looks at channels with hop locks, too, and `read` is its `shown`."""
        self._stand_in = stand_in
        self._key, self._read, self._connect, self._tell = key, read, connect, tell
        self._shown: dict[bytes, Evidence] = {}
        self._lookouts: dict[Domain, tuple[Lookout, Ledger]] = {}
        self._refused: set[Domain] = set()
        self._over: set[bytes] = set()
        self.lost = Amount(0)
        """What payees have lost in channels that nobody answered in time (token units)."""

    @property
    def settled(self) -> int:
        """How many channels have been settled for good."""
        return len(self._over)

    @property
    def seen(self) -> Instant | None:
        """When the ledger that was seen least recently was; None before the first look."""
        return min((lookout.seen for lookout, _ in self._lookouts.values()), default=None)

    @property
    def left(self) -> int:
        """How many are still to be settled."""
        return len(self._shown.keys() - self._over)

    async def run(self, asked: asyncio.Event, every: float | None = None, once: bool = False) -> None:
        """Look until asked to end, or `once` nothing is left, `every` so many seconds or as the periods demand.

        Raises:
            UsageError: the key may not answer for a channel.
        """
        fresh = False
        try:
            while not asked.is_set():
                fresh = self._take() or fresh
                await self._add()
                if fresh and self._lookouts:
                    self._say()
                    fresh = False
                for lookout, ledger in list(self._lookouts.values()):
                    if self._stand_in is not None:
                        await self._stand_in.look(ledger)
                        self._take()
                    await lookout.look()
                if once and not self._pending():
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(asked.wait(), every or self._pause())
        finally:
            for lookout, ledger in self._lookouts.values():
                await lookout.close()
                await ledger.disconnect()

    def _take(self) -> bool:
        """Look at what can be shown; nothing takes the place of something better. Returns whether there is news."""
        fresh = False
        for channel, evidence in self._read().items():
            known = self._shown.get(channel)
            if known is None or evidence.rank > known.rank:
                self._shown[channel] = evidence
                fresh = True
        return fresh

    def _say(self) -> None:
        """Tell what is watched now."""
        live = [one for one in self._shown.values() if one.params.domain in self._lookouts]
        live = [one for one in live if one.params.id not in self._over]
        total = sum(worth(one.filing) for one in live)
        self._tell("watching", channels=len(live), worth=total, account=to_hex(self._key.address))

    def _pending(self) -> int:
        """How many channels can still be answered for."""
        open_ = (one for channel, one in self._shown.items() if channel not in self._over)
        onward = len(self._stand_in.closing) if self._stand_in is not None else 0
        return sum(one.params.domain not in self._refused for one in open_) + onward

    def _pause(self) -> float:
        pauses = [lookout.pause for lookout, _ in self._lookouts.values()]
        if pauses and self._stand_in is not None:
            pauses.append(self._stand_in.pause)
        return min(pauses, default=LONGEST / 12)

    async def _add(self) -> None:
        """Watch what is new among what is shown. A channel that cannot be watched keeps no other from it."""
        for domain in self._stand_in.domains() if self._stand_in is not None else ():
            if domain not in self._refused:
                await self._known(domain, False)
        for channel, evidence in self._shown.items():
            domain = evidence.params.domain
            if channel in self._over or domain in self._refused:
                continue
            if not evidence.consent and evidence.payee_key != self._key.address:
                raise UsageError(
                    f"channel {to_hex(channel)[:14]}... pays {to_hex(evidence.payee_key)}, not this key",
                    "choose another with --key",
                )
            lookout = await self._known(domain, bool(evidence.consent))
            if lookout is not None:
                lookout.watch(evidence.params, evidence.partner)
            elif domain not in self._refused:
                return

    async def _known(self, domain: Domain, strange: bool) -> Lookout | None:
        """As `_lookout`; None where there is none, for now or, where it is among the refused, at all."""
        try:
            return await self._lookout(domain, strange)
        except LedgerUnreachable as error:
            self._tell("ledger not reached", error=error.line(), waiting=self.left)
        except LedgerError as error:
            self._refused.add(domain)
            self._tell("CANNOT WATCH", contract=to_hex(domain.contract), error=error.line())
        return None

    async def _lookout(self, domain: Domain, strange: bool) -> Lookout:
        """The lookout for a contract. Of a `strange` one, which somebody else named, we look at the code first.

        Raises:
            LedgerError: nobody answers, or it is not a contract that we know.
        """
        if domain not in self._lookouts:
            ledger = await self._connect(domain)
            if strange and not await ledger.genuine():
                await ledger.disconnect()
                raise LedgerError("its code is not that of this version's contract: it could burn our ether")
            self._lookouts[domain] = Lookout(ledger, self._key, self._shown.get, self._end, now, self._tell), ledger
        return self._lookouts[domain][0]

    async def _end(self, params: ChannelParams, lost: Amount) -> None:
        self._over.add(params.id)
        self.lost = Amount(self.lost + lost)
