"""What the shell must provide: a journal, links, a ledger, meters and valves. Each says its implementor's duty.

An implementation is right when it passes its kit in `penstock.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import msgspec

from penstock.core.channel import (
    ChannelParams,
    Close,
    Domain,
    Lock,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
)
from penstock.core.errors import JournalError, PenstockError
from penstock.core.escrow import EscrowDomain, EscrowParams, SignedReading
from penstock.core.identity import Address, Key
from penstock.core.meter import Reading
from penstock.core.tariff import Tariff
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

    What a session's peers say to each other is small; where the medium itself is data, a link also carries that
    (`carry`), behind as little as the implementor can keep waiting, so that what is said stays prompt.
    """

    peer: Address
    version: int

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        """Deliver frames (those that came before, too) to `on_frame`, and the link's end, once, to `on_lost`."""
        ...

    def send(self, frame: bytes) -> None:
        """Queue a frame. After the link's end it is dropped: what must not be lost is resent on resumption."""
        ...

    @property
    def full(self) -> bool:
        """Whether so much waits to leave that bulk should wait, too. What is sent nevertheless is queued."""
        ...

    def carry(self, on_room: Callable[[], None]) -> None:
        """The link carries bulk from now on: call `on_room` from the event loop whenever it is no longer `full`."""
        ...

    def wanted(self, size: int) -> None:
        """So many of the bytes that have come were asked for: they are no flood."""
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


class TwoWayValve(Protocol):
    """A valve through which the flow may go either way: the duties of `Valve`, in both directions.

    Both sides of a reversible session have one, and what flows is what both allow.
    """

    def allow(self, total: Quantity, export: Quantity = ...) -> None:
        """Let the flow run until the meter's import register reaches `total` and its export register `export`.

        Which way it goes follows from what is ahead: a register that may not run on stands still.
        """
        ...

    def close(self) -> None:
        """Stop the flow at once, either way."""
        ...


class Throttle(Protocol):
    """A device whose rate can be limited while it flows, as a grid asks for."""

    def limit(self, supply: int | None, feed: int | None) -> None:
        """Let no more than so much flow in an hour (units of the medium: W for electricity), to the consumer and back.

        None is whatever the device can, 0 is nothing. In force at once.
        """
        ...


class Carrier(Protocol):
    """A device whose medium flows as frames on the session's own link: none of them begins with "[".

    The implementor's duty: what the peer may make it hold is bounded; where its meter counts what flows, the other
    side's can follow frame by frame, so that both agree on every reading that is announced between two of them.
    """

    def join(self, link: Link) -> None:
        """The session streams over this link from now on; what hung on another one is cut."""
        ...

    def on_frame(self, frame: bytes) -> None:
        """A frame of the peer's device.

        Raises:
            RemoteError: it breaks the rules of the devices; cut the link.
        """
        ...

    def part(self) -> None:
        """Nothing may flow any more: cut what hangs on the link, and send nothing over it. What is still under way to
        us is metered all the same."""
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
    """A channel as the ledger has it. Sums in token units; `closes_at` in seconds, 0 while it is open.

    `opener_drawn` and `partner_drawn` are what each side has been paid from the channel so far.
    """

    status: Literal["absent", "open", "closing", "settled"]
    opener_deposit: Amount = Amount(0)
    partner_deposit: Amount = Amount(0)
    closes_at: int = 0
    opener_drawn: Amount = Amount(0)
    partner_drawn: Amount = Amount(0)


class Filing(msgspec.Struct, frozen=True):
    """What a payee files in a dispute: its best voucher, the locks under it, and the ticks it can prove of each.

    `proofs` has a `(count, preimage)` for each lock; (0, b"") where no tick is known.
    """

    voucher: Voucher
    signature: bytes
    locks: tuple[Lock, ...] = ()
    proofs: tuple[tuple[int, bytes], ...] = ()


