"""A journal in memory (`core.ports.Journal`), on a disk that takes its time, fills up and outlives its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from penstock.core.errors import JournalError
from penstock.sim.life import Life

Done = Callable[[JournalError | None], None]
Row = tuple[bytes, bytes | None]
_Write = tuple[tuple[Row, ...], Done]


class Disk:
    """What is durable, and how the disk behaves. `pace()` is how many seconds a commit takes."""

    def __init__(self, pace: Callable[[], float] = lambda: 0.0, survives: Callable[[], bool] = lambda: False) -> None:
        """`survives()` says whether a commit that was under way at a crash has reached the disk, unacknowledged."""
        self.rows: dict[bytes, bytes] = {}
        self.pace, self.survives = pace, survives
        self.fault = ""  # why nothing can be written now
        self.on_commit: Callable[[list[Row]], None] = _nothing

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in the order of their keys."""
        for key in sorted(key for key in self.rows if key.startswith(prefix)):
            if key in self.rows:
                yield key, self.rows[key]

    def put(self, batch: list[_Write]) -> None:
        """Make rows durable."""
        put = [row for rows, _ in batch for row in rows]
        for key, value in put:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.on_commit(put)


class MemoryJournal:
    """A journal on a disk, for one life."""

    def __init__(self, disk: Disk, life: Life) -> None:
        self._disk, self._life = disk, life
        self._queue: list[_Write] = []
        self._batch: list[_Write] = []
        self._committing = False
        self._failed: JournalError | None = None
        self._closing = self._closed = False
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        life.at_death(self._die)

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._closed:
            raise JournalError("the journal is closed")
        return self._disk.load(prefix)

    def write(self, rows: Iterable[Row], done: Done) -> None:
        if not self._life.boundary():
            return
        if self._failed is not None or self._closing:
            self._life.later(0, done, self._failed or JournalError("the journal is closed"))
            return
        self._queue.append((tuple(rows), done))
        self._idle.clear()
        if not self._committing:
            self._committing = True
            self._life.later(0, self._begin)
        self._life.boundary()

    async def close(self) -> None:
        self._closing = True
        await self._idle.wait()
        self._closed = True

    def _begin(self) -> None:
        self._batch, self._queue = self._queue, []
        self._life.later(self._disk.pace(), self._commit)

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        error: JournalError | None = None
        if self._disk.fault or self._failed is not None:
            error = self._failed = self._failed or JournalError(f"the journal cannot be written ({self._disk.fault})")
        else:
            self._disk.put(batch)
        for _, done in batch:
            if self._life.boundary():
                self._tell(done, error)
        if self._queue:
            self._begin()
        else:
            self._committing = False
            self._idle.set()

    def _tell(self, done: Done, error: JournalError | None) -> None:
        try:
            done(error)
        except Exception as fault:  # one that fails must not keep the others waiting
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a journal write's `done` failed", "exception": fault}
            )

    def _die(self) -> None:
        if self._batch and not self._disk.fault and self._disk.survives():
            self._disk.put(self._batch)
        self._batch, self._queue = [], []


def _nothing(_rows: list[Row]) -> None:
    pass
