"""What one call of a parser may cost: a second of CPU and 64 MiB, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from resource import RUSAGE_SELF, getrusage
from time import perf_counter, process_time

from penstock.core.errors import PenstockError

MOST_CPU = 1.0  # seconds
MOST_MEMORY = 64 * 1024  # KiB, as `ru_maxrss` counts them


class TooDear(AssertionError):
    """A call took more than its budget."""


_peak = 0  # the highest that this process has been


def within(one: Callable[[bytes], object], data: bytes) -> object:
    """Run `one(data)`, and return what it returns.

    Memory is what the process's peak rose by: what a call takes below an earlier peak is not seen, and that peak was
    within the budget of its own call. CPU is measured in a second run, of what took long by the clock on the wall.

    Raises:
        TooDear: it took too long or too much.
    """
    global _peak
    began = perf_counter()
    try:
        return one(data)
    finally:
        took, peak = perf_counter() - began, getrusage(RUSAGE_SELF).ru_maxrss
        grown, _peak = peak - (_peak or peak), peak
        if took > MOST_CPU:
            took = _measured(one, data)
        if took > MOST_CPU or grown > MOST_MEMORY:
            raise TooDear(f"{len(data)} bytes took {took:.1f} s and {grown >> 10} MiB")


def _measured(one: Callable[[bytes], object], data: bytes) -> float:
    began = process_time()
    with suppress(PenstockError):
        one(data)
    return process_time() - began
