"""Two sides of a session whose flow may turn round, joined back to back without a shell.

Exposure is measured from outside, after every effect: what flowed, by the meters that really turned, against what the
evidence in the journals alone is worth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Continue, Effect, Persist, Rows, Send, ShutValve
from penstock.core.errors import RemoteError
from penstock.core.identity import Key
from penstock.core.messages import Message, Paid, Receipted, Resume, Resumed, Way
from penstock.core.meter import Reading
from penstock.core.offer import Terms, accept_digest, propose_digest
from penstock.core.rail import Ends, PayeeEnd
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.units import Instant, Quantity
from penstock.testing.rail.setup import Books


class BothEnds(Protocol):
    """A rail that pays both ways, as one side's journal alone has it."""

    def both(self, role: Role, books: Books) -> Ends:
        """This side's two ends; without rows, at the beginning."""
        ...


class Machine:
    """One side: its journal, its meter's registers, its valve."""

    def __init__(self, role: Role, terms: Terms, rail: BothEnds, keys: dict[Role, Key]) -> None:
        self.role, self.terms, self.rail, self.key = role, terms, rail, keys[role]
        self.journal: dict[bytes, bytes] = {}
        self.total, self.export = (1_000, 70) if role is Role.SUPPLIER else (50, 3)
        digest, base = terms.digest(), Reading(Quantity(self.total), terms.at, b"", Quantity(self.export))
        proposed, accepted = (
            keys[Role.CONSUMER].sign(propose_digest(digest)),
            keys[Role.SUPPLIER].sign(accept_digest(digest)),
        )
        row = SessionRow(role, terms, proposed, accepted, base)
        self.base, self.base_export = self.total, self.export
        self.journal[SESSION_ROWS + terms.digest()] = encode(row)
        self.errors: list[RemoteError] = []
        self.sent: list[Message] = []
        self.wake(terms.at)

    @property
    def row(self) -> SessionRow:
        """The session as the journal has it."""
        return msgspec.json.decode(self.journal[SESSION_ROWS + self.terms.digest()], type=SessionRow)

    @property
    def flowed(self) -> tuple[int, int]:
        """What really flowed since the session began: import and export."""
        return self.total - self.base, self.export - self.base_export

    def wake(self, now: Instant) -> None:
        """Build the session from the journal alone, as after a crash; the valve has fallen shut."""
        self.allowed = (0, 0)
        self.session = Session(self.row, self.rail.both(self.role, self.journal), self.key, now, Patience())

    def read(self, now: Instant) -> Reading:
        """What the meter shows."""
        return Reading(Quantity(self.total), now, b"", Quantity(self.export))

    def secured(self) -> int:
        """What is beyond the other side's reach, by the journal alone."""
        payee = self.rail.both(self.role, self.journal).payee
        assert payee is not None
        return payee.secured


