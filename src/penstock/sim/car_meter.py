"""Meters of the simulation and what is wrong with them, and a car's own meter and valve at its end of a cable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.core.errors import DeviceError
from penstock.core.meter import Reading
from penstock.core.units import Instant, Quantity
from penstock.sim.life import Life

ENDLESS = 2**62


class Plugged(Protocol):
    """What a car's end of a cable knows of it."""

    @property
    def totals(self) -> tuple[int, int]: ...

    def permit(self, total: int, export: int) -> None: ...


class MeterFaults:
    """A meter between the flow and who reads it. `error_ppm` lets it deviate from birth, `stick` and `mute` later.

    It has two registers: what flowed to the car, and what flowed out of it.
    """

    def __init__(self, error_ppm: int = 0) -> None:
        self.error_ppm = error_ppm
        self.mute = False
        self._stuck_at: tuple[int, int] | None = None
        self._lag = (0, 0)  # what flowed while it was stuck is counted by nobody

    def stick(self, stuck: bool, flows: tuple[int, int]) -> None:
        """It counts no more from these flows on, or does again."""
        if stuck and self._stuck_at is None:
            self._stuck_at = flows
        elif not stuck and self._stuck_at is not None:
            lag, at = self._lag, self._stuck_at
            self._lag = (lag[0] + flows[0] - at[0], lag[1] + flows[1] - at[1])
            self._stuck_at = None

    def read(self, flows: tuple[int, int], at: Instant) -> Reading:
        """What the meter says.

        Raises:
            DeviceError: nothing at all.
        """
        if self.mute:
            raise DeviceError("the meter does not answer", "look at its cable")
        total, export = (self._shown(flow, way) for way, flow in enumerate(self._stuck_at or flows))
        return Reading(Quantity(total), at, export=Quantity(export))

    def flowed(self, register: int, way: int = 0) -> int:
        """The flow at which a sound valve, which follows this meter, stops: where it shows `register`."""
        if self._stuck_at is not None:
            return ENDLESS if self._shown(self._stuck_at[way], way) < register else 0
        return register * 1_000_000 // (1_000_000 + self.error_ppm) + self._lag[way]

    def _shown(self, flow: int, way: int) -> int:
        return (flow - self._lag[way]) * (1_000_000 + self.error_ppm) // 1_000_000


class CarMeter:
    """A car's own meter: counts while the car is plugged in, whichever pole it is at. It outlives its process."""

    def __init__(self, clock: Callable[[], Instant], faults: MeterFaults) -> None:
        self.faults = faults
        self._clock = clock
        self._cable: Plugged | None = None
        self._before, self._base = (0, 0), (0, 0)

    @property
    def totals(self) -> tuple[int, int]:
        """What has really flowed into the car, and out of it."""
        if self._cable is None:
            return self._before
        now, before, base = self._cable.totals, self._before, self._base
        return before[0] + now[0] - base[0], before[1] + now[1] - base[1]

    @property
    def total(self) -> int:
        """What has really flowed into the car."""
        return self.totals[0]

    def read(self) -> Reading:
        return self.faults.read(self.totals, self._clock())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        raise DeviceError("a car's meter is read, not watched")

    def plug(self, cable: Plugged | None) -> None:
        """Plug in at a cable, or nowhere."""
        self._before = self.totals
        self._cable = cable
        self._base = cable.totals if cable else (0, 0)

    def permit(self, total: int, export: int) -> None:
        """Let the cable run as far as this meter's registers may; 0 is nothing."""
        if self._cable is not None:
            goals = [self.faults.flowed(register, way) for way, register in enumerate((total, export))]
            (before, back), (base, base_back) = self._before, self._base
            self._cable.permit(goals[0] - before + base, goals[1] - back + base_back)


class CarValve:
    """A car's valve for one life: the `TwoWayValve` that follows the car's own meter."""

    def __init__(self, meter: CarMeter, life: Life) -> None:
        self._meter, self._life = meter, life
        life.at_death(self._shut)

    def allow(self, total: Quantity, export: Quantity = Quantity(0)) -> None:  # noqa: B008 - a number
        if self._life.boundary():
            self._meter.permit(total, export)

    def close(self) -> None:
        if self._life.boundary():
            self._shut()

    def _shut(self) -> None:
        self._meter.permit(-ENDLESS, -ENDLESS)
