"""One clock for all running sessions: each hears of the time once a `BEAT`, spread evenly over it.

Ten thousand sessions that all look at the clock in the same turn of the loop would keep every payment waiting
meanwhile.
"""

from __future__ import annotations

import asyncio

from penstock.node.collector import Collector
from penstock.node.shell import SessionShell
from penstock.node.tasks import Tasks

BEAT = 1.0  # seconds between two looks of one session at the clock
SLICES = 20  # parts of a beat in which a share of the sessions looks each


class Beat:
    """Tells sessions the time while there are any. Ends with the tasks that it was given."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._slices: list[dict[SessionShell, None]] = [{} for _ in range(SLICES)]
        self._collector = Collector()
        self._running: asyncio.Task[None] | None = None

    def add(self, shell: SessionShell) -> None:
        """Tell this session the time from now on, until it is over."""
        min(self._slices, key=len)[shell] = None
        if self._running is None or self._running.done():
            self._running = self._tasks.start(self._run())

    async def _run(self) -> None:
        while any(self._slices):
            self._collector.running(sum(map(len, self._slices)))
            for shells in self._slices:
                await asyncio.sleep(BEAT / SLICES)
                for shell in list(shells):
                    self._tell(shell, shells)
        self._collector.running(0)

    @staticmethod
    def _tell(shell: SessionShell, shells: dict[SessionShell, None]) -> None:
        try:
            shell.on_time()
        except Exception as fault:  # one session's must not stop the clock of the others
            what = {"message": "a session's look at the clock failed", "exception": fault}
            asyncio.get_running_loop().call_exception_handler(what)
        if shell.over:
            del shells[shell]
