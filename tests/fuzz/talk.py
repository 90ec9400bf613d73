"""Target: a session that a hostile peer talks to, in every state it can be brought into.

    [mode, step, ...]     mode: bit 0 says who is under test (0 the supplier, 1 the consumer), bit 1 pay-before
    ["m", message]        the peer says this; where a signature or a voucher's is empty, it is made good first
    ["p", message]        the same, and what is paid is secured with the next message only
    ["r", units, ms]      so much flows, as far as the valve lets it, and so much time passes
    ["t", ms]             time passes
    ["l"] ["b"] ["s"] ["c"]   the link is lost, is back; our operator stops; we crash and start from the journal

The checks of `tests/core/pair.py` hold after every effect: nothing leaves before it is durable, and the exposure of
the side under test stays within its limit. What the session refuses changes nothing in it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec
from tests.core import pair
from tests.fuzz.evidence import TERMS, signed

from penstock.core import codec
from penstock.core.channel import Close
from penstock.core.control import Control
from penstock.core.errors import BadMessage, RemoteError
from penstock.core.messages import AskClose, Message, Paid, Reason, Receipted, Resume, Resumed, Square, Way
from penstock.core.meter import SessionMeter
from penstock.core.session import Role, Session, State
from penstock.core.tariff import Bill, Step, Tariff
from penstock.core.ticks import TickProof
from penstock.core.units import MAX_QUANTITY, Instant, Price
from penstock.rails.stream import CAPABILITIES, EARNED_ROWS, TICK_ROWS, StreamPayee, StreamPayer, decode_earned

DEPOSIT = 60_000
STEPS = 64  # of one input
_MODES = ("pay-after", "pay-before")


class Side(pair.Side):
    """As its parent, without decoding the terms anew for every look into the journal."""

    def payee_in_journal(self) -> StreamPayee:
        earned, ticks = (self.journal.get(rows + pair.PARAMS.id) for rows in (EARNED_ROWS, TICK_ROWS))
        return StreamPayee(TERMS, self.deposit, decode_earned(earned) if earned else None, ticks)


class Lone(pair.Pair):
    """One side of a session; the other is whoever writes the input."""

    def __init__(self, side: pair.Side, opened: dict[bytes, bytes]) -> None:
        self.now, self.terms, self.up = pair.START, side.terms, True
        self.side = self.supplier = self.consumer = copy.copy(side)
        side = self.side
        side.journal, side.register, side.sent, side.trace, side.ended = dict(opened), side.base, [], [], False
        side.wake(self.now)
        self.wire = deque()
        self.cut = lambda message: message
        self.revealed = 0
        self.shown: set[bytes] = set()  # the nonce and the count of ticks that the peer was given
        self.worst = {Role.SUPPLIER: 0, Role.CONSUMER: 0}
        self.thief = Role.CONSUMER if side.role is Role.SUPPLIER else Role.SUPPLIER
        self.crash_at, self.effects = None, 0
        self.capabilities, self.watch = CAPABILITIES, lambda: None
        self.limit = pair.kit.limits(side.terms, side.deposit, CAPABILITIES)
        self.run(side, side.session.begin(self.now))

    def step(self, step: list[Any]) -> str:
        """Do one step; a word on what came of it."""
        side = self.side
        match step:
            case ["m" | "p" as kind, list() as fields]:
                return self.told(fields, kind == "m")
            case ["r", int() as units, int() as ms] if 0 <= units <= MAX_QUANTITY:
                self.now = Instant(self.now + min(max(ms, 0), 10**9))
                if side.role is Role.CONSUMER:
                    side.register = min(side.register + units, MAX_QUANTITY)
                elif side.open:
                    side.register += max(0, min(units, side.allowed - side.register))
                self.run(side, side.session.on_reading(side.read(self.now), self.now))
            case ["t", int() as ms]:
                self.now = Instant(self.now + min(max(ms, 0), 10**9))
                self.beat(side)
            case ["l"]:
                self.run(side, side.session.link_lost(self.now))
            case ["b"]:
                self.run(side, side.session.link_back(self.now))
            case ["s"]:
                self.run(side, side.session.stop(Reason.OPERATOR, self.now))
            case ["c"]:
                side.wake(self.now)
            case _:
                return "no step"
        return ""

    def _send(self, side: pair.Side, message: Message) -> None:
        super()._send(side, message)
        if isinstance(message, Paid):
            self.shown.update(one[1:13] for one in message.evidence)

    def told(self, fields: list[Any], at_once: bool) -> str:
        """The peer says something: as the shell does, read and decode, secure, hand over."""
        side, session = self.side, self.side.session
        before: Any = None
        try:
            message = self.sealed(codec.decode(codec.encode(fields)))
            if type(message) is Paid:
                before = _seen(session)
                session.on_paid(message)
                if at_once:
                    self.run(side, session.secure(self.now))
                return "Paid"
            if session.heard:
                self.run(side, session.secure(self.now))
            if side.role is Role.CONSUMER:
                self.run(side, session.on_reading(side.read(self.now), self.now))
            before = _seen(session)
            effects = session.on_message(message, self.now)
        except RemoteError as error:
            assert before is None or _seen(session) == before, "refused, and yet something changed"
            return type(error).__name__
        self.run(side, effects)
        return type(message).__name__

    def sealed(self, message: Message) -> Message:
        """The peer holds its own keys: it can sign whatever it says."""
        match message:
            case Paid(total, evidence):
                return Paid(total, tuple(map(signed, evidence)))
            case Square(receipt, signature, evidence):
                return Square(receipt, signature or pair.CONSUMER.sign(receipt.digest()), signed(evidence))
            case Resumed(state=state) if state[1:13] not in self.shown:
                return msgspec.structs.replace(message, state=state[:13] + bytes(32))  # a preimage is not guessed
            case Receipted(b"") if self.side.session.receipt is not None:
                return Receipted(pair.SUPPLIER.sign(self.side.session.receipt.digest()), b"")
            case _:
                return message


def _seen(session: Session) -> Any:
    """All that a session has in its slots, and in those of its parts."""
    return _slots(session.payee is not None)(session), dict(session._taken)


@cache
def _slots(paid: bool) -> Callable[[Session], Any]:
    """Reads every slot in one call."""
    names = [name for name in Session.__slots__ if name not in ("_handlers", "_taken")]
    for part, type_ in (("control", Control), ("meter", SessionMeter), ("bill", Bill)):
        names += [f"{part}.{name}" for name in type_.__slots__]
    end, rail = ("payee", StreamPayee) if paid else ("payer", StreamPayer)  # type: tuple[str, type[Any]]
    names += [f"{end}.{name}" for name in rail.__slots__]
    names += [f"payee._proof.{name}" for name in TickProof.__slots__] if paid else []
    return attrgetter(*names)


def talk(data: bytes) -> object:
    """A conversation. Whatever is said, only errors of the peer's come out, and the limits hold."""
    case = codec.decode_part(data, list)
    if not case or type(case[0]) is not int:
        raise BadMessage("no case")
    lone = Lone(*_opened(case[0] % 4))
    last = ""
    for step in case[1 : 1 + STEPS]:
        if isinstance(step, list):
            last = lone.step(step) or last
    session: Session = lone.side.session
    return case[0] % 4, session.state, session.reason, session.linked, last