class Filed(msgspec.Struct, frozen=True):
    """What the ledger holds in a payee's favour in a dispute, and the channel's state, both of one moment.

    `amount` counts the ticks that were proven; `locked` is what the locks under `locks_root` can still bring, until
    `locked_until` (seconds; 0 is the end of the challenge). `present` is false where nothing was filed; `by_payee` is
    true once the payee has filed itself, from when on nobody can answer for it.
    """

    channel: ChannelState
    present: bool = False
    by_payee: bool = False
    amount: Amount = Amount(0)
    locked: Amount = Amount(0)
    locked_until: int = 0
    locks_root: bytes = bytes(32)


class ProvenTicks(msgspec.Struct, frozen=True):
    """`count` ticks of a lock that somebody proved on the ledger: sha256^count(preimage) is the root that the lock had
    in the voucher filed."""

    root: bytes
    count: int
    preimage: bytes


class SignedVoucher(msgspec.Struct, frozen=True):
    """A voucher as its payer's voucher key signed it: a row for a claim."""

    params: ChannelParams
    voucher: Voucher
    signature: bytes


class SignedClose(msgspec.Struct, frozen=True):
    """A cooperative close that both sides have signed: a row for the ledger."""

    params: ChannelParams
    close: Close
    opener_signature: bytes
    partner_signature: bytes


class Authorization(msgspec.Struct, frozen=True):
    """The opener's EIP-3009 signature over deposit and fee (token units), whose nonce commits to the channel.

    It funds and opens the channel, whoever sends it while valid_after < now < valid_before (seconds).
    """

    deposit: Amount
    fee: Amount
    valid_after: int
    valid_before: int
    signature: bytes


class SignedOpen(msgspec.Struct, frozen=True):
    """All that anybody needs to open somebody's channel: what the opener hands out."""

    params: ChannelParams
    authorization: Authorization


class Batch(msgspec.Struct, frozen=True):
    """Rows that were sent together: the transactions, and why rows were skipped (channel id -> reason)."""

    mined: list[Mined]
    skipped: dict[bytes, str]


