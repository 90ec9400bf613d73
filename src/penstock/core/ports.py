"""What the shell must provide: a journal, links, a ledger, meters and valves. Each says its implementor's duty.

An implementation is right when it passes its kit in `penstock.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import msgspec

from penstock.core.channel import ChannelParams, Close, Domain, Lock, Voucher
from penstock.core.errors import JournalError, PenstockError
from penstock.core.identity import Address, Key
from penstock.core.meter import Reading
from penstock.core.units import Amount, Quantity


class Journal(Protocol):
    """Durable rows of bytes under keys of bytes.

    The implementor's duty: `done(None)` is called only when the rows survive a power cut; rows of one `write` become
    durable together or not at all; writes become durable in the order in which they were made; after one failed write
    every later one fails too, until the journal is opened anew. Writes made while a commit is under way share the next.
    """

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins with `prefix`, in the order of their keys.

        Raises:
            JournalError: the store cannot be read.
        """
        ...

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], done: Callable[[JournalError | None], None]) -> None:
        """Put rows (None deletes one), and call `done` from the event loop once they are durable or have failed."""
        ...

    async def close(self) -> None:
        """Make every write durable, call its `done`, and let go of the store."""
        ...


class Link(Protocol):
    """An authenticated, encrypted, ordered connection that carries frames.

    The implementor's duty: `peer` has proven its key over this very connection; a frame arrives whole or not at all;
    after `on_lost` nothing more is delivered; a peer that floods, stalls or sends rubbish is cut off, and only it.
    """

    peer: Address
    version: int

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        """Deliver frames (those that came before, too) to `on_frame`, and the link's end, once, to `on_lost`."""
        ...

    def send(self, frame: bytes) -> None:
        """Queue a frame. After the link's end it is dropped: what must not be lost is resent on resumption."""
        ...

    def close(self, reason: str = "") -> None:
        """Send what is queued, then end the link. `on_lost` is not called for an end that we chose."""
        ...


class Meter(Protocol):
    """The implementor's duty: the total never falls, not even over a restart."""

    def read(self) -> Reading:
        """The newest reading; never blocks.

        Raises:
            DeviceError: the meter does not answer or its total fell.
        """
        ...

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` from the event loop whenever a new reading is there."""
        ...


class Valve(Protocol):
    """The implementor's duty: no more flows than was allowed, and nothing once it is closed or its process is gone."""

    def allow(self, total: Quantity) -> None:
        """Let the supply run until the meter's total reaches `total`; it is throttled or stopped there."""
        ...

    def close(self) -> None:
        """Stop the supply at once."""
        ...


class Mined(msgspec.Struct, frozen=True):
    """A transaction in the chain: what it did, its hash, what it cost in gas, and the block that holds it."""

    what: str
    hash: bytes
    gas: int
    block: int


class TokenFacts(msgspec.Struct, frozen=True):
    """How people write a token's sums: its symbol, and how many decimals a whole token has."""

    symbol: str
    decimals: int


class Holdings(msgspec.Struct, frozen=True):
    """What an account owns: token units in its wallet and in the channel contract, and wei for gas."""

    wallet: Amount
    balance: Amount
    ether: int

    @property
    def tokens(self) -> Amount:
        """All its token units outside channels."""
        return Amount(self.wallet + self.balance)


class ChannelState(msgspec.Struct, frozen=True):
    """A channel as the ledger has it. Deposits in token units; `closes_at` in seconds, 0 while it is open."""

    status: Literal["absent", "open", "closing", "settled"]
    opener_deposit: Amount = Amount(0)
    partner_deposit: Amount = Amount(0)
    closes_at: int = 0


class Filing(msgspec.Struct, frozen=True):
    """What a payee files in a dispute: its best voucher, the locks under it, and the ticks it can prove of each.

    `proofs` has a `(count, preimage)` for each lock; (0, b"") where no tick is known.
    """

    voucher: Voucher
    signature: bytes
    locks: tuple[Lock, ...] = ()
    proofs: tuple[tuple[int, bytes], ...] = ()


class SignedClose(msgspec.Struct, frozen=True):
    """A cooperative close that both sides have signed: a row for the ledger."""

    params: ChannelParams
    close: Close
    opener_signature: bytes
    partner_signature: bytes


class Ledger(Protocol):
    """A ledger that keeps channels. Every call may raise LedgerUnreachable; those that send, TransactionFailed.

    The implementor's duty: what a call returns is in the chain; a transaction that failed is never reported as mined;
    an answer from another chain, contract or token than `domain` raises WrongLedger.
    """

    domain: Domain

    async def now(self) -> int:
        """The newest block's time (seconds)."""
        ...

    async def token(self) -> TokenFacts:
        """The token's symbol and decimals."""
        ...

    async def channel(self, params: ChannelParams) -> ChannelState:
        """The channel's state now; an opening or a deposit counts once it is deep enough to be final."""
        ...

    async def holdings(self, owner: Address) -> Holdings:
        """What `owner` has outside channels."""
        ...

    async def next_counter(self, opener: Address) -> int:
        """The lowest counter with which `opener` can still open a channel."""
        ...

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        """Open from the contract's balance where that suffices, otherwise straight from the wallet (by permit)."""
        ...

    async def add(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        """Add to the key's own side of the channel."""
        ...

    async def close_together(self, key: Key, rows: list[SignedClose]) -> list[Mined]:
        """Close channels that both sides have signed for; many go into one transaction.

        A row that the contract does not take is skipped; `channel` tells which. A single row alone raises instead.
        """
        ...

    async def close(self, key: Key, params: ChannelParams, filing: Filing | None) -> list[Mined]:
        """Begin a unilateral close, filing the best voucher received, if any.

        Where nobody else could file anything, the channel is settled at once.
        """
        ...

    async def file(self, key: Key, params: ChannelParams, filing: Filing) -> list[Mined]:
        """Answer within the challenge period with the best voucher received."""
        ...

    async def settle(self, key: Key, params: ChannelParams) -> list[Mined]:
        """Pay out a channel whose challenge period is over."""
        ...

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        """Move token units from the contract's balance to the wallet."""
        ...

    async def disconnect(self) -> None:
        """Drop the connections to the ledger's node."""
        ...
