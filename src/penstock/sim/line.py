"""A simulated power line: a cable with a pole's meter and valve at one end and a car's meter at the other.

The two processes share a file (`register.py`). Only the pole's process advances it, so that nothing flows once that is
gone, and the total outlives it. A line keeps its own clock, on which power times time is energy:

- at a speed, the clock starts at `clock()` and runs that many times as fast as real time;
- at full speed (`speed=None`), what the valve allows flows at once, and the clock advances by the time that this
  energy takes at the line's power: a session of hours takes milliseconds and keeps its real profile.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import DeviceError, UsageError
from penstock.core.meter import Reading
from penstock.core.units import MAX_QUANTITY, Instant, Quantity
from penstock.sim.register import Entry, Register

MAX_POWER = 10**9  # W
HEARTBEAT = 1.0  # s: a flow is written to the register at least this often, so that a display moves and a stop shows
SLACK = 0.0005  # s: event loops round timers to a millisecond; waking before the boundary would cost a second wake

_POLL_FAST, _POLL_SLOW = 0.002, 0.064  # s between looks at the register: fast while it moves
_LOG = logging.getLogger(__name__)


def wall_clock() -> Instant:
    """The system's time."""
    return Instant(time.time_ns() // 1_000_000)


class LineSupply:
    """The pole's end: the `Meter` and the `Valve` of a line.

    It works on the running event loop of whoever calls `allow`. The valve starts closed.
    """

    __slots__ = (
        "_allowed", "_at", "_base", "_limit", "_loop", "_package", "_part", "_path", "_power", "_register", "_sequence",
        "_since", "_speed", "_start", "_start_total", "_told", "_total", "_wake", "_watchers", "_zero",
    )  # fmt: skip

    def __init__(
        self,
        path: Path,
        power_w: int,
        speed: float | None = None,
        *,
        package: Quantity,
        limit: Quantity = MAX_QUANTITY,
        clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        """Hold the line `path` (made where there is none) and supply `power_w` watts through it.

        Watchers hear of every `package` (Wh) that has flowed since the valve opened. `limit` is the total (Wh) at which
        the car draws no more. `clock()` is asked once, for the instant at which the line's clock starts; a line that
        is already ahead of it goes on from there.

        Raises:
            UsageError: power, speed or package is outside its bounds.
            DeviceError: another process supplies through this line, or the file is no line.
        """
        if not 0 < power_w <= MAX_POWER:
            raise UsageError(f"a power of {power_w} W is outside 1..{MAX_POWER}", "a charging pole has some 11000")
        if speed is not None and not 0 < speed <= 10**9:
            raise UsageError(f"a speed of {speed} is not above 0", "1 is real time; leave it out for full speed")
        if package < 1:
            raise UsageError(f"a package of {package} Wh is too small", "a package is at least 1 Wh")
        self._path = path
        self._register = Register.write_end(path)
        newest = self._register.read()
        self._power, self._speed, self._package, self._limit = power_w, speed, package, limit
        self._sequence = newest.sequence
        self._total = self._start_total = self._told = self._base = newest.total
        self._start = self._at = max(clock(), newest.at)
        self._allowed = 0  # closed: nothing above it flows
        self._part = 0.0  # of the next Wh
        self._since: float | None = None  # loop time from which the flow has not been counted yet; None: nothing flows
        self._zero: float | None = None  # loop time at which the line's clock started
        self._wake: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: list[Callable[[Reading], None]] = []
        self._show(0)

    def read(self) -> Reading:
        """The register as it was last written; while electricity flows, that is at most a second old."""
        return Reading(Quantity(self._total), Instant(self._at))

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` at each package, where the flow stops or is throttled, and at full speed at each step."""
        self._watchers.append(on_reading)

    def power(self) -> int:
        """What flows now (W), on the line's clock."""
        return self._power if self._since is not None else 0

    def allow(self, total: Quantity) -> None:
        """Let electricity flow until the register shows `total`. Needs a running event loop.

        Raises:
            DeviceError: the line was let go of.
        """
        if self._sequence < 0:
            raise DeviceError(f"line {self._path} was let go of", "start the pole again")
        self._loop = asyncio.get_running_loop()
        if self._zero is None:
            self._zero = self._loop.time()
        self._count()
        if self._allowed == 0:
            self._base = self._total
        self._allowed = total
        self._plan()

    def close(self) -> None:
        """Stop the flow at once. What has flowed since the last reading is told to the watchers."""
        if self._loop is None or self._sequence < 0:
            return
        self._count()
        self._allowed = 0
        self._plan()

    def plug(self, power_w: int, at: Instant) -> None:
        """Another car plugs in at `at`: the line's clock goes on from there, and flows bring `power_w` watts."""
        self.close()
        self._power = power_w
        self._start = self._at = max(at, self._at)
        self._start_total = self._total
        self._zero = None
        self._part = 0.0
        self._show(0)

    def detach(self) -> None:
        """Close the valve and let go of the line, for good. Watchers hear no more."""
        if self._sequence < 0:
            return
        self.close()
        if self._wake is not None:
            self._wake.cancel()
        self._watchers.clear()
        self._sequence = -1
        self._register.close()

    def _goal(self) -> int:
        return min(self._allowed, self._limit)

    def _rate(self) -> float:
        """Wh for each second of real time."""
        assert self._speed is not None
        return self._power * self._speed / 3600

    def _count(self) -> None:
        """Count what has flowed until now."""
        if self._since is None or self._speed is None:
            return
        assert self._loop is not None
        assert self._zero is not None
        now, goal = self._loop.time(), self._goal()
        flowed = self._part + (now - self._since) * self._rate()
        whole = int(flowed)
        if self._total + whole >= goal:
            whole, flowed = goal - self._total, float(goal - self._total)
        if whole:
            # the line's clock at the very instant at which this total was reached, however late we woke
            reached = self._since + (whole - self._part) / self._rate()
            elapsed = int((reached - self._zero) * self._speed * 1000)
            self._at = max(self._at, self._start + elapsed)
        self._total += whole
        self._part = flowed - whole
        self._since = now if self._total < goal else None

    def _plan(self) -> None:
        """Begin, go on or stop, as the goal is ahead or reached; write that down and set the next wake."""
        assert self._loop is not None
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._total >= self._goal():
            self._since = None
            self._show(0)
            if self._told < self._total:
                self._wake = self._loop.call_soon(self._tell)
            return
        if self._since is None:
            self._since = self._loop.time()
        self._show(self._power)
        if self._speed is None:
            self._wake = self._loop.call_soon(self._on_step)
            return
        passed = (self._total - self._base) // self._package
        boundary = min(self._base + (passed + 1) * self._package, self._goal())
        ahead = (boundary - self._total - self._part) / self._rate()
        self._wake = self._loop.call_at(self._since + min(ahead + SLACK, HEARTBEAT), self._on_wake)

    def _on_wake(self) -> None:
        told = (self._told - self._base) // self._package
        self._count()
        self._plan()
        if (self._total - self._base) // self._package > told:
            self._tell()

    def _on_step(self) -> None:
        """At full speed: all that is allowed, but at most an hour's flow a turn of the loop.

        An endless allowance, as a price of 0 gives, runs on until the valve closes and leaves others their turn.
        """
        self._total = min(self._goal(), self._total + self._power)
        self._at = self._start + (self._total - self._start_total) * 3_600_000 // self._power
        self._plan()
        self._tell()

    def _show(self, power: int) -> None:
        self._sequence += 1
        self._register.write(Entry(self._sequence, self._total, self._at, power))

    def _tell(self) -> None:
        if self._told == self._total:
            return
        self._told = self._total
        reading = self.read()
        for watcher in list(self._watchers):
            watcher(reading)


class LineMeter:
    """The car's end: a `Meter` that reads what the pole's process has counted.

    `error_ppm` lets it deviate. `stuck_at` and `falls_at` are faults: it shows no more than that total, or half of it
    once it was reached.
    """

    __slots__ = (
        "_error", "_falls_at", "_fault", "_handle", "_last", "_moved", "_path", "_pause", "_register", "_sequence",
        "_stuck_at", "_told", "_watchers",
    )  # fmt: skip

    def __init__(
        self,
        path: Path,
        *,
        error_ppm: int = 0,
        stuck_at: Quantity | None = None,
        falls_at: Quantity | None = None,
    ) -> None:
        """Read the line `path`.

        Raises:
            UsageError: `error_ppm` would let the meter run backwards.
            DeviceError: there is no such line, or the file is no line.
        """
        if not -1_000_000 < error_ppm <= 1_000_000:
            raise UsageError(f"a meter error of {error_ppm} ppm is outside -999999..1000000", "1000 is 0.1 %")
        self._path = path
        self._error, self._stuck_at, self._falls_at = error_ppm, stuck_at, falls_at
        self._register = Register.read_end(path)
        self._fault: DeviceError | None = None
        self._last = Reading(Quantity(0), Instant(0))
        self._sequence, self._moved = -1, -math.inf
        self._told = -1
        self._pause = _POLL_FAST
        self._handle: asyncio.Handle | None = None
        self._watchers: list[Callable[[Reading], None]] = []

    def read(self) -> Reading:
        """The newest reading.

        Raises:
            DeviceError: the total fell, the line cannot be read or was let go of. Every later call raises it too.
        """
        if self._fault is None:
            try:
                return self._look(self._register.read())
            except DeviceError as error:
                self._fault = error
        raise self._fault

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` for each new reading, within 64 ms. Needs a running event loop.

        A meter that fails is logged once and watched no more; `read` says what is wrong with it.
        """
        self._watchers.append(on_reading)
        if self._handle is None:
            self._told = self.read().total
            self._handle = asyncio.get_running_loop().call_soon(self._poll)

    def power(self) -> int:
        """What flows now (W); 0 where the pole has not written for some seconds.

        Raises:
            DeviceError: as `read`.
        """
        self.read()
        entry = self._register.read()
        return entry.power if time.monotonic() - self._moved < 3 * HEARTBEAT else 0

    def detach(self) -> None:
        """Let go of the line, for good. Watchers hear no more."""
        if self._handle is not None:
            self._handle.cancel()
        self._watchers.clear()
        self._fault = self._fault or DeviceError(f"line {self._path} was let go of", "open the meter again")
        self._register.close()

    def _look(self, entry: Entry) -> Reading:
        if entry.sequence != self._sequence:
            self._sequence, self._moved = entry.sequence, time.monotonic()
        total = entry.total * (1_000_000 + self._error) // 1_000_000
        if self._stuck_at is not None:
            total = min(total, self._stuck_at)
        if self._falls_at is not None and total >= self._falls_at:
            total //= 2
        if total < self._last.total:
            raise DeviceError(
                f"the meter on line {self._path} fell from {self._last.total} to {total} Wh",
                "replace it: it cannot count",
            )
        self._last = Reading(Quantity(total), Instant(entry.at))
        return self._last

    def _poll(self) -> None:
        try:
            reading = self.read()
        except DeviceError as error:
            _LOG.error("%s", error.line())
            return
        moved = reading.total != self._told
        self._pause = _POLL_FAST if moved else min(2 * self._pause, _POLL_SLOW)
        self._handle = asyncio.get_running_loop().call_later(self._pause, self._poll)
        if moved:
            self._told = reading.total
            for watcher in list(self._watchers):
                watcher(reading)
