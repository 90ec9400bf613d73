"""The interface of a payment method, as the control unit sees it.

A rail has two ends, one for each role. The payer's end turns a sum that may be paid into evidence; the payee's end
turns evidence into a secured sum: beyond the payer's reach, whatever the payer does from now on. Where a rail pays by
what the meter says, evidence goes the other way: the payee's end secures by its own meter's readings, and the payer's
end checks what was made of them. Evidence is bytes that only the rail understands. Sums are token units since the
session began.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import msgspec

from penstock.core.effects import Rows
from penstock.core.offer import Mode
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Instant, Quantity

Bound = Literal["credit limit", "deposit"]


class Capabilities(msgspec.Struct, frozen=True):
    """What a payment method is capable of, what it costs and what it risks: what people choose by.

    `payer_at_stake` and `payee_at_stake` are the most that each may lose to a cheating other side, with `trust` in
    nobody but those named. `transactions` are those that one session needs on its ledger in the ordinary case, funding
    and settlement together; `shared` says that one funding serves many sessions.
    """

    name: str
    direction: Literal["one-way", "two-way"]
    hops: bool  # over others, who lend their capacity
    offline: bool  # streams while the ledger cannot be reached
    modes: tuple[Mode, ...]
    by_meter: bool  # value is secured by signed readings, and not by what the payer gives
    smallest: Literal["tick", "token unit"]  # what one payment is a multiple of
    refutable: bool  # a close may be stale, and is answered within a period
    payer_at_stake: Bound
    payee_at_stake: Bound
    trust: tuple[str, ...]  # besides the ledger
    final: str  # what makes value final
    transactions: int
    shared: bool


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Bytes for the payee, and the rows that must be durable before they leave."""

    data: bytes
    rows: Rows = ()


class Ends(NamedTuple):
    """What one side of a session has of its rail: the end that pays, the end that is paid, or both."""

    payer: PayerEnd | None = None
    payee: PayeeEnd | None = None


class PayerEnd(Protocol):
    """The implementor's duty: `paid` never falls, never exceeds what was asked, and nothing is promised twice.

    `by_meter` says that the payee is secured by its meter's readings, so that its supply need not wait for us.
    """

    by_meter: bool

    @property
    def paid(self) -> Amount:
        """What has been given to the payee in this session, whether or not it has arrived."""
        ...

    @property
    def ticks(self) -> int:
        """How many ticks have been revealed in this session."""
        ...

    @property
    def capacity(self) -> Amount:
        """The most that this session can pay in all."""
        ...

    def open(self) -> Evidence:
        """The first evidence, which pays nothing yet: it shows that payment can follow."""
        ...

    def pay(self, upto: int) -> list[Evidence]:
        """Pay as near to `upto` as whole ticks allow, without exceeding it, or a first part of it where that is long.

        An empty list where nothing is new.
        """
        ...

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        """The supplier announced `total` at `at`, with this evidence of its end; `paid` may rise by it.

        `last` says that its supply is over, as the evidence must, too.

        Raises:
            RemoteError: it is not what the meter of the terms would sign for that. Nothing has changed.
        """
        ...

    def fold(self) -> list[Evidence]:
        """Make what was paid cheaper for the payee to claim, where that is due; called about once a second."""
        ...

    def square(self, bill: int) -> Evidence:
        """Pay exactly `bill`, at least `paid`, and end: nothing stays locked."""
        ...

    def resume(self, state: bytes) -> list[Evidence]:
        """Take up where the payee says that it stands, and repeat what it lacks.

        Raises:
            RemoteError: the payee claims what was never given to it. Nothing has changed.
        """
        ...


class PayeeEnd(Protocol):
    """The implementor's duty: `secured` counts only what the ledger would pay in full; it falls to a bill alone."""

    @property
    def secured(self) -> Amount:
        """What is beyond the payer's reach, once the rows of the evidence taken are durable."""
        ...

    @property
    def ticks(self) -> int:
        """How many ticks have been proven in this session."""
        ...

    @property
    def capacity(self) -> Amount:
        """The most that this session can be paid in all."""
        ...

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        """Our meter stands at `total` at `at`, and that is about to be announced; `secured` may rise by it.

        `last` says that the supply is over. None where the rail makes nothing of readings.
        """
        ...

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        """Check evidence; `secured` may rise. The rows must be durable before it is acted on.

        `least` is the bill at the session's end: the evidence must then be worth exactly that, which may be less than
        what was secured where the consumer had paid ahead.

        Raises:
            RemoteError: the evidence is not worth what it says. Nothing has changed.
        """
        ...

    def state(self) -> bytes:
        """Where this end stands, for the payer's `resume`."""
        ...
