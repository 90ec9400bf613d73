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

Between neighbours whose channel carries hop locks (see `core/hops.py`), the payer on the left:

AskReach                      ->
                              <-        Reach
Enter                         ->
                              <-        Entered | Refused
Promise                       ->
                              <-        Taken | Refused
                              <-        Told          (whenever a lock is in place, or done)
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.core.channel import ChannelParams, Close, Domain, Lock, Voucher
from penstock.core.identity import Address, Digest, Key, check_signed, purpose_digest
from penstock.core.offer import Offer, Receipt, Terms
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity

VERSION = 1

Total = Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)]
Time = Annotated[Instant, Meta(ge=0, le=MAX_INSTANT)]
Sum = Annotated[Amount, Meta(ge=0)]
Uint96 = Annotated[int, Meta(ge=0)]  # msgspec bounds no numbers above 2**63: whoever takes the message does
Uint64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]

_json = msgspec.json.Encoder()


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
    LOCK_ENDS = "the lock that pays is about to expire"
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


# ---- between neighbours whose channel carries hop locks


class _Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Hop(_Part, frozen=True):
    """A step onward of a route that its payer chose: whose account the next lock pays, its tick, its expiry (seconds),
    and what is left of the fee for holding it (token units)."""

    payee: Address
    tick_value: Uint96
    expiry: Uint64
    holding: Uint96


class Add(_Part, frozen=True, tag="add"):
    """A lock comes in, under a number that rises; `holding` is paid for it for good. `onward` is its way from here."""

    number: Uint64
    lock: Lock
    holding: Uint96
    onward: tuple[Hop, ...]


class Ask(_Part, frozen=True, tag="ask"):
    """The payer is through with a lock, `count` ticks of which it revealed, and pays the `rest` of a tick for good."""

    number: Uint64
    count: Uint64
    preimage: bytes
    rest: Uint96


class Settle(_Part, frozen=True, tag="settle"):
    """A lock goes, and `total` is paid for it for good: as the payee said when it was done with it."""

    number: Uint64
    total: Uint96


Change = Add | Ask | Settle


class Edge(_Part, frozen=True):
    """A channel of a hub's: whom it pays, and the most that it can lock there now (token units)."""

    payee: Address
    capacity: Uint96


class Reached(_Part, frozen=True):
    """What a node that takes hop locks says of itself, and signs.

    `node` is its account and its voucher key, on `domain`; it wants challenge periods of at least `min_period` seconds.
    A hub reaches others over its `edges`. What it takes for it: `fee_ppm` of each tick's value, `holding_ppm` of what
    it locks for each hour, and an incoming lock that expires `delta` seconds after the outgoing one. `at` is when it
    said so.
    """

    node: Address
    domain: Domain
    min_period: Uint64
    fee_ppm: Uint64
    holding_ppm: Uint64
    delta: Uint64
    edges: tuple[Edge, ...]
    at: Time

    def digest(self) -> Digest:
        """What the node signs."""
        return purpose_digest("penstock/reach/1", _json.encode(self))


class SignedReach(_Part, frozen=True):
    """What a node says of itself, with its signature (65 bytes)."""

    reached: Reached
    signature: bytes

    @classmethod
    def made(cls, key: Key, reached: Reached) -> SignedReach:
        """The same, signed."""
        return cls(reached, key.sign(reached.digest()))

    def check(self) -> None:
        """Pass where the node itself has said it.

        Raises:
            BadSignature: somebody else did.
        """
        check_signed(self.reached.digest(), self.signature, self.reached.node, "what a node reaches")


class AskReach(_Message, frozen=True, tag=18):
    """On which terms do you take hop locks, and whom do you reach?"""


class Reach(_Message, frozen=True, tag=19):
    """What the asked node says of itself, first, and what it has heard from those that it reaches."""

    known: tuple[SignedReach, ...]


class Enter(_Message, frozen=True, tag=20):
    """I pay you over this channel, with hop locks."""

    params: ChannelParams


class Entered(_Message, frozen=True, tag=21):
    """The channel is good; the nonce is that of the newest voucher held in it."""

    channel: bytes
    nonce: Uint64


class Promise(_Message, frozen=True, tag=22):
    """The next voucher of a channel, and what it changes."""

    channel: bytes
    voucher: Voucher
    signature: bytes
    changes: tuple[Change, ...]


class Taken(_Message, frozen=True, tag=23):
    """The promise is durable here, and no voucher before it will be used: the payee's signed release."""

    channel: bytes
    nonce: Uint64
    release: bytes


class Told(_Message, frozen=True, tag=24):
    """How a lock stands: in place all the way, or `done`. Then `count` ticks are proven, and `total` settles it."""

    channel: bytes
    number: Uint64
    done: bool
    count: Uint64
    preimage: bytes
    total: Uint96
    why: str


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
    | AskReach
    | Reach
    | Enter
    | Entered
    | Promise
    | Taken
    | Told
)
