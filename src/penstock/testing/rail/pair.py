"""Two sessions joined back to back without a shell: every effect is run at once, watched, and may be cut short.

What either side would lose is measured from outside, and after every effect what must always hold is held: a message
or an allowance never runs ahead of the journal, and neither side's exposure exceeds what its rail declares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core import rail
from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Continue, Effect, Ended, Persist, Rows, Send, ShutValve
from penstock.core.errors import RemoteError
from penstock.core.identity import Key
from penstock.core.messages import Final, Message, Metered, Paid, Receipted, Resume, Resumed, Square, Stop
from penstock.core.meter import Reading
from penstock.core.offer import Terms, accept_digest, propose_digest
from penstock.core.rail import Capabilities, PayeeEnd, PayerEnd
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.tariff import Bill
from penstock.core.units import Instant, Price, Quantity
from penstock.testing.rail.setup import Ends

Heard = list[tuple[Any, ...]]
"""The arguments with which an end took evidence, in order."""


class Side:
    """One session with its journal and its meter's register. `reads` makes its meter's total of what really flowed."""

    def __init__(self, role: Role, key: Key, row: SessionRow, ends: Ends, max_price: Price | None = None) -> None:
        self.role, self.key, self.terms, self.ends, self.max_price = role, key, row.terms, ends, max_price
        self.journal: dict[bytes, bytes] = {SESSION_ROWS + row.terms.digest(): encode(row)}
        self.base = self.register = int(row.base.total)
        self.reads: Callable[[int], int] = lambda flowed: flowed
        self.sent: list[Message] = []
        self.trace: list[Effect] = []
        self.heard: Heard = []
        self.errors: list[RemoteError] = []
        self.ended = self.open = False
        self.allowed = 0
        self.wake(row.base.at)

    @property
    def row(self) -> SessionRow:
        """The session as the journal has it."""
        return msgspec.json.decode(self.journal[SESSION_ROWS + self.terms.digest()], type=SessionRow)

    @property
    def flowed(self) -> int:
        """What really flowed through this side's meter since the session began."""
        return self.register - self.base

    @property
    def kept(self) -> frozenset[tuple[bytes, bytes]]:
        """What the journal has of the rail."""
        return frozenset((key, value) for key, value in self.journal.items() if not key.startswith(SESSION_ROWS))

    def wake(self, now: Instant) -> None:
        """Build the session from the journal alone, as after a crash."""
        self.open, self.allowed = False, 0  # a valve closes when its process is gone
        self.rail = self.end()
        self.session = Session(self.row, self.rail_ends(), self.key, now, Patience(), self.max_price)

    def rail_ends(self) -> rail.Ends:
        """What the session has of the rail."""
        return rail.Ends(payee=self.rail) if self.role is Role.SUPPLIER else rail.Ends(payer=self.rail)

    def end(self) -> Any:
        """The rail's end as the journal has it; what it takes is remembered."""
        if self.role is Role.SUPPLIER:
            return _Payee(self.ends.payee(self.journal), self.heard)
        return _Payer(self.ends.payer(self.journal), self.heard)

    def secured(self) -> int:
        """What is beyond the payer's reach by the journal alone."""
        return self.ends.payee(self.journal).secured

    def write(self, rows: Rows) -> None:
        """Make rows durable."""
        for key, value in rows:
            if value is None:
                self.journal.pop(key, None)
            else:
                self.journal[key] = value

    def read(self, now: Instant) -> Reading:
        """What the meter shows."""
        return Reading(Quantity(self.base + max(0, self.reads(self.flowed))), now)


