"""The wall clock, as the core counts time."""

from __future__ import annotations

import time

from penstock.core.units import Instant


def now() -> Instant:
    """Milliseconds since 1970 UTC."""
    return Instant(time.time_ns() // 1_000_000)
