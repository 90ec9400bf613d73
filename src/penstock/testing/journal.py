"""What every `core.ports.Journal` must do, as checks against any implementation.

Give each check of `JOURNAL_CHECKS` a function that opens the store of this check: empty at first, and with what was
written when it is called again after `close` (or run them all with `check_journal`, which is given a function that
makes such a function):

    @pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
    def test_a_journal_conforms(check, tmp_path):
        asyncio.run(check(lambda: SqliteJournal(tmp_path / "journal")))

A check passes, or raises AssertionError with what was not kept. That rows survive a kill and a full disk must be tested
with the real store in a process of its own.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from penstock.core.errors import JournalError
from penstock.core.ports import Journal

Open = Callable[[], Journal]
Check = Callable[[Open], Coroutine[Any, Any, None]]

PATIENCE = 20.0  # seconds until an acknowledgement counts as missing


async def put(journal: Journal, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Write `rows`, and wait until they are durable.

    Raises:
        JournalError: they are not.
    """
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: JournalError | None) -> None:
        if error is None:
            durable.set_result(None)
        else:
            durable.set_exception(error)

    journal.write(rows, done)
    await asyncio.wait_for(durable, PATIENCE)


async def rows_come_back_by_prefix_in_order(open_: Open) -> None:
    """Before and after reopening; also for prefixes at the end of the key space, and for empty values."""
    rows = {b"a": b"1", b"a\x00": b"2", b"a\xff": b"3", b"a\xff\xff": b"", b"b": b"5", b"\xff": b"6", b"\xff\xff": b"7"}
    journal = open_()
    await put(journal, list(rows.items())[::-1])
    for _ in range(2):
        for prefix in (b"", b"a", b"a\xff", b"b", b"c", b"\xff", b"\xff\xff\xff"):
            want = sorted((key, value) for key, value in rows.items() if key.startswith(prefix))
            got = list(journal.load(prefix))
            assert got == want, f"prefix {prefix!r}: {got} instead of {want}"
        await journal.close()
        journal = open_()
    await journal.close()


async def the_last_write_wins_and_none_deletes(open_: Open) -> None:
    """Among writes that share a commit, too."""
    journal = open_()
    for number in range(10):
        journal.write([(b"key", b"%d" % number), (b"gone", b"x")], lambda error: None)
    journal.write([(b"gone", None), (b"never there", None)], lambda error: None)
    await put(journal, [(b"twice", b"1"), (b"twice", b"2")])
    assert list(journal.load(b"")) == [(b"key", b"9"), (b"twice", b"2")]
    await put(journal, [(b"key", None)])
    await journal.close()
    journal = open_()
    assert list(journal.load(b"")) == [(b"twice", b"2")], "reopened, the rows are others"
    await journal.close()


async def done_is_called_later_in_order_on_the_event_loop(open_: Open) -> None:
    """Never inside `write`, never from another thread, and for an empty write in its turn."""
    journal = open_()
    calls: list[int] = []
    threads: set[int] = set()

    def done_for(number: int) -> Callable[[JournalError | None], None]:
        def done(error: JournalError | None) -> None:
            assert error is None
            calls.append(number)
            threads.add(threading.get_ident())

        return done

    for number in range(100):
        journal.write([] if number % 10 == 9 else [(b"%d" % number, b"x")], done_for(number))
        assert not calls, "done was called inside write, or without a turn of the event loop"
    await put(journal, [])
    assert calls == list(range(100)), "acknowledged in another order"
    assert threads == {threading.get_ident()}, "acknowledged from another thread"
    await journal.close()


async def what_is_acknowledged_can_be_loaded(open_: Open) -> None:
    """By the time `done` is called."""
    journal = open_()
    for number in range(20):
        await put(journal, [(b"key", b"%d" % number)])
        assert list(journal.load(b"key")) == [(b"key", b"%d" % number)]
    await journal.close()


async def many_writers_share_the_journal(open_: Open) -> None:
    """Hundreds of them, each waiting for its own; nothing is mixed up or missing."""
    journal = open_()
    rng = random.Random(3)  # noqa: S311 - test data
    values = {
        b"%d/%d" % (writer, turn): rng.randbytes(rng.randrange(500)) for writer in range(200) for turn in range(5)
    }

    async def write(writer: int) -> None:
        for turn in range(5):
            key = b"%d/%d" % (writer, turn)
            await put(journal, [(key, values[key])])

    await asyncio.gather(*(write(writer) for writer in range(200)))
    await journal.close()
    journal = open_()
    assert dict(journal.load(b"")) == values
    await journal.close()


async def large_batches_are_written_whole(open_: Open) -> None:
    """Thousands of rows in one write, put and deleted; and a value of a megabyte."""
    journal = open_()
    rows = [(b"%05d" % number, b"v%d" % number) for number in range(5_000)]
    await put(journal, rows)
    assert list(journal.load(b"")) == rows
    await put(journal, [(key, None) for key, _ in rows[1:]] + [(b"large", bytes(1_000_000))])
    assert list(journal.load(b"")) == [rows[0], (b"large", bytes(1_000_000))]
    await journal.close()


async def close_makes_durable_what_was_written(open_: Open) -> None:
    """`done` has been called when `close` returns; closing twice is harmless; what comes later fails."""
    journal = open_()
    calls: list[JournalError | None] = []
    for number in range(50):
        journal.write([(b"%02d" % number, b"x")], calls.append)
    await journal.close()
    assert calls == [None] * 50, "close returned before every write was acknowledged"
    await journal.close()
    try:
        await put(journal, [(b"late", b"x")])
    except JournalError:
        pass
    else:
        raise AssertionError("a closed journal acknowledged a write")
    try:
        list(journal.load(b""))
    except JournalError:
        pass
    else:
        raise AssertionError("a closed journal was read")
    journal = open_()
    assert len(list(journal.load(b""))) == 50
    await journal.close()


async def a_done_that_fails_keeps_nobody_waiting(open_: Open) -> None:
    """The fault goes to the event loop's exception handler; later writes go on."""
    journal = open_()
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception")))

    def fail(error: JournalError | None) -> None:
        raise ZeroDivisionError

    try:
        journal.write([(b"one", b"1")], fail)
        await put(journal, [(b"two", b"2")])
    finally:
        loop.set_exception_handler(None)
    assert [type(fault) for fault in faults] == [ZeroDivisionError], "the fault was hidden, or told twice"
    assert list(journal.load(b"")) == [(b"one", b"1"), (b"two", b"2")]
    await journal.close()


JOURNAL_CHECKS: tuple[Check, ...] = (
    rows_come_back_by_prefix_in_order,
    the_last_write_wins_and_none_deletes,
    done_is_called_later_in_order_on_the_event_loop,
    what_is_acknowledged_can_be_loaded,
    many_writers_share_the_journal,
    large_batches_are_written_whole,
    close_makes_durable_what_was_written,
    a_done_that_fails_keeps_nobody_waiting,
)


async def check_journal(new_store: Callable[[], Open]) -> None:
    """Run every check, each on a fresh store."""
    for check in JOURNAL_CHECKS:
        await check(new_store())
