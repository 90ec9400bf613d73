"""The log over the table: a reader sees what was last written, whatever has been folded meanwhile."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import JournalError
from penstock.storage import sqlite
from penstock.storage.recent import laid_over
from penstock.storage.sqlite import SqliteJournal
from penstock.testing.journal import put

KEYS = st.binary(max_size=2)


@given(st.dictionaries(KEYS, st.none() | st.binary(max_size=2)), st.dictionaries(KEYS, st.binary(max_size=2)))
def test_newer_rows_are_laid_over_older_ones(newer: dict[bytes, bytes | None], older: dict[bytes, bytes]) -> None:
    want = {key: value for key, value in {**older, **newer}.items() if value is not None}
    assert list(laid_over(sorted(newer.items()), sorted(older.items()))) == sorted(want.items())


@pytest.mark.parametrize(("fold", "part"), [(1, 1024), (400, 1024), (400, 1), (400, 5), (2**22, 1024)])
def test_readers_see_the_last_rows_before_while_and_after_they_are_folded(
    fold: int, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FOLD", fold)
    monkeypatch.setattr(sqlite, "PART", part)
    rng = random.Random(fold)
    keys = [b"%s%d" % (kind, number) for kind in (b"a/", b"b/", b"\xff") for number in range(12)]
    rows: dict[bytes, bytes] = {}

    async def scenario() -> None:
        path = tmp_path / "journal"
        journal = SqliteJournal(path)
        beside, rare = SqliteJournal.open_readonly(path), SqliteJournal.open_readonly(path)
        for turn in range(120):
            written = {rng.choice(keys): rng.choice([None, rng.randbytes(9)]) for _ in range(rng.randrange(1, 6))}
            await put(journal, written.items())
            rows.update((key, value) for key, value in written.items() if value is not None)
            for key, value in written.items():
                if value is None:
                    rows.pop(key, None)
            for reader in (journal, beside, rare)[: 3 if turn % 17 == 16 else 2]:
                for prefix in (b"", b"b/", b"\xff", rng.choice(keys)):
                    want = sorted((key, value) for key, value in rows.items() if key.startswith(prefix))
                    assert list(reader.load(prefix)) == want
            if turn % 9 == 8:
                assert await after_a_kill(path, tmp_path / f"copy{turn}") == sorted(rows.items())
            if turn % 40 == 39:  # another process's numbers go on where the last one's ended
                await journal.close()
                journal = SqliteJournal(path)
        for reader in (journal, beside, rare):
            await reader.close()

    asyncio.run(scenario())


async def after_a_kill(path: Path, copy: Path) -> list[tuple[bytes, bytes]]:
    """What another process finds where the one that writes was killed now: its files as they are on the disk."""
    for suffix in ("", "-wal"):
        shutil.copy(str(path) + suffix, str(copy) + suffix)
    journal = SqliteJournal(copy)
    found = list(journal.load(b""))
    await journal.close()
    return found


def test_an_entry_that_is_none_is_a_damaged_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def scenario() -> None:
        journal = SqliteJournal(path)
        journal._writer.execute("INSERT INTO log VALUES (7, x'c1')")  # a byte that MessagePack never uses
        with pytest.raises(JournalError, match="cannot be read"):
            list(journal.load(b""))
        await journal.close()
        with pytest.raises(JournalError, match="cannot be read"):
            SqliteJournal(path)

    asyncio.run(scenario())
