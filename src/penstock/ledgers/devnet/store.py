"""Where a devnet's blocks and state are kept: one SQLite database, in a file or in memory.

py-evm's key-value rows are gathered while a block is made and written in one transaction with the block, its
transactions, receipts and logs: after kill -9 the chain is at a whole block. (WAL with synchronous=NORMAL: a power cut
may cost the last blocks, but never the order.) Blocks, transactions, receipts and logs are kept in their wire form,
ready to be sent; logs are indexed by address and by topic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
from eth.db.backends.base import BaseDB

from penstock.core.errors import LedgerError, UsageError

FILE = "chain.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, form BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    hash BLOB PRIMARY KEY, block INTEGER NOT NULL, position INTEGER NOT NULL, form BLOB NOT NULL, receipt BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transactions_by_block ON transactions (block, position);
CREATE TABLE IF NOT EXISTS logs (
    block INTEGER NOT NULL, position INTEGER NOT NULL, address BLOB NOT NULL,
    topic0 BLOB, topic1 BLOB, topic2 BLOB, topic3 BLOB, form BLOB NOT NULL, PRIMARY KEY (block, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logs_by_address ON logs (address, topic0, block, position);
CREATE INDEX IF NOT EXISTS logs_by_topic1 ON logs (topic1, block, position) WHERE topic1 IS NOT NULL;
CREATE INDEX IF NOT EXISTS logs_by_topic2 ON logs (topic2, block, position) WHERE topic2 IS NOT NULL;
CREATE INDEX IF NOT EXISTS logs_by_topic3 ON logs (topic3, block, position) WHERE topic3 IS NOT NULL;
"""


class LogRow(msgspec.Struct, frozen=True):
    """A log of a block: its emitter, its topics (32 bytes each) and its wire form."""

    address: bytes
    topics: tuple[bytes, ...]
    form: bytes


class TransactionRow(msgspec.Struct, frozen=True):
    """A mined transaction and its receipt, in wire form."""

    hash: bytes
    form: bytes
    receipt: bytes


class BlockRow(msgspec.Struct, frozen=True):
    """A block in wire form, without its transactions, and what it holds."""

    number: int
    hash: bytes
    form: bytes
    transactions: Sequence[TransactionRow] = ()
    logs: Sequence[LogRow] = ()


