"""How a site obeys its grid, as its own meters show it: for each order and pole how soon, after how much, and why.

An order has come when the site tells that the grid asks; it is obeyed at a pole when no more flows there than the pole
may, and on a setpoint below 0 when it feeds in, where it can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from penstock.node.clock import now
from penstock.node.sharing import SiteLimit
from penstock.node.steering import Steering
from penstock.node.tell import Tell
from penstock.sim.line import LineSupply

LOOK = 0.02  # s between two looks
SAMPLE = 3  # looks between two samples of power


class _Open(NamedTuple):
    """An order that a pole has yet to obey: when it came, and what the meter and the flow were."""

    came: float
    total: int
    power: int


class Witness:
    """Hears what a site tells, passes it on, and adds "obeyed" for each order and pole, and "power" as time goes by."""

    def __init__(self, lines: Mapping[str, LineSupply], package: int, tell: Tell) -> None:
        """`package` (Wh) is what an order may still let flow."""
        self._lines, self._package, self._tell = lines, package, tell
        self._open: dict[str, _Open] = {}
        self._order = 0
        self._steering: Steering | None = None
        self._limit: SiteLimit | None = None

    def watch(self, steering: Steering, limit: SiteLimit) -> None:
        """Look at these from now on; `look` has to run."""
        self._steering, self._limit = steering, limit
        for line in self._lines.values():
            line.watch(lambda reading: self._see())

    def hear(self, event: str, **facts: Any) -> None:
        """The site's `Tell`."""
        if event == "grid asks":
            self._order += 1
            came = time.monotonic()
            for name, line in self._lines.items():
                self._open[name] = _Open(came, line.count().total, line.power())
            asyncio.get_running_loop().call_soon(self._see)
        self._tell(event, at=now(), **facts)

    async def look(self) -> None:
        """Look until cancelled."""
        number = 0
        while True:
            self._see()
            if number % SAMPLE == 0:
                self._sample()
            number += 1
            await asyncio.sleep(LOOK)

    def _see(self) -> None:
        """Tell of the poles that obey by now."""
        for name in [name for name in self._open if self._obeys(name)]:
            self._obeyed(name, self._open.pop(name))

    def _obeys(self, name: str) -> bool:
        assert self._limit is not None
        assert self._steering is not None
        power, limits, setpoint = self._lines[name].power(), self._limit.of(name), self._steering.orders.setpoint
        if setpoint is not None and setpoint < 0 and limits.feed:
            return -limits.feed <= power < 0
        return (limits.supply is None or power <= limits.supply) and (limits.feed is None or -power <= limits.feed)

    def _obeyed(self, name: str, order: _Open) -> None:
        assert self._limit is not None
        assert self._steering is not None
        line, limits = self._lines[name], self._limit.of(name)
        self._tell(
            "obeyed",
            at=now(),
            order=self._order,
            pole=name,
            ms=round((time.monotonic() - order.came) * 1_000, 2),
            wh=line.count().total - order.total,
            package=self._package,
            before=order.power,
            after=line.power(),
            supply=limits.supply,
            feed=limits.feed,
            why="; ".join(self._steering.orders.why),
        )
        self._sample()

    def _sample(self) -> None:
        assert self._limit is not None
        powers = {name: line.power() for name, line in self._lines.items()}
        supply, feed = self._limit.limits
        shares = {name: self._limit.of(name) for name in self._lines}
        self._tell("power", at=now(), poles=powers, supply=supply, feed=feed, shares=shares)
