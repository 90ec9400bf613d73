"""How a node says what happens, for logs, metrics and views: its events, and how grave each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

Tell = Callable[..., Any]
"""`tell("event", fact=value, ...)`; the facts fit JSON, and are no secrets: neither seeds, preimages nor keys."""

OTHER = "other"

LEVELS: dict[str, str] = {
    # a supplier's or consumer's ordinary life
    "listening": "info",
    "metrics": "info",
    "offered": "info",
    "accepted": "info",
    "restored": "info",
    "resumed": "info",
    "ended": "info",
    "progress": "debug",
    "limited": "info",
    "steered": "info",
    "way": "info",
    "plan done": "info",
    "flow not held": "warning",
    # links
    "link lost": "info",
    "not reached": "info",
    "not resumed": "warning",
    "refused": "info",
    "cut off": "warning",
    # a forwarder of data
    "forwarding": "info",
    "not forwarded": "warning",
    "connection closed": "info",
    # hubs, and locks that go over them
    "channel taken": "info",
    "neighbour entered": "info",
    "neighbour not reached": "warning",
    "lock forwarded": "debug",
    "lock refused": "info",
    "about a lock": "debug",
    "lock in place": "info",
    "lock shortened": "info",
    "route refused": "info",
    "still locked": "warning",
    "standing": "debug",
    "preimage lifted": "info",
    "claiming": "warning",
    "not claimed": "error",
    "not proven": "warning",
    "clock is behind": "error",
    "held to its release": "warning",
    "release not counted": "warning",
    "leaning on an old view": "warning",
    "channel onward closing": "warning",
    "channel onward unknown": "error",
    # channels and their ledger
    "opening": "info",
    "opened": "info",
    "adding": "info",
    "stake not added": "warning",
    "funding": "info",
    "funded": "info",
    "waiting for confirmations": "info",
    "close taken": "info",
    "close not taken": "warning",
    "settled": "info",
    "not settled": "warning",
    "close failed": "warning",
    "closing alone": "warning",
    "not closed": "warning",
    "not open any more": "warning",
    "open again": "warning",
    "ledger": "warning",
    # the lookout and the watcher
    "watching": "info",
    "ledger not reached": "warning",
    "ledger not seen": "warning",
    "not looked at": "warning",
    "channel open": "info",
    "channel absent": "warning",
    "channel closing": "warning",
    "channel settled": "info",
    "filed": "warning",
    "paid out": "info",
    "settled for good": "info",
    "not answered": "error",
    "WALLET CANNOT PAY for answers": "error",
    "CANNOT WATCH": "error",
    "LOST: no answer came in time": "error",
    "file not taken": "warning",
    "every block counts at once": "warning",
    # the grid's operator
    "grid asks": "info",
    "grid reached": "info",
    "grid not reached": "warning",
    "price not taken": "warning",
    "signal not read": "warning",
    "signals left out": "warning",
    "not enrolled": "warning",
    "report not made": "warning",
    "report not taken": "warning",
    # prices over time
    "prices": "info",
    "prices are back": "info",
    "prices failed": "warning",
    "prices not taken": "warning",
    # our own faults
    "journal failed": "error",
    "valve failed": "error",
    "fault": "error",
    "internal error": "error",
    "log": "warning",  # what a library says
}
"""Every event, and its level. The document for operators says what each warning and error means."""


def level_of(event: str) -> str:
    """The level of an event: debug, info, warning or error."""
    return LEVELS.get(event, "info")


class Counted:
    """A `Tell` that counts events before it passes them on. What it counts by is bounded: the events above."""

    def __init__(self, tell: Tell) -> None:
        self.counts: Counter[str] = Counter()
        self._tell = tell

    def __call__(self, event: str, **facts: Any) -> None:
        self.counts[event if event in LEVELS else OTHER] += 1
        self._tell(event, **facts)
