"""The interface of a payment method, as the control unit sees it.

A rail has two ends, one for each role. The payer's end turns a sum that may be paid into evidence; the payee's end
turns evidence into a secured sum: beyond the payer's reach, whatever the payer does from now on. Evidence is bytes that
only the rail understands. Sums are token units since the session began.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from penstock.core.effects import Rows
from penstock.core.units import Amount


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Bytes for the payee, and the rows that must be durable before they leave."""

    data: bytes
    rows: Rows = ()


class PayerEnd(Protocol):
    """The implementor's duty: `paid` never falls, never exceeds what was asked, and nothing is promised twice."""

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
