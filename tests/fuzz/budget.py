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


def within(one: Callable[[bytes], object], data: bytes) -> object:
    """Run `one(data)`, and return what it returns.

    Memory is what the process's peak rose by in the call: what it takes below an earlier peak is not seen. CPU is
    measured in a second run, of what took long by the clock on the wall.

    Raises:
        TooDear: it took too long or too much.
    """
    before, began = getrusage(RUSAGE_SELF).ru_maxrss, perf_counter()
    try:
        return one(data)
    finally:
        took, grown = perf_counter() - began, getrusage(RUSAGE_SELF).ru_maxrss - before
        if took > MOST_CPU:
            took = _measured(one, data)
        if took > MOST_CPU or grown > MOST_MEMORY:
            raise TooDear(f"{len(data)} bytes took {took:.1f} s and {grown >> 10} MiB")


def _measured(one: Callable[[bytes], object], data: bytes) -> float:
    began = process_time()
    with suppress(PenstockError):
        one(data)
    return process_time() - began
