"""Everything that the two sides say to each other, version 1. Frozen; sums in token units since the session began.

consumer                                supplier
AskOffer | AskPole            ->
                              <-        Offered | Refused
Propose                       ->
                              <-        Accepted | Refused
                              <-        Metered       (the loop:
Paid                          ->                       supply, reading, payment)
                              <-        Paid          (for what is fed in)
AskWay                        ->                      (where the flow is to turn round, or to rest)
Stop                          <->       Stop          (either, once)
                              <-        Final
Square                        ->
                              <-        Receipted
AskClose                      ->                      (where the channel is not kept)
                              <-        Closing

Resume                        ->                      (after a lost link or a crash)
                              <-        Resumed | Receipted | Refused
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.core.channel import Close
from penstock.core.offer import Offer, Receipt, Terms
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity

VERSION = 1

Total = Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)]
Time = Annotated[Instant, Meta(ge=0, le=MAX_INSTANT)]
Sum = Annotated[Amount, Meta(ge=0)]


class Reason(StrEnum):
    """Why a session ended."""

    TARGET_REACHED = "target reached"
    BUDGET_SPENT = "budget spent"
    WALLET_EMPTY = "wallet empty"
    PRICE_OVER_LIMIT = "price over the limit"
    METERS_DISAGREE = "meters disagree"
    PAYMENT_STALLED = "payment stalled"
    SUPPLY_STALLED = "supply stalled"
    PEER_GONE = "peer gone"
    PEER_CHEATED = "peer cheated"
    DEVICE_FAILED = "device failed"
    CHANNEL_CLOSING = "channel closing on the ledger"
    LEDGER_UNSEEN = "ledger not seen for too long"
    GRID = "grid says so"
    RESTED = "nothing flowed for too long"
    OPERATOR = "stopped by its operator"


class Way(IntEnum):
    """Which way the flow goes: nowhere for now, to the consumer, or back to the supplier."""

    HOLD = 0
    SUPPLY = 1
    FEED = 2


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


class AskOffer(_Message, frozen=True, tag=1):
    """What do you sell?"""


class AskPole(_Message, frozen=True, tag=16):
    """What do you sell at the pole of this name? Where one link leads to many poles; `AskOffer` takes any free one."""

    name: str


class Offered(_Message, frozen=True, tag=2):
    """The supplier's offer and its signature over it."""

    offer: Offer
    signature: bytes


class Propose(_Message, frozen=True, tag=3):
    """Terms, the consumer's signature over them, and the rail's first evidence."""

    terms: Terms
    signature: bytes
    evidence: bytes


class Accepted(_Message, frozen=True, tag=4):
    """The supplier's signature over the terms: the session has begun. `record` is its meter's own, of the beginning."""

    signature: bytes
    record: bytes


class Refused(_Message, frozen=True, tag=5):
    """No, and why, in one line."""

    why: str


class Metered(_Message, frozen=True, tag=6):
    """The supplier's meter: the session's total at an instant of its clock, and what is durably secured so far.

    `evidence` is what the rail makes of the reading, `record` what the meter itself signed of it; either may be empty.
    `export` is what was fed in, and `way` says which way the flow goes from here on.
    """

    total: Total
    at: Time
    secured: Sum
    evidence: bytes
    record: bytes
    export: Total
    way: Way


class Paid(_Message, frozen=True, tag=7):
    """The total on the payer's own meter, and the rail's evidence. The supplier pays so for what is fed in."""

    total: Total
    evidence: tuple[bytes, ...]


class Stop(_Message, frozen=True, tag=8):
    """Let us end, and why. No answer is needed but the ordinary end."""

    reason: Reason


class Final(_Message, frozen=True, tag=9):
    """The valve is shut: the last reading of the supplier's meter, with evidence and record as in `Metered`."""

    total: Total
    at: Time
    reason: Reason
    evidence: bytes
    record: bytes
    export: Total


class Square(_Message, frozen=True, tag=10):
    """The receipt with the consumer's signature, and the evidence that pays it exactly."""

    receipt: Receipt
    signature: bytes
    evidence: bytes


class Receipted(_Message, frozen=True, tag=11):
    """The supplier's signature over the receipt: the session is over. `evidence` pays what it owes, to the unit."""

    signature: bytes
    evidence: bytes


class AskClose(_Message, frozen=True, tag=12):
    """The consumer's signature under a cooperative close of the channel (by its id)."""

    channel: bytes
    close: Close
    signature: bytes


class Closing(_Message, frozen=True, tag=13):
    """The supplier took the close and will send it to the ledger."""

    channel: bytes


class Resume(_Message, frozen=True, tag=14):
    """Let us take up the session under these terms (their hash).

    `state` proves what was paid to the consumer, and `way` is the way in which it wants the flow to go.
    """

    terms: bytes
    state: bytes
    way: Way


class Resumed(_Message, frozen=True, tag=15):
    """Where the supplier stands: its meter, the bill's turns, and the rail's state as proof of what was paid; evidence,
    record and all that is of feed-in as in `Metered`."""

    total: Total
    at: Time
    turns: tuple[Total, ...]
    state: bytes
    evidence: bytes
    record: bytes
    export: Total
    feed_turns: tuple[Total, ...]
    way: Way


class AskWay(_Message, frozen=True, tag=17):
    """The consumer wants the flow to go this way: the supplier says with `Metered` when it does."""

    way: Way


Message = (
    AskOffer
    | Offered
    | Propose
    | Accepted
    | Refused
    | Metered
    | Paid
    | Stop
    | Final
    | Square
    | Receipted
    | AskClose
    | Closing
    | Resume
    | Resumed
    | AskPole
    | AskWay
)
