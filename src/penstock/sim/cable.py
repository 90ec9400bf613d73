"""A pole's cable in virtual time: what flows either way, and the pole's meter and valve at one end of it.

The flow is what really happens; meters say what they say. It goes as far as the pole's valve allows; where that is told
of both registers, only as far as the car's valve (`car_meter.py`) does, too, and first to the car.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.errors import DeviceError
from penstock.core.meter import Reading
from penstock.core.units import Instant, Quantity
from penstock.sim.car_meter import ENDLESS, MeterFaults
from penstock.sim.life import Life

SUPPLY, FEED = 0, 1  # ways to flow: to the car, and out of it
HOUR = 3_600  # seconds: rates are limited in units an hour


class Cable:
    """What flows through a pole: `rate` units a second while the valves allow it and a car is plugged in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], Instant], rate: int) -> None:
        self.loop, self.clock = loop, clock
        self.draws = False
        self.stuck_open = self.stuck_shut = False
        self.on_change: Callable[[], None] = _nothing  # the plan of who watches has to be made anew
        self._rates = (float(rate), float(rate))  # units a second, each way
        self._rate = float(rate)
        self._allowed = self._permitted = (0, 0)  # by the pole, and by the car
        self._two_way = False  # whether the car has a say
        self._flowed = [0.0, 0.0]
        self._since = loop.time()

    @property
    def totals(self) -> tuple[int, int]:
        """What has flowed until now to the car, and out of it, in whole units."""
        self._count()
        return int(self._flowed[SUPPLY]), int(self._flowed[FEED])

    @property
    def total(self) -> int:
        """What has flowed to the car until now, in whole units."""
        return self.totals[SUPPLY]

    @property
    def goals(self) -> tuple[int, int]:
        """How far both totals may run; no further than they stand where nothing does."""
        if not self.draws or self.stuck_shut:
            return 0, 0
        total, export = (ENDLESS, ENDLESS if self._two_way else 0) if self.stuck_open else self._allowed
        if not self._two_way:
            return total, 0
        return min(total, self._permitted[SUPPLY]), min(export, self._permitted[FEED])

    @property
    def way(self) -> int | None:
        """Which way it flows now."""
        self._count()
        return self._way()

    @property
    def flows(self) -> bool:
        """Whether anything flows now."""
        return self.way is not None

    def left(self, way: int, package: int, told: int) -> float:
        """Seconds until this way's total is a `package` above `told`, or has reached its goal."""
        self._count()
        ahead = min(told + package, self.goals[way]) - self._flowed[way]
        return max(0.0, ahead) / self._rates[way]

    def allow(self, total: int, export: int | None = None) -> None:
        """The pole's valve: let it flow up to these totals; without an `export` the car has no say."""
        self._count()
        self._allowed, self._two_way = (total, export or 0), export is not None
        self.on_change()

    def shut(self) -> None:
        """The pole's valve: let nothing flow."""
        self._count()
        self._allowed = (0, 0)
        self.on_change()

    def permit(self, total: int, export: int) -> None:
        """The car's valve: let it flow up to these totals; 0 is nothing. It is in the way, whatever the pole's does."""
        self._count()
        self._permitted, self._two_way = (total, export), True
        self.on_change()

    def limit(self, supply: int | None, feed: int | None) -> None:
        """Let no more flow either way than so many units an hour; None: as much as the cable takes."""
        self._count()
        slower = [self._rate if most is None else min(self._rate, most / HOUR) for most in (supply, feed)]
        self._rates = (slower[SUPPLY], slower[FEED])
        self.on_change()

    def plug(self, draws: bool) -> None:
        """A car is there, or is not; one that has just come lets nothing flow back."""
        self._count()
        self.draws, self._permitted = draws, (0, 0)
        self.on_change()

    def stick(self, open_: bool, shut: bool) -> None:
        """The valve does what it likes, or again what it is told."""
        self._count()
        self.stuck_open, self.stuck_shut = open_, shut
        self.on_change()

    def _way(self) -> int | None:
        for way, goal in enumerate(self.goals):
            if int(self._flowed[way]) < goal and self._rates[way]:
                return way
        return None

    def _count(self) -> None:
        """Count what has flowed since the last time: one way up to its goal, then the other."""
        now = self.loop.time()
        while (way := self._way()) is not None and now > self._since:
            rate, goal, before = self._rates[way], float(self.goals[way]), self._flowed[way]
            self._flowed[way] = min(goal, before + (now - self._since) * rate)
            self._since = now if self._flowed[way] < goal else min(now, self._since + (goal - before) / rate)
        self._since = now


class Socket:
    """The pole's end for one life: `Meter`, `TwoWayValve` and `Throttle`. Watchers hear of every `package` that flowed.

    Its meter says what `faults` makes of the flow, and its valve follows that meter.
    """

    def __init__(self, cable: Cable, life: Life, package: int, faults: MeterFaults) -> None:
        self.on_allow: Callable[[int, int], None] = _unheard  # hears how far the valve is told to let registers run
        self._cable, self._life, self._package, self.faults = cable, life, package, faults
        self._watchers: list[Callable[[Reading], None]] = []
        self._told = cable.totals
        self._wake: asyncio.TimerHandle | None = None
        cable.on_change = self._plan
        cable.limit(None, None)
        life.at_death(self._die)

    def read(self) -> Reading:
        return self.faults.read(self._cable.totals, self._cable.clock())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self._watchers.append(on_reading)

    def allow(self, total: Quantity, export: Quantity | None = None) -> None:
        if self._life.boundary():
            self.on_allow(total, export or 0)
            back = None if export is None else self.faults.flowed(export, FEED)
            self._cable.allow(self.faults.flowed(total), back)

    def close(self) -> None:
        if self._life.boundary():
            self._cable.shut()

    def limit(self, supply: int | None, feed: int | None) -> None:
        if self._life.boundary():
            self._cable.limit(supply, feed)

    def _plan(self) -> None:
        """Wake at the next package, or where the flow ends or turns."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        way = self._cable.way
        if way is not None:
            ahead = self._cable.left(way, self._package, self._told[way])
            self._wake = self._life.later(ahead + 1e-6, self._tell)
        elif self._cable.totals != self._told:
            self._wake = self._life.later(0, self._tell)

    def _tell(self) -> None:
        self._wake = None
        if self._cable.totals != self._told:
            self._told = self._cable.totals
            try:
                reading = self.read()
            except DeviceError:
                pass  # whoever reads it next hears of it
            else:
                for watcher in list(self._watchers):
                    watcher(reading)
        if self._wake is None:
            self._plan()

    def _die(self) -> None:
        self._cable.on_change = _nothing
        self._cable.shut()


def _nothing() -> None:
    pass


def _unheard(_total: int, _export: int) -> None:
    pass