class Ledger(Protocol):
    """A ledger that keeps channels. Every call may raise LedgerUnreachable; those that send, TransactionFailed and,
    where the key's account cannot pay for a transaction, OutOfGas.

    `key` is the account that sends and pays. `partner` says whether the payee in question is the channel's partner.

    The implementor's duty: what a call returns is in the chain; a transaction that failed is never reported as mined;
    one that is not mined is sent again for more; an answer from another chain, contract or token than `domain` raises
    WrongLedger.
    """

    domain: Domain

    async def now(self) -> int:
        """The newest block's time (seconds)."""
        ...

    async def token(self) -> TokenFacts:
        """The token's symbol and decimals."""
        ...

    async def genuine(self) -> bool:
        """Whether the code behind `domain` is exactly that of this version's contract, for its token.

        One that is not may answer as a channel contract does, and then burn the gas of whoever sends to it, or keep
        what it promised.
        """
        ...

    async def channel(self, params: ChannelParams) -> ChannelState:
        """The channel's state now; an opening or a deposit counts once it is deep enough to be final."""
        ...

    async def final(self, params: ChannelParams) -> bool:
        """Whether the channel has ended, so deep in the chain that it stays so."""
        ...

    async def filed(self, params: ChannelParams, partner: bool) -> Filed:
        """What is filed in a payee's favour now."""
        ...

    async def proven(self, params: ChannelParams, since: int | None = None) -> list[ProvenTicks]:
        """The ticks that were proven in the channel's challenge or after it, for whoever can use their preimages
        elsewhere: all in the chain, whatever their depth, from the oldest to the newest, each checked.

        One that is proven under several filings may be there several times. Once the channel is settled, when its
        challenge began may be forgotten: what is older than `since` (seconds; the default is 30 days ago) may then be
        left out.
        """
        ...

    async def holdings(self, owner: Address) -> Holdings:
        """What `owner` has outside channels."""
        ...

    async def next_counter(self, opener: Address) -> int:
        """The lowest counter with which `opener` can still open a channel."""
        ...

    def fresh_counter(self) -> int:
        """A counter apart (the milliseconds now), for an opening that somebody sends some day: none is in its way."""
        ...

    async def gas_price(self) -> int:
        """What a transaction that is sent now may pay for a unit of gas (wei)."""
        ...

    # Opening

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        """Open from the contract's balance where that suffices, otherwise straight from the wallet, as is cheapest."""
        ...

    async def open_signed(
        self, key: Key, params: ChannelParams, opening: SignedOpening, signature: bytes
    ) -> list[Mined]:
        """Open from the opener's balance by its account's signature; the sender gets the fee."""
        ...

    async def authorize(
        self, key: Key, params: ChannelParams, deposit: Amount, fee: Amount, valid_before: int
    ) -> Authorization:
        """Sign, as the opener, what lets anybody open the channel from the opener's wallet. Sends nothing.

        Raises:
            OutOfFunds: the wallet does not hold deposit and fee. WrongLedger: the token knows no authorizations.
        """
        ...

    async def open_authorized(self, key: Key, params: ChannelParams, authorization: Authorization) -> list[Mined]:
        """Open from the opener's wallet by its authorization; the sender gets the fee."""
        ...

    async def add(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        """Add to the key's own side of the channel."""
        ...

    async def add_signed(
        self, key: Key, params: ChannelParams, owner: Address, addition: SignedAddition, signature: bytes
    ) -> list[Mined]:
        """Raise `owner`'s deposit from its balance by its account's signature; the sender gets the fee."""
        ...

    # Paying out of an open channel

    async def claim(self, key: Key, row: SignedVoucher) -> list[Mined]:
        """Pay the payee of a one-way channel its voucher's amount. The channel stays open; ticks are not paid."""
        ...

    async def claim_many(self, key: Key, rows: list[SignedVoucher]) -> Batch:
        """As `claim`, many in one transaction. A row that the ledger does not take is skipped."""
        ...

    async def withdraw_together(
        self,
        key: Key,
        params: ChannelParams,
        withdrawal: Withdrawal,
        opener_signature: bytes,
        partner_signature: bytes,
    ) -> list[Mined]:
        """Pay both sides up to totals that both signed. The channel stays open."""
        ...

    # Ending

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
        """Answer within the challenge period with the best voucher received, and its ticks.

        Where nobody else could file anything, the channel is settled at once.
        """
        ...

    async def answer(
        self, key: Key, params: ChannelParams, partner: bool, filing: Filing, sequence: int, consent: bytes
    ) -> list[Mined]:
        """File somebody's voucher, and its ticks, by its consent: its voucher key's signature over an `Answer`."""
        ...

    async def prove(self, key: Key, params: ChannelParams, partner: bool, filing: Filing) -> list[Mined]:
        """Prove ticks under the voucher that was filed. Those that are proven already, or no longer can be, are left
        out: nothing may be sent at all, and `filed` says what counts."""
        ...

    async def release(
        self,
        key: Key,
        params: ChannelParams,
        partner: bool,
        release: Release,
        signature: bytes,
        consent: bytes | None = None,
    ) -> list[Mined]:
        """Hold a payee to its release within the challenge. Who is not the payer needs the payer's `consent`."""
        ...

    async def settle(self, key: Key, params: ChannelParams) -> list[Mined]:
        """Pay out a channel whose challenge period is over; again, when locks that held something back are done."""
        ...

    # Balances

    async def deposit(self, key: Key, amount: Amount) -> list[Mined]:
        """Move token units from the wallet to the contract's balance."""
        ...

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        """Move token units from the contract's balance to the wallet."""
        ...

    async def disconnect(self) -> None:
        """Drop the connections to the ledger's node."""
        ...


class EscrowState(msgspec.Struct, frozen=True):
    """An escrow on its ledger. `claimed` is the payee's by the readings filed, of which `drawn` was paid out.

    `matures_at` is the time (s) from which what is claimed and not drawn can be paid; 0 where there is none.
    """

    status: Literal["absent", "open", "ending", "ended"]
    claimed: Amount = Amount(0)
    drawn: Amount = Amount(0)
    matures_at: int = 0
    contested: bool = False


class EscrowAuthorization(msgspec.Struct, frozen=True):
    """The payer's EIP-3009 signature over deposit and fee (token units), whose nonce commits to the escrow and the fee.

    It makes the deposit, whoever sends it while valid_after < now < valid_before (seconds).
    """

    fee: Amount
    valid_after: int
    valid_before: int
    signature: bytes


class SignedEnd(msgspec.Struct, frozen=True):
    """An end that both keys have signed: a row for the ledger."""

    params: EscrowParams
    amount: Amount
    payer_signature: bytes
    payee_signature: bytes


class EscrowLedger(Protocol):
    """A ledger that keeps escrows. Errors, `key`, and the implementor's duty are those of `Ledger`."""

    domain: EscrowDomain

    async def now(self) -> int:
        """The newest block's time (seconds)."""
        ...

    async def token(self) -> TokenFacts:
        """The token's symbol and decimals."""
        ...

    async def genuine(self) -> bool:
        """Whether the code behind `domain` is exactly that of this version's contract, for its token."""
        ...

    async def escrow(self, params: EscrowParams) -> EscrowState:
        """The escrow's state now; a deposit counts once it is deep enough to be final."""
        ...

    async def filed(self, params: EscrowParams) -> list[SignedReading]:
        """The readings that were filed within the last window, oldest first."""
        ...

    async def final(self, params: EscrowParams) -> bool:
        """Whether the escrow has ended, so deep in the chain that it stays so."""
        ...

    async def holdings(self, owner: Address) -> Holdings:
        """What `owner` has outside escrows."""
        ...

    def fresh_counter(self) -> int:
        """A counter that the payer has not used (the milliseconds now)."""
        ...

    # Funding

    async def fund(self, key: Key, params: EscrowParams) -> list[Mined]:
        """Deposit: from the contract's balance where that suffices, otherwise from the wallet, as is cheapest."""
        ...

    async def fund_signed(
        self, key: Key, params: EscrowParams, fee: Amount, expiry: int, signature: bytes
    ) -> list[Mined]:
        """Deposit from the payer's balance by its account's signature; the sender gets the fee."""
        ...

    async def authorize(self, key: Key, params: EscrowParams, fee: Amount, valid_before: int) -> EscrowAuthorization:
        """Sign, as the payer, what lets anybody make the deposit from its wallet. Sends nothing.

        Raises:
            OutOfFunds: the wallet does not hold deposit and fee. WrongLedger: the token knows no authorizations.
        """
        ...

    async def fund_authorized(self, key: Key, params: EscrowParams, authorization: EscrowAuthorization) -> list[Mined]:
        """Deposit from the payer's wallet by its authorization; the sender gets the fee."""
        ...

    # Releasing

    async def release(self, key: Key, params: EscrowParams, tariff: Tariff, signed: SignedReading) -> list[Mined]:
        """File a reading: the contract computes what it releases. One that is not the last is the payee's to file."""
        ...

    async def end(self, key: Key, rows: list[SignedEnd]) -> list[Mined]:
        """End escrows as both sides have signed; many go into one transaction. A row that is not taken is skipped, a
        single one alone raises."""
        ...

    async def contest(
        self, key: Key, params: EscrowParams, tariff: Tariff, first: SignedReading, second: SignedReading
    ) -> list[Mined]:
        """Show within the window that the meter signed two readings that contradict each other: the lesser counts."""
        ...

    async def settle(self, key: Key, params: EscrowParams) -> list[Mined]:
        """Pay what has matured; where the escrow is over, or past its deadline, pay the rest back to the payer."""
        ...

    # Balances

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        """Move token units from the contract's balance to the wallet."""
        ...

    async def disconnect(self) -> None:
        """Drop the connections to the ledger's node."""
        ...
