"""What a compared session is measured and cheated with: a series of what a side has at stake, meters that lie, silence.

A line at full speed supplies at once what it may. So that it does not outrun what both sides say of it, as no real line
does, each release waits until the car has heard of the last (`Heard`).

A `Lie` stands between a line and its pole: `shown(true)` is what the meter shows for what has truly flowed (Wh), and
`let(total, true)` how far supply may truly run where the session allows it to run to `total` on the meter that lies.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from penstock.core.errors import PenstockError
from penstock.core.identity import Address
from penstock.core.meter import Reading, Tolerance
from penstock.core.ports import Link
from penstock.core.session import Session
from penstock.core.units import Instant, Quantity
from penstock.sim.charges import Charge, power_w
from penstock.sim.line import LineSupply

STEPS = 16  # at the beginning of a session, that are kept one by one
POINTS = 120  # of a series: about what a plot can show
LOOK = 0.0005  # s


class Series:
    """What a side has at stake over a session's time: the worst in each stretch of it, in token units.

    `steps` has the first steps as they were: rows of milliseconds since the session began, and what was at stake then.
    """

    def __init__(self, charge: Charge) -> None:
        self._width = max(1, duration_ms(charge) // POINTS)
        self._worst: dict[int, tuple[int, int]] = {}
        self.steps: list[list[int]] = []

    def note(self, session: Session, at: Instant, given: int) -> None:
        """Put down how the session stands at `at`, where it has given so much worth in all (token units)."""
        elapsed, stake = at - session.row.base.at, max(0, given - session.control.got)
        worst, _ = self._worst.get(elapsed // self._width, (0, 0))
        self._worst[elapsed // self._width] = (max(worst, stake), session.paid)
        if len(self.steps) < STEPS:
            self.steps.append([elapsed, stake])

    def rows(self) -> list[list[int]]:
        """Rows of seconds since the session began, the worst exposure until then, and what was paid (token units)."""
        return [[stretch * self._width // 1_000, *stands] for stretch, stands in sorted(self._worst.items())]


def duration_ms(charge: Charge) -> int:
    """How long the charge takes at its line's power (ms)."""
    return charge.energy_wh * 3_600_000 // power_w(charge)


class Lie(Protocol):
    """What a meter makes of what flows; see above."""

    def shown(self, true: int) -> int: ...
    def let(self, total: int, true: int) -> int: ...


class Truth:
    """No lie."""

    def shown(self, true: int) -> int:
        return true

    def let(self, total: int, true: int) -> int:
        return total


class Creep:
    """A meter that runs too fast, by just as much as two meters may be apart."""

    def __init__(self, tolerance: Tolerance) -> None:
        self._tolerance = tolerance

    def shown(self, true: int) -> int:
        return true + self._tolerance.at(true)

    def let(self, total: int, true: int) -> int:
        while self.shown(true + 1) <= total:  # some steps: a release is a few Wh
            true += 1
        return true


class Jump:
    """A meter that counts right until half of `energy` has flowed, and then shows all of it. No more is supplied."""

    def __init__(self, energy: Quantity) -> None:
        self._energy, self._half = energy, energy // 2

    def shown(self, true: int) -> int:
        return true if true < self._half else self._energy

    def let(self, total: int, true: int) -> int:
        return min(total, self._half)


class Heard:
    """What the car has heard the pole's meter say, in a file that both processes know: 8 bytes, Wh."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "heard", os.O_RDWR | os.O_CREAT, 0o600)

    def tell(self, total: int) -> None:
        """The car has heard of this total."""
        os.pwrite(self._file, total.to_bytes(8, "big"), 0)

    def total(self) -> int:
        """The last total that the car has heard of; 0 before the first."""
        return int.from_bytes(os.pread(self._file, 8, 0), "big")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class Gauge:
    """A line's meter and valve as a pole sees them through a lie.

    `note` is given each reading before the pole is, and at each release. That waits until the car has heard of
    `announced()`.
    """

    def __init__(
        self,
        line: LineSupply,
        lie: Lie,
        heard: Heard,
        announced: Callable[[], int],
        note: Callable[[Reading], None],
    ) -> None:
        self._line, self._lie, self._heard, self._announced, self._note = line, lie, heard, announced, note
        self._wanted: Quantity | None = None

    def read(self) -> Reading:
        """The newest reading, as it is shown."""
        return self._shown(self._line.read())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` for each new reading."""

        def heard(reading: Reading) -> None:
            shown = self._shown(reading)
            self._note(shown)
            on_reading(shown)

        self._line.watch(heard)

    def allow(self, total: Quantity) -> None:
        """Let the supply run until `total` is shown, once the car has heard where it stands."""
        self._note(self.read())
        waiting, self._wanted = self._wanted is not None, total
        if not waiting:
            self._release()

    def close(self) -> None:
        """Stop the supply."""
        self._wanted = None
        self._line.close()

    def _release(self) -> None:
        if self._wanted is None:
            return
        if self._heard.total() < self._announced():
            asyncio.get_running_loop().call_later(LOOK, self._release)
            return
        wanted, self._wanted = self._wanted, None
        self._line.allow(Quantity(self._lie.let(wanted, self._line.read().total)))

    def _shown(self, reading: Reading) -> Reading:
        return Reading(Quantity(self._lie.shown(reading.total)), reading.at)


class NotedLink:
    """A link that calls `on_step` before each frame that is sent and after each that came.

    It sends no more once `silent` says so.
    """

    version: int

    def __init__(self, link: Link, on_step: Callable[[], None], silent: Callable[[], bool]) -> None:
        self._link, self._on_step, self._silent = link, on_step, silent
        self.peer: Address = link.peer
        self.version = link.version

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        """As the link's own (`core.ports.Link`)."""

        def came(frame: bytes) -> None:
            on_frame(frame)
            self._on_step()

        self._link.attach(came, on_lost)

    def send(self, frame: bytes) -> None:
        """Send the frame, unless we have fallen silent."""
        self._on_step()
        if not self._silent():
            self._link.send(frame)

    @property
    def full(self) -> bool:
        """As the link's own, like all that follows."""
        return self._link.full

    def carry(self, on_room: Callable[[], None]) -> None:
        self._link.carry(on_room)

    def wanted(self, size: int) -> None:
        self._link.wanted(size)

    def close(self, reason: str = "") -> None:
        self._link.close(reason)
