"""A pole's cable in virtual time: what flows, the pole's meter and valve at one end, a car's meter at the other.

The flow is what really happens; meters say what they say. A valve lets it run to a total, but one that is stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.errors import DeviceError
from penstock.core.meter import Reading
from penstock.core.units import Instant, Quantity
from penstock.sim.life import Life


class Cable:
    """What flows through a pole: `rate` units a second while the valve allows it and the car that is plugged draws."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], Instant], rate: int) -> None:
        self.loop, self.clock, self.rate = loop, clock, rate
        self.draws = False
        self.stuck_open = self.stuck_shut = False
        self.on_change: Callable[[], None] = _nothing  # the plan of who watches has to be made anew
        self._allowed = 0
        self._total = 0.0
        self._since = loop.time()

    @property
    def total(self) -> int:
        """What has flowed until now, in whole units."""
        self._count()
        return int(self._total)

    @property
    def goal(self) -> int:
        """Up to which total it flows; no more than the total where nothing does."""
        if not self.draws or self.stuck_shut:
            return 0
        return 2**62 if self.stuck_open else self._allowed

    @property
    def flows(self) -> bool:
        """Whether anything flows now."""
        return self.total < self.goal

    @property
    def total_part(self) -> float:
        """What has flowed until now, with the part of the next unit."""
        self._count()
        return self._total

    def allow(self, total: int) -> None:
        """The valve: let it flow up to `total`; 0 shuts it."""
        self._count()
        self._allowed = total
        self.on_change()

    def plug(self, draws: bool) -> None:
        """A car is there and draws, or is not."""
        self._count()
        self.draws = draws
        self.on_change()

    def stick(self, open_: bool, shut: bool) -> None:
        """The valve does what it likes, or again what it is told."""
        self._count()
        self.stuck_open, self.stuck_shut = open_, shut
        self.on_change()

    def _count(self) -> None:
        now = self.loop.time()
        if self._total < self.goal:
            self._total = min(float(self.goal), self._total + (now - self._since) * self.rate)
        self._since = now


class Socket:
    """The pole's end for one life: `Meter` and `Valve`. Watchers hear of every `package` that has flowed.

    Its meter says what `faults` makes of the flow, and its valve follows that meter.
    """

    def __init__(self, cable: Cable, life: Life, package: int, faults: MeterFaults) -> None:
        self.on_allow: Callable[[int], None] = _unheard  # hears up to which register the valve is told to let go
        self._cable, self._life, self._package, self.faults = cable, life, package, faults
        self._watchers: list[Callable[[Reading], None]] = []
        self._told = cable.total
        self._wake: asyncio.TimerHandle | None = None
        cable.on_change = self._plan
        life.at_death(self._die)

    def read(self) -> Reading:
        return self.faults.read(self._cable.total, self._cable.clock())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self._watchers.append(on_reading)

    def allow(self, total: Quantity) -> None:
        if self._life.boundary():
            self.on_allow(total)
            self._cable.allow(self.faults.flowed(total))

    def close(self) -> None:
        if self._life.boundary():
            self._cable.allow(0)

    def _plan(self) -> None:
        """Wake at the next package, or where the flow ends."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        cable = self._cable
        if cable.total < cable.goal:
            ahead = min(self._told + self._package, cable.goal) - cable.total_part
            self._wake = self._life.later(max(0.0, ahead) / cable.rate + 1e-6, self._tell)
        elif cable.total > self._told:
            self._wake = self._life.later(0, self._tell)

    def _tell(self) -> None:
        self._wake = None
        if self._cable.total > self._told:
            self._told = self._cable.total
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
        self._cable.allow(0)


class MeterFaults:
    """A meter between the flow and who reads it. `error_ppm` lets it deviate from birth, `stick` and `mute` later."""

    def __init__(self, error_ppm: int = 0) -> None:
        self.error_ppm = error_ppm
        self.mute = False
        self._stuck_at: int | None = None
        self._lag = 0  # what flowed while it was stuck is counted by nobody

    def stick(self, stuck: bool, flow: int) -> None:
        """It counts no more from this flow on, or does again."""
        if stuck and self._stuck_at is None:
            self._stuck_at = flow
        elif not stuck and self._stuck_at is not None:
            self._lag += flow - self._stuck_at
            self._stuck_at = None

    def read(self, flow: int, at: Instant) -> Reading:
        """What the meter says.

        Raises:
            DeviceError: nothing at all.
        """
        if self.mute:
            raise DeviceError("the meter does not answer", "look at its cable")
        seen = (flow if self._stuck_at is None else self._stuck_at) - self._lag
        return Reading(Quantity(seen * (1_000_000 + self.error_ppm) // 1_000_000), at)

    def flowed(self, register: int) -> int:
        """The flow at which a sound valve, which follows this meter, stops: where it shows `register`."""
        if self._stuck_at is not None:
            return 2**62 if self.read(self._stuck_at, Instant(0)).total < register else 0
        return register * 1_000_000 // (1_000_000 + self.error_ppm) + self._lag


class CarMeter:
    """A car's own meter: counts while the car is plugged in, whichever pole it is at. It outlives its process."""

    def __init__(self, clock: Callable[[], Instant], faults: MeterFaults) -> None:
        self.faults = faults
        self._clock = clock
        self._cable: Cable | None = None
        self._before, self._base = 0, 0

    @property
    def total(self) -> int:
        """What has really flowed into the car."""
        return self._before + (self._cable.total - self._base if self._cable else 0)

    def read(self) -> Reading:
        return self.faults.read(self.total, self._clock())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        raise DeviceError("a car's meter is read, not watched")

    def plug(self, cable: Cable | None) -> None:
        """Plug in at a cable, or nowhere."""
        self._before = self.total
        self._cable = cable
        self._base = cable.total if cable else 0


def _nothing() -> None:
    pass


def _unheard(_total: int) -> None:
    pass
