"""The SQLite journal: real files, real kills, a disk that is really full."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.core.errors import JournalError
from penstock.storage.file import APPLICATION, SCHEMA
from penstock.storage.sqlite import SqliteJournal
from penstock.testing.journal import JOURNAL_CHECKS, Check, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
def test_a_sqlite_journal_conforms(check: Check, path: Path) -> None:
    asyncio.run(check(lambda: SqliteJournal(path)))


def write(path: Path, *rows: tuple[bytes, bytes | None]) -> None:
    """Open, write, close."""

    async def run() -> None:
        journal = SqliteJournal(path)
        try:
            await put(journal, rows)
        finally:
            await journal.close()

    asyncio.run(run())


def read(path: Path) -> dict[bytes, bytes]:
    journal = SqliteJournal.open_readonly(path)
    try:
        return dict(journal.load(b""))
    finally:
        asyncio.run(journal.close())


# Kills

# Eight writers put pairs of rows, and print a number once its pair is acknowledged. One print call is one write to the
# pipe, so what the parent has read was acknowledged.
WRITER = """
import asyncio, os, sys
from penstock.storage.sqlite import SqliteJournal
from penstock.testing.journal import put

async def main():
    journal = SqliteJournal(sys.argv[1])
    first = int(sys.argv[2])

    async def writer(number):
        while True:
            key = b"%08d" % number
            await put(journal, [(b"left/" + key, b"x" * 300), (b"right/" + key, b"y" * 300)])
            os.write(1, key + b"\\n")
            number += 8

    await asyncio.gather(*(writer(first + n) for n in range(8)))

asyncio.run(main())
"""


def child(code: str, *args: object, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]  # options as they are


def test_a_killed_writer_loses_nothing_that_it_acknowledged(path: Path) -> None:
    acknowledged: set[bytes] = set()
    for round_ in range(3):
        with child(WRITER, path, round_ * 1_000_000) as process:
            assert process.stdout
            for _ in range(200 + 300 * round_):
                acknowledged.add(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged.update(line.strip() for line in process.stdout if line.endswith(b"\n"))
    assert b"" not in acknowledged
    rows = read(path)
    lost = {key for key in acknowledged if b"left/" + key not in rows}
    assert not lost
    lefts = {key[5:] for key in rows if key.startswith(b"left/")}
    rights = {key[6:] for key in rows if key.startswith(b"right/")}
    assert lefts == rights, "half a write became durable"


def test_a_killed_writer_leaves_the_journal_free_for_the_next(path: Path) -> None:
    with child(WRITER, path, 0) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(JournalError, match=f"in use by process {process.pid}"):
            SqliteJournal(path)
        assert read(path), "a reader must see the rows beside the running writer"
        process.send_signal(signal.SIGKILL)
    write(path, (b"next", b"1"))
    assert read(path)[b"next"] == b"1"


def test_no_second_writer_in_the_same_process(path: Path) -> None:
    async def scenario() -> None:
        journal = SqliteJournal(path)
        with pytest.raises(JournalError, match=f"in use by process {os.getpid()}"):
            SqliteJournal(path)
        await put(journal, [(b"still", b"mine")])  # the refused one has not disturbed the first
        await journal.close()
        second = SqliteJournal(path)
        assert list(second.load(b"")) == [(b"still", b"mine")]
        await second.close()

    asyncio.run(scenario())


# A full disk

FILLER = """
import asyncio, os, sys
from penstock.core.errors import JournalError
from penstock.storage.sqlite import SqliteJournal
from penstock.testing.journal import put

async def main():
    journal = SqliteJournal(sys.argv[1])
    for number in range(10_000):
        keys = [b"%08d/%d" % (number, n) for n in range(4)]
        waiting = [put(journal, [(key, os.urandom(1000))]) for key in keys]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        if any(errors):
            assert all(isinstance(error, JournalError) for error in errors), errors  # all that waited
            assert "disk" in errors[0].advice, errors[0].advice
            break
        print("%08d" % number, flush=True)
    else:
        raise SystemExit("the disk never filled")
    if sys.argv[2:]:  # room again: the journal stays failed all the same
        os.unlink(sys.argv[2])
    try:
        await put(journal, [(b"later", b"x")])
    except JournalError:
        print("failed for good", flush=True)
    await journal.close()

