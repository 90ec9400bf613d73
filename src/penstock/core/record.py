"""What is kept of a session: in which role, how far it has come, and how it ended."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from penstock.core.messages import Reason
from penstock.core.meter import Reading
from penstock.core.offer import Receipt, Terms
from penstock.core.units import Amount, Duration, Quantity

SESSION_ROWS = b"session/"


class Role(StrEnum):
    """Which side of the session we are."""

    SUPPLIER = "supplier"
    CONSUMER = "consumer"


class State(StrEnum):
    """Where the session stands; see the table at the top of the module."""

    STREAMING = "streaming"
    STOPPING = "stopping"
    SQUARING = "squaring"
    ENDED = "ended"


class Patience(msgspec.Struct, frozen=True):
    """How long we wait for the peer: for its next move, and for its return after the link was lost (ms).

    A supplier lets a session `rest` so long, in which nothing flows though nobody owes anything: whoever only stands
    there would keep its place for ever.
    """

    move: Duration = Duration(10_000)
    return_: Duration = Duration(120_000)
    rest: Duration = Duration(86_400_000)


class SessionRow(msgspec.Struct, frozen=True):
    """What the journal keeps of a session.

    `base` is our own meter's reading at its beginning, `last` the supplier's when its valve was shut for good: what the
    register counts after that is no part of the session. `unpaid` is what a supplier could have asked for in the end
    and did not get. `began` is the record of the beginning by a supplier's meter that signs, as its consumer keeps it.
    `last_evidence` is what a supplier's receipt pays with.
    """

    role: Role
    terms: Terms
    proposed: bytes
    accepted: bytes
    base: Reading
    state: State = State.STREAMING
    reason: Reason | None = None
    turns: tuple[Quantity, ...] = ()
    receipt: Receipt | None = None
    consumer_signature: bytes = b""
    supplier_signature: bytes = b""
    worst: Amount = Amount(0)
    last: Reading | None = None
    unpaid: Amount = Amount(0)
    began: bytes = b""
    feed_turns: tuple[Quantity, ...] = ()
    last_evidence: bytes = b""
