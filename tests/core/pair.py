"""Two sessions joined back to back without a shell: every effect is run at once, watched, and may be cut short.

The harness measures from outside what either side would lose, and holds after every effect what must always hold:
a message or an allowance never runs ahead of the journal, and neither side's exposure exceeds its limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode, decode_part, encode
from penstock.core.effects import Allow, Continue, Effect, Ended, Persist, Rows, Send, ShutValve
from penstock.core.errors import RemoteError
from penstock.core.identity import Address, Key
from penstock.core.messages import Final, Message, Metered, Paid, Receipted, Resume, Resumed, Square, Stop
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
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
    VoucherNote,
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
        meter="",
        expires=Instant(START + 60_000),
    )
    return msgspec.structs.replace(offer, **changes)


def make_terms(offer: Offer | None = None, **changes: Any) -> Terms:
    """Terms over the stream rail for 500 Wh and at most 8 EUR; with `changes`."""
    offer = offer or make_offer()
    terms = Terms(
        offer=offer,
        consumer=CONSUMER.address,
        rail=NAME,
        rail_terms=encode(StreamTerms(PARAMS, 0, 0, offer.tick_value)),
        quantity_limit=500,
        budget=8_000_000,
        at=START,
        nonce=bytes(16),
    )
    return msgspec.structs.replace(terms, **changes)


def session_row(role: Role, terms: Terms, base: Reading) -> SessionRow:
    """The first row of a session that was accepted."""
    digest = terms.digest()
    return SessionRow(role, terms, CONSUMER.sign(propose_digest(digest)), SUPPLIER.sign(accept_digest(digest)), base)


class Side:
    """One session with its journal and its meter's register; `faulty` is what its meter adds to the truth."""

    def __init__(self, role: Role, terms: Terms, deposit: int, max_price: Price | None = None) -> None:
        self.journal: dict[bytes, bytes] = {}
        self.role, self.terms, self.deposit, self.max_price = role, terms, deposit, max_price
        self.base = self.register = 1_000 if role is Role.SUPPLIER else 50
        self.reads: Callable[[int], int] = lambda flowed: flowed
        self.sent: list[Message] = []
        self.trace: list[Effect] = []
        self.errors: list[RemoteError] = []
        self.ended = False
        self.allowed = 0
        self.open = False
        row = session_row(role, terms, Reading(Quantity(self.register), START))
        self.journal[SESSION_ROWS + terms.digest()] = encode(row)
        self.wake(START)

    @property
    def row(self) -> SessionRow:
        """The session as the journal has it."""
        return msgspec.json.decode(self.journal[SESSION_ROWS + self.terms.digest()], type=SessionRow)

    @property
    def flowed(self) -> int:
        """What really flowed through this side's meter since the session began."""
        return self.register - self.base

    def wake(self, now: Instant) -> None:
        """Build the session from the journal alone, as after a crash."""
        self.open, self.allowed = False, 0  # a valve closes when its process is gone
        stream = msgspec.json.decode(self.terms.rail_terms, type=StreamTerms)
        self.rail: StreamPayee | StreamPayer
        if self.role is Role.SUPPLIER:
            self.rail = self.payee_in_journal()
        else:
            paid = self.journal.get(PAID_ROWS + PARAMS.id)
            self.rail = StreamPayer(stream, self.deposit, CONSUMER, SECRET, decode_paid(paid) if paid else None)
        key = SUPPLIER if self.role is Role.SUPPLIER else CONSUMER
        self.session = Session(self.row, self.rail, key, now, Patience(), self.max_price)

    def payee_in_journal(self) -> StreamPayee:
        """The payee's end as the journal alone has it."""
        stream = msgspec.json.decode(self.terms.rail_terms, type=StreamTerms)
        earned = self.journal.get(EARNED_ROWS + PARAMS.id)
        ticks = self.journal.get(TICK_ROWS + PARAMS.id)
        return StreamPayee(stream, self.deposit, decode_earned(earned) if earned else None, ticks)

    def write(self, rows: Rows) -> None:
        for key, value in rows:
            if value is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = value

    def read(self, now: Instant) -> Reading:
        return Reading(Quantity(self.base + max(0, self.reads(self.flowed))), now)


