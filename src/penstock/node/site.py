"""What the poles of one supplier share: its key, its journal, and the tills that it is paid into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, JournalError, PeerRefused, PenstockError
from penstock.core.identity import Key
from penstock.core.messages import AskClose, Reason
from penstock.core.offer import Terms
from penstock.core.ports import Journal, Ledger, Mined
from penstock.core.rail import Ends
from penstock.core.session import SessionRow
from penstock.core.units import Instant
from penstock.node.beat import Beat
from penstock.node.channel_till import ChannelTill
from penstock.node.hop_till import HopTill
from penstock.node.rails import Till
from penstock.node.sharing import SiteLimit
from penstock.node.tally import Tally
from penstock.node.tasks import Tasks
from penstock.node.tell import Tell

QUIET = 1_000  # ms between two lines about refusals for the same reason


class Site:
    """One supplier's account. Several poles may sell for it; it is paid over every rail that it has a till for."""

    def __init__(
        self, key: Key, journal: Journal, clock: Callable[[], Instant], tell: Tell, tills: Sequence[Till]
    ) -> None:
        self.key = key
        self.journal = journal
        self.clock = clock
        self.tell = tell
        self.tills = {till.name: till for till in tills}
        hop = self.tills.get(HopTill.name)
        self.incomings = hop.incomings if isinstance(hop, HopTill) else None  # what brings hop locks
        if self.incomings is not None:
            self.incomings.fail = self.fail
            channels = self.tills.get(ChannelTill.name)
            if isinstance(channels, ChannelTill):  # one deposit, one way to be paid from it
                channels.pays_else, self.incomings.pays_else = self.incomings.carries, channels.uses
        self.rails = {till.name: till.offer for till in tills}  # those on offer, with what each needs to know
        self.tasks = Tasks()
        self.beat = Beat(self.tasks)
        self.tally = Tally()
        self.limit: SiteLimit | None = None  # that its poles share
        self._refused: dict[str, Instant] = {}  # when we told last that somebody was, by the error's kind
        self.fault: JournalError | None = None
        self.failed = asyncio.Event()  # set with `fault`: nothing is sold any more until we are started again
        self._looking = False

    @classmethod
    def with_channels(
        cls,
        key: Key,
        journal: Journal,
        ledger: Ledger,
        clock: Callable[[], Instant],
        tell: Tell,
        min_period: int = 600,
        stake: int = 0,
    ) -> Site:
        """A site that is paid over channels on `ledger` alone; `stake` as `ChannelTill`'s."""
        till = ChannelTill(key, journal, ledger, clock, tell, min_period, stake=stake)
        return cls(key, journal, clock, tell, [till])

    def start(self) -> None:
        """Look after what pays us, from now on. Once is enough."""
        if not self._looking:
            self._looking = True
            for till in self.tills.values():
                till.start(self.tasks)

    async def close(self) -> None:
        """Look no more, and do no more."""
        if self.limit is not None:
            self.limit.close()
        await self.tasks.cancel()
        self._looking = False

    def fail(self, error: JournalError) -> None:
        """The journal failed: what cannot be written must not be sold."""
        if self.fault is None:
            self.fault = error
            self.failed.set()
            self.tell("journal failed", error=error.line())

    def refuse(self, event: str, error: PenstockError, **facts: str) -> None:
        """A peer was refused or cut off: count it, and tell of it, but of one kind of error only once a second, since a
        peer can ask for it as often as it likes."""
        self.tally.refuse(error)
        now, kind = self.clock(), error.kind
        if abs(now - self._refused.get(kind, -QUIET)) >= QUIET:
            self._refused[kind] = now
            self.tell(event, **facts, reason=kind, error=error.line())

    async def admit(self, terms: Terms, evidence: bytes) -> tuple[Ends, Rows]:
        """Check that these terms would be paid, and reserve what pays them. The rows go with the session's first.

        Raises:
            BadTerms: they would not, or what should pay them is in use. BadVoucher, BadSignature: the evidence.
            LedgerError: the ledger cannot tell.
        """
        return await self.till_of(terms).admit(terms, evidence)

    def till_of(self, terms: Terms) -> Till:
        """Where a session under these terms is paid.

        Raises:
            BadTerms: its rail is none of ours.
        """
        till = self.tills.get(terms.rail)
        if till is None:
            raise BadTerms(f"rail {terms.rail[:40]!r} is not taken here", f"one of {', '.join(self.tills)}")
        return till

    def restore(self, row: SessionRow) -> Ends:
        """Our ends of a session that the journal knows, where we left it."""
        return self.till_of(row.terms).restore(row)

    def begin(self, row: SessionRow, stop: Callable[[Reason], None]) -> None:
        """A session streams; `stop` it where it would not be paid any more."""
        self.till_of(row.terms).begin(row.terms, stop)

    def release(self, row: SessionRow) -> None:
        """The session is over."""
        self.till_of(row.terms).release(row)

    def leave(self, terms: Terms) -> None:
        """No session uses what these terms name."""
        self.till_of(terms).leave(terms)

    async def take_close(self, ask: AskClose) -> None:
        """Take a consumer's cooperative close of its channel.

        Raises:
            PeerRefused: it does not pay what we hold, or we know no such channel. LedgerError: as `ChannelTill`.
        """
        till = self.tills.get(ChannelTill.name)
        if not isinstance(till, ChannelTill):
            raise PeerRefused("no such channel here")
        await till.take_close(ask)

    @property
    def seen(self) -> Instant:
        """When each ledger has answered: the one that is silent longest."""
        return min((till.seen for till in self.tills.values()), default=self.clock())

    @property
    def watching(self) -> int:
        """How many channels and escrows are looked at on their ledgers."""
        return sum(till.watching for till in self.tills.values())

    @property
    def unsettled(self) -> int:
        """How many channels and escrows could be settled now, and are not."""
        return sum(till.unsettled for till in self.tills.values())

    @property
    def folding(self) -> int:
        """How many sessions have ended whose hubs have not settled with us."""
        hop = self.tills.get(HopTill.name)
        return hop.folding if isinstance(hop, HopTill) else 0

    async def settle(self) -> list[Mined]:
        """Send to the ledgers what can be settled, many in one transaction.

        Raises:
            LedgerError: a ledger did not take it; it stays for the next time.
        """
        return [one for till in self.tills.values() if till.unsettled for one in await till.settle()]
