"""What one call of a parser may cost: a second of CPU and 64 MiB, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from time import process_time

MOST_CPU = 1.0  # seconds
MOST_MEMORY = 64 * 1024  # KiB, as `ru_maxrss` counts them


class TooDear(AssertionError):
    """A call took more than its budget."""


def within(one: Callable[[bytes], object], data: bytes) -> object:
    """Run `one(data)`, and return what it returns.

    Memory is what the process's peak rose by: what a call takes below an earlier peak is not seen, and that peak was
    within the budget of its own call.

    Raises:
        TooDear: it took too long or too much.
    """
    peak, began = getrusage(RUSAGE_SELF).ru_maxrss, process_time()
    found = one(data)
    took, grown = process_time() - began, getrusage(RUSAGE_SELF).ru_maxrss - peak
    if took > MOST_CPU or grown > MOST_MEMORY:
        raise TooDear(f"{len(data)} bytes took {took:.1f} s of CPU and {grown >> 10} MiB")
    return found
