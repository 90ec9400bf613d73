"""The journal in memory keeps the port's promises, and loses at a crash just what was not durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.core.errors import JournalError
from penstock.core.ports import Journal
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.testing.journal import JOURNAL_CHECKS, put


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
def test_the_journal_in_memory_conforms(check: Callable[[Callable[[], Journal]], Any]) -> None:
    disk = Disk()
    asyncio.run(check(lambda: MemoryJournal(disk, Life("test", asyncio.get_running_loop()))))


@pytest.mark.parametrize("reached", [True, False])
def test_a_commit_under_way_at_a_crash_is_there_whole_or_not_at_all(reached: bool) -> None:
    async def crash() -> None:
        disk = Disk(lambda: 10.0, lambda: reached)
        life = Life("test", asyncio.get_running_loop())
        journal = MemoryJournal(disk, life)
        heard: list[object] = []
        journal.write([(b"a", b"1"), (b"b", b"2")], heard.append)
        await asyncio.sleep(0.01)
        life.end()
        assert disk.rows == ({b"a": b"1", b"b": b"2"} if reached else {})
        journal.write([(b"c", b"3")], heard.append)
        await asyncio.sleep(0.01)
        assert heard == []
        assert b"c" not in disk.rows

    asyncio.run(crash())


def test_after_a_failed_write_every_later_one_fails_until_it_is_opened_anew() -> None:
    async def fill() -> None:
        disk, life = Disk(), Life("test", asyncio.get_running_loop())
        journal = MemoryJournal(disk, life)
        disk.fault = "no space left"
        with pytest.raises(JournalError, match="no space left"):
            await put(journal, [(b"a", b"1")])
        disk.fault = ""
        with pytest.raises(JournalError):
            await put(journal, [(b"b", b"2")])
        await put(MemoryJournal(disk, life), [(b"c", b"3")])
        assert disk.rows == {b"c": b"3"}

    asyncio.run(fill())
