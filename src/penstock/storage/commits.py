"""How long a journal's commits take and how many writes share one: counted by its thread, read by whoever asks.

Counts only grow, each is one machine word, and a reader that comes in between sees a commit in one of the two figures
and not yet in the other: no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""From an SSD with a battery (0.1 ms a commit) to a memory card that is wearing out."""

WRITES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0)


class Spread:
    """How many values were at most each of `bounds`, and above the one before; the last count is of those above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Commits(NamedTuple):
    """The commits of a journal: seconds that each took, and writes that shared it."""

    seconds: Spread
    writes: Spread


def none_yet() -> Commits:
    """No commits."""
    return Commits(Spread(SECONDS), Spread(WRITES))
