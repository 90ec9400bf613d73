"""What a line counts: two registers, the parts of the next Wh, and the line's clock. Power times time is energy.

Whole numbers throughout: energy in watt-nanoseconds (3.6e12 to a Wh), time in nanoseconds. Nothing is lost where the
power changes or the flow stops halfway through a Wh, and each register keeps its own part of one while the other runs.
"""

from __future__ import annotations

MILLISECOND = 1_000_000  # ns
WH = 3_600 * 1_000 * MILLISECOND  # W ns

IMPORT, EXPORT = 0, 1  # ways to flow: to the car, and out of it


class Counter:
    """The registers (Wh) by the way that flows into each, and `clock`: when they last stood so (ns since 1970)."""

    __slots__ = ("_parts", "_rest", "_watts", "clock", "registers")

    def __init__(self, total: int, export: int, at: int) -> None:
        """Registers as they stood at `at` (ms)."""
        self.registers = [total, export]
        self.clock = at * MILLISECOND
        self._parts = [0, 0]  # W ns that have flowed of the next Wh
        self._rest, self._watts = 0, 1  # of `pass_at_once`: what of a nanosecond is left, in parts of `_watts`

    @property
    def at(self) -> int:
        """The clock (ms)."""
        return self.clock // MILLISECOND

    @property
    def totals(self) -> tuple[int, int]:
        """Both registers."""
        total, export = self.registers
        return total, export

    def restart(self, at: int) -> None:
        """Begin anew at `at` (ms), or where the clock is ahead of it already; parts of a Wh are forgotten."""
        self.clock = max(at * MILLISECOND, self.clock)
        self._parts, self._rest = [0, 0], 0

    def wait(self, until: int) -> None:
        """Nothing flows until then (ns)."""
        self.clock = max(self.clock, until)

    def run(self, way: int, watts: int, duration: int, until: int, goal: int) -> None:
        """Count what flows `way` in `duration` (ns) that ends at `until` on the clock, no further than to `goal` (Wh).

        The clock shows the very instant at which the register reached what it shows, however late this is called.
        """
        part = self._parts[way]
        flowed = part + watts * duration
        whole = max(0, min(flowed // WH, goal - self.registers[way]))
        if whole:
            since_then = duration + (part - whole * WH) // watts
            self.clock = max(self.clock, until - since_then)
        self.registers[way] += whole
        self._parts[way] = flowed - whole * WH if self.registers[way] < goal else 0

    def ahead(self, way: int, watts: int, goal: int) -> int:
        """How long (ns) it takes until this register shows `goal`."""
        return -(((self.registers[way] - goal) * WH + self._parts[way]) // watts)

    def pass_at_once(self, way: int, watts: int, goal: int) -> None:
        """All that is missing to `goal` flows, and the clock advances by the time that it takes at this power.

        What is left of a nanosecond counts for the next; less than one is lost where the power changes.
        """
        if watts != self._watts:
            self._rest, self._watts = self._rest * watts // self._watts, watts
        passed, self._rest = divmod((goal - self.registers[way]) * WH + self._rest, watts)
        self.clock += passed
        self.registers[way] = goal
