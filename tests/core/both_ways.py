"""Two sides of a session whose flow may turn round, joined back to back without a shell or a ledger.

Exposure is measured from outside, after every effect: what flowed, by the meters that really turned, against what the
evidence in the journals alone is worth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Continue, Effect, Persist, Send, ShutValve
from penstock.core.errors import RemoteError
from penstock.core.messages import Message, Paid, Receipted, Resume, Resumed, Way
from penstock.core.meter import Reading
from penstock.core.offer import Feed, Terms
from penstock.core.rail import Ends
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails.stream import (
    EARNED_ROWS,
    PAID_ROWS,
    TICK_ROWS,
    StreamBack,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    decode_earned,
    decode_paid,
    pair,
)

from .pair import CONSUMER, PARAMS, SECRET, START, SUPPLIER, make_offer, make_terms, session_row

Books = dict[bytes, bytes]


class Rail(Protocol):
    """Both directions of a rail, as one side's journal has them."""

    def terms(self) -> bytes: ...
    def ends(self, role: Role, books: Books) -> Ends: ...


class Streams:
    """A two-way channel, funded by either side."""

    params = msgspec.structs.replace(PARAMS, two_way=True)

    def __init__(self, deposit: int = 10_000_000, stake: int = 0, tick: int = 1_000, back: int = 800) -> None:
        self.deposit, self.stake = deposit, stake
        self.stream = StreamTerms(self.params, 0, 0, tick, StreamBack(0, 0, back))

    def terms(self) -> bytes:
        return encode(self.stream)

    def ends(self, role: Role, books: Books) -> Ends:
        earned, ticks = books.get(EARNED_ROWS + self.params.id), books.get(TICK_ROWS + self.params.id)
        paid = books.get(PAID_ROWS + self.params.id)
        pays_back = role is Role.SUPPLIER
        ours, theirs = (self.stake, self.deposit) if pays_back else (self.deposit, self.stake)
        key, secret = (SUPPLIER, b"\x08" * 32) if pays_back else (CONSUMER, SECRET)
        payer = StreamPayer(self.stream, ours, key, secret, decode_paid(paid) if paid else None, back=pays_back)
        row = decode_earned(earned) if earned else None
        payee = StreamPayee(self.stream, theirs, row, ticks, back=not pays_back)
        pair(payer, payee)
        return Ends(payer, payee)


def feed_terms(rail: Rail, feed_limit: int = 400, **changes: Any) -> Terms:
    """0.40 EUR/kWh to the car, 0.50 back; with `changes` to the offer."""
    feed = changes.pop("feed", None) or Feed(Tariff.flat(500_000, 1_000), 800, 3, 2_400, 1_000)
    return make_terms(make_offer(feed=feed, **changes), rail_terms=rail.terms(), feed_limit=feed_limit)


class Machine:
    """One side: its journal, its meter's registers, its valve."""

    def __init__(self, role: Role, terms: Terms, rail: Rail) -> None:
        self.role, self.terms, self.rail = role, terms, rail
        self.journal: Books = {}
        self.total, self.export = (1_000, 70) if role is Role.SUPPLIER else (50, 3)
        row = session_row(role, terms, Reading(Quantity(self.total), START, b"", Quantity(self.export)))
        self.base, self.base_export = self.total, self.export
        self.journal[SESSION_ROWS + terms.digest()] = encode(row)
        self.errors: list[RemoteError] = []
        self.sent: list[Message] = []
        self.wake(START)

    @property
    def row(self) -> SessionRow:
        return msgspec.json.decode(self.journal[SESSION_ROWS + self.terms.digest()], type=SessionRow)

    @property
    def flowed(self) -> tuple[int, int]:
        return self.total - self.base, self.export - self.base_export

    def wake(self, now: Instant) -> None:
        """Build the session from the journal alone, as after a crash; the valve has fallen shut."""
        self.allowed = (0, 0)
        key = SUPPLIER if self.role is Role.SUPPLIER else CONSUMER
        self.session = Session(self.row, self.rail.ends(self.role, self.journal), key, now, Patience())

    def read(self, now: Instant) -> Reading:
        return Reading(Quantity(self.total), now, b"", Quantity(self.export))

    def secured(self) -> int:
        """What is beyond the other side's reach, by the journal alone."""
        payee = self.rail.ends(self.role, self.journal).payee
        assert payee is not None
        return payee.secured


