"""The chain in this process: genesis, a pool, blocks, calls, and control over time.

Chain time is the clock plus an offset that only `increase_time` and `set_next_timestamp` change; a block's timestamp is
that, and never less than its parent's. A call is executed as in the block to come, so that a challenge period that is
over is over for calls too, even when no block has been made since.

One thread at a time may use a chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from eth.constants import POST_MERGE_DIFFICULTY
from eth.db.atomic import AtomicDB
from eth.db.schema import SchemaV1
from eth.exceptions import UnrecognizedTransactionType
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from penstock.core.errors import TransactionFailed, UsageError
from penstock.ledgers.devnet import execute
from penstock.ledgers.devnet.execute import Request
from penstock.ledgers.devnet.forms import Form, block_form, header_form, receipt_form, topic_bytes, transaction_form
from penstock.ledgers.devnet.pool import MAX_AHEAD, Pool
from penstock.ledgers.devnet.rules import (
    GAS_LIMIT,
    INITIAL_BASE_FEE,
    Computation,
    DevnetVM,
    Evm,
    Header,
    Receipt,
    Transaction,
    Vm,
    encoded,
    evm_class,
    next_header,
)
from penstock.ledgers.devnet.store import BlockRow, LogRow, Store, TransactionRow

DEFAULT_CHAIN_ID = 31_337
MAX_TRANSACTION_BYTES = 128 * 1024  # geth's limit
KINDS = (0, 1, 2, 4)  # legacy, EIP-2930, EIP-1559, EIP-7702; blobs (3) carry nothing that a devnet needs
_RESTORED = (SchemaV1.make_canonical_head_hash_lookup_key(), SchemaV1.make_header_chain_gaps_lookup_key())


class _Included(NamedTuple):
    transaction: Transaction
    receipt: Receipt
    computation: Computation


class _Snapshot(NamedTuple):
    number: int
    rows: dict[bytes, bytes | None]
    pool: Pool
    offset: int


class Chain:
    """A chain under Prague rules. `head` is the newest block's header."""

    def __init__(
        self,
        balances: Mapping[bytes, int] | None = None,
        *,
        chain_id: int = DEFAULT_CHAIN_ID,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Go on from the chain in `directory`, or begin one there (in memory for None) with `balances` (wei).

        `clock` gives seconds since 1970.

        Raises:
            UsageError: the directory cannot be used, or holds a chain with another id.
        """
        self.chain_id = chain_id
        self._clock = clock
        self._store = Store(directory)
        self._offset = int(self._store.note("offset") or 0)
        self._next_timestamp: int | None = None
        self._coming: Header | None = None  # the last answer of next_header
        self._warm: tuple[Header, Vm] | None = None  # the machine that last served calls on it
        self._pool = Pool()
        self._snapshots: list[_Snapshot] = []
        known = self._store.note("chain_id")
        if known is not None and int(known) != chain_id:
            self._store.close()
            raise UsageError(
                f"{directory} holds a chain with id {int(known)}, not {chain_id}",
                "use that id, or choose another directory",
            )
        evm = evm_class(chain_id)
        database = AtomicDB(self._store.rows)
        self._evm: Evm = self._begin(evm, database, balances or {}) if known is None else evm(database)
        self.head: Header = self._evm.get_canonical_head()

    def _begin(self, evm: Evm, database: AtomicDB, balances: Mapping[bytes, int]) -> Evm:
        params = {
            "gas_limit": GAS_LIMIT,
            "timestamp": int(self._clock()),
            "difficulty": POST_MERGE_DIFFICULTY,
            "base_fee_per_gas": INITIAL_BASE_FEE,
        }
        state = {address: {"balance": wei, "nonce": 0, "code": b"", "storage": {}} for address, wei in balances.items()}
        made = evm.from_genesis(database, params, state)
        head = made.get_canonical_head()
        form = {**header_form(head), "size": hex(len(encoded(head)))}
        self._store.commit(
            BlockRow(0, head.hash, msgspec.json.encode(form)), {"chain_id": b"%d" % self.chain_id, "offset": b"0"}
        )
        return made

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    # Transactions and blocks

    def submit(self, raw: bytes) -> bytes:
        """Check a signed transaction and put it into the pool; returns its hash (32 bytes).

        Raises:
            TransactionFailed: it is malformed, could not be mined now or soon, or is known already.
        """
        transaction = self._decode(raw)
        self._check(transaction)
        self._pool.add(transaction)
        return bytes(transaction.hash)

    def send_raw(self, raw: bytes) -> bytes:
        """`submit`, then mine at once; returns the hash (32 bytes). Whether it succeeded is in its receipt."""
        tx_hash = self.submit(raw)
        self.mine_waiting()
        return tx_hash

    def mine_waiting(self) -> int:
        """Make blocks until the pool holds nothing that could go into one; returns how many."""
        count = 0
        while len(self._pool) and self._make_block(even_empty=False):
            count += 1
        return count

    def mine(self) -> int:
        """Make one block, be it empty; returns its number."""
        self._make_block(even_empty=True)
        return int(self.head.block_number)

    def _decode(self, raw: bytes) -> Transaction:
        if len(raw) > MAX_TRANSACTION_BYTES:
            raise TransactionFailed(f"oversized data: a transaction has at most {MAX_TRANSACTION_BYTES} bytes")
        if raw and raw[0] < 0x80 and raw[0] not in KINDS:
            raise TransactionFailed(f"transaction type not supported: {raw[0]}", f"send one of the types {KINDS}")
        try:
            transaction = DevnetVM.get_transaction_builder().decode(raw)
            transaction.validate()
            transaction.check_signature_validity()
            transaction.sender  # noqa: B018 - recovered once and cached
            if transaction.encode() != raw:  # an empty list for a zero is read, too
                raise ValueError("not in the one form that a transaction has")
        except (
            RLPException,
            ValidationError,
            BadSignature,
            UnrecognizedTransactionType,
            ValueError,
            TypeError,
            IndexError,
            RecursionError,
        ) as error:
            raise TransactionFailed(f"not a signed transaction: {_one_line(error)}") from error
        return transaction

    def _check(self, transaction: Transaction) -> None:
        if transaction.chain_id not in (None, self.chain_id):
            raise TransactionFailed(
                f"invalid chain id for signer: signed for {transaction.chain_id}, this is {self.chain_id}"
            )
        if transaction.gas > self.head.gas_limit:
            raise TransactionFailed(f"exceeds block gas limit: {transaction.gas} is above {self.head.gas_limit}")
        least = max(transaction.intrinsic_gas, execute.floor_gas(transaction.data))
        if transaction.gas < least:
            raise TransactionFailed(f"intrinsic gas too low: {transaction.gas} is below {least}")
        base_fee = self.next_header().base_fee_per_gas
        if transaction.max_fee_per_gas < base_fee:
            raise TransactionFailed(
                f"max fee per gas less than block base fee: {transaction.max_fee_per_gas} is below {base_fee}"
            )
        nonce = self.nonce(transaction.sender)
        if transaction.nonce < nonce:
            raise TransactionFailed(f"nonce too low: {transaction.nonce}, next is {nonce}")
        if transaction.nonce > nonce + MAX_AHEAD:
            raise TransactionFailed(f"nonce too high: {transaction.nonce}, next is {nonce}")
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        balance = self.balance(transaction.sender)
        if balance < cost:
            raise TransactionFailed(f"insufficient funds for gas * price + value: has {balance}, needs {cost}")

    def _make_block(self, even_empty: bool) -> bool:
        header = self.next_header()
        vm = self._evm.get_vm(header)
        filled, included = self._fill(vm, header)
        if not included and not even_empty:
            return False
        made = vm.mine_block(
            vm.set_block_transactions_and_withdrawals(
                vm.get_block(), filled, [i.transaction for i in included], [i.receipt for i in included]
            )
        )
        self._evm.persist_block(made.block, perform_validation=False)  # mine_block has just validated it
        header = made.block.header
        offset = self._offset
        if self._next_timestamp is not None:
            offset = self._next_timestamp - int(self._clock())
        self._store.commit(_block_row(block_form(made.block), header, included), {"offset": b"%d" % offset})
        self.head, self._offset, self._next_timestamp = header, offset, None
        for item in included:
            self._pool.remove(item.transaction)
        return True

    def _fill(self, vm: Vm, header: Header) -> tuple[Header, list[_Included]]:
        included: list[_Included] = []
        for transaction in self._pool.in_order(vm.state.get_nonce):
            if header.gas_used + transaction.gas > header.gas_limit:
                continue
            if transaction.max_fee_per_gas < header.base_fee_per_gas:
                continue
            if vm.state.get_nonce(transaction.sender) != transaction.nonce:
                continue  # an earlier one of this sender did not fit
            try:
                receipt, computation = vm.apply_transaction(header, transaction)
            except ValidationError:  # its sender spent the money elsewhere in this block; nothing was changed yet
                self._pool.remove(transaction)
                continue
            header = vm.add_receipt_to_header(header, receipt)
            included.append(_Included(transaction, receipt, computation))
        return header, included

    # Time

    def now(self) -> int:
        """The timestamp that the next block would carry (seconds)."""
        wanted = self._next_timestamp
        return max(int(self.head.timestamp), int(self._clock()) + self._offset if wanted is None else wanted)

    def increase_time(self, seconds: int) -> int:
        """Let chain time jump ahead; returns the sum of all jumps (seconds)."""
        if seconds < 0:
            raise TransactionFailed("chain time runs forward only")
        self._offset += seconds
        return self._offset

    def set_next_timestamp(self, timestamp: int) -> None:
        """Give the next block this timestamp; chain time goes on from there.

        Raises:
            TransactionFailed: it is before the newest block's.
        """
        if timestamp < self.head.timestamp:
            raise TransactionFailed(f"timestamp {timestamp} is before the newest block's, {self.head.timestamp}")
        self._next_timestamp = timestamp

    def next_header(self) -> Header:
        """The header of the block to come, before any transaction."""
        parent, coming, now = self.head, self._coming, self.now()
        if coming is None or coming.parent_hash != parent.hash or coming.timestamp != now:
            coming = self._coming = next_header(self._evm, parent, now)
        return coming

    # State

    def header(self, number: int) -> Header:
        """The header of block `number`, 0..head.

        Raises:
            TransactionFailed: there is no such block.
        """
        if not 0 <= number <= self.head.block_number:
            raise TransactionFailed(f"block {number} not found: the newest is {self.head.block_number}")
        return self.head if number == self.head.block_number else self._evm.get_canonical_block_header_by_number(number)

    def balance(self, address: bytes, number: int | None = None) -> int:
        """An account's wei after block `number` (None: the newest)."""
        return int(self._vm(number).state.get_balance(address))

    def nonce(self, address: bytes, number: int | None = None) -> int:
        """An account's next nonce after block `number` (None: the newest)."""
        return int(self._vm(number).state.get_nonce(address))

    def pending_nonce(self, address: bytes) -> int:
        """An account's next nonce after what it has in the pool."""
        return self._pool.next_nonce(address, self.nonce(address))

    def code(self, address: bytes, number: int | None = None) -> bytes:
        """A contract's code; empty for an account without."""
        return bytes(self._vm(number).state.get_code(address))

    def storage(self, address: bytes, slot: int, number: int | None = None) -> int:
        """A word of a contract's storage."""
        return int(self._vm(number).state.get_storage(address, slot))

    def _vm(self, number: int | None) -> Vm:
        return self._machine(None) if number is None else self._evm.get_vm(self.header(number))

    def call(self, request: Request, number: int | None = None) -> bytes:
        """What a call returns, in the block to come (None) or as it was in block `number`.

        Raises:
            Reverted: the contract reverted.
            TransactionFailed: it failed otherwise, or there is no such block.
        """
        return execute.call(self._machine(number), request)

    def estimate(self, request: Request, number: int | None = None) -> int:
        """The gas limit that a transaction needs. Raises as `call` does."""
        return execute.estimate(self._machine(number), request)

    def _machine(self, number: int | None) -> Vm:
        if number is not None:
            return execute.machine(self._evm, self.header(number))
        header = self.next_header()
        if self._warm is None or self._warm[0] is not header:
            self._warm = (header, execute.machine(self._evm, header))
        return self._warm[1]

    # What has been mined

    @property
    def store(self) -> Store:
        """The mined blocks, transactions, receipts and logs in wire form."""
        return self._store

    def waiting(self, tx_hash: bytes) -> Form | None:
        """A transaction that is still in the pool, in wire form."""
        found = self._pool.get(tx_hash)
        return transaction_form(found, None) if found is not None else None

    def receipt(self, tx_hash: bytes) -> Form | None:
        """A mined transaction's receipt in wire form."""
        raw = self._store.receipt(tx_hash)
        return None if raw is None else msgspec.json.decode(raw)

    def logs(
        self,
        first: int = 0,
        last: int | None = None,
        addresses: Sequence[bytes] = (),
        topics: Sequence[Sequence[bytes] | None] = (),
    ) -> list[Form]:
        """The logs of blocks `first`..`last` in wire form; see `Store.logs`."""
        found = self._store.logs(first, int(self.head.block_number) if last is None else last, addresses, topics)
        return [msgspec.json.decode(raw) for raw in found]

    # Snapshots

    def snapshot(self) -> int:
        """Remember this point; returns its id (1..). It is lost when the process ends."""
        rows = {key: self._store.rows.get(key) for key in _RESTORED}
        self._snapshots.append(_Snapshot(int(self.head.block_number), rows, self._pool.copy(), self._offset))
        return len(self._snapshots)

    def revert(self, snapshot: int) -> bool:
        """Go back to a snapshot, which is used up with all later ones; False if there is none with this id."""
        if not 1 <= snapshot <= len(self._snapshots):
            return False
        point = self._snapshots[snapshot - 1]
        del self._snapshots[snapshot - 1 :]
        self._store.cut(point.number, point.rows)
        self._pool, self._offset, self._next_timestamp = point.pool, point.offset, None
        self._evm = evm_class(self.chain_id)(AtomicDB(self._store.rows))
        self.head = self._evm.get_canonical_head()
        return True


def _block_row(form: Form, header: Header, included: Sequence[_Included]) -> BlockRow:
    transactions: list[TransactionRow] = []
    logs: list[LogRow] = []
    gas_before = 0
    for at, (transaction, receipt, computation) in enumerate(included):
        made = receipt_form(transaction, receipt, computation, header, at, gas_before, len(logs))
        gas_before = receipt.gas_used
        transactions.append(
            TransactionRow(
                bytes(transaction.hash),
                msgspec.json.encode(transaction_form(transaction, header, at)),
                msgspec.json.encode(made),
            )
        )
        logs += [
            LogRow(bytes(log.address), tuple(map(topic_bytes, log.topics)), msgspec.json.encode(entry))
            for log, entry in zip(receipt.logs, made["logs"], strict=True)
        ]
    return BlockRow(int(header.block_number), bytes(header.hash), msgspec.json.encode(form), transactions, logs)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
