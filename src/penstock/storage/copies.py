"""Copies of a journal: made beside a running node, put in the place of a journal that is lost, checked as a file.

Whatever is interrupted leaves what was there before: a copy gets its name once it is complete and on the disk, and a
journal that makes way for a copy keeps its rows under another name.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

from penstock.core.errors import JournalError, PenstockError, UsageError
from penstock.core.ports import Journal
from penstock.storage import file
from penstock.storage.sqlite import SqliteJournal

_BESIDE = ("-wal", "-shm")  # SQLite's own files


def damage(path: Path) -> list[str]:
    """What SQLite finds wrong with the file of a journal, in its words; empty where all is well.

    Raises:
        JournalError: it is no journal, or so damaged that it cannot be opened.
    """
    try:
        with closing(file.connect(path, "ro")) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
    except sqlite3.Error as error:
        raise file.unreadable(path, error) from None
    return [" ".join(line.split()) for line in found if line != "ok"]


def back_up(path: Path, to: Path) -> int:
    """Copy the journal at `path` as it is at one moment, also while a node writes it. Returns the copy's bytes.

    The copy belongs to its owner alone, and is whole, checked and on the disk when it gets its name.

    Raises:
        UsageError: there is a file called `to` already.
        JournalError: the journal cannot be read, or the copy not written. Nothing is left of it.
    """
    if os.path.lexists(to):
        raise UsageError(f"{to} is there already", "give each backup a name of its own")
    new = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        _copy(path, new)
        try:
            os.link(new, to)  # unlike a rename, it never replaces
        except FileExistsError:
            raise UsageError(f"{to} is there already", "give each backup a name of its own") from None
        file.sync(to.parent)
        return to.stat().st_size
    except OSError as error:
        raise _unwritten(to, error) from None
    finally:
        _remove(new)


async def put_back(copy: Path, path: Path, replace: bool, mark: Callable[[Journal], Awaitable[None]]) -> Path | None:
    """Make a backup the journal at `path`, once `mark` has written into it what has to be known of its past.

    With `replace`, a journal that is there makes way for it. Returns the name under which that is kept.

    Raises:
        JournalError: a process uses the journal at `path`, or the backup is damaged or cannot be copied.
        UsageError: there is a journal, and nobody said that it may be replaced; or the backup has a name that is
            needed. Both are as they were.
    """
    ready, new = path.with_name(path.name + file.READY), path.with_name(path.name + ".new")
    _check_apart(copy, path, ready, new)
    lock = file.lock(path)
    try:
        there = _there(path)
        if there and not replace:
            raise UsageError(
                f"there is a journal at {path}",
                "a backup is older: restore it where the journal is lost or damaged, and say so with --replace",
            )
        _remove(new)
        try:
            _copy(copy, new)
            journal = SqliteJournal(new)
            try:
                await mark(journal)
            finally:
                await journal.close()
                _remove(new.with_name(new.name + ".lock"))
            file.sync(new)
            _remove(ready)
            new.rename(ready)  # from here on it is complete, and nothing but the names has to change
            file.sync(path.parent)
            kept = _set_aside(path) if there else None
            _remove(path)
            ready.rename(path)
            file.sync(path.parent)
        except OSError as error:
            raise _unwritten(path, error) from None
        finally:
            _remove(new)
        return kept
    finally:
        os.close(lock)


def _check_apart(copy: Path, *ours: Path) -> None:
    """Pass where the backup is none of the files that its restoring makes or moves: what is left of a restoring that
    was broken off may be the only copy."""
    if copy.exists() and any(one.exists() and one.samefile(copy) for one in ours):
        raise UsageError(
            f"{copy} is in the way of its own restoring", "copy it to another name, and restore it from there"
        )


def _there(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")  # an empty one is what a reader leaves
    return os.path.lexists(path) or (wal.exists() and wal.stat().st_size > 0)


def _copy(path: Path, new: Path) -> None:
    """A checked copy on the disk, by SQLite's own means: one state of the file, whoever writes it meanwhile."""
    try:
        with closing(file.connect(path, "ro")) as source:
            _remove(new)
            os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(new, isolation_level=None)) as target:
                source.backup(target)
                (found,) = target.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalError(f"journal {path} is damaged ({found})", "`penstock journal check` says more")
        file.sync(new)
    except sqlite3.Error as error:
        _remove(new)
        raise JournalError(
            f"journal {path} cannot be copied ({error})", "check both files, and the space on the disk"
        ) from None
    except (OSError, PenstockError):
        _remove(new)
        raise


def _set_aside(path: Path) -> Path:
    """Give the journal and what SQLite keeps beside it another name, the journal first: no half is ever opened."""
    number = 1
    while _there(kept := path.with_name(f"{path.name}.replaced-{number}")):
        number += 1
    for end in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(kept.with_name(kept.name + end))
    return kept


def _remove(path: Path) -> None:
    for end in ("", *_BESIDE, "-journal"):
        with suppress(OSError):
            path.with_name(path.name + end).unlink()


def _unwritten(path: Path, error: OSError) -> JournalError:
    reason = (error.strerror or str(error)).lower()
    return JournalError(f"{path} cannot be written ({reason})", "check its directory, and the space on the disk")