class Both:
    """A supplier and a consumer on one line, under one clock."""

    def __init__(self, rail: BothEnds, terms: Terms, supplier: Key, consumer: Key) -> None:
        """Join two sides that have just agreed on their terms, which these keys sign."""
        self.terms, keys = terms, {Role.SUPPLIER: supplier, Role.CONSUMER: consumer}
        self.supplier, self.consumer = (Machine(role, terms, rail, keys) for role in (Role.SUPPLIER, Role.CONSUMER))
        self.now, self.up = terms.at, True
        self.wire: deque[tuple[Machine, bytes]] = deque()
        self.cut: Callable[[Message], Message | None] = lambda message: message
        self.thief: Role | None = None
        self.crash_at: tuple[Machine, int] | None = None
        self.effects = 0
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
        self._hearing: dict[Role, PayeeEnd] = {}
        for side in self.sides:
            hearing = rail.both(self.other(side).role, {}).payee
            assert hearing is not None
            self._hearing[side.role] = hearing
        self.listen(Role.CONSUMER, opening.data)
        for side in self.sides:
            self.run(side, side.session.begin(self.now))

    @property
    def sides(self) -> tuple[Machine, Machine]:
        """The supplier and the consumer."""
        return self.supplier, self.consumer

    @property
    def over(self) -> bool:
        """Whether both sessions have ended."""
        return all(side.session.state is State.ENDED for side in self.sides)

    def other(self, side: Machine) -> Machine:
        """The side that it deals with."""
        return self.consumer if side is self.supplier else self.supplier

    @staticmethod
    def write(side: Machine, rows: Rows) -> None:
        """Make rows durable."""
        for key, value in rows:
            side.journal.pop(key, None) if value is None else side.journal.__setitem__(key, value)

    def run(self, side: Machine, effects: list[Effect]) -> None:
        """Do what a machine ordered, in its order."""
        session, shut, goes_on = side.session, -1, False
        for index, effect in enumerate(effects):
            if isinstance(effect, ShutValve):
                side.allowed, shut = (0, 0), index
        for index, effect in enumerate(effects):
            if isinstance(effect, Allow) and index < shut:
                continue
            self.effects += 1
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
        if session.payer is not None and any(isinstance(one, Send) for one in effects):  # all of it has left
            self.given[side.role] = max(self.given[side.role], session.payer.paid)
        if goes_on and side.session is session:
            self.run(side, session.go_on(self.now))
        if shut >= 0 and side.session is session:
            self.run(side, session.valve_shut(side.read(self.now), self.now))

    def send(self, side: Machine, message: Message) -> None:
        """Let a message leave a side; it arrives where there is a link."""
        side.sent.append(message)
        if isinstance(message, Paid):
            for one in message.evidence:
                self.listen(side.role, one)
        speaks = self.up and (side.session.linked or isinstance(message, Resume | Resumed | Receipted))
        arrives = self.cut(message) if speaks else None
        if arrives is not None:
            self.wire.append((self.other(side), encode(arrives)))

    def listen(self, role: Role, evidence: bytes) -> None:
        """Take what left this side as a payee would to whom every word of it came."""
        with suppress(RemoteError):  # repeated, or out of date
            self._hearing[role].take(evidence)
        self.given[role] = max(self.given[role], self._hearing[role].secured)

    # ---- what is measured

    def exposure(self, role: Role) -> int:
        """What this side would lose now: by what really flowed, what left it, and what its journal alone secures."""
        side = self.supplier if role is Role.SUPPLIER else self.consumer
        account, (total, export) = side.session.account, side.flowed
        due, owed = account.due(total, export), account.owed(total, export)
        given, got = (due, owed) if role is Role.SUPPLIER else (owed, due)
        return given + self.given[role] - got - side.secured()

    def measure(self) -> None:
        """Hold both exposures against their bounds."""
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
        """Let one message arrive; returns whether there was one."""
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
        """What the shell answers to a consumer that is back."""
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
        """Go on until nothing moves, or for so many steps."""
        for _ in range(steps):
            if not (self.deliver() or self.flow()):
                return

    def wait(self, ms: int, step: int = 500, most: int = 10**9) -> None:
        """Let time pass, and up to `most` units flow at each step."""
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
            if left <= 0 or not self.up:
                return
            while self.deliver():
                pass
            before = self.supplier.total + self.supplier.export
            if not self.flow(min(step, left)):
                self.wait(500, most=0)
            left -= self.supplier.total + self.supplier.export - before

    def direct(self, side: Machine, way: Way | None) -> None:
        """One side wants the flow to go this way."""
        self.run(side, side.session.direct(way, self.now))

    def lose_link(self) -> None:
        """The link breaks, and what was on its way is lost."""
        self.wire.clear()
        self.up = False
        for side in self.sides:
            self.run(side, side.session.link_lost(self.now))

    def relink(self) -> None:
        """The consumer comes back and asks to resume."""
        self.wire.clear()
        self.up = True
        self.consumer.session.on_reading(self.consumer.read(self.now), self.now)
        self.run(self.consumer, self.consumer.session.link_back(self.now))

    def crash(self, side: Machine) -> None:
        """Kill one side: what was not durable is forgotten, its valve falls shut, the link breaks."""
        side.wake(self.now)
        side.session.on_reading(side.read(self.now), self.now)
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
            self.wait(1_000, 1_000)
