"""The ledger's time as a node knows it: from below for what it lets go of, from above for what it must not miss."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.ports import Ledger
from penstock.core.units import Instant

BEHIND = 60  # seconds that our clock may be behind the newest block's


class LedgerTime:
    """`clock` is our own, which may be wrong; the ledger's blocks decide when a lock expires."""

    def __init__(self, ledger: Ledger, clock: Callable[[], Instant], now: int = 0) -> None:
        """`now` is the ledger's time (seconds) where it was just asked."""
        self._ledger, self._clock = ledger, clock
        self.past = now
        """The newest block's time at our last look (seconds): whatever expired by then has expired."""
        self.seen: Instant | None = clock() if now else None

    async def look(self) -> None:
        """Ask the ledger.

        Raises:
            LedgerError: it does not answer.
        """
        self.past = max(self.past, await self._ledger.now())
        self.seen = self._clock()

    @property
    def latest(self) -> int:
        """The latest that it may be on the ledger (seconds), as far as anybody here can tell."""
        return max(self.past, self._clock() // 1000)

    @property
    def behind(self) -> int:
        """By how many seconds our clock is behind the ledger; 0 where it is within what is usual."""
        late = self.past - self._clock() // 1000
        return late if late > BEHIND else 0

    def fresh(self, seconds: int) -> bool:
        """Whether the ledger was seen within so many seconds."""
        return self.seen is not None and abs(self._clock() - self.seen) <= seconds * 1000
