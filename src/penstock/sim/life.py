"""One life of a simulated process, from its start until it ends or is killed, at any effect that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from penstock.core.errors import PenstockError

_HERE: ContextVar[Life | None] = ContextVar("life", default=None)


class Life:
    """Everything that a process started dies with it. `on_death` hears of a death at an effect.

    Once it is dead, nothing that its code still does has an effect: whoever carries effects asks `alive` first.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.alive = True
        self.on_death: Callable[[], None] = _nothing
        self.fuse = 0  # dies at the so-many-th effect boundary from now; 0: does not
        self.context: Context = copy_context()
        self.context.run(_HERE.set, self)
        self._loop = loop
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._wills: list[Callable[[], None]] = []

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a part of this life."""
        return self._loop.create_task(work, context=self.context)

    def later(self, delay: float, call: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        """Call once `delay` seconds have passed, if still alive then."""
        return self._loop.call_later(delay, self._call, call, arguments, context=self.context)

    def at_death(self, will: Callable[[], None]) -> None:
        """What happens to the world when this life ends."""
        self._wills.append(will)

    def boundary(self) -> bool:
        """An effect is about to happen, or has just happened. False where the process died right here, or before."""
        if self.alive and self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self.end()
                self.on_death()
        return self.alive

    def end(self) -> None:
        """Kill it: nothing more is written, sent, moved or said."""
        if not self.alive:
            return
        self.alive = False
        for will in self._wills:
            will()
        for task in list(self._tasks):
            task.cancel()

    def _call(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.alive:
            call(*arguments)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        if not self.alive:
            task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        fault = task.exception()  # whatever a dead process still ran into, nobody hears of it
        if self.alive and fault is not None and not isinstance(fault, PenstockError | TimeoutError):
            self._loop.call_exception_handler({"message": "a task failed", "exception": fault})


def task_of_a_life(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None
) -> asyncio.Task[Any]:
    """A task factory: each task belongs to the life that started it, and dies with it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    life = (context or copy_context()).get(_HERE)
    if life is not None:
        life._keep(task)
    return task


def _nothing() -> None:
    pass
