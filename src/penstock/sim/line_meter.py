"""The car's end of a simulated line (`line.py`): what it reads, and what it lets flow."""

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
from penstock.sim.permit import Permit
from penstock.sim.register import HEARTBEAT, Entry, Register

_FAST, _SLOW = 0.002, 0.064  # s between looks at the register: fast while it moves
_NONE = Quantity(0)
_LOG = logging.getLogger(__name__)


class LineMeter:
    """The car's end: a `Meter` that reads what the pole's process has counted, and a `TwoWayValve` for both ways.

    The valve matters where the pole's is told of both registers, too; it starts closed. `error_ppm` lets the meter
    deviate. `stuck_at` and `falls_at` are faults: it shows no more than that total, or half of it once it was reached.
    """

    __slots__ = (
        "_error", "_falls_at", "_fault", "_handle", "_last", "_moved", "_path", "_pause", "_permit", "_register",
        "_sequence", "_stuck_at", "_told", "_watchers",
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
        self._permit: Permit | None = None  # once the valve was opened
        self._fault: DeviceError | None = None
        self._last = Reading(Quantity(0), Instant(0))
        self._sequence, self._moved = -1, -math.inf
        self._told: tuple[int, int] | None = None
        self._pause = _FAST
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
            reading = self.read()
            self._told = (reading.total, reading.export)
            self._handle = asyncio.get_running_loop().call_soon(self._poll)

    def power(self) -> int:
        """What flows now (W), below 0 where it is fed in; 0 where the pole has not written for some seconds.

        Raises:
            DeviceError: as `read`.
        """
        self.read()
        entry = self._register.read()
        return entry.power if time.monotonic() - self._moved < 3 * HEARTBEAT else 0

    def allow(self, total: Quantity, export: Quantity = _NONE) -> None:
        """Let electricity flow until this meter shows `total`, and back until it shows `export`.

        It stays so until the next call, or until this process is gone.

        Raises:
            DeviceError: another process has the car's end of this line, or it was let go of.
        """
        if self._register.closed:
            raise self._let_go()
        if self._permit is None:
            self._permit = Permit(self._path)
        self._permit.set(self._true(total), self._true(export))

    def close(self) -> None:
        """Let nothing flow from now on."""
        if self._permit is not None:
            self._permit.shut()

    def detach(self) -> None:
        """Let go of the line, for good: nothing flows through it, and watchers hear no more."""
        if self._handle is not None:
            self._handle.cancel()
        self._watchers.clear()
        self._fault = self._fault or self._let_go()
        self._register.close()
        if self._permit is not None:
            permit, self._permit = self._permit, None
            permit.close()

    def _look(self, entry: Entry) -> Reading:
        if entry.sequence != self._sequence:
            self._sequence, self._moved = entry.sequence, time.monotonic()
        total, export = self._shown(entry.total), self._shown(entry.export)
        if self._stuck_at is not None:
            total = min(total, self._stuck_at)
        if self._falls_at is not None and total >= self._falls_at:
            total //= 2
        for before, now in ((self._last.total, total), (self._last.export, export)):
            if now < before:
                fell = f"the meter on line {self._path} fell from {before} to {now} Wh"
                raise DeviceError(fell, "replace it: it cannot count")
        self._last = Reading(Quantity(total), Instant(entry.at), export=Quantity(export))
        return self._last

    def _shown(self, true: int) -> int:
        """What a register shows of what has flowed."""
        return true * (1_000_000 + self._error) // 1_000_000

    def _true(self, shown: int) -> int:
        """The most that has flowed where a register shows that."""
        return min((1_000_000 * (shown + 1) - 1) // (1_000_000 + self._error), MAX_QUANTITY)

    def _let_go(self) -> DeviceError:
        return DeviceError(f"line {self._path} was let go of", "open the meter again")

    def _poll(self) -> None:
        try:
            reading = self.read()
        except DeviceError as error:
            _LOG.error("%s", error.line())
            return
        moved = (reading.total, reading.export) != self._told
        self._pause = _FAST if moved else min(2 * self._pause, _SLOW)
        self._handle = asyncio.get_running_loop().call_later(self._pause, self._poll)
        if moved:
            self._told = (reading.total, reading.export)
            for watcher in list(self._watchers):
                watcher(reading)
