"""Backups: whole or not there, taken beside a writer, put back without ever losing what was there."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core.errors import JournalError, UsageError
from penstock.core.ports import Journal
from penstock.storage import copies, file
from penstock.storage.sqlite import SqliteJournal
from penstock.testing.journal import put

from .test_sqlite import read, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


async def mark(journal: Journal) -> None:
    await put(journal, [(b"mark", b"1")])


async def unable(journal: Journal) -> None:
    raise JournalError("cannot be marked")


def restore(copy: Path, path: Path, replace: bool = False) -> Path | None:
    return asyncio.run(copies.put_back(copy, path, replace, mark))


def names(directory: Path) -> set[str]:
    """The files in a directory, but for the empty ones that SQLite leaves after reading a journal."""
    return {one.name for one in directory.iterdir() if one.name not in ("journal-shm", "journal-wal")}


def test_a_backup_beside_a_busy_writer_is_one_moment_of_the_journal(path: Path, tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        journal = SqliteJournal(path)
        running = True

        async def writer() -> None:
            number = 0
            while running:
                await put(journal, [(b"left", b"%d" % number), (b"right", b"%d" % number), (b"%d" % number, b"x" * 99)])
                number += 1

        writing = asyncio.ensure_future(writer())
        await asyncio.sleep(0)
        sizes = [await asyncio.to_thread(copies.back_up, path, tmp_path / f"copy{turn}") for turn in range(5)]
        running = False
        await writing
        await journal.close()
        return sizes

    for turn, size in enumerate(asyncio.run(scenario())):
        copy = tmp_path / f"copy{turn}"
        assert copy.stat().st_size == size
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copies.damage(copy) == []
        rows = read(copy)
        if rows:
            last = int(rows[b"left"])
            assert rows[b"right"] == rows[b"left"]
            assert set(rows) == {b"left", b"right", *(b"%d" % number for number in range(last + 1))}
    assert names(tmp_path) == {"journal", "journal.lock", *(f"copy{turn}" for turn in range(5))}


def test_a_backup_never_replaces_a_file(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"value"))
    (tmp_path / "copy").write_text("older")
    with pytest.raises(UsageError, match="there already"):
        copies.back_up(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "older"
    assert names(tmp_path) == {"journal", "journal.lock", "copy"}


def test_a_backup_that_finds_no_room_leaves_nothing(path: Path, tmp_path: Path) -> None:
    write(path, *((b"%d" % number, os.urandom(1_000)) for number in range(400)))
    (tmp_path / "there").mkdir()
    code = "import sys; from pathlib import Path; from penstock.core.errors import JournalError\n"
    code += "from penstock.storage.copies import back_up\n"
    code += "try: back_up(Path(sys.argv[1]), Path(sys.argv[2]))\nexcept JournalError as error: print(error.line())"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-c", code, str(path), str(tmp_path / "there" / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=True, timeout=60)
    assert "cannot be copied" in done.stdout
    assert names(tmp_path / "there") == set()


def test_a_backup_of_nothing_or_to_nowhere_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be"):
        copies.back_up(path, tmp_path / "copy")
    write(path, (b"key", b"value"))
    with pytest.raises(JournalError, match="no such file or directory"):
        copies.back_up(path, tmp_path / "nowhere" / "copy")
    assert names(tmp_path) == {"journal", "journal.lock"}


def test_a_backup_becomes_the_journal_where_there_is_none(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"value"))
    copies.back_up(path, tmp_path / "copy")
    path.unlink()
    assert restore(tmp_path / "copy", path) is None
    assert read(path) == {b"key": b"value", b"mark": b"1"}
    assert read(tmp_path / "copy") == {b"key": b"value"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"journal", "journal.lock", "copy"}
    write(path, (b"next", b"1"))


def test_a_journal_that_is_there_makes_way_only_when_told_and_is_kept(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"old"))
    copies.back_up(path, tmp_path / "copy")
    write(path, (b"key", b"new"))
    with pytest.raises(UsageError, match="there is a journal") as caught:
        restore(tmp_path / "copy", path)
    assert "--replace" in caught.value.advice
    assert read(path) == {b"key": b"new"}
    for number in (1, 2):
        kept = restore(tmp_path / "copy", path, replace=True)
        assert kept == tmp_path / f"journal.replaced-{number}"
    assert read(tmp_path / "journal.replaced-1") == {b"key": b"new"}
    assert read(path) == {b"key": b"old", b"mark": b"1"}


def test_what_a_killed_writer_left_in_its_log_is_kept_with_the_journal(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"old"))
    copies.back_up(path, tmp_path / "copy")
    code = "import asyncio, os, sys; from penstock.storage.sqlite import SqliteJournal\n"
    code += "from penstock.testing.journal import put\n"
    code += "async def main(): await put(SqliteJournal(sys.argv[1]), [(b'key', b'new')]); os.kill(os.getpid(), 9)\n"
    subprocess.run([sys.executable, "-c", code + "asyncio.run(main())", str(path)], check=False, timeout=60)
    assert path.with_name("journal-wal").stat().st_size
    kept = restore(tmp_path / "copy", path, replace=True)
    assert kept is not None
    assert read(kept) == {b"key": b"new"}
    assert read(path) == {b"key": b"old", b"mark": b"1"}


def test_nothing_is_restored_while_a_process_has_the_journal(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"value"))
    copies.back_up(path, tmp_path / "copy")

    async def scenario() -> None:
        journal = SqliteJournal(path)
        with pytest.raises(JournalError, match="in use by process"):
            await copies.put_back(tmp_path / "copy", path, True, mark)
        await put(journal, [(b"still", b"mine")])
        await journal.close()

    asyncio.run(scenario())
    assert set(read(path)) == {b"key", b"still"}


def test_a_damaged_backup_is_refused_and_the_journal_stays(path: Path, tmp_path: Path) -> None:
    write(path, *((b"%04d" % number, bytes(500)) for number in range(200)))
    copy = tmp_path / "copy"
    copies.back_up(path, copy)
    damaged = bytearray(copy.read_bytes())
    for page in range(4096 * 3, len(damaged), 4096 * 2):
        damaged[page : page + 200] = os.urandom(200)
    copy.write_bytes(damaged)
    with pytest.raises(JournalError):
        restore(copy, path, replace=True)
    assert len(read(path)) == 200
    with pytest.raises(JournalError):
        assert not copies.damage(copy), "damage was found"
    for rubbish in (b"", b"rubbish" * 999):
        copy.write_bytes(rubbish)
        with pytest.raises(JournalError):
            restore(copy, path, replace=True)
    with pytest.raises(JournalError):
        restore(tmp_path / "nowhere", path, replace=True)
    assert len(read(path)) == 200
    assert names(tmp_path) == {"journal", "journal.lock", "copy"}


def test_a_restoring_that_fails_half_way_leaves_the_journal(path: Path, tmp_path: Path) -> None:
    write(path, (b"key", b"value"))
    copies.back_up(path, tmp_path / "copy")
    with pytest.raises(JournalError, match="cannot be marked"):
        asyncio.run(copies.put_back(tmp_path / "copy", path, True, unable))
    assert read(path) == {b"key": b"value"}
    assert names(tmp_path) == {"journal", "journal.lock", "copy"}


def test_no_new_journal_begins_where_one_was_lost(path: Path, tmp_path: Path) -> None:
    """Killed between two names: what is not complete is never opened, and the same command again ends it."""
    write(path, (b"key", b"value"))
    copies.back_up(path, tmp_path / "copy")
    path.rename(path.with_name("journal.replaced-1"))
    for trace in (file.READY, "-wal"):
        left = path.with_name("journal" + trace)
        left.write_bytes(b"left")
        with pytest.raises(JournalError, match="is not there") as caught:
            SqliteJournal(path)
        assert "restore" in caught.value.advice
        if trace == "-wal":
            restore(tmp_path / "copy", path, replace=True)
        else:
            restore(tmp_path / "copy", path)
        assert read(path) == {b"key": b"value", b"mark": b"1"}
        path.unlink()


@pytest.mark.parametrize("act", ["rename", "fsync", "link"])
@pytest.mark.parametrize("killed", [False, True])
def test_wherever_a_restoring_breaks_off_the_same_command_ends_it(
    act: str, killed: bool, path: Path, tmp_path: Path
) -> None:
    """At each call that changes a name or waits for the disk: it fails there, or the process is killed there."""
    code = """
