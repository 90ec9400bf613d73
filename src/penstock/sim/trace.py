"""What happened in a simulated world, in order: a hash of all of it, and the last lines for people."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any

TAIL = 60


class Trace:
    """Every event with its time (s). Two runs did the same where their hashes are the same."""

    def __init__(self, clock: Callable[[], float], log: Callable[[str], None] | None = None) -> None:
        self.events = 0
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._clock, self._log = clock, log
        self._hash = sha256()

    def __call__(self, who: str, event: str, **facts: Any) -> None:
        self.events += 1
        line = f"{self._clock():12.6f} {who:8} {event}" + "".join(f" {name}={value}" for name, value in facts.items())
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)
        if self._log is not None:
            self._log(line)

    def quiet(self, who: str, event: str, data: bytes) -> None:
        """What happens too often for people to read; the hash counts it."""
        self.events += 1
        self._hash.update(f"{self._clock():.6f} {who} {event} ".encode() + data)

    def digest(self) -> str:
        """The hash of all that happened so far."""
        return self._hash.hexdigest()
