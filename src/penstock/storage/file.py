"""The journal's file: how it is locked, created, opened and checked, and what is said where that fails."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from penstock.core.errors import JournalError

SCHEMA = 1
APPLICATION = 0x50535443  # "PSTC": SQLite's application_id, by which a file is known as ours
READY = ".restored"  # ends the name of a copy that is complete, and about to be the journal

_TABLES = (
    "CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE log (number INTEGER PRIMARY KEY, rows BLOB NOT NULL)",
)


def lock(path: Path) -> int:
    """Lock the file beside the journal. The lock falls with the process, however that ends.

    Raises:
        JournalError: another process has it, or it cannot be made.
    """
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise inaccessible(path, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise JournalError(
            f"journal {path} is in use by process {holder or 'unknown'}", "stop that process, or use another journal"
        ) from None
    with suppress(OSError):  # a full disk: it is only for the line above
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def check_not_lost(path: Path) -> None:
    """Pass where there has been no journal. A new one in the place of one that is lost would forget what was promised.

    Raises:
        JournalError: there are traces of one.
    """
    for end, what in ((READY, "its restoring was interrupted"), ("-wal", f"{path.name}-wal is what is left of it")):
        trace = path.with_name(path.name + end)
        if trace.exists() and trace.stat().st_size:
            raise JournalError(f"journal {path} is not there, and {what}", "run: penstock journal restore BACKUP")


def create(path: Path) -> None:
    """Create the journal under another name and move it into place: it is never seen half made.

    Raises:
        JournalError: it cannot be made. Nothing is left of it.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            for table in _TABLES:
                connection.execute(table)
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        sync(new)
        new.rename(path)
        sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise inaccessible(path, error) from None


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an existing journal, checked. Read-only ("ro") it changes nothing, whatever the file is.

    Raises:
        JournalError: no journal, made by a newer Penstock, damaged, or not accessible.
    """
    connection: sqlite3.Connection | None = None
    try:
        resting = mode == "ro" and _rests(path)
        address = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if resting else "")
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
        _check(connection, path, resting)
        if mode == "rw":
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")  # macOS: its fsync does not reach the disk
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise JournalError(f"journal {path} is damaged ({damage})", "restore it from a copy")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise unreadable(path, error) from None
    except JournalError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _rests(path: Path) -> bool:
    """Whether this is a copy that no process has ever written to: SQLite would leave files of its own beside it."""
    return not any(path.with_name(path.name + end).exists() for end in (".lock", "-wal"))


def _check(connection: sqlite3.Connection, path: Path, resting: bool) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise JournalError(f"{path} is no journal of Penstock", "choose another path; the file is as it was")
    if schema > SCHEMA:
        raise JournalError(
            f"journal {path} was written by a newer Penstock (schema {schema}, this one reads {SCHEMA})",
            "upgrade Penstock; the file is as it was",
        )
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if schema != SCHEMA or not (resting or mode == "wal"):
        raise JournalError(f"journal {path} is damaged (its header is not ours)", "restore it from a copy")
    connection.execute("SELECT key, value FROM row LIMIT 1").fetchone()
    connection.execute("SELECT number, rows FROM log LIMIT 1").fetchone()


def unreadable(path: Path, error: Exception) -> JournalError:
    """What is said when reading failed."""
    if isinstance(error, sqlite3.ProgrammingError):
        return JournalError(f"journal {path} is closed")
    return JournalError(f"journal {path} cannot be read ({error})", "check the path and its rights, or restore a copy")


def inaccessible(path: Path, error: Exception) -> JournalError:
    """What is said when opening failed."""
    reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
    return JournalError(f"journal {path} cannot be opened ({reason})", "check that its directory is there and writable")
