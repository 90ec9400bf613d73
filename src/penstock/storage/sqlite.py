"""The journal in one SQLite file (`core.ports.Journal`): WAL, synchronous=FULL, commits shared by all who wait.

A write costs the event loop one append to a queue. A thread of the journal's own takes everything that is queued, makes
one transaction of it, and reports to the event loop once. While it waits for the disk the next batch gathers: the more
is written at once, the less a write costs.

A batch becomes one entry of a log, so that what a commit writes does not depend on how the rows are spread over the
table, where each of 256 channels has a page of its own. When the log has grown to `FOLD` bytes, and when the journal is
opened or closed, its rows are folded into the table, of each key the last: `PART` rows at a time with commits between,
so that nobody waits long for it. Readers lay the log over the table.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

from penstock.core.errors import JournalError
from penstock.storage import file
from penstock.storage.commits import none_yet
from penstock.storage.recent import Recent, Rows, laid_over, pack, unpack

FOLD = 2**22  # bytes of log: some 40,000 ticks. A reader that comes late takes 30 ms for them
PART = 1_024  # rows folded between two commits: some milliseconds

# SQLite lets other threads run at each step of a statement, and a busy event loop may take 5 ms to give way again. Many
# rows in one statement need one step. Fixed sizes keep the statements prepared; the largest is far below the 32,766
# parameters that SQLite takes.
_CHUNKS = (1024, 256, 64, 16, 4, 1)

Done = Callable[[JournalError | None], None]
Row = tuple[bytes, bytes | None]
_Write = tuple[tuple[Row, ...], Done]


class SqliteJournal:
    """A journal file, open for writing by one process at a time, or for reading beside it."""

    def __init__(self, path: Path | str) -> None:
        """Open the journal at `path` for writing; a file that is not there is created, readable by its owner only.

        Raises:
            JournalError: in use by another process, no journal, made by a newer Penstock, damaged, or not accessible.
                An existing file is as it was.
        """
        self.commits = none_yet()
        self._path = Path(path)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: JournalError | None = None
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._unfolded: Rows = {}  # what the log holds, of each key the last, but for what is being folded:
        self._folding: list[Row] = []  # the last first
        self._size = self._number = 0  # of the log in bytes, and of its last entry
        self._lock = file.lock(self._path)
        try:
            if not self._path.exists():
                file.check_not_lost(self._path)
                file.create(self._path)
            self._writer = file.connect(self._path, "rw")
            self._reader = self._recovered()
        except BaseException:
            os.close(self._lock)
            raise
        self._recent = Recent()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    def open_readonly(cls, path: Path | str) -> SqliteJournal:
        """The journal at `path` for `load` alone, also while another process writes it. Every `write` fails.

        Raises:
            JournalError: not there, no journal, made by a newer Penstock, damaged, or not accessible.
        """
        self = cls.__new__(cls)
        self.commits = none_yet()
        self._path = Path(path)
        if not self._path.exists():
            raise JournalError(f"no journal at {path}", "check the path, or run the node once to create it")
        self._loop = self._thread = None
        self._failed = JournalError(f"journal {path} is open for reading only")
        self._reader = file.connect(self._path, "ro")
        self._recent = Recent()
        return self

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All durable rows whose key begins with `prefix`, in the order of their keys.

        Raises:
            JournalError: the journal is closed or cannot be read.
        """
        after = _after(prefix)
        recent = self._recent
        try:
            if after:
                found = self._reader.execute(_LOAD + " AND key < ?", (recent.last, prefix, after))
            else:
                found = self._reader.execute(_LOAD, (recent.last, prefix))
            for number, entry in iter(found.fetchone, (None, None)):
                if entry is None:
                    recent.begin(number)
                else:
                    recent.take(number, entry)
            yield from laid_over(recent.under(prefix, after), found)
        except (sqlite3.Error, ValueError) as error:
            raise file.unreadable(self._path, error) from error

    def write(self, rows: Iterable[Row], done: Done) -> None:
        """Put rows (None deletes one); `done` is called from the event loop once they are durable or have failed.

        To be called from the event loop, and from one only.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._failed is not None:
            loop.call_soon(done, self._failed)
        else:
            self._queue.put((tuple(rows), done))

    async def close(self) -> None:
        """Make every write durable, call its `done`, and let go of the file. A second call does nothing."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._failed = self._failed or JournalError(f"journal {self._path} is closed")
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            # The event loop has run what the thread reported: it was scheduled before the thread's end was.
            os.close(self._lock)
        self._reader.close()

    # The thread

    def _run(self) -> None:
        queue, failed, more = self._queue, None, True
        while more:
            batch: list[_Write] = []
            item = queue.get()  # sleeps while there is nothing to do
            while item is not None:
                batch.append(item)
                if queue.empty():
                    break
                item = queue.get()
            more = item is not None
            if failed is None:
                failed = self._commit(batch)
            if batch:
                self._report([done for _, done in batch], failed)
            if failed is None and not more:
                failed = self._fold()
            elif failed is None and (self._folding or self._size >= FOLD):
                failed = self._fold_part()
        self._reader.close()
        self._writer.close()

    def _commit(self, batch: list[_Write]) -> JournalError | None:
        """One entry of all rows; of a key that is written twice, the last value."""
        try:
            last: Rows = {}
            for rows, _ in batch:
                last.update(rows)
            if last:
                entry = pack(last)
                self._number += 1
                began = perf_counter()
                self._writer.execute(_LOG, (self._number, entry))
                self.commits.seconds.add(perf_counter() - began)
                self.commits.writes.add(len(batch))
                self._unfolded.update(last)
                self._size += len(entry)
        except Exception as error:  # whatever it is, those who wait must hear that it is not durable
            return self._fail(error)
        return None

    def _fold(self) -> JournalError | None:
        """Move the log's rows to the table. Those who wrote them have long been told."""
        return self._fold_part(len(self._folding) + len(self._unfolded))

    def _fold_part(self, most: int = PART) -> JournalError | None:
        """Move some of them. The log stays whole until the last part, which brings all that came in between, too."""
        if not self._folding:
            self._folding, self._unfolded = sorted(self._unfolded.items(), reverse=True), {}
        if not self._folding:
            return None
        part = dict(self._folding[-most:])
        del self._folding[-most:]
        try:
            if self._folding:
                self._transact(part)
            else:
                self._transact(part | self._unfolded, whole=True)
                self._unfolded, self._size = {}, 0
        except Exception as error:
            return self._fail(error)
        return None

    def _fail(self, error: Exception) -> JournalError:
        self._failed = JournalError(
            f"journal {self._path} cannot be written ({error})",
            "free disk space or repair the disk, then start again: nothing unwritten was acknowledged",
        )
        return self._failed

    def _transact(self, moved: Rows, whole: bool = False) -> None:
        execute = self._writer.execute
        rows = sorted(moved.items())
        puts = [part for row in rows if row[1] is not None for part in row]
        deletes = [key for key, value in rows if value is None]
        execute("BEGIN IMMEDIATE")
        try:
            for size, at in _chunks(len(puts) // 2):
                execute(_PUT[size], puts[2 * at : 2 * (at + size)])
            for size, at in _chunks(len(deletes)):
                execute(_DELETE[size], deletes[at : at + size])
            if whole:
                self._number += 1
                execute("DELETE FROM log")
                execute(_LOG, (self._number, pack({})))  # numbers never come twice
            execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                execute("ROLLBACK")
            raise

    def _recovered(self) -> sqlite3.Connection:
        """Fold what the last process left in the log. Returns the connection that reads."""
        try:
            for number, entry in self._writer.execute("SELECT number, rows FROM log ORDER BY number"):
                self._number = number
                self._unfolded.update(unpack(entry))
            if failed := self._fold():
                raise failed
            return file.connect(self._path, "ro")
        except (sqlite3.Error, ValueError) as error:
            self._writer.close()
            raise file.unreadable(self._path, error) from None
        except JournalError:
            self._writer.close()
            raise

    def _report(self, dones: list[Done], failed: JournalError | None) -> None:
        """Wake the event loop once for the whole batch."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the event loop is gone, and with it everybody who waited
            self._loop.call_soon_threadsafe(_call, self._loop, dones, failed)


def _call(loop: asyncio.AbstractEventLoop, dones: Sequence[Done], failed: JournalError | None) -> None:
    for done in dones:
        try:
            done(failed)
        except Exception as fault:  # one that fails must not keep the others waiting
            loop.call_exception_handler({"message": "a journal write's `done` failed", "exception": fault})


_LOG = "INSERT INTO log (number, rows) VALUES (?, ?)"

# One statement sees one state of the file: where the log begins, what it has got since, a row of NULLs, then the table.
_LOAD = """
    SELECT ifnull(min(number), 0), NULL FROM log
    UNION ALL SELECT number, rows FROM log WHERE number > ?
    UNION ALL SELECT NULL, NULL
    UNION ALL SELECT key, value FROM row WHERE key >= ?"""


def _put(size: int) -> str:
    return "INSERT OR REPLACE INTO row (key, value) VALUES " + ",".join(["(?,?)"] * size)  # noqa: S608 - placeholders


def _delete(size: int) -> str:
    return f"DELETE FROM row WHERE key IN ({','.join('?' * size)})"  # noqa: S608 - placeholders only


_PUT = {size: _put(size) for size in _CHUNKS}
_DELETE = {size: _delete(size) for size in _CHUNKS}


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """(size, position) of as few statements as `count` rows need."""
    at = 0
    for size in _CHUNKS:
        while count - at >= size:
            yield size, at
            at += size


def _after(prefix: bytes) -> bytes:
    """The first key above all that begin with `prefix`; b"" where there is no such key."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else b""