def sides_of(
    terms: Terms, ends: Ends, supplier: Key, consumer: Key, max_price: Price | None = None
) -> tuple[Side, Side]:
    """Both sides of a session whose terms these keys have signed; each meter's register stands somewhere."""
    digest = terms.digest()
    proposed, accepted = consumer.sign(propose_digest(digest)), supplier.sign(accept_digest(digest))

    def row(role: Role, register: int) -> SessionRow:
        return SessionRow(role, terms, proposed, accepted, Reading(Quantity(register), terms.at))

    selling = Side(Role.SUPPLIER, supplier, row(Role.SUPPLIER, 1_000), ends)
    return selling, Side(Role.CONSUMER, consumer, row(Role.CONSUMER, 50), ends, max_price)


def limits(terms: Terms, deposit: int, capabilities: Capabilities) -> dict[Role, int]:
    """The most that either side may lose, as the rail declares and the terms say (token units)."""
    credit = terms.offer.credit_limit
    first = Role.CONSUMER if terms.offer.mode == "pay-before" else Role.SUPPLIER
    declared = {Role.SUPPLIER: capabilities.payee_at_stake, Role.CONSUMER: capabilities.payer_at_stake}
    return {role: deposit if declared[role] == "deposit" else credit if role is first else 0 for role in Role}


