"""Transactions that wait for a block, by sender and nonce, in the order of their arrival."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.core.errors import TransactionFailed
from penstock.ledgers.devnet.rules import Transaction

MAX_WAITING = 10_000  # transactions; geth holds some 6,000
MAX_AHEAD = 1_000  # nonces beyond the next one of a sender


class Pool:
    """What was submitted and is in no block yet."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Transaction] = {}  # in the order of arrival
        self._by_sender: dict[bytes, dict[int, Transaction]] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, tx_hash: bytes) -> Transaction | None:
        """The waiting transaction with this hash."""
        return self._by_hash.get(tx_hash)

    def add(self, transaction: Transaction) -> None:
        """Keep a transaction; one with the same sender and nonce is replaced if the new one pays 10 % more.

        Raises:
            TransactionFailed: known already, a replacement that pays too little, or no room.
        """
        if transaction.hash in self._by_hash:
            raise TransactionFailed("already known")
        waiting = self._by_sender.setdefault(transaction.sender, {})
        old = waiting.get(transaction.nonce)
        if old is not None:
            if transaction.max_fee_per_gas * 10 < old.max_fee_per_gas * 11:
                raise TransactionFailed("replacement transaction underpriced", "raise its fee by a tenth")
            self.remove(old)
            waiting = self._by_sender.setdefault(transaction.sender, {})
        elif len(self._by_hash) >= MAX_WAITING:
            raise TransactionFailed("txpool is full", "wait for the next block")
        self._by_hash[transaction.hash] = transaction
        waiting[transaction.nonce] = transaction

    def remove(self, transaction: Transaction) -> None:
        """Forget a transaction that was mined or can never be."""
        if self._by_hash.pop(transaction.hash, None) is None:
            return
        waiting = self._by_sender[transaction.sender]
        del waiting[transaction.nonce]
        if not waiting:
            del self._by_sender[transaction.sender]

    def next_nonce(self, sender: bytes, nonce: int) -> int:
        """The first nonce from `nonce` on that `sender` has not used here."""
        waiting = self._by_sender.get(sender, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def in_order(self, nonce_of: Callable[[bytes], int]) -> Iterator[Transaction]:
        """What could go into a block: by arrival, each sender's in the order of nonces and without gaps."""
        next_nonce: dict[bytes, int] = {}
        for transaction in list(self._by_hash.values()):
            sender = transaction.sender
            nonce = next_nonce.setdefault(sender, nonce_of(sender))
            following: Transaction | None = transaction if transaction.nonce == nonce else None
            while following is not None:
                yield following
                nonce += 1
                following = self._by_sender.get(sender, {}).get(nonce)
            next_nonce[sender] = nonce

    def copy(self) -> Pool:
        """The same transactions in a pool of its own."""
        made = Pool()
        made._by_hash = dict(self._by_hash)
        made._by_sender = {sender: dict(waiting) for sender, waiting in self._by_sender.items()}
        return made