class Both:
    """A supplier and a consumer on one line, under one clock."""

    def __init__(self, rail: Rail, terms: Terms | None = None) -> None:
        self.terms = terms or feed_terms(rail)
        self.supplier, self.consumer = (Machine(role, self.terms, rail) for role in (Role.SUPPLIER, Role.CONSUMER))
        self.now, self.up = START, True
        self.wire: deque[tuple[Machine, bytes]] = deque()
        self.cut: Callable[[Message], Message | None] = lambda message: message
        self.thief: Role | None = None
        self.crash_at: tuple[Machine, int] | None = None
        self.worst = {Role.SUPPLIER: 0, Role.CONSUMER: 0}
        feed = self.terms.feed
        assert feed is not None
        first, second = Role.SUPPLIER, Role.CONSUMER
        if self.terms.offer.mode == "pay-before":
            first, second = second, first
        self.limit = {first: self.terms.offer.credit_limit, second: feed.credit_limit}
        payer = self.consumer.session.payer
        assert payer is not None
        opening = payer.open()
        self.write(self.consumer, opening.rows)
        payee = self.supplier.session.payee
        assert payee is not None
        self.write(self.supplier, payee.take(opening.data))
        self.given = {Role.SUPPLIER: 0, Role.CONSUMER: 0}  # the most that left each side in evidence
        for side in self.sides:
            self.run(side, side.session.begin(self.now))

    @property
    def sides(self) -> tuple[Machine, Machine]:
        return self.supplier, self.consumer

    @property
    def over(self) -> bool:
        return all(side.session.state is State.ENDED for side in self.sides)

    def other(self, side: Machine) -> Machine:
        return self.consumer if side is self.supplier else self.supplier

    @staticmethod
    def write(side: Machine, rows: Any) -> None:
        for key, value in rows:
            side.journal.pop(key, None) if value is None else side.journal.__setitem__(key, value)

    def run(self, side: Machine, effects: list[Effect]) -> None:
        session, shut, goes_on = side.session, -1, False
        for index, effect in enumerate(effects):
            if isinstance(effect, ShutValve):
                side.allowed, shut = (0, 0), index
        for index, effect in enumerate(effects):
            if isinstance(effect, Allow) and index < shut:
                continue
            if self.crash_at is not None and self.crash_at[0] is side:
                if self.crash_at[1] == 0:
                    self.crash_at = None
                    self.crash(side)
                    return
                self.crash_at = (side, self.crash_at[1] - 1)
            match effect:
                case Persist(rows):
                    self.write(side, rows)
                case Send(message):
                    self.send(side, message)
                case Allow(total, export):
                    assert export is not None
                    side.allowed = (total, export)
                case Continue():
                    goes_on = True
            self.measure()
        if goes_on and side.session is session:
            self.run(side, session.go_on(self.now))
        if shut >= 0 and side.session is session:
            self.run(side, session.valve_shut(side.read(self.now), self.now))

    def send(self, side: Machine, message: Message) -> None:
        side.sent.append(message)
        if isinstance(message, Paid) and side.session.payer is not None:
            self.given[side.role] = max(self.given[side.role], side.session.payer.paid)
        speaks = self.up and (side.session.linked or isinstance(message, Resume | Resumed | Receipted))
        arrives = self.cut(message) if speaks else None
        if arrives is not None:
            self.wire.append((self.other(side), encode(arrives)))

    # ---- what is measured

    def exposure(self, role: Role) -> int:
        """What this side would lose now: by what really flowed, what left it, and what its journal alone secures."""
        side = self.supplier if role is Role.SUPPLIER else self.consumer
        account, (total, export) = side.session.account, side.flowed
        due, owed = account.due(total, export), account.owed(total, export)
        given, got = (due, owed) if role is Role.SUPPLIER else (owed, due)
        return given + self.given[role] - got - side.secured()

    def measure(self) -> None:
        for role in Role:
            if role is not self.thief:
                self.worst[role] = max(self.worst[role], self.exposure(role))
                assert self.worst[role] <= self.limit[role], f"{role}: {self.worst[role]} above {self.limit[role]}"

    # ---- what happens

    def flow(self, most: int = 10**9) -> bool:
        """Let what both valves allow flow at once, or `most` of it; to the consumer first."""
        pole, car = self.supplier, self.consumer
        supply = min(pole.allowed[0] - pole.total, car.allowed[0] - car.total, most)
        feed = min(pole.allowed[1] - pole.export, car.allowed[1] - car.export, most)
        for side in self.sides:
            if supply > 0:
                side.total += supply
            elif feed > 0:
                side.export += feed
        if supply <= 0 and feed <= 0:
            return False
        self.measure()
        for side in (car, pole):
            self.run(side, side.session.on_reading(side.read(self.now), self.now))
        return True

    def deliver(self) -> bool:
        if not self.wire:
            return False
        side, frame = self.wire.popleft()
        message = decode(frame)
        assert encode(message) == frame
        if isinstance(message, Resume):
            self.answer(message)
            return True
        try:
            effects: list[Effect] = []
            if isinstance(message, Paid):
                side.session.on_paid(message)
            else:
                self.run(side, side.session.secure(self.now))
                self.run(side, side.session.on_reading(side.read(self.now), self.now))
                effects = side.session.on_message(message, self.now)
        except RemoteError as error:
            side.errors.append(error)
            self.lose_link()
        else:
            self.run(side, effects)
        if not (self.wire and self.wire[0][0] is side):
            self.run(side, side.session.secure(self.now))
        return True

    def answer(self, asked: Resume) -> None:
        pole = self.supplier.session
        if pole.state is not State.ENDED:
            pole.on_reading(self.supplier.read(self.now), self.now)
            try:
                self.run(self.supplier, pole.link_back(self.now, asked))
            except RemoteError as error:
                self.supplier.errors.append(error)
                self.lose_link()
        elif pole.row.supplier_signature:
            self.send(self.supplier, Receipted(pole.row.supplier_signature, pole.row.last_evidence))
        else:
            self.run(self.consumer, self.consumer.session.abandon(self.now))

    def stream(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            if not (self.deliver() or self.flow()):
                return

    def wait(self, ms: int, step: int = 500, most: int = 10**9) -> None:
        for _ in range(ms // step):
            self.now = Instant(self.now + step)
            for side in self.sides:
                self.run(side, side.session.on_reading(side.read(self.now), self.now))
                self.run(side, side.session.on_time(self.now))
            for _ in range(200):
                if not (self.deliver() or self.flow(most)):
                    break

    def trickle(self, units: int, step: int = 3) -> None:
        """Let so much flow, a little at a time, with all messages in between."""
        left = units
        for _ in range(20 * units):
            if left <= 0:
                return
            while self.deliver():
                pass
            before = self.supplier.total + self.supplier.export
            if not self.flow(min(step, left)):
                self.wait(500, most=0)
            left -= self.supplier.total + self.supplier.export - before

    def direct(self, side: Machine, way: Way | None) -> None:
        self.run(side, side.session.direct(way, self.now))

    def lose_link(self) -> None:
        self.wire.clear()
        self.up = False
        for side in self.sides:
            self.run(side, side.session.link_lost(self.now))

    def relink(self) -> None:
        self.wire.clear()
        self.up = True
        self.consumer.session.on_reading(self.consumer.read(self.now), self.now)
        self.run(self.consumer, self.consumer.session.link_back(self.now))

    def crash(self, side: Machine) -> None:
        side.wake(self.now)
        side.session.on_reading(side.read(self.now), self.now)
        self.wire.clear()
        self.up = False
        other = self.other(side)
        self.run(other, other.session.link_lost(self.now))

    def heal(self, ms: int = 400_000) -> None:
        for _ in range(ms // 1_000):
            if self.over:
                return
            if not self.up:
                self.relink()
            self.wait(1_000, 1_000)