class Pair:
    """A supplier and a consumer on one line, under one clock.

    `cut(message)` returns what arrives: None for nothing. `crash_at` counts down the effects of one side until it dies.
    `watch` is called after every effect. A `thief`'s exposure is its own affair, and so is what it says.
    """

    def __init__(self, supplier: Side, consumer: Side, capabilities: Capabilities, begin: bool = True) -> None:
        """Join two sides that have just agreed on their terms."""
        self.supplier, self.consumer, self.capabilities = supplier, consumer, capabilities
        self.terms, self.ends, self.now = supplier.terms, supplier.ends, supplier.row.base.at
        self.wire: deque[tuple[Side, bytes]] = deque()
        self.up = True
        self.cut: Callable[[Message], Message | None] = lambda message: message
        self.watch: Callable[[], None] = lambda: None
        self.draws = 10**9  # how much the consumer's device still takes
        self.worst = {Role.SUPPLIER: 0, Role.CONSUMER: 0}
        self.limit = limits(supplier.terms, supplier.ends.deposit, capabilities)
        self.thief: Role | None = None
        self.crash_at: tuple[Side, int] | None = None
        self.effects = 0
        self.revealed = 0  # the most that ever left the consumer, and the books that prove it
        self.proof: dict[bytes, bytes] = {}
        self._hearing, self._heard = self.ends.payee({}), dict[bytes, bytes]()
        opening = consumer.rail.open()
        consumer.write(opening.rows)
        self.listen(opening.data)
        supplier.write(supplier.rail.take(opening.data))
        if begin:
            self.run(self.supplier, self.supplier.session.begin(self.now))
            self.run(self.consumer, self.consumer.session.begin(self.now))

    @property
    def sides(self) -> tuple[Side, Side]:
        """The supplier and the consumer."""
        return self.supplier, self.consumer

    @property
    def over(self) -> bool:
        """Whether both sessions have ended."""
        return all(side.session.state is State.ENDED for side in self.sides)

    def side(self, role: Role) -> Side:
        """The side in that role."""
        return self.supplier if role is Role.SUPPLIER else self.consumer

    def other(self, side: Side) -> Side:
        """The side that it deals with."""
        return self.consumer if side is self.supplier else self.supplier

    # ---- running effects

    def run(self, side: Side, effects: list[Effect]) -> None:
        """Do what a machine ordered, in its order."""
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
            self.check_order(side, effect)
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
            self.watch()
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
        match message:
            case Paid(_, evidence) if side is self.consumer:
                for one in evidence:
                    self.listen(one)
            case Square(receipt, _, last) if side is self.consumer:
                self.listen(last, receipt.paid)
        arrives = self.cut(message) if self.up else None
        if arrives is not None:
            self.wire.append((self.other(side), encode(arrives)))

    def listen(self, evidence: bytes, least: int | None = None) -> None:
        """Keep what left the consumer as a payee would to whom every word of it came, and who keeps the best of it."""
        try:
            rows = self._hearing.take(evidence, least)
        except RemoteError:
            return  # repeated, or out of date
        for key, value in rows:
            self._heard.pop(key, None) if value is None else self._heard.__setitem__(key, value)
        if self._hearing.secured >= self.revealed:
            self.revealed, self.proof = self._hearing.secured, dict(self._heard)

    def check_order(self, side: Side, effect: Effect) -> None:
        """What leaves never runs ahead of the journal."""
        match effect:
            case Send(Metered() as said):
                assert said.secured <= side.secured(), "the supplier calls secured what is not durable"
                assert side.row.turns == side.session.bill.turns, "a turn of the bill is announced before it is durable"
            case Send(Resumed() as said):
                assert side.row.turns == said.turns, "a turn of the bill is announced before it is durable"
            case Send(Square() as said):
                assert side.row.receipt == said.receipt, "a receipt leaves before it is durable"
                assert side.row.state is State.SQUARING, "a receipt leaves before it is durable"
            case Send(Receipted()):
                assert side.row.state is State.ENDED, "the receipt is signed before the end is durable"
                assert side.row.receipt is not None, "no receipt is durable that could be signed"
                assert side.secured() == side.row.receipt.paid, "the receipt is signed before its payment is durable"
            case Send(Final() | Stop()):
                assert side.row.state is not State.STREAMING, "the end is announced before it is durable"
            case Allow(total):
                worth = side.session.bill.due(total - side.base)
                room = side.secured() + self.limit[Role.SUPPLIER]
                assert total == side.register or worth <= room, "supply is allowed on what is not durable"
            case Ended():
                assert side.row.state is State.ENDED, "a session ends before that is durable"

    # ---- what is measured from outside

    def exposure(self, role: Role) -> int:
        """What this side would lose now: supply not provably paid, or payment that left without supply."""
        if role is Role.SUPPLIER:
            return self.supplier.session.bill.due(self.supplier.flowed) - self.supplier.secured()
        taken = self.supplier.secured() if self.capabilities.by_meter else self.revealed
        return taken - self.consumer.session.bill.due(self.consumer.flowed)

    def measure(self) -> None:
        """Hold both exposures against their bounds."""
        for role in Role:
            if role is not self.thief:
                self.worst[role] = max(self.worst[role], self.exposure(role))
                bound = self.limit[role] + self.slack(role)
                assert self.worst[role] <= bound, f"the {role} has {self.worst[role]} at stake, above {bound}"

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
        """Let one message arrive; returns whether there was one."""
        if not self.wire:
            return False
        side, frame = self.wire.popleft()
        message = decode(frame)
        assert encode(message) == frame, f"{message} is other bytes when it is encoded again"
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
            self._send(self.supplier, Receipted(session.row.supplier_signature, b""))
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
        """One side wants to end the session."""
        self.run(side, side.session.stop(reason, self.now))

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

    def step(self) -> None:
        """Something happens, two units of the medium at most, and the clock runs."""
        self.now = Instant(self.now + 50)
        if not (self.deliver() or self.flow(2)):
            self.wait(200, 200, stream=False)

    def play(self) -> None:
        """Go on to the end, with the link mended whenever it breaks."""
        for _ in range(2_000):
            if self.over:
                return
            if not self.up:
                self.relink()
            self.step()
        raise AssertionError("the session does not end")


class _Payee:
    """A payee's end that remembers what evidence it took."""

    def __init__(self, end: PayeeEnd, heard: Heard) -> None:
        self.end, self._heard = end, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        rows = self.end.take(evidence, least)
        self._heard.append((evidence, least))
        return rows


class _Payer:
    """A payer's end that remembers what readings it took."""

    def __init__(self, end: PayerEnd, heard: Heard) -> None:
        self.end, self._heard = end, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        rows = self.end.metered(evidence, bill, total, at, last)
        self._heard.append((evidence, Bill(bill.tariff, bill.turns), total, at, last))
        return rows