class Rows(BaseDB):
    """py-evm's key-value store: reads from SQLite, writes gathered in `fresh` until the block is committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.fresh: dict[bytes, bytes | None] = {}

    def __getitem__(self, key: bytes) -> bytes:
        if key in self.fresh:
            value = self.fresh[key]
        else:
            found = self._connection.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
            value = found[0] if found else None
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.fresh[key] = value

    def __delitem__(self, key: bytes) -> None:
        self.fresh[key] = None

    def _exists(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True


class Store:
    """The database. Used by one thread at a time, and by one process: a second one on the same file is refused."""

    def __init__(self, directory: Path | None = None) -> None:
        """Open the store in `directory` (made where it is missing), or in memory.

        Raises:
            UsageError: the directory cannot be used, another devnet uses it, or its file is damaged.
        """
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                directory / FILE if directory is not None else ":memory:",
                isolation_level=None,
                check_same_thread=False,
                timeout=0.2,
            )
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        except OSError as error:
            raise UsageError(f"cannot use {directory}: {error.strerror}", "choose another directory") from error
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise UsageError(f"another devnet uses {directory}", "stop it, or choose another directory") from error
            raise UsageError(
                f"cannot open the chain in {directory}: {error}", "choose another directory, or delete its contents"
            ) from error
        self.rows = Rows(self._connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def commit(self, block: BlockRow, notes: dict[str, bytes]) -> None:
        """Write the gathered rows, the block and the notes together.

        Raises:
            LedgerError: the disk refused; the gathered rows are dropped and the chain is where it was.
        """
        run = self._connection.execute
        many = self._connection.executemany
        try:
            run("BEGIN IMMEDIATE")
            self._put(self.rows.fresh)
            many("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())
            run("INSERT INTO blocks VALUES (?, ?, ?)", (block.number, block.hash, block.form))
            many(
                "INSERT INTO transactions VALUES (?, ?, ?, ?, ?)",
                [(t.hash, block.number, at, t.form, t.receipt) for at, t in enumerate(block.transactions)],
            )
            many(
                "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (block.number, at, log.address, *log.topics, *(None,) * (4 - len(log.topics)), log.form)
                    for at, log in enumerate(block.logs)
                ],
            )
            run("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            self.drop()
            raise LedgerError(f"the devnet cannot write its state: {error}", "free some disk space") from error
        self.drop()

    def drop(self) -> None:
        """Forget the rows gathered since the last commit."""
        self.rows.fresh.clear()

    def cut(self, number: int, rows: dict[bytes, bytes | None]) -> None:
        """Take back every block above `number`, and put `rows` as they were then."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        self._put(rows)
        run("DELETE FROM blocks WHERE number > ?", (number,))
        run("DELETE FROM transactions WHERE block > ?", (number,))
        run("DELETE FROM logs WHERE block > ?", (number,))
        run("COMMIT")

    def _put(self, rows: dict[bytes, bytes | None]) -> None:
        many = self._connection.executemany
        many("INSERT OR REPLACE INTO rows VALUES (?, ?)", [(k, v) for k, v in rows.items() if v is not None])
        many("DELETE FROM rows WHERE key = ?", [(k,) for k, v in rows.items() if v is None])

    def note(self, name: str) -> bytes | None:
        """A note kept beside the chain."""
        return self._one("SELECT value FROM notes WHERE name = ?", name)

    def block(self, number: int) -> bytes | None:
        """A block's wire form, without its transactions."""
        return self._one("SELECT form FROM blocks WHERE number = ?", number)

    def number_of(self, block_hash: bytes) -> int | None:
        """The number of the block with this hash."""
        found = self._connection.execute("SELECT number FROM blocks WHERE hash = ?", (block_hash,)).fetchone()
        return int(found[0]) if found else None

    def transactions(self, number: int) -> list[bytes]:
        """The wire forms of a block's transactions."""
        return self._all("SELECT form FROM transactions WHERE block = ? ORDER BY position", number)

    def hashes(self, number: int) -> list[bytes]:
        """The hashes of a block's transactions."""
        return self._all("SELECT hash FROM transactions WHERE block = ? ORDER BY position", number)

    def receipts(self, number: int) -> list[bytes]:
        """The wire forms of a block's receipts."""
        return self._all("SELECT receipt FROM transactions WHERE block = ? ORDER BY position", number)

    def transaction(self, tx_hash: bytes) -> bytes | None:
        """A mined transaction's wire form."""
        return self._one("SELECT form FROM transactions WHERE hash = ?", tx_hash)

    def receipt(self, tx_hash: bytes) -> bytes | None:
        """A mined transaction's receipt in wire form."""
        return self._one("SELECT receipt FROM transactions WHERE hash = ?", tx_hash)

    def logs(
        self, first: int, last: int, addresses: Sequence[bytes], topics: Sequence[Sequence[bytes] | None]
    ) -> list[bytes]:
        """The wire forms of the logs in blocks `first`..`last`, in order.

        `addresses` empty means any; `topics[i]` None means any topic there, a list any of it.
        """
        where, values = ["block BETWEEN ? AND ?"], [first, last]
        terms: list[tuple[str, Sequence[bytes]]] = [("address", addresses)] if addresses else []
        terms += [(f"topic{at}", wanted) for at, wanted in enumerate(topics) if wanted is not None]
        for column, wanted in terms:
            where.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            values.extend(wanted)  # type: ignore[arg-type]  # SQLite takes ints and bytes alike
        if len(topics) > 0:
            where.append(f"topic{len(topics) - 1} IS NOT NULL")
        # The planner, knowing no statistics, prefers (address, topic0): all logs of a busy contract. A later topic is
        # nearly always the rarer one: a channel, a party.
        rare = [at for at, wanted in enumerate(topics) if at and wanted is not None]
        hint = f"INDEXED BY logs_by_topic{rare[0]}" if rare else ""
        query = f"SELECT form FROM logs {hint} WHERE {' AND '.join(where)} ORDER BY block, position"  # noqa: S608 - the column names are ours, the values are bound
        return self._all(query, *values)

    def _one(self, query: str, *values: object) -> bytes | None:
        found = self._connection.execute(query, values).fetchone()
        return found[0] if found else None

    def _all(self, query: str, *values: object) -> list[bytes]:
        return [row[0] for row in self._connection.execute(query, values)]
