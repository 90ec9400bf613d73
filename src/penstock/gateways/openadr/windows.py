"""When the intervals of an event are: User Guide 7.3 and 7.4 of OpenADR 3.1.

An event's `intervalPeriod` holds for its intervals, which follow one another; an interval's own goes before it.
`event.duration` cuts the event short, or repeats its intervals. `randomizeStart` shifts by up to so much either way,
chosen once an event: uniformly, from a seed of the site's own and the event's id, so that it is the same whenever the
event is read again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable

from msgspec import Struct

from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.gateways.openadr.forms import Dispatched, Interval, Period
from penstock.gateways.openadr.times import FOR_EVER, duration, instant, lasting


class Window(Struct, frozen=True):
    """An interval from `start` to before `end` (ms); where `every` is not 0, again each so many ms, until `stop`."""

    interval: Interval
    start: Instant
    end: Instant
    every: Duration = Duration(0)
    stop: Instant = MAX_INSTANT


def windows(event: Dispatched, now: Instant, seed: bytes) -> list[Window]:
    """The stretches of an event; `now` is when one begins that is to begin "now".

    Raises:
        BadSignal: a time or a duration cannot be read.
    """
    period = event.interval_period or Period()
    cursor: int = _start(period.start, now)
    shift = _shift(period.randomize_start, seed, event.id)
    found: list[Window] = []
    for interval in event.intervals or ():
        own = interval.interval_period or Period()
        start = _start(own.start, cursor)
        if own.randomize_start is not None:
            shift = _shift(own.randomize_start, seed, f"{event.id}/{interval.id}")
        cursor = start + lasting(own.duration if own.duration is not None else period.duration)
        begin, end = _bound(start + shift), _bound(cursor + shift if cursor < MAX_INSTANT else cursor)
        if begin < end:
            found.append(Window(interval, begin, end))
    return _spanned(found, duration(event.duration) if event.duration is not None else Duration(0))


def _start(text: str | None, now: int) -> int:
    at = instant(text) if text is not None else None
    return now if at is None else at


def _bound(at: int) -> Instant:
    return Instant(max(0, min(at, MAX_INSTANT)))


def _shift(text: str | None, seed: bytes, name: str) -> int:
    """-most..most ms, uniformly; the bias of 128 bits over so few values is nothing."""
    most = abs(duration(text)) if text is not None else 0
    if not most:
        return 0
    drawn = int.from_bytes(hashlib.sha256(b"randomizeStart\0" + seed + name.encode()).digest()[:16], "big")
    return drawn % (2 * most + 1) - most


def _spanned(found: list[Window], whole: Duration) -> list[Window]:
    """The windows cut at, or repeated until, the event's own duration; 0 and below is none."""
    if not found or whole <= 0:
        return found
    first = min(window.start for window in found)
    span = max(window.end for window in found) - first
    stop = _bound(first + whole)
    if whole > span and span < FOR_EVER - first:
        return [Window(w.interval, w.start, w.end, Duration(span), stop) for w in found]
    cut = ((w, min(w.end, stop)) for w in found)
    return [Window(w.interval, w.start, end) for w, end in cut if w.start < end]


def parts(window: Window, count: int) -> Iterable[tuple[Instant, Instant]]:
    """A window in `count` equal parts: where each begins and ends."""
    length = window.end - window.start
    bounds = [Instant(window.start + length * place // count) for place in range(count + 1)]
    return itertools.pairwise(bounds)
