"""A simulated power line: a cable with a pole's meter and valve at one end and a car's meter and valve at the other.

The two processes share a file (`register.py`). Only the pole's process advances it, so that nothing flows once that is
gone, and the totals outlive it. A line keeps its own clock, on which power times time is energy (`counter.py`):

- at a speed, the clock starts at `clock()` and runs that many times as fast as real time;
- at full speed (`speed=None`), what the valve allows flows at once, and the clock advances by the time that this
  energy takes at the line's power: a session of hours takes milliseconds and keeps its real profile.

Electricity may flow out of the car, too. Where a pole's valve is told how far each register may run, what flows is what
the pole and the car both allow (`permit.py`): first to the car, and the other way once that may go no further.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import DeviceError, UsageError
from penstock.core.meter import Reading
from penstock.core.units import MAX_QUANTITY, Instant, Quantity
from penstock.sim.counter import EXPORT, IMPORT, Counter
from penstock.sim.line_meter import LineMeter
from penstock.sim.permit import Permits
from penstock.sim.register import HEARTBEAT, Entry, Register

MAX_POWER = 10**9  # W
SLACK = 0.0005  # s: event loops round timers to a millisecond; waking before the boundary would cost a second wake
GONE = 1_000_000_000  # ns of real time: what flows on, at most, once a car was seen for the last time

_SECOND = 1_000_000_000  # ns
REST = 0.1  # s between two times that the line's clock is shown while nothing flows
_POLL = 0.064  # s between looks for a car that should allow a flow, and is not there

__all__ = ["MAX_POWER", "LineMeter", "LineSupply", "wall_clock"]


def wall_clock() -> Instant:
    """The system's time."""
    return Instant(time.time_ns() // 1_000_000)


class LineSupply:
    """The pole's end: the `Meter`, the `TwoWayValve` and the `Throttle` of a line.

    It works on the running event loop of whoever calls `allow`. The valve starts closed.
    """

    __slots__ = (
        "_allowed", "_base", "_counter", "_ends", "_full", "_goal", "_limits", "_loop", "_package", "_path", "_permits",
        "_power", "_register", "_seen", "_sequence", "_since", "_speed", "_start", "_told", "_two_way", "_wake",
        "_watchers", "_watts", "_way", "_zero",
    )  # fmt: skip

    def __init__(
        self,
        path: Path,
        power_w: int,
        speed: float | None = None,
        *,
        package: Quantity,
        limit: Quantity = MAX_QUANTITY,
        feed_w: int = 0,
        clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        """Hold the line `path` (made where there is none) and supply `power_w` watts through it, or take `feed_w` back.

        Watchers hear of every `package` (Wh) that has flowed since the valve opened. `limit` is the total (Wh), less
        what was fed in, at which the car draws no more. `clock()` is asked once, for the instant at which the line's
        clock starts; a line that is already ahead of it goes on from there.

        Raises:
            UsageError: a power, speed or package is outside its bounds.
            DeviceError: another process supplies through this line, or the file is no line.
        """
        if not 0 < power_w <= MAX_POWER:
            raise UsageError(f"a power of {power_w} W is outside 1..{MAX_POWER}", "a charging pole has some 11000")
        if not 0 <= feed_w <= MAX_POWER:
            raise UsageError(f"a power of {feed_w} W to feed in is outside 0..{MAX_POWER}", "0 where nothing can")
        if speed is not None and not 0 < speed <= 10**9:
            raise UsageError(f"a speed of {speed} is not above 0", "1 is real time; leave it out for full speed")
        if package < 1:
            raise UsageError(f"a package of {package} Wh is too small", "a package is at least 1 Wh")
        self._path = path
        self._register = Register.write_end(path)
        newest = self._register.read()
        self._sequence = newest.sequence
        self._counter = Counter(newest.total, newest.export, max(clock(), newest.at))
        self._power = (power_w, feed_w)
        self._limits: tuple[int | None, int | None] = (None, None)  # W, that the power is throttled to
        self._watts = self._power  # of what flows, where it flows that way
        self._speed = None if speed is None else speed.as_integer_ratio()
        self._package, self._full = package, limit
        self._allowed: tuple[int, int] | None = None  # how far each register may run; None: the valve is closed
        self._two_way = False  # whether the car has to allow it, too
        self._permits = Permits(path, self._on_call)
        self._ends = (0, 0)  # how far each register may run, by all who have a say
        self._seen = 0  # when we last saw that they let the flow run (ns, real time)
        self._way, self._goal = IMPORT, 0  # of what flows
        self._since: int | None = None  # real time (ns) from which the flow has not been counted; None: nothing flows
        self._zero: int | None = None  # the real time when the line's clock started (ns), at `_start` of its own
        self._start = 0
        self._base = self._told = self._counter.totals
        self._wake: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers: list[Callable[[Reading], None]] = []
        self._show()

    def read(self) -> Reading:
        """The registers as they were last written; while electricity flows, that is at most a second old.

        At rest they are what they are now: at a speed, the line's clock goes on, and the car is shown it as well. What
        a pole announces by this reading, a car's meter must not be behind of.
        """
        shown = self._counter.at
        self._rest()
        if self._counter.at != shown and self._sequence >= 0:
            self._write()
        total, export = self._counter.totals
        return Reading(Quantity(total), Instant(self._counter.at), export=Quantity(export))

    def count(self) -> Reading:
        """The registers as they are at this instant, before they are written."""
        if self._loop is not None:
            self._count()
        return self.read()

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` at each package, where the flow stops or is throttled, and at full speed at each step."""
        self._watchers.append(on_reading)

    def power(self) -> int:
        """What flows now (W), on the line's clock; below 0 where it is fed in."""
        if self._since is None:
            return 0
        return self._watts[self._way] if self._way == IMPORT else -self._watts[self._way]

    def allow(self, total: Quantity, export: Quantity | None = None) -> None:
        """Let electricity flow until the register shows `total`. Needs a running event loop.

        Given an `export`, let it flow to there in the other register, and only as far as the car allows it, either way.

        Raises:
            DeviceError: the line was let go of.
        """
        self._need()
        self._loop = asyncio.get_running_loop()
        if self._zero is None:
            self._zero, self._start = self._now(), self._counter.clock
        self._count()
        if self._allowed is None:
            self._base = self._counter.totals
        self._allowed, self._two_way = (total, export or 0), export is not None
        self._look()
        self._plan()

    def close(self) -> None:
        """Stop the flow at once. What has flowed since the last reading is told to the watchers."""
        if self._loop is None or self._sequence < 0:
            return
        self._count()
        self._allowed = None
        self._look()
        self._plan()

    def limit(self, supply: int | None, feed: int | None) -> None:
        """Throttle what flows to the car, and what is fed in, to so many watts; None is what the line can.

        Raises:
            UsageError: less than 0 W. DeviceError: the line was let go of.
        """
        self._need()
        if min(supply or 0, feed or 0) < 0:
            raise UsageError(f"a limit of {supply} W and {feed} W is below 0", "0 W is the least")
        if self._loop is not None:
            self._count()
        self._limits = (supply, feed)
        self._set_watts()
        if self._loop is not None:
            self._plan()
            if self._told != self._counter.totals:
                self._loop.call_soon(self._tell)

    def plug(self, power_w: int, at: Instant, feed_w: int = 0) -> None:
        """Another car plugs in at `at`: the line's clock goes on from there, and flows bring these powers."""
        self.close()
        self._power = (power_w, feed_w)
        self._set_watts()
        self._counter.restart(at)
        self._zero = None
        self._show()

    def detach(self) -> None:
        """Close the valve and let go of the line, for good. Watchers hear no more."""
        if self._sequence < 0:
            return
        self.close()
        if self._wake is not None:
            self._wake.cancel()
        self._watchers.clear()
        self._permits.close()
        self._sequence = -1
        self._register.close()

    def _rest(self) -> None:
        """Nothing flows, but time passes: once it was told when the registers reached what they show."""
        told = self._since is None and self._told == self._counter.totals
        if told and self._speed is not None and self._zero is not None:
            self._counter.wait(self._line_time(self._now()))

    def _need(self) -> None:
        if self._sequence < 0:
            raise DeviceError(f"line {self._path} was let go of", "start the pole again")

    def _now(self) -> int:
        assert self._loop is not None
        return int(self._loop.time() * _SECOND)

    def _set_watts(self) -> None:
        (supply, feed), (power, fed) = self._limits, self._power
        self._watts = (power if supply is None else min(supply, power), fed if feed is None else min(feed, fed))

    def _look(self) -> None:
        """Ask how far each register may run now."""
        if self._allowed is None:
            self._ends = (0, 0)
            return
        total, export = self._allowed
        if total > self._full:
            total = min(total, self._full + self._counter.registers[EXPORT])
        if self._two_way:
            permitted, back = self._permits.look()
            total, export = min(total, permitted), min(export, back)
        self._ends = (total, export)

    def _ahead(self) -> int | None:
        """The way in which electricity may flow now."""
        total, export = self._counter.registers
        if self._ends[IMPORT] > total and self._watts[IMPORT]:
            return IMPORT
        return EXPORT if self._ends[EXPORT] > export and self._watts[EXPORT] else None

    def _count(self) -> None:
        """Count what has flowed until now, and look what may."""
        self._look()
        if self._since is None or self._speed is None:
            return
        now = until = self._now()
        if self._ends[self._way] < self._goal:
            until = min(now, self._seen + GONE)  # however long we were held up: the car has shut its own valve
        self._seen = now
        since, until = self._line_time(self._since), self._line_time(until)
        self._counter.run(self._way, self._watts[self._way], max(0, until - since), until, self._goal)
        self._since = now

    def _line_time(self, real: int) -> int:
        """The line's clock (ns) at a real time (ns)."""
        assert self._speed is not None
        assert self._zero is not None
        times, over = self._speed
        return self._start + (real - self._zero) * times // over

    def _plan(self) -> None:
        """Begin, go on, turn or stop, as what may flow says; write that down and set the next wake."""
        assert self._loop is not None
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        way = self._ahead()
        if way is None:
            self._since = None
            self._show()
            if self._told != self._counter.totals:
                self._wake = self._loop.call_soon(self._on_rest)
            else:
                self._await_car()
            if self._wake is None and self._speed is not None:
                self._wake = self._loop.call_later(REST, self._on_pause)
            return
        if self._since is None:
            self._since = self._seen = self._now()
        self._way, self._goal = way, self._ends[way]
        self._show()
        if self._speed is None:
            self._wake = self._loop.call_soon(self._on_step)
        else:
            self._wake = self._loop.call_later(min(self._to_boundary() + SLACK, HEARTBEAT), self._on_wake)

    def _to_boundary(self) -> float:
        """Seconds until the next package has flowed, or all that may."""
        assert self._speed is not None
        register, way, (times, over) = self._counter.registers[self._way], self._way, self._speed
        boundary = register + self._package - (register - self._base[way]) % self._package
        return self._counter.ahead(way, self._watts[way], min(boundary, self._goal)) * over / times / _SECOND

    def _await_car(self) -> None:
        """Look again for a car that is not there: it calls us only once we hear it."""
        assert self._loop is not None
        if self._two_way and self._allowed is not None and not self._permits.here:
            self._wake = self._loop.call_later(_POLL, self._on_wake)

    def _on_call(self) -> None:
        """The car has called, or is gone."""
        if self._two_way and self._allowed is not None:
            self._on_wake()
        else:
            self._permits.look()

    def _on_wake(self) -> None:
        self._count()
        self._plan()
        if self._packages(self._counter.totals) > self._packages(self._told):
            self._tell()

    def _on_pause(self) -> None:
        """Show the car what time it is."""
        assert self._loop is not None
        self._show()
        self._wake = self._loop.call_later(REST, self._on_pause)

    def _on_rest(self) -> None:
        self._wake = None
        self._tell()
        if self._wake is None:
            self._await_car()

    def _on_step(self) -> None:
        """At full speed: all that is allowed, but at most an hour's flow a turn of the loop.

        An endless allowance, as a price of 0 gives, runs on until the valve closes and leaves others their turn.
        """
        self._look()
        way = self._ahead()
        if way is not None:
            goal = min(self._ends[way], self._counter.registers[way] + self._watts[way])
            self._counter.pass_at_once(way, self._watts[way], goal)
        self._plan()
        self._tell()

    def _packages(self, totals: tuple[int, int]) -> int:
        """How many had flowed since the valve opened, when the registers showed that."""
        return sum((total - base) // self._package for total, base in zip(totals, self._base, strict=True))

    def _show(self) -> None:
        self._rest()
        self._write()

    def _write(self) -> None:
        self._sequence += 1
        total, export = self._counter.registers
        self._register.write(Entry(self._sequence, total, self._counter.at, self.power(), export))

    def _tell(self) -> None:
        totals = self._counter.totals
        if self._told == totals:
            return
        reading = self.read()
        self._told = totals
        for watcher in list(self._watchers):
            watcher(reading)
