"""Two sessions joined back to back without a shell: every effect is run at once, and may be watched or dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Effect, Ended, Persist, Send, ShutValve
from penstock.core.identity import Address, Key
from penstock.core.messages import Message
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import Instant, Price, Quantity
from penstock.rails.stream import (
    EARNED_ROWS,
    NAME,
    PAID_ROWS,
    TICK_ROWS,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    decode_earned,
    decode_paid,
)

SUPPLIER = Key(b"\x01" * 32)
CONSUMER = Key(b"\x02" * 32)
STRANGER = Key(b"\x03" * 32)
DOMAIN = Domain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
PARAMS = ChannelParams(DOMAIN, CONSUMER.address, SUPPLIER.address, CONSUMER.address, SUPPLIER.address, 3600, False, 1)
START = Instant(1_000_000)
SECRET = b"\x07" * 32
DEPOSIT = 10_000_000


def make_offer(**changes: Any) -> Offer:
    """The demo's figures: 0.40 EUR/kWh, ticks of 0.001 EUR, credit of two ticks; with `changes`."""
    details = encode(StreamOffer(DOMAIN, SUPPLIER.address, SUPPLIER.address, 60))
    offer = Offer(
        supplier=SUPPLIER.address,
        name="pole",
        medium="electricity",
        tariff=Tariff.flat(400_000, 1_000),
        tick_value=1_000,
        package=3,
        credit_limit=2_000,
        mode="pay-after",
        tolerance=Tolerance(2, 20_000),
        rails={NAME: details},
        expires=Instant(START + 60_000),
    )
    return msgspec.structs.replace(offer, **changes)


def make_terms(offer: Offer | None = None, **changes: Any) -> Terms:
    """Terms over the stream rail for 17,366 Wh and at most 8 EUR; with `changes`."""
    offer = offer or make_offer()
    terms = Terms(
        offer=offer,
        consumer=CONSUMER.address,
        rail=NAME,
        rail_terms=encode(StreamTerms(PARAMS, 0, 0, offer.tick_value)),
        quantity_limit=17_366,
        budget=8_000_000,
        at=START,
        nonce=bytes(16),
    )
    return msgspec.structs.replace(terms, **changes)


class Side:
    """One session with its journal and its meter's register. `at` may be moved; `faulty` changes what it meters."""

    def __init__(self, role: Role, terms: Terms, deposit: int, max_price: Price | None = None) -> None:
        self.journal: dict[bytes, bytes] = {}
        self.role, self.terms, self.deposit, self.max_price = role, terms, deposit, max_price
        self.register = 1_000 if role is Role.SUPPLIER else 50
        self.error = 1.0  # the meter's factor
        self.sent: list[Message] = []
        self.trace: list[Effect] = []
        self.ended = False
        self.allowed = 0
        self.open = False
        digest = terms.digest()
        base = Reading(Quantity(self.register), START)
        row = SessionRow(role, terms, CONSUMER.sign(propose_digest(digest)), SUPPLIER.sign(accept_digest(digest)), base)
        self.journal[SESSION_ROWS + digest] = encode(row)
        self.wake(START)

    def wake(self, now: Instant) -> None:
        """Build the session from the journal alone, as after a crash."""
        row = msgspec.json.decode(self.journal[SESSION_ROWS + self.terms.digest()], type=SessionRow)
        stream = msgspec.json.decode(self.terms.rail_terms, type=StreamTerms)
        self.rail: StreamPayee | StreamPayer
        if self.role is Role.SUPPLIER:
            earned = self.journal.get(EARNED_ROWS + PARAMS.id)
            self.rail = StreamPayee(
                stream, self.deposit, decode_earned(earned) if earned else None, self.journal.get(TICK_ROWS + PARAMS.id)
            )
        else:
            paid = self.journal.get(PAID_ROWS + PARAMS.id)
            self.rail = StreamPayer(stream, self.deposit, CONSUMER, SECRET, decode_paid(paid) if paid else None)
        key = SUPPLIER if self.role is Role.SUPPLIER else CONSUMER
        self.session = Session(row, self.rail, key, now, Patience(), self.max_price)

    def write(self, rows: Any) -> None:
        for key, value in rows:
            if value is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = value


