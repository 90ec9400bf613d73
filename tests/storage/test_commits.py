"""What a journal counts of its commits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.storage.commits import Spread
from penstock.storage.sqlite import SqliteJournal


def test_a_value_on_a_bound_counts_below_it() -> None:
    spread = Spread((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        spread.add(value)
    assert spread.counts == [2, 2, 2]
    assert spread.total == 107.5


@pytest.mark.asyncio
async def test_every_commit_and_every_write_in_it_is_counted_once(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    left, all_done = 100, asyncio.Event()

    def done(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            all_done.set()

    for number in range(100):
        journal.write(((b"key/%d" % number, b"value"),), done)
    await asyncio.wait_for(all_done.wait(), 10)
    commits = journal.commits
    assert sum(commits.writes.counts) == sum(commits.seconds.counts) >= 1
    assert commits.writes.total == 100
    assert commits.seconds.total > 0
    await journal.close()
    reader = SqliteJournal.open_readonly(tmp_path / "journal.db")
    assert reader.commits.writes.total == 0
    await reader.close()