@cache
def _opened(mode: int) -> tuple[pair.Side, dict[bytes, bytes]]:
    """A side whose session was accepted, and its journal."""
    tariff = Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(pair.START + 30_000), 500_000)))
    offer = pair.make_offer(mode=_MODES[mode >> 1], tariff=tariff, credit_limit=4_000)
    terms = pair.make_terms(offer, quantity_limit=40)
    supplier, consumer = (Side(role, terms, DEPOSIT, Price(450_000, 1_000)) for role in Role)
    assert isinstance(consumer.rail, StreamPayer)
    assert isinstance(supplier.rail, StreamPayee)
    opening = consumer.rail.open()
    consumer.write(opening.rows)
    supplier.write(supplier.rail.take(opening.data))
    side = consumer if mode & 1 else supplier
    return side, dict(side.journal)


def talk_seeds() -> list[bytes]:
    """What each side hears in whole sessions of both modes: one that is served, one with a break, one that is stopped;
    and every message where it does not belong."""
    seeds = []
    for before in (0, 1):
        for turn in range(4):
            seeds += _played(before, turn)
    strange: list[Any] = [
        Resume(bytes(32), b"", Way.SUPPLY),
        AskClose(bytes(32), Close(1, 2, 3), bytes(65)),
        Receipted(b"", b""),
    ]
    return seeds + [codec.encode([mode, *(["m", one] for one in strange)]) for mode in range(4)]


def _played(before: int, turn: int) -> list[bytes]:
    """Both sides of one session, each as the input in which the other's words are the peer's."""
    sides = [Lone(*_opened(before << 1 | role)) for role in (0, 1)]
    heard: list[list[Any]] = [[before << 1 | role] for role in (0, 1)]

    def do(role: int, step: list[Any]) -> None:
        heard[role].append(msgspec.to_builtins(step))
        sides[role].step(heard[role][-1])

    for count in range(30):
        for role in (0, 1):
            other = sides[1 - role].side
            said, other.sent = other.sent, []
            for message in said:
                if type(message) is Resume:
                    do(role, ["b"])
                else:
                    do(role, ["m", _blank(message) if turn % 2 else message])
        flows = min(9, max(0, sides[0].side.allowed - sides[0].side.register)) if sides[0].side.open else 0
        do(1, ["r", flows, 500])
        do(0, ["r", flows, 500])
        if turn == 2 and count == 4:
            for role in (0, 1):
                do(role, ["l"])
                sides[role].side.sent.clear()
            do(1, ["b"])
        if turn == 3 and count == 3:
            do(1, ["s"])
        if all(lone.side.session.state is State.ENDED for lone in sides):
            break
    return [codec.encode(one) for one in heard]


def _blank(message: Message) -> Message:
    """The message without its signature, which the target makes anew: so a changed receipt is still a signed one."""
    if isinstance(message, (Square, Receipted)):
        return msgspec.structs.replace(message, signature=b"")
    return message