class Pair:
    """A supplier and a consumer on one line, under one clock. `cut(message)` returns what arrives, None for nothing."""

    def __init__(
        self, terms: Terms | None = None, deposit: int = DEPOSIT, max_price: Price | None = None, begin: bool = True
    ) -> None:
        terms = terms or make_terms()
        self.now = START
        self.supplier = Side(Role.SUPPLIER, terms, deposit)
        self.consumer = Side(Role.CONSUMER, terms, deposit, max_price)
        self.wire: deque[tuple[Side, bytes]] = deque()
        self.cut: Callable[[Message], Message | None] = lambda message: message
        self.draws = 10**9  # how much the car still takes
        self.stuck = False  # the valve opens, but nothing flows
        paying, earning = self.consumer.rail, self.supplier.rail
        assert isinstance(paying, StreamPayer)
        assert isinstance(earning, StreamPayee)
        opening = paying.open()
        self.consumer.write(opening.rows)
        self.supplier.write(earning.take(opening.data))
        if begin:
            self.run(self.supplier, self.supplier.session.begin(self.now))
            self.run(self.consumer, self.consumer.session.begin(self.now))

    def other(self, side: Side) -> Side:
        return self.consumer if side is self.supplier else self.supplier

    def run(self, side: Side, effects: list[Effect]) -> None:
        side.trace += effects
        shut = False
        for effect in effects:
            match effect:
                case Persist(rows):
                    side.write(rows)
                case Send(message):
                    side.sent.append(message)
                    arrives = self.cut(message)
                    if arrives is not None:
                        self.wire.append((self.other(side), encode(arrives)))
                case Allow(total):
                    side.allowed, side.open = total, True
                case ShutValve():
                    side.open, shut = False, True
                case Ended():
                    side.ended = True
        if shut:
            self.run(side, side.session.valve_shut(self.read(side), self.now))

    def read(self, side: Side) -> Reading:
        base = side.session.row.base.total
        return Reading(Quantity(base + int((side.register - base) * side.error)), self.now)

    def flow(self) -> bool:
        """Let the allowed quantity flow at once; returns whether anything did."""
        room = min(self.supplier.allowed - self.supplier.register, self.draws)
        if not self.supplier.open or room <= 0 or self.stuck:
            return False
        self.draws -= room
        self.supplier.register += room
        self.consumer.register += room
        self.run(self.supplier, self.supplier.session.on_reading(self.read(self.supplier), self.now))
        return True

    def deliver(self) -> bool:
        if not self.wire:
            return False
        side, frame = self.wire.popleft()
        side.session.on_reading(self.read(side), self.now)
        self.run(side, side.session.on_message(decode(frame), self.now))
        return True

    def stream(self, steps: int = 1_000_000) -> None:
        """Go on until nothing moves, or for so many steps."""
        for _ in range(steps):
            if not (self.deliver() or self.flow()):
                return

    def wait(self, ms: int, step: int = 500) -> None:
        """Let time pass, with both sides' clocks ticking."""
        for _ in range(ms // step):
            self.now = Instant(self.now + step)
            for side in (self.supplier, self.consumer):
                self.run(side, side.session.on_time(self.now))
            self.stream()

    def lose_link(self) -> None:
        self.wire.clear()
        for side in (self.supplier, self.consumer):
            self.run(side, side.session.link_lost(self.now))

    def relink(self) -> None:
        """The consumer asks to resume; the supplier answers."""
        self.run(self.consumer, self.consumer.session.link_back(self.now))
        self.wire.clear()  # the shell answers Resume
        self.run(self.supplier, self.supplier.session.link_back(self.now))