asyncio.run(main())
"""


def check_filled(path: Path, output: bytes) -> None:
    """Everything acknowledged is there, nothing after the failure is, and a new opening writes again."""
    lines = output.split()
    assert b" ".join(lines[-3:]) == b"failed for good"
    acknowledged = lines[:-3]
    assert acknowledged
    rows = read(path)
    assert {key[:8] for key in rows} >= set(acknowledged)
    assert b"later" not in rows
    write(path, (b"again", b"1"))
    assert read(path) == {**rows, b"again": b"1"}


def test_a_full_disk_fails_every_write_that_waits_and_every_later_one(tmp_path: Path) -> None:
    """A file system of 600 kB, in a mount namespace of the child."""
    unshare = shutil.which("unshare")
    probe = [unshare or "", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount here; the test with a size limit below stands alone")
    disk = tmp_path / "disk"
    copy = tmp_path / "copy"
    disk.mkdir()
    copy.mkdir()
    script = (
        'mount -t tmpfs -o size=600k none "$1" && head -c 100000 /dev/zero > "$1/ballast" && '
        '"$2" -c "$3" "$1/journal" "$1/ballast" && cp "$1"/journal* "$4"'
    )
    command = [unshare, "-rm", "sh", "-c", script, "sh", str(disk), sys.executable, FILLER, str(copy)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    check_filled(copy / "journal", done.stdout)


def test_a_file_that_may_not_grow_fails_every_later_write(path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    with child(FILLER, path, preexec_fn=limit) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    check_filled(path, output)


STARTER = """
import sys
from penstock.core.errors import JournalError
from penstock.storage.sqlite import SqliteJournal
try:
    SqliteJournal(sys.argv[1])
except JournalError as error:
    print(error.line())
