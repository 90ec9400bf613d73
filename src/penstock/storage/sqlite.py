"""The journal in one SQLite file (`core.ports.Journal`): WAL, synchronous=FULL, commits shared by all who wait.

A write costs the event loop one append to a queue. A thread of the journal's own takes everything that is queued, makes
one transaction of it, and reports to the event loop once. While it waits for the disk the next batch gathers: the more
is written at once, the less a write costs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

from penstock.core.errors import JournalError
from penstock.storage.commits import none_yet

SCHEMA = 1
APPLICATION = 0x50535443  # "PSTC": SQLite's application_id, by which a file is known as ours

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
        self._lock = _lock(self._path)
        try:
            if not self._path.exists():
                _create(self._path)
            self._reader = _open(self._path, "ro")
            self._writer = _open(self._path, "rw")
        except BaseException:
            os.close(self._lock)
            raise
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
        self._reader = _open(self._path, "ro")
        return self

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All durable rows whose key begins with `prefix`, in the order of their keys.

        Raises:
            JournalError: the journal is closed or cannot be read.
        """
        after = _after(prefix)
        try:
            if after is None:
                rows = self._reader.execute("SELECT key, value FROM row WHERE key >= ? ORDER BY key", (prefix,))
            else:
                rows = self._reader.execute(
                    "SELECT key, value FROM row WHERE key >= ? AND key < ? ORDER BY key", (prefix, after)
                )
            yield from rows
        except sqlite3.Error as error:
            raise _unreadable(self._path, error) from error

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
        self._reader.close()
        self._writer.close()

    def _commit(self, batch: list[_Write]) -> JournalError | None:
        """One transaction of all rows; of a key that is written twice, the last value."""
        try:
            last: dict[bytes, bytes | None] = {}
            for rows, _ in batch:
                last.update(rows)
            if last:
                began = perf_counter()
                self._transact(last)
                self.commits.seconds.add(perf_counter() - began)
                self.commits.writes.add(len(batch))
        except Exception as error:  # whatever it is, those who wait must hear that it is not durable
            self._failed = JournalError(
                f"journal {self._path} cannot be written ({error})",
                "free disk space or repair the disk, then start again: nothing unwritten was acknowledged",
            )
            return self._failed
        return None

    def _transact(self, last: dict[bytes, bytes | None]) -> None:
        execute = self._writer.execute
        puts = [part for row in last.items() if row[1] is not None for part in row]
        deletes = [key for key, value in last.items() if value is None]
        execute("BEGIN IMMEDIATE")
        try:
            for size, at in _chunks(len(puts) // 2):
                execute(_PUT[size], puts[2 * at : 2 * (at + size)])
            for size, at in _chunks(len(deletes)):
                execute(_DELETE[size], deletes[at : at + size])
            execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                execute("ROLLBACK")
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


def _after(prefix: bytes) -> bytes | None:
    """The first key above all that begin with `prefix`; None where there is no such key."""
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else None


# The file


def _lock(path: Path) -> int:
    """Lock the file beside the journal. The lock falls with the process, however that ends."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _inaccessible(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise JournalError(
            f"journal {path} is in use by process {holder or 'unknown'}", "stop that process, or use another journal"
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:  # a full disk; it would fail at the first write
        os.close(lock)
        raise _inaccessible(path, error) from None
    return lock


def _create(path: Path) -> None:
    """Create the journal under another name and move it into place: it is never seen half made."""
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        _sync(new)
        new.rename(path)
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        new.unlink(missing_ok=True)
        raise _inaccessible(path, error) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an existing journal, checked. Read-only ("ro") it changes nothing, whatever the file is."""
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        _check(connection, path)
        if mode == "rw":
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # macOS: its fsync does not reach the disk
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise JournalError(f"journal {path} is damaged ({damage})", "restore it from a copy")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise _unreadable(path, error) from None
    except JournalError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise JournalError(f"{path} is no journal of Penstock", "choose another path; the file is as it was")
    if schema > SCHEMA:
        raise JournalError(
            f"journal {path} was written by a newer Penstock (schema {schema}, this one reads {SCHEMA})",
            "upgrade Penstock; the file is as it was",
        )
    if schema != SCHEMA or connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise JournalError(f"journal {path} is damaged (its header is not ours)", "restore it from a copy")
    connection.execute("SELECT key, value FROM row LIMIT 1").fetchone()


def _unreadable(path: Path, error: sqlite3.Error) -> JournalError:
    if isinstance(error, sqlite3.ProgrammingError):
        return JournalError(f"journal {path} is closed")
    return JournalError(f"journal {path} cannot be read ({error})", "check the path and its rights, or restore a copy")


def _inaccessible(path: Path, error: Exception) -> JournalError:
    reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
    return JournalError(f"journal {path} cannot be opened ({reason})", "check that its directory is there and writable")
