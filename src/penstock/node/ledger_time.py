"""The ledger's time as a node knows it: from below for what it lets go of, from above for what it must not miss."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.ports import Ledger
from penstock.core.units import Instant

BEHIND = 60  # seconds that our clock may be behind the newest block's


class LedgerTime:
    """`clock` is our own, which may be wrong; the ledger's blocks decide when a lock expires."""

    def __init__(self, ledger: Ledger, clock: Callable[[], Instant], linger: int = 30) -> None:
        """`linger` is how long after an expiry (seconds) a reorganisation may still put a proof before it."""
        self._ledger, self._clock, self.linger = ledger, clock, linger
        self.past = 0
        """The newest block's time at our last look (seconds)."""
        self.seen: Instant | None = None

    async def look(self) -> None:
        """Ask the ledger.

        Raises:
            LedgerError: it does not answer.
        """
        self.past = max(self.past, await self._ledger.now())
        self.seen = self._clock()

    def gone(self, expiry: int) -> bool:
        """Whether what expires then has expired for good: nobody can prove it any more."""
        return self.past >= expiry + self.linger

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
        return self.near(self.seen, seconds)

    def near(self, then: Instant | None, seconds: int) -> bool:
        """Whether that was within so many seconds, by our clock; what never was, was not."""
        return then is not None and abs(self._clock() - then) <= seconds * 1000