class Pair:
    """A supplier and a consumer on one line, under one clock.

    `cut(message)` returns what arrives: None for nothing. `crash_at` counts down the effects of one side until it dies.
    """

    def __init__(
        self, terms: Terms | None = None, deposit: int = DEPOSIT, max_price: Price | None = None, begin: bool = True
    ) -> None:
        terms = terms or make_terms()
        self.terms = terms
        self.now = START
        self.supplier = Side(Role.SUPPLIER, terms, deposit)
        self.consumer = Side(Role.CONSUMER, terms, deposit, max_price)
        self.wire: deque[tuple[Side, bytes]] = deque()
        self.up = True
        self.cut: Callable[[Message], Message | None] = lambda message: message
        self.draws = 10**9  # how much the car still takes
        self.revealed = 0  # the most that ever left the consumer
        self.worst = {Role.SUPPLIER: 0, Role.CONSUMER: 0}
        self.thief: Role | None = None  # its exposure is its own affair, and so is what it says
        self.crash_at: tuple[Side, int] | None = None
        self.effects = 0
        before = terms.offer.mode == "pay-before"
        self.limit = {
            Role.SUPPLIER: 0 if before else terms.offer.credit_limit,
            Role.CONSUMER: terms.offer.credit_limit if before else 0,
        }
        paying, earning = self.consumer.rail, self.supplier.rail
        assert isinstance(paying, StreamPayer)
        assert isinstance(earning, StreamPayee)
        opening = paying.open()
        self.consumer.write(opening.rows)
        self.supplier.write(earning.take(opening.data))
        if begin:
            self.run(self.supplier, self.supplier.session.begin(self.now))
            self.run(self.consumer, self.consumer.session.begin(self.now))

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.supplier, self.consumer

    @property
    def over(self) -> bool:
        return all(side.session.state is State.ENDED for side in self.sides)

    def other(self, side: Side) -> Side:
        return self.consumer if side is self.supplier else self.supplier

    # ---- running effects

    def run(self, side: Side, effects: list[Effect]) -> None:
        session, shut, goes_on = side.session, -1, False
        for index, effect in enumerate(effects):  # the valve never waits
            if isinstance(effect, ShutValve):
                side.open, shut = False, index
        for index, effect in enumerate(effects):
            if isinstance(effect, Allow) and index < shut:
                continue  # void
            if self._dies(side):
                return
            side.trace.append(effect)
            self._check_order(side, effect)
            match effect:
                case Persist(rows):
                    side.write(rows)
                case Send(message):
                    self._send(side, message)
                case Allow(total):
                    side.allowed, side.open = total, True
                case Continue():
                    goes_on = True
                case Ended():
                    side.ended = True
            self.measure()
        if goes_on and side.session is session:
            self.run(side, session.go_on(self.now))
        if shut >= 0 and side.session is session:
            self.run(side, session.valve_shut(side.read(self.now), self.now))

    def _dies(self, side: Side) -> bool:
        self.effects += 1
        if self.crash_at is None or self.crash_at[0] is not side:
            return False
        count = self.crash_at[1]
        self.crash_at = (side, count - 1) if count else None
        if count == 0:
            self.crash(side)
        return count == 0

    def _send(self, side: Side, message: Message) -> None:
        side.sent.append(message)
        if side is self.consumer and isinstance(message, (Paid, Square)):
            evidence = message.evidence if isinstance(message, Paid) else (message.evidence,)
            self.revealed = max(self.revealed, *(worth_of(one, side) for one in evidence), 0)
        arrives = self.cut(message) if self.up else None
        if arrives is not None:
            self.wire.append((self.other(side), encode(arrives)))

    def _check_order(self, side: Side, effect: Effect) -> None:
        """What leaves never runs ahead of the journal."""
        match effect:
            case Send(Metered(_, _, secured)):
                assert secured <= side.payee_in_journal().secured, "said to be secured before it was durable"
                assert side.row.turns == side.session.bill.turns, "a turn announced before it was durable"
            case Send(Resumed(_, _, turns, _)):
                assert side.row.turns == turns, "a turn announced before it was durable"
            case Send(Paid(_, evidence)):
                kept = side.journal[PAID_ROWS + PARAMS.id]
                newest = decode_paid(kept).note.voucher.nonce
                assert all(nonce_of(one) <= newest for one in evidence), "a voucher sent before it was durable"
            case Send(Square(receipt, _, _)):
                assert side.row.receipt == receipt
                assert side.row.state is State.SQUARING
            case Send(Receipted()):
                assert side.row.state is State.ENDED
                assert side.row.receipt is not None
                assert side.payee_in_journal().secured == side.row.receipt.paid
            case Send(Final() | Stop()):
                assert side.row.state is not State.STREAMING
            case Allow(total):
                worth = side.session.bill.due(total - side.base)
                room = side.payee_in_journal().secured + self.limit[Role.SUPPLIER]
                assert total == side.register or worth <= room, "allowed on what was not durable"
            case Ended():
                assert side.row.state is State.ENDED

    # ---- what is measured from outside

    def exposure(self, role: Role) -> int:
        """What this side would lose now: supply not provably paid, or payment that left without supply."""
        if role is Role.SUPPLIER:
            side = self.supplier
            return side.session.bill.due(side.flowed) - side.payee_in_journal().secured
        return self.revealed - self.consumer.session.bill.due(self.consumer.flowed)

    def measure(self) -> None:
        """Hold both exposures against their limits; a thief's own is not asked for."""
        for role in Role:
            if role is not self.thief:
                self.worst[role] = max(self.worst[role], self.exposure(role))
                assert self.worst[role] <= self.limit[role] + self.slack(role), f"{role}: {self.worst[role]}"

    def slack(self, role: Role) -> int:
        """What meters that disagree within the tolerance may cost the consumer, who pays on the supplier's."""
        if role is Role.SUPPLIER or self.thief is None:
            return 0
        tolerance = self.terms.offer.tolerance.at(self.consumer.flowed)
        return self.terms.offer.tariff.highest.cost(tolerance) + 1

    # ---- what happens

    def flow(self, most: int = 10**9) -> bool:
        """Let the allowed quantity flow at once, or `most` of it; returns whether anything did."""
        room = min(self.supplier.allowed - self.supplier.register, self.draws, most)
        if not self.supplier.open or room <= 0:
            return False
        self.draws -= room
        self.supplier.register += room
        self.consumer.register += room
        self.measure()
        self.run(self.supplier, self.supplier.session.on_reading(self.supplier.read(self.now), self.now))
        return True

    def deliver(self) -> bool:
        if not self.wire:
            return False
        side, frame = self.wire.popleft()
        message = decode(frame)
        if isinstance(message, Resume):
            self._answer_resume()
            return True
        if side is self.consumer:
            side.session.on_reading(side.read(self.now), self.now)
        try:
            effects: list[Effect] = []
            if isinstance(message, Paid):
                side.session.on_paid(message)
            else:
                self.run(side, side.session.secure(self.now))
                effects = side.session.on_message(message, self.now)
        except RemoteError as error:
            side.errors.append(error)
            self.lose_link()
        else:
            self.run(side, effects)
        # As a turn of the loop: what came together is secured together.
        if not (self.wire and self.wire[0][0] is side):
            self.run(side, side.session.secure(self.now))
        return True

    def _answer_resume(self) -> None:
        """What the shell answers: where the session stands, or how it ended."""
        session = self.supplier.session
        if session.state is not State.ENDED:
            session.on_reading(self.supplier.read(self.now), self.now)
            self.run(self.supplier, session.link_back(self.now))
        elif session.row.supplier_signature:
            self._send(self.supplier, Receipted(session.row.supplier_signature))
        else:
            self.run(self.consumer, self.consumer.session.abandon(self.now))

    def stream(self, steps: int = 1_000_000) -> None:
        """Go on until nothing moves, or for so many steps."""
        for _ in range(steps):
            if not (self.deliver() or self.flow()):
                return

    def wait(self, ms: int, step: int = 500, stream: bool = True) -> None:
        """Let time pass, with both sides' clocks ticking."""
        for _ in range(ms // step):
            self.now = Instant(self.now + step)
            for side in self.sides:
                self.beat(side)
            if stream:
                self.stream()

    def beat(self, side: Side) -> None:
        """What the shell does once a second."""
        self.run(side, side.session.on_reading(side.read(self.now), self.now))
        self.run(side, side.session.on_time(self.now))

    def stop(self, side: Side, reason: Any) -> None:
        self.run(side, side.session.stop(reason, self.now))

    def lose_link(self) -> None:
        self.wire.clear()
        self.up = False
        for side in self.sides:
            self.run(side, side.session.link_lost(self.now))

    def relink(self) -> None:
        """The consumer comes back and asks to resume."""
        self.wire.clear()
        self.up = True
        consumer = self.consumer.session
        consumer.on_reading(self.consumer.read(self.now), self.now)
        self.run(self.consumer, consumer.link_back(self.now))

    def crash(self, side: Side) -> None:
        """Kill one side: what was not durable is forgotten, the valve falls shut, the link breaks."""
        side.open = False
        side.wake(self.now)
        self.wire.clear()
        self.up = False
        other = self.other(side)
        self.run(other, other.session.link_lost(self.now))

    def heal(self, ms: int = 400_000) -> None:
        """Bring the link back whenever it is gone, until both sides have ended."""
        for _ in range(ms // 1_000):
            if self.over:
                return
            if not self.up:
                self.relink()
            self.stream()
            self.wait(1_000, 1_000)


def nonce_of(evidence: bytes) -> int:
    """The nonce of the voucher that a piece of evidence is, or proves ticks under."""
    if evidence[:1] == b"\x01":
        return int.from_bytes(evidence[1:9], "big")
    return decode_part(evidence[1:], VoucherNote).voucher.nonce


def worth_of(evidence: bytes, payer: Side) -> int:
    """What a piece of evidence gives the payee in this session, as its payer's books have it."""
    if evidence[:1] == b"\x02":
        return decode_part(evidence[1:], VoucherNote).voucher.amount
    note = decode_paid(payer.journal[PAID_ROWS + PARAMS.id]).note
    if note.voucher.nonce != nonce_of(evidence):
        return 0  # a newer voucher follows in the same message, and is worth at least as much
    return note.voucher.amount + int.from_bytes(evidence[9:13], "big") * payer.terms.offer.tick_value
