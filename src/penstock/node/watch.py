"""A watcher: a lookout for each contract whose channels it is shown, over whatever it is shown next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from penstock.core.channel import ChannelParams, Domain
from penstock.core.errors import LedgerUnreachable, UsageError
from penstock.core.identity import Key, to_hex
from penstock.core.ports import Ledger
from penstock.core.watcher import Evidence
from penstock.node.clock import now
from penstock.node.lookout import LONGEST, Lookout
from penstock.node.tell import Tell

Read = Callable[[], Mapping[bytes, Evidence]]
"""Everything that can be shown now, by channel."""


class Watch:
    """Follows channels until they are settled for good. `connect` gives the ledger of a channel's domain."""

    def __init__(self, key: Key, read: Read, connect: Callable[[Domain], Awaitable[Ledger]], tell: Tell) -> None:
        self._key, self._read, self._connect, self._tell = key, read, connect, tell
        self._shown = read()
        self._ledgers: dict[Domain, Ledger] = {}
        self._lookouts: dict[Domain, Lookout] = {}
        self._over: set[bytes] = set()

    @property
    def settled(self) -> int:
        """How many channels have been settled for good."""
        return len(self._over)

    @property
    def left(self) -> int:
        """How many are still to be settled."""
        return len(self._shown.keys() - self._over)

    async def run(self, asked: asyncio.Event, every: float | None = None) -> None:
        """Look until asked to end, or until nothing is left, `every` so many seconds or as the periods demand.

        Raises:
            UsageError: there is nothing to watch, or the key may not answer for a channel.
            WrongLedger: the node speaks for another chain, or the contract is another.
        """
        if not self._shown:
            raise UsageError("there is no channel to watch", "channels that pay us bring vouchers")
        told = 0
        try:
            while self.left and not asked.is_set():
                await self._add()
                watching = sum(lookout.watching for lookout in self._lookouts.values())
                if watching > told:
                    self._tell("watching", channels=watching, account=to_hex(self._key.address))
                told = watching
                for lookout in self._lookouts.values():
                    await lookout.look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(asked.wait(), every or self._pause())
                self._shown = self._read()
        finally:
            for lookout in self._lookouts.values():
                await lookout.close()
            for ledger in self._ledgers.values():
                await ledger.disconnect()

    def _pause(self) -> float:
        return min((lookout.pause for lookout in self._lookouts.values()), default=LONGEST / 12)

    async def _add(self) -> None:
        """Watch what is new among what is shown."""
        for channel, evidence in self._shown.items():
            if channel in self._over:
                continue
            if not evidence.consent and evidence.payee_key != self._key.address:
                raise UsageError(
                    f"channel {to_hex(channel)[:14]}... pays {to_hex(evidence.payee_key)}, not this key",
                    "choose another with --key",
                )
            try:
                lookout = await self._lookout(evidence.params.domain)
            except LedgerUnreachable as error:
                self._tell("ledger not reached", error=error.line())
                return
            lookout.watch(evidence.params, evidence.partner)

    async def _lookout(self, domain: Domain) -> Lookout:
        if domain not in self._lookouts:
            ledger = self._ledgers[domain] = await self._connect(domain)
            self._lookouts[domain] = Lookout(ledger, self._key, self._show, self._end, now, self._tell)
        return self._lookouts[domain]

    def _show(self, channel: bytes) -> Evidence | None:
        return self._shown.get(channel)

    async def _end(self, params: ChannelParams) -> None:
        self._over.add(params.id)
