"""What cheating peers make of the frames that the real code gives them to send."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from penstock.core.identity import Key
from penstock.sim.thief import Thief

Tamper = Callable[[bytes], list[bytes]]


def tamper_of(cheat: str, rng: Random, key: Key) -> Tamper | None:
    """How a cheat, who holds `key`, changes frames; None for those that cheat in other ways."""
    if cheat == "steal":
        return Thief(rng, key)
    if cheat == "forge":
        return lambda frame: [_forged(frame, rng)] if rng.random() < 0.05 else [frame]
    if cheat == "replay":
        return _Replay(rng)
    if cheat == "stall":
        return _Stall(rng)
    return None


class _Replay:
    """Sends old frames again, drops some, and sends some late."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._sent: list[bytes] = []
        self._held: list[bytes] = []

    def __call__(self, frame: bytes) -> list[bytes]:
        self._sent.append(frame)
        way = self._rng.random()
        if way < 0.03:
            return [frame, self._rng.choice(self._sent)]
        if way < 0.06:
            return []
        if way < 0.10:
            self._held.append(frame)
            return []
        held, self._held = self._held, []
        return [frame, *held]


class _Stall:
    """Says nothing more after some frames."""

    def __init__(self, rng: Random) -> None:
        self._left = rng.randint(2, 60)

    def __call__(self, frame: bytes) -> list[bytes]:
        self._left -= 1
        return [frame] if self._left >= 0 else []


def _forged(frame: bytes, rng: Random) -> bytes:
    """The frame with one of its values changed, or with one of its bytes."""
    if rng.random() < 0.2:
        at = rng.randrange(len(frame))
        return frame[:at] + bytes((rng.randrange(256),)) + frame[at + 1 :]
    message = json.loads(frame)
    if not isinstance(message, list) or len(message) < 2:
        return frame
    _change(message, rng)
    return json.dumps(message, separators=(",", ":")).encode()


def _change(values: list[Any], rng: Random) -> None:
    """Change one value of a message, or of a part of it."""
    at = rng.randrange(1, len(values)) if len(values) > 1 else 0
    value = values[at]
    if isinstance(value, list) and value:
        _change(value, rng)
    elif isinstance(value, int) and not isinstance(value, bool):
        values[at] = max(0, rng.choice((value + 1, value - 1, 2 * value, value + rng.randrange(10_000), 0)))
    elif isinstance(value, str) and value:
        cut = rng.randrange(len(value))
        values[at] = value[:cut] + rng.choice("Aa0/") + value[cut + 1 :]
