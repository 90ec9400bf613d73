"""Instants and durations as OpenADR writes them: RFC 3339, and ISO 8601 as the description's pattern allows it.

"0001-01-01" as a start means now, and "P9999Y" is for ever (User Guide 7.3). A duration of nothing, or none at all, is
for ever, too: what ends when it begins would ask nothing. Years and months are counted as 365 and 30 days, since a
duration here has no calendar.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from penstock.core.errors import BadSignal
from penstock.core.units import MAX_INSTANT, Duration, Instant

FOR_EVER = Duration(MAX_INSTANT)
_LONGEST = 64  # characters of a time or a duration
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)([DW]))?"
    r"(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_DAY = 86_400_000


def instant(text: str) -> Instant | None:
    """The instant of an RFC 3339 time (without an offset it is UTC), rounded down to the millisecond; None means now.

    Raises:
        BadSignal: it is no such time, or outside 1970 to the year 9999.
    """
    if text.startswith("0001-01-01"):
        return None
    try:
        if len(text) > _LONGEST or len(text) < 10:
            raise ValueError
        at = datetime.fromisoformat(text)
        since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        raise BadSignal(f"{text[:40]!r} is no time", "RFC 3339 is needed") from None
    if since < timedelta():
        raise BadSignal(f"{text[:40]!r} is before 1970", "0001-01-01 would mean now")
    return Instant(since // timedelta(milliseconds=1))


def written(at: Instant) -> str:
    """An instant as RFC 3339 in UTC, to the millisecond."""
    return (_EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(text: str) -> Duration:
    """The milliseconds of an ISO 8601 duration, rounded down; below 0 where it says so, at most FOR_EVER.

    Raises:
        BadSignal: it is no duration.
    """
    parts = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if parts is None:
        raise BadSignal(f"{text[:40]!r} is no duration", "ISO 8601 is needed, as PT15M")
    sign, years, months, days, unit, hours, minutes, seconds = parts.groups()
    whole = int(years or 0) * 365 + int(months or 0) * 30 + int(days or 0) * (7 if unit == "W" else 1)
    length = whole * _DAY + int(hours or 0) * 3_600_000 + int(minutes or 0) * 60_000 + _milliseconds(seconds)
    if int(years or 0) >= 9999:
        length = FOR_EVER
    length = min(length, FOR_EVER)
    return Duration(-length if sign else length)


def text_of(length: Duration) -> str:
    """A duration as ISO 8601, in seconds; FOR_EVER as the operator writes it."""
    if length >= FOR_EVER:
        return "P9999Y"
    seconds, rest = divmod(length, 1000)
    return f"PT{seconds}.{rest:03d}S" if rest else f"PT{seconds}S"


def lasting(text: str | None) -> Duration:
    """How long something lasts: a duration of nothing, or none at all, is for ever.

    Raises:
        BadSignal: it is no duration, or one that goes back.
    """
    length = duration(text) if text is not None else Duration(0)
    if length < 0:
        raise BadSignal(f"a duration of {text!r} goes back", "it must be positive")
    return length or FOR_EVER


def _milliseconds(seconds: str | None) -> int:
    return int(Decimal(seconds) * 1000) if seconds else 0