"""


def test_a_start_without_room_says_so_and_leaves_what_a_killed_writer_left(path: Path) -> None:
    with child(WRITER, path, 0) as process:
        assert process.stdout
        for _ in range(50):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    before = read(path)
    most = max(one.stat().st_size for one in path.parent.iterdir())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    with child(STARTER, path, preexec_fn=limit) as process:
        output, errors = process.communicate(timeout=60)
    assert not errors, errors.decode()
    assert output.count(b"\n") == 1
    assert b"cannot be written" in output or b"cannot be read" in output, output
    assert read(path) == before
    write(path, (b"next", b"1"))
    assert read(path) == {**before, b"next": b"1"}


def test_no_new_journal_without_room(path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with child(STARTER, path, preexec_fn=limit) as process:
        output, errors = process.communicate(timeout=60)
    assert not errors, errors.decode()
    assert b"cannot be opened" in output
    assert {one.name for one in path.parent.iterdir()} == {"journal.lock"}
    write(path, (b"next", b"1"))


# Files that are no journal


def test_a_new_journal_belongs_to_its_owner_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        write(path, (b"key", b"value"))

        async def look() -> None:
            journal = SqliteJournal(path)
            await put(journal, [(b"more", b"value")])
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
            await journal.close()
            assert {"journal", "journal-wal", "journal.lock"} <= set(modes)
            assert set(modes.values()) == {0o600}, modes

        asyncio.run(look())
    finally:
        os.umask(old)


def test_it_is_a_wal_journal_that_syncs_each_commit(path: Path) -> None:
    async def scenario() -> None:
        journal = SqliteJournal(path)
        assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert journal._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        await journal.close()

    asyncio.run(scenario())
    assert not path.with_name("journal-wal").exists(), "a closed journal is one file"


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE row (key, value)")
    other.close()


def newer(path: Path) -> None:
    write(path, (b"key", b"value"))
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    other.close()


def text(path: Path) -> None:
    path.write_text("[node]\nname = 'pole'\n" * 100)


def empty(path: Path) -> None:
    path.touch()


def half_made(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA application_id = {APPLICATION}")
        other.execute("CREATE TABLE other (key)")
    other.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign, "is no journal of Penstock"),
        (newer, r"newer Penstock \(schema 2, this one reads 1\)"),
        (text, "cannot be read"),
        (empty, "is no journal of Penstock"),
        (half_made, "damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_was(make, message: str, path: Path) -> None:  # type: ignore[no-untyped-def]  # one of the above
    make(path)
    before = path.read_bytes()
    for open_ in (SqliteJournal, SqliteJournal.open_readonly):
        with pytest.raises(JournalError, match=message) as caught:
            open_(path)
        assert caught.value.advice
        assert "\n" not in caught.value.line()
    assert path.read_bytes() == before


def test_a_damaged_journal_is_refused_when_it_is_opened(path: Path) -> None:
    write(path, *((b"%04d" % number, bytes(500)) for number in range(200)))
    damaged = bytearray(path.read_bytes())
    for page in range(4096 * 3, len(damaged), 4096 * 2):
        damaged[page : page + 200] = os.urandom(200)
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match=r"damaged|cannot be read"):
        SqliteJournal(path)
    assert path.read_bytes() == damaged


def test_no_flipped_byte_is_more_than_a_typed_error(path: Path) -> None:
    """Wherever it is: the file is refused, or read as far as it goes; nothing but a JournalError comes out."""
    write(path, *((b"%04d" % number, bytes(200)) for number in range(120)))
    whole = path.read_bytes()
    seen = set()
    for at in (*range(0, 108), *range(108, len(whole), 509)):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x41,)) + whole[at + 1 :])
        for open_ in (SqliteJournal, SqliteJournal.open_readonly):
            try:
                journal = open_(path)
                seen.add(len(list(journal.load(b""))))
                asyncio.run(journal.close())
            except JournalError:
                seen.add(-1)
        for end in ("-wal", "-shm"):
            path.with_name("journal" + end).unlink(missing_ok=True)
    assert {-1, 120} <= seen


def test_a_directory_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such file or directory") as caught:
        SqliteJournal(tmp_path / "nowhere" / "journal")
    assert "directory" in caught.value.advice
    with pytest.raises(JournalError, match="no journal at"):
        SqliteJournal.open_readonly(tmp_path / "journal")
    assert list(tmp_path.iterdir()) == []


def test_a_creation_that_was_interrupted_is_begun_anew(path: Path) -> None:
    path.with_name("journal.new").write_bytes(b"half")
    write(path, (b"key", b"value"))
    assert read(path) == {b"key": b"value"}
    assert not path.with_name("journal.new").exists()


def test_a_readonly_journal_refuses_writes(path: Path) -> None:
    write(path, (b"key", b"value"))

    async def scenario() -> None:
        journal = SqliteJournal.open_readonly(path)
        with pytest.raises(JournalError, match="reading only"):
            await put(journal, [(b"key", b"other")])
        await journal.close()

    asyncio.run(scenario())
    assert read(path) == {b"key": b"value"}


def test_one_write_wakes_the_event_loop_once_for_a_whole_batch(path: Path) -> None:
    """Four hundred writes of one turn of the loop: a few commits, one wake-up each."""

    async def scenario() -> None:
        journal = SqliteJournal(path)
        loop = asyncio.get_running_loop()
        await put(journal, [])
        wakes = 0
        real = loop.call_soon_threadsafe

        def counting(*args, **kwargs):  # type: ignore[no-untyped-def]  # passes on what it is given
            nonlocal wakes
            wakes += 1
            return real(*args, **kwargs)

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign,assignment]  # the loop still does the work
        await asyncio.gather(*(put(journal, [(b"%d" % n, b"x")]) for n in range(400)))
        del loop.call_soon_threadsafe  # back to the class's own
        await journal.close()
        assert wakes <= 10

    asyncio.run(scenario())