import asyncio, os, sys
from pathlib import Path
from penstock.core.errors import PenstockError
from penstock.storage.copies import back_up, put_back
from penstock.testing.journal import put

act, killed, fatal, path, copy = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5]
real, calls = getattr(os, act), 0

def breaking(*args, **kwargs):
    global calls
    calls += 1
    if calls == fatal:
        if killed:
            os.kill(os.getpid(), 9)
        raise OSError(5, "Input/output error")
    return real(*args, **kwargs)

setattr(os, act, breaking)
async def mark(journal):
    await put(journal, [(b"mark", b"1")])
try:
    back_up(Path(copy), Path(copy + "2"))
    asyncio.run(put_back(Path(copy + "2"), path, True, mark))
except PenstockError as error:
    print(error.line())
else:
    print("done" if calls < fatal else "went on after a fault")
"""
    copy, fatal, said = tmp_path / "copy", 0, ""
    write(path, (b"key", b"old"))
    copies.back_up(path, copy)
    while said != "done":
        fatal += 1
        assert fatal < 20
        for one in tmp_path.iterdir():
            if one != copy:
                one.unlink()
        write(path, (b"key", b"new"))
        arguments = [act, str(killed), str(fatal), str(path), str(copy)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert done.stderr == "", done.stderr
        said = done.stdout.strip()
        assert said == "done" or "cannot be written" in said or (killed and not said), said
        if said == "done":
            assert read(path) == {b"key": b"old", b"mark": b"1"}
            break
        if path.exists():
            write(path)
            assert read(path) in ({b"key": b"new"}, {b"key": b"old", b"mark": b"1"}), "half restored"
        else:
            with pytest.raises(JournalError) as caught:
                write(path)
            assert "restore" in caught.value.advice, "nothing says what to do"
        whole = copy.with_name("copy2")
        restore(whole if whole.exists() else copy, path, replace=True)
        assert read(path) == {b"key": b"old", b"mark": b"1"}
        assert any(read(one) == {b"key": b"new"} for one in tmp_path.glob("journal.replaced-?")), "the journal is lost"
    assert fatal > 1 or act == "link"


@pytest.mark.parametrize("name", ["journal.restored", "journal.new", "journal"])
def test_the_only_copy_is_not_lost_to_its_own_restoring(name: str, tmp_path: Path) -> None:
    path, copy = tmp_path / "journal", tmp_path / name

    async def begin() -> None:
        journal = SqliteJournal(tmp_path / "first")
        await put(journal, [(b"key", b"value")])
        await journal.close()

    asyncio.run(begin())
    copies.back_up(tmp_path / "first", copy)
    with pytest.raises(UsageError, match="in the way"):
        restore(copy, path, True)
    shutil.copy(copy, tmp_path / "apart")
    copy.unlink()
    restore(tmp_path / "apart", path, True)
    assert read(path)[b"key"] == b"value"
