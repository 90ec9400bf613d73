"""Keeps Python's garbage collector off what stays.

From time to time it looks at every object that there is. With ten thousand sessions that takes 0.3 s, in which no
payment is answered. A session leaves nothing behind that needs it (its parts are freed as soon as nobody refers to
them), so that what running sessions are made of can be taken out of its sight.
"""

from __future__ import annotations

import gc

MANY = 1_000  # running sessions; below, a full collection takes less than some 30 ms


class Collector:
    """To be told now and then how many sessions run."""

    def __init__(self) -> None:
        self._hidden = 0  # how many sessions ran when their objects were last hidden

    def running(self, sessions: int) -> None:
        """Hide what there is when there are a tenth more sessions than the last time; show it when half have ended."""
        if sessions > max(MANY, self._hidden * 11 // 10):
            gc.freeze()
            self._hidden = sessions
        elif sessions < self._hidden // 2:
            gc.unfreeze()
            self._hidden = sessions if sessions > MANY else 0
