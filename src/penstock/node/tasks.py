"""Background tasks of a node: kept from being forgotten, and their failures from being silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Tasks that end with their owner. `on_error` hears of each failure."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` beside the caller."""
        task = asyncio.ensure_future(work)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    async def wait(self) -> None:
        """Wait until all that have begun have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """End them all and wait until they have."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)


async def durable(journal: Any, rows: Any) -> None:
    """Write rows and wait until they are durable.

    Raises:
        JournalError: they are not.
    """
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    journal.write(rows, done)
    await waiter
