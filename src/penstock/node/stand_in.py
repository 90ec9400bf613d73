"""What `penstock watch` does in the place of a hub that does not run, over the hub's journal, which it only reads.

A hub that is down owes nothing more, but may be owed: where its payee proves ticks on the ledger, the hub has paid, and
what pays the hub for that is a lock in another channel. So its stand-in learns the preimages that are shown there,
proves with them what the hub is promised, and closes the channels that pay the hub before their locks expire. It holds
payees to their releases, too. Journal and ledger are read anew at each look: the hub may run after all.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from penstock.core.channel import Domain
from penstock.core.codec import encode
from penstock.core.errors import LedgerUnreachable, PenstockError
from penstock.core.hops import IN_ROWS, Outgoing, Place, decode_in_lock
from penstock.core.identity import Key, to_hex
from penstock.core.ports import Ledger
from penstock.core.watcher import Evidence
from penstock.node import book, onward
from penstock.node.book import ChannelRow, Rowed
from penstock.node.clock import now
from penstock.node.lookout import rest_for
from penstock.node.tell import Tell

CLAIM = 150  # seconds before a lock expires: below the 300 and more of poles and hubs, who go first while they run
_NUMBERED = len(IN_ROWS) + 32 + 8  # bytes of a lock's key


class Lifted:
    """A hub's journal, as if what its payees have proven on the ledger were written in it."""

    def __init__(self, journal: Rowed) -> None:
        self._journal = journal
        self._proven: dict[Place, tuple[int, bytes]] = {}  # by lock that went out: ticks, and their preimage

    def learn(self, out: Place, count: int, preimage: bytes) -> bool:
        """So much of an outgoing lock was proven. Returns whether that is news."""
        if count <= self._proven.get(out, (0, b""))[0]:
            return False
        self._proven[out] = count, preimage
        return True

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """As of a journal."""
        for key, value in self._journal.load(prefix):
            if self._proven and key.startswith(IN_ROWS) and len(key) == _NUMBERED:
                held = decode_in_lock(value)
                count, preimage = self._proven.get(held.out, (0, b"")) if held.out else (0, b"")
                if count > held.count:
                    value = encode(msgspec.structs.replace(held, count=count, preimage=preimage))
            yield key, value


class StandIn:
    """Looks at the channels with hop locks in a journal, those that pay its owner and those through which it pays."""

    def __init__(self, journal: Rowed, key: Key, tell: Tell) -> None:
        """`key` is the owner's."""
        self._journal, self._key, self._tell = Lifted(journal), key, tell
        self.closing: set[bytes] = set()
        """Channels (ids) through which the owner pays, and that the ledger has in their challenge."""
        self._over: set[bytes] = set()  # and those of which nothing more can come

    def shown(self) -> dict[bytes, Evidence]:
        """What the owner can show of each channel that pays it."""
        rows = [row for row in book.channels(self._journal) if row.earns and not row.settled]
        shown = {row.params.id: book.evidence_of(self._journal, row.params.id) for row in rows}
        return {channel: evidence for channel, evidence in shown.items() if evidence is not None}

    def domains(self) -> set[Domain]:
        """Where the channels are through which the owner pays with hop locks."""
        return {row.params.domain for row in self._paying()}

    def _paying(self) -> list[ChannelRow]:
        ours = [row for row in book.channels(self._journal) if row.params.opener == self._key.address]
        return [row for row in ours if not row.settled and book.hops_out(self._journal, row.params.id)[0].signature]

    @property
    def pause(self) -> float:
        """How long to wait between two looks, in seconds."""
        return rest_for(row.params.period for row in self._paying())

    async def look(self, ledger: Ledger) -> None:
        """See what closes on this ledger, and what is about to expire, and answer; what fails is tried again next time.

        Look at `shown` after this: it may have more.
        """
        for row in self._paying():
            if row.params.domain == ledger.domain and row.params.id not in self._over:
                try:
                    await self._look_onward(ledger, row)
                except LedgerUnreachable:
                    return  # the lookout says so
                except PenstockError as error:
                    self._tell("not looked at", channel=book.name_of(row), error=error.line())
        for evidence in self.shown().values():
            if evidence.params.domain == ledger.domain:
                try:
                    await self._claim(ledger, evidence)
                except PenstockError as error:
                    self._tell("not claimed", channel=to_hex(evidence.params.id), error=error.line())

    async def _look_onward(self, ledger: Ledger, row: ChannelRow) -> None:
        channel, state = row.params.id, await ledger.channel(row.params)
        if state.status not in ("closing", "settled"):
            self.closing.discard(channel)
            return
        out = Outgoing(row.params, row.deposit, self._key, *book.hops_out(self._journal, channel))
        if channel not in self.closing:
            self.closing.add(channel)
            self._tell("channel onward closing", channel=to_hex(channel), locks=len(out.all))
        for number, lock, proof in await onward.shown(ledger, out):
            news = self._journal.learn(Place(channel, number), proof.count, proof.preimage)
            if news and lock.origin is not None:
                self._tell("preimage lifted", lock=lock.origin.number, ticks=proof.count)
        await onward.answer(ledger, self._key, out, state, self._tell)
        if state.status == "settled" and await ledger.final(row.params):
            self._over.add(channel)
            self.closing.discard(channel)

    async def _claim(self, ledger: Ledger, shown: Evidence) -> None:
        """Close a channel in which a lock of which we can prove something is about to expire."""
        locks = zip(shown.filing.locks, shown.filing.proofs, strict=False)
        expiries = [lock.expiry for lock, (count, _) in locks if count and lock.expiry]
        if not expiries:
            return
        past = await ledger.now()
        latest = max(past, now() // 1000)
        if not any(past < expiry <= latest + CLAIM for expiry in expiries):
            return
        if (await ledger.channel(shown.params)).status == "open":
            self._tell("claiming", channel=to_hex(shown.params.id), locks=len(shown.filing.locks))
            await ledger.close(self._key, shown.params, shown.filing)
