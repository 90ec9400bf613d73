"""An event loop whose time is made up: when nothing is ready, it jumps to the next timer instead of sleeping.

One thread, no sockets, no wall clock: what runs on it depends on nothing but its own code and its random numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.core.units import Instant

EPOCH = 1_767_225_600  # seconds since 1970 at loop time 0: 2026-01-01
MAX_TURNS = 20_000  # at one instant; more is a loop that never ends


class Deadlock(RuntimeError):
    """Nothing is ready and nothing is scheduled, or something never stops being ready: nobody will ever go on."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `on_step` is called each time before time goes on: all that could be done at that instant is done."""

    def __init__(self) -> None:
        super().__init__()
        self.on_step: Callable[[], None] = _nothing
        self._now = 0.0
        self._turns = 0
        self._broken: asyncio.Future[None] | None = None
        self._clock_resolution = 1e-6  # finer than any delay here, and than a year's floats
        self._selector = self  # what the base class asks for events; we are asked how long to sleep instead

    def time(self) -> float:
        return self._now

    def instant(self) -> Instant:
        """The time as the core counts it."""
        return Instant(EPOCH * 1000 + int(self._now * 1000))

    def seconds(self) -> int:
        """The time in whole seconds since 1970."""
        return EPOCH + int(self._now)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end, and end the loop with all that is left on it.

        Raises:
            Deadlock: it waits for what will never come. What `on_step` raises ends it, too.
        """
        asyncio.set_event_loop(self)
        self._broken = self.create_future()
        try:
            self.run_until_complete(self._race(main, self._broken))
        finally:
            self.on_step = _nothing
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            asyncio.set_event_loop(None)
            self.close()

    @staticmethod
    async def _race(main: Coroutine[Any, Any, None], broken: asyncio.Future[None]) -> None:
        playing = asyncio.ensure_future(main)
        await asyncio.wait([playing, broken], return_when=asyncio.FIRST_COMPLETED)
        await (broken if broken.done() else playing)

    def select(self, timeout: float | None) -> list[Any]:
        """In the place of a selector's: no event ever comes, and the time to wait for one passes at once."""
        if timeout != 0:
            try:
                self.on_step()
            except Exception as error:
                self._break(error)
        if timeout is None:
            self._break(Deadlock("nothing is ready, and nothing is scheduled"))
        self._turns = 0 if timeout else self._turns + 1
        if self._turns > MAX_TURNS:
            self._break(Deadlock(f"more than {MAX_TURNS} turns at one instant"))
        self._now += max(0.0, timeout or 0.0)
        return []

    def _break(self, error: Exception) -> None:
        """End with an error, at the next turn."""
        if self._broken is None or self._turns > 2 * MAX_TURNS:
            raise error
        if not self._broken.done():
            self._broken.set_exception(error)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""


def _nothing() -> None:
    pass
