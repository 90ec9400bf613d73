"""A session: reading -> due -> ticks, from the first package to the signed receipt. One machine for both roles.

    role      state      what it takes                                         what it waits for
    supplier  STREAMING  reading, Paid, Stop, valve shut                       payment for what flowed
              STOPPING   reading, Paid, Stop, valve shut                       the valve, then the last reading
              SQUARING   reading, Paid, Stop, Square                           the exact payment and the receipt
    consumer  STREAMING  reading, Metered, Stop, Final, Resumed                supply for what was paid
              STOPPING   reading, Metered, Stop, Final, Resumed                the last reading
              SQUARING   reading, Metered, Stop, Final, Receipted, Resumed     the supplier's signature
    both      ENDED      reading

Each event returns effects in the order in which they must happen. An event that does not belong raises and changes
nothing: IllegalEvent for one of ours, BadMessage for the peer's. In every state but ENDED there are also `stop`,
`link_lost`, `link_back` and `on_time`, so that nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

import msgspec

from penstock.core.codec import encode
from penstock.core.control import Control
from penstock.core.effects import Allow, Continue, Effect, Ended, Persist, Rows, Send, ShutValve
from penstock.core.errors import BadMessage, BadReading, BadTerms, BadVoucher, IllegalEvent, RemoteError
from penstock.core.identity import Key, check_signed
from penstock.core.messages import (
    Final,
    Message,
    Metered,
    Paid,
    Reason,
    Receipted,
    Resume,
    Resumed,
    Square,
    Stop,
)
from penstock.core.meter import Reading, Seal, SessionMeter
from penstock.core.offer import Receipt, Terms
from penstock.core.rail import Evidence, PayeeEnd, PayerEnd
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Duration, Instant, Price, Quantity

SESSION_ROWS = b"session/"
EMPTY = 64  # payments in a row that bring nothing: a resumption repeats one or two
_NOTHING = Evidence(b"")
HEARTBEAT = Duration(1_000)  # after which a supplier announces what is new, where nothing else makes it


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
    """How long we wait for the peer: for its next move, and for its return after the link was lost (ms)."""

    move: Duration = Duration(10_000)
    return_: Duration = Duration(120_000)


class SessionRow(msgspec.Struct, frozen=True):
    """What the journal keeps of a session.

    `base` is our own meter's reading at its beginning, `last` the supplier's when its valve was shut for good: what the
    register counts after that is no part of the session. `unpaid` is what a supplier could have asked for in the end
    and did not get. `began` is the record of the beginning by a supplier's meter that signs, as its consumer keeps it.
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


class Session:
    """One side of one session. The rail's end decides the role: a payee supplies, a payer consumes."""

    __slots__ = (
        "_allowed",
        "_announced",
        "_announced_at",
        "_before",
        "_blamed",
        "_empty",
        "_handlers",
        "_heard",
        "_linked_at",
        "_moved",
        "_taken",
        "_told",
        "bill",
        "claimed",
        "control",
        "digest",
        "fault",
        "key",
        "linked",
        "max_price",
        "meter",
        "patience",
        "payee",
        "payer",
        "receipt",
        "row",
        "seal",
        "state",
        "terms",
    )

    def __init__(
        self,
        row: SessionRow,
        rail: PayerEnd | PayeeEnd,
        key: Key,
        now: Instant,
        patience: Patience | None = None,
        max_price: Price | None = None,
        seal: Seal | None = None,
    ) -> None:
        """Take up a session at what the journal has of it; its first row is a session that has just been accepted.

        The meter's own readings must follow before anything is given. `max_price` is the consumer's private limit;
        `seal` checks the records of a supplier's meter that signs.
        """
        self.row = row
        self.terms = row.terms
        self.digest = row.terms.digest()
        self.key = key
        self.patience = patience or Patience()
        self.max_price = max_price
        self.seal = seal
        offer = row.terms.offer
        self.payee: PayeeEnd | None = None
        self.payer: PayerEnd | None = None
        if row.role is Role.SUPPLIER:
            self.payee = cast("PayeeEnd", rail)
        else:
            self.payer = cast("PayerEnd", rail)
        self._before = offer.mode == "pay-before"
        first = (row.role is Role.CONSUMER) == self._before
        self.control = Control(offer.credit_limit if first else 0, offer.first_trust)
        self.control.worst = row.worst
        self.meter = SessionMeter(row.base)
        if row.last is not None:
            self.meter.take(row.last)
        self.bill = Bill(offer.tariff, row.turns)
        self.receipt = row.receipt
        self.fault = ""
        self.linked = False
        self.claimed = row.turns[-1] if row.turns else Quantity(0)
        self._heard = False  # a payment was taken that `secure` has not acted on
        self._blamed: Reason | None = None  # why it ends the session
        self._taken: dict[bytes, bytes | None] = {}  # its rows
        self._empty = 0  # payments since the last one that brought anything
        self._allowed = Quantity(0)
        self._announced = Quantity(0)
        self._announced_at = now
        self._told = 0  # what we announced as secured
        self._moved = now  # when the peer last got us on
        self._linked_at = now  # when the link last came or went
        self._enter(row.state)
        if self.payee is not None:
            self.control.get(self.payee.secured)
            self.control.trust = min(offer.first_trust, self.control.limit)
        if self.payer is not None:
            self.control.given = self.payer.paid  # what came back for it is known once the meters are

    # ---- what anybody may look at

    @property
    def role(self) -> Role:
        """Supplier or consumer."""
        return self.row.role

    @property
    def reason(self) -> Reason | None:
        """Why the session ends or ended; None while it streams."""
        return self.row.reason

    @property
    def paid(self) -> Amount:
        """What is secured to the supplier (as the supplier sees it), or was given (as the consumer does)."""
        return self._payee.secured if self.payee is not None else self._payer.paid

    @property
    def ticks(self) -> int:
        """Ticks proven or revealed in this session."""
        return self._payee.ticks if self.payee is not None else self._payer.ticks

    @property
    def complete(self) -> bool:
        """Whether both sides have signed the receipt."""
        return bool(self.row.consumer_signature and self.row.supplier_signature)

    # ---- events of our own side

    def begin(self, now: Instant) -> list[Effect]:
        """The terms are signed and the link is there: let the side that goes first give its first package.

        Raises:
            IllegalEvent: it has begun.
        """
        if self.linked or self.state is not State.STREAMING:
            raise IllegalEvent("a session begins once")
        self.linked = True
        self._moved = self._announced_at = now
        return self._release() if self.payee is not None else self._pay()

    def on_reading(self, reading: Reading, now: Instant) -> list[Effect]:
        """A reading of our own meter's register. A supplier announces it when a tick is due, or supply has to wait.

        Raises:
            DeviceError: the register went back; stop with Reason.DEVICE_FAILED.
        """
        if self.row.last is not None:
            return []
        total = self.meter.take(reading)
        if self.payee is None or self.state is not State.STREAMING:
            return []
        due = self.bill.due(total)
        self.control.give(due)
        if not self.linked or total == self._announced:
            return []
        tick_due = due - self.bill.due(self._announced) >= self.terms.offer.tick_value
        if tick_due or total >= self._allowed:
            return self._announce(now)
        return []

    def valve_shut(self, reading: Reading, now: Instant) -> list[Effect]:
        """The valve is shut and this is the register. Ends the supply for good where the session is stopping.

        Raises:
            DeviceError: the register went back. IllegalEvent: a consumer has no valve.
        """
        if self.payee is None:
            raise IllegalEvent("a consumer has no valve")
        if self.row.last is not None:
            return []
        total = self.meter.take(reading)
        self.control.give(self.bill.due(total))
        if self.state is State.ENDED:  # given up: what the rail makes of the last reading needs nobody else
            self.bill.turn(total, reading.at)
            rows = self._attest().rows
            return [Persist(rows + self._row(last=reading))] if rows else []
        if self.state is not State.STOPPING:
            return []
        effects = self.secure(now)
        self.bill.turn(total, reading.at)
        self._enter(State.SQUARING)
        self._moved = now
        proof = self._attest()
        return [*effects, Persist(proof.rows + self._row(last=reading)), Send(self._final(proof))]

    def stop(self, reason: Reason, now: Instant) -> list[Effect]:
        """End the session from our side. Nothing where it is ending already."""
        return self.secure(now) + self._stop(reason, now)

    def link_lost(self, now: Instant) -> list[Effect]:
        """The link is gone: no supply without it. The peer has `patience.return_` to come back."""
        effects = self.secure(now)
        self.linked = False
        self._linked_at = now
        if self.payee is None or self.state is State.ENDED:
            return effects
        return effects + self._shut()

    def link_back(self, now: Instant) -> list[Effect]:
        """There is a link to the same peer again: the consumer asks to resume, the supplier says where it stands.

        Nothing in a session that has ended meanwhile: its last messages are on their way.
        """
        if self.state is State.ENDED:
            return []
        self._linked_at = now
        if self.payer is not None:
            return [Send(Resume(self.digest))]
        effects = self.secure(now)
        self.linked = True
        self._announced, self._announced_at, self._told = self.meter.total, now, self.control.got
        turned = self.bill.turn(self.meter.total, self.meter.at)  # as the consumer's will: this reading is announced
        proof = self._attest()
        if turned or proof.rows:
            effects.append(Persist(proof.rows + self._row(reason=self.row.reason)))
        total, at, record, state = self.meter.total, self.meter.at, self.meter.record, self._payee.state()
        effects.append(Send(Resumed(total, at, self.bill.turns, state, proof.data, record)))
        if self.state is State.STREAMING:
            effects += self._release()
        elif self.state is State.STOPPING:
            effects += self._shut()
        elif self.state is State.SQUARING:
            effects.append(Send(self._final(proof)))
        return effects

    def go_on(self, _now: Instant) -> list[Effect]:
        """Pay on what was left for another turn of the loop (`Continue`)."""
        return self._pay() if self.linked and self.state is State.STREAMING else []

    def abandon(self, now: Instant) -> list[Effect]:
        """The peer said that it will not take the session up again: end it with what there is."""
        return [] if self.state is State.ENDED else self.secure(now) + self._give_up(Reason.PEER_GONE, now)

    def on_time(self, now: Instant) -> list[Effect]:
        """Time has passed; to be called about once a second. Gives up on a peer that does not move or come back."""
        if self.state is State.ENDED:
            return []
        return self.secure(now) + self._look_at_clock(now)

    def _look_at_clock(self, now: Instant) -> list[Effect]:
        # A clock that was set back must not make us wait until it has caught up.
        self._moved, self._linked_at = min(self._moved, now), min(self._linked_at, now)
        self._announced_at = min(self._announced_at, now)
        if self.linked and self.payee is not None and self.state is State.STREAMING and not self._owed():
            self._moved = now  # it is not the consumer's move
        move, return_ = self.patience.move, self.patience.return_
        apart, waited = now - self._linked_at, min(now - self._linked_at, now - self._moved)
        # A peer that comes back again and again, but never gets on, is as good as gone.
        if now - self._moved > move + return_ or (not self.linked and apart > return_):
            return self._give_up(Reason.PEER_GONE, now)
        if self.linked and waited > move:
            if self.state is not State.STREAMING:
                return self._give_up(Reason.PEER_GONE, now)
            return self._stop(Reason.SUPPLY_STALLED if self.payer is not None else Reason.PAYMENT_STALLED, now)
        if not self.linked or self.state is not State.STREAMING:
            return []
        if self.payer is not None:
            return self._give(self.payer.fold())
        return self._announce(now) if self._has_news and now - self._announced_at >= HEARTBEAT else []

    @property
    def _has_news(self) -> bool:
        """Whether the consumer does not know our reading, what is secured, or a price that is in force by now."""
        meter = self.meter
        return meter.total != self._announced or self.control.got != self._told or self.bill.turns_at(meter.at)

    def on_message(self, message: Message, now: Instant) -> list[Effect]:
        """A message of the peer. Feed the newest reading of our own meter first: totals are compared at once.

        Payments go to `on_paid`, and `secure` comes before any other message.

        Raises:
            BadMessage: it does not belong in this state; cut the link. Nothing has changed.
        """
        if self._heard:
            raise IllegalEvent("payments were taken: secure them first")
        handler = self._handlers.get(type(message))
        if handler is None:
            raise BadMessage(f"{type(message).__name__} does not belong in a {self.role} that is {self.state}")
        return handler(self, message, now)

    def on_paid(self, message: Paid) -> None:
        """Check a payment: the hot path. It has no effects before `secure`, to be called when all that came together
        was taken, and before any other message.

        Raises:
            BadMessage: it does not belong here, or is one of many that bring nothing; cut the link.
        """
        rail = self.payee
        if rail is None or self.state is State.ENDED:
            raise BadMessage(f"Paid does not belong in a {self.role} that is {self.state}")
        self._heard = True
        if self._blamed is not None:
            return  # the session is about to stop
        try:
            for evidence in message.evidence:
                for key, value in rail.take(evidence):
                    self._taken[key] = value
                    self._empty = -1
        except RemoteError as error:
            self.fault, self._blamed = str(error), Reason.PEER_CHEATED
            return
        self._empty += 1
        if self._empty > EMPTY:
            raise BadMessage("payments that bring nothing, one after the other")
        total, allowed = message.total, self._allowed
        if total > allowed and total > allowed + self.terms.offer.tolerance.at(allowed):
            self._blamed = Reason.METERS_DISAGREE if self.state is State.STREAMING else None

    @property
    def heard(self) -> bool:
        """Whether a payment waits for `secure`."""
        return self._heard

    def secure(self, now: Instant) -> list[Effect]:
        """Act on the payments taken since the last call: make them durable together, and release what they allow.

        Every event of ours does this first, so that what was taken comes before it.
        """
        if not self._heard:
            return []
        self._heard = False
        effects: list[Effect] = []
        if self._taken:
            effects.append(Persist(tuple(self._taken.items())))
            self._taken = {}
        secured = self._payee.secured
        if secured > self.control.got:
            self._moved = now
            self.control.get(secured)
        if self._blamed is not None:
            reason, self._blamed = self._blamed, None
            return effects + self._stop(reason, now)
        return effects + self._release() if self.state is State.STREAMING else effects

    # ---- the supplier

    @property
    def _payee(self) -> PayeeEnd:
        assert self.payee is not None
        return self.payee

    def _square(self, message: Square, now: Instant) -> list[Effect]:
        receipt, rail = message.receipt, self._payee
        due = self.bill.due(self.meter.total)
        check_signed(receipt.digest(), message.signature, self.terms.consumer, "the receipt")
        expected = Receipt(
            terms=self.digest,
            supplier_total=self.meter.total,
            consumer_total=receipt.consumer_total,
            paid=receipt.paid,
            unpaid=Amount(max(0, due - receipt.paid)),
            ticks=receipt.ticks,
            reason=receipt.reason,
            at=receipt.at,
        )
        most = rail.capacity // self.terms.offer.tick_value
        if receipt != expected or receipt.reason not in set(Reason) or not rail.ticks <= receipt.ticks <= most:
            raise BadMessage("the receipt does not say what this session was")
        if receipt.paid < min(rail.secured, due):
            raise BadVoucher(f"the receipt pays {receipt.paid}, less than the {min(rail.secured, due)} secured")
        rows = rail.take(message.evidence, least=receipt.paid)
        self.control.get(rail.secured)
        self.receipt = receipt
        self._enter(State.ENDED)
        signature = self.key.sign(receipt.digest())
        row = self._row(
            reason=Reason(receipt.reason), consumer_signature=message.signature, supplier_signature=signature
        )
        return [Persist(rows + row), Send(Receipted(signature)), Ended()]

    def _release(self) -> list[Effect]:
        """Let supply run as far as payment, trust, budget, channel and quantity allow."""
        worth = min(self.control.may_give, self.terms.budget, self._payee.capacity)
        total = min(self.bill.affords(worth, self.meter.total), self.terms.quantity_limit)
        if total <= self._allowed:
            return []
        self._allowed = Quantity(total)
        return [Allow(Quantity(self.row.base.total + total))]

    def _announce(self, now: Instant) -> list[Effect]:
        total, at = self.meter.total, self.meter.at
        turned = self.bill.turn(total, at)
        proof = self._attest()
        self._announced, self._announced_at, self._told = total, now, self.control.got
        said = Send(Metered(total, at, Amount(self.control.got), proof.data, self.meter.record))
        if not turned:
            return [Persist(proof.rows), said, *self._release()] if proof.rows else [said]
        # What may still flow costs another price now. Where that is too much for what was allowed, it must not flow on
        # while the turn is made durable.
        allowed, self._allowed = self._allowed, Quantity(0)
        released = self._release()
        shut: list[Effect] = [ShutValve()] if self._allowed < allowed else []
        return [*shut, Persist(proof.rows + self._row(reason=self.row.reason)), said, *released]

    def _attest(self) -> Evidence:
        """What the rail makes of the reading that is about to be announced; it may secure by it."""
        rail = self._payee
        proof = rail.metered(self.bill, self.meter.total, self.meter.at, self.state is State.SQUARING)
        if proof is None:
            return _NOTHING
        self.control.get(rail.secured)
        return proof

    def _owed(self) -> bool:
        """Whether it is the consumer's move: it owes a tick, or supply has run as far as it may."""
        owes = self.control.exposure >= self.terms.offer.tick_value
        return owes or self.meter.total >= self._allowed

    def _shut(self) -> list[Effect]:
        self._allowed = Quantity(0)
        self.control.trust = min(self.terms.offer.first_trust, self.control.limit)
        return [ShutValve()]

    def _final(self, proof: Evidence) -> Final:
        assert self.row.reason is not None
        return Final(self.meter.total, self.meter.at, self.row.reason, proof.data, self.meter.record)

    # ---- the consumer

    @property
    def _payer(self) -> PayerEnd:
        assert self.payer is not None
        return self.payer

    def _metered(self, message: Metered, now: Instant) -> list[Effect]:
        total, own, offer = message.total, self.meter.total, self.terms.offer
        try:
            self._check_record(message)
            if total < self._least:
                raise BadReading(f"the supplier's meter went back from {self._least} to {total}")
        except BadReading as error:
            self.fault = str(error)
            return self._stop(Reason.PEER_CHEATED, now)
        effects: list[Effect] = [self._persist()] if self.bill.turn(total, message.at) else []
        credit = 0 if self._before else offer.credit_limit
        reach = self.bill.affords(self._payer.paid + credit, total)
        ahead = own > reach + offer.tolerance.at(own) and not self._payer.by_meter  # what is signed alone is paid there
        if total > own + offer.tolerance.at(own) or ahead:
            self.fault = f"the supplier's meter says {total}, ours {own}"
            return [*effects, *self._stop(Reason.METERS_DISAGREE, now)]
        if total > self.claimed:
            self._moved = now
            self.claimed = total
        price = self.bill.price
        if self.max_price is not None and price.amount * self.max_price.per > self.max_price.amount * price.per:
            return [*effects, *self._stop(Reason.PRICE_OVER_LIMIT, now)]
        self.control.get(self.bill.due(total))
        try:
            effects += self._believe(message, last=False)
        except RemoteError as error:
            self.fault = str(error)
            kept = [Persist(error.proof)] if isinstance(error, BadReading) and error.proof else []
            return [*effects, *kept, *self._stop(Reason.PEER_CHEATED, now)]
        effects += self._pay()
        reason = self._reached(total)
        return [*effects, *self._stop(reason, now)] if reason else effects

    def _believe(self, message: Metered | Final, *, last: bool) -> list[Effect]:
        """What the rail makes of a reading that the supplier announced and we agree with."""
        rail = self._payer
        rows = rail.metered(message.evidence, self.bill, message.total, message.at, last)
        if not rows:
            return []
        self.control.give(rail.paid)
        return [Persist(rows)]

    @property
    def _least(self) -> Quantity:
        """Below what no honest total can be: what was announced, and what the bill has turned at."""
        return max(self.claimed, *self.bill.turns[-1:]) if self.bill.turns else self.claimed

    def _check_record(self, message: Metered | Final) -> None:
        if self.seal is not None:
            self.seal.check(message.record, message.total, message.at)

    def _metered_late(self, message: Metered, now: Instant) -> list[Effect]:
        """It crossed with a Stop. Nothing is paid on it, but where the supplier's bill turned here, ours must too."""
        if message.total < self._least:
            return []
        self._check_record(message)
        self.claimed = message.total
        turned: list[Effect] = [self._persist()] if self.bill.turn(message.total, message.at) else []
        try:
            return turned + self._believe(message, last=False)
        except BadReading as error:
            if not error.proof:
                raise
            return [*turned, Persist(error.proof)]

    def _pay(self) -> list[Effect]:
        """Pay what the control unit lets go, in whole ticks."""
        sum_ = min(self.control.may_give, self.terms.budget, self._payer.capacity, self._most())
        paid = self._give(self._payer.pay(sum_))
        if paid and sum_ - self._payer.paid >= self.terms.offer.tick_value:
            # While the disk takes a voucher, the next part is made; what waits for nothing leaves before.
            paid.insert(0 if type(paid[0]) is Persist else len(paid), Continue())
        return paid

    def _give(self, evidence: list[Evidence]) -> list[Effect]:
        if not evidence:
            return []
        self.control.give(self._payer.paid)
        rows = tuple(row for one in evidence for row in one.rows)
        total = self.meter.total
        paid: list[Effect] = [Send(Paid(total, (one.data,))) for one in evidence]
        return [Persist(rows), *paid] if rows else paid

    def _most(self) -> int:
        """The most that the quantity limit can cost; in whole ticks where they are paid before they are used."""
        most = self.bill.due(self.terms.quantity_limit)
        if not self._before:
            return most
        tick = self.terms.offer.tick_value
        return -(-most // tick) * tick

    def _reached(self, total: Quantity) -> Reason | None:
        """Which of our limits the supply has reached, if any."""
        if total >= self.terms.quantity_limit:
            return Reason.TARGET_REACHED
        budget, capacity = self.terms.budget, self._payer.capacity
        sum_ = min(budget, capacity)
        if self._before:
            sum_ -= sum_ % self.terms.offer.tick_value
        if total < self.bill.affords(sum_, total):
            return None
        return Reason.BUDGET_SPENT if budget <= capacity else Reason.WALLET_EMPTY

    def _finished(self, message: Final, now: Instant) -> list[Effect]:
        """The supply is over: agree on the bill, pay it to the token unit, sign the receipt."""
        total, own = message.total, self.meter.total
        self._check_record(message)
        allowed = self.terms.offer.tolerance.at(max(total, own))
        self.bill.turn(max(total, self._least), message.at)
        reason = self.row.reason or message.reason
        bill = min(self.bill.due(total), self.terms.budget, self._payer.capacity)
        believed: list[Effect] = []
        if abs(total - own) > allowed or total < self.claimed:
            self.fault = self.fault or f"the supplier's meter ends at {total}, ours at {own}"
            reason, bill = Reason.METERS_DISAGREE, self._payer.paid
        elif reason is Reason.METERS_DISAGREE:
            bill = self._payer.paid
        else:
            try:
                believed = self._believe(message, last=True)
            except BadReading as error:
                if not error.proof:
                    raise
                self.fault = str(error)
                return [Persist(error.proof), *self._give_up(Reason.PEER_CHEATED, now)]
        self.claimed = max(total, self.claimed)
        evidence = self._payer.square(bill)
        self.receipt = Receipt(
            terms=self.digest,
            supplier_total=total,
            consumer_total=own,
            paid=Amount(bill),
            unpaid=Amount(max(0, self.bill.due(total) - bill)),
            ticks=self._payer.ticks,
            reason=reason,
            at=now,
        )
        signature = self.key.sign(self.receipt.digest())
        self._enter(State.SQUARING)
        self._moved = now
        rows = self._row(reason=reason, consumer_signature=signature)
        return [*believed, Persist(evidence.rows + rows), Send(Square(self.receipt, signature, evidence.data))]

    def _receipted(self, message: Receipted, now: Instant) -> list[Effect]:
        assert self.receipt is not None
        check_signed(self.receipt.digest(), message.signature, self.terms.offer.supplier, "the receipt")
        self._enter(State.ENDED)
        return [Persist(self._row(supplier_signature=message.signature)), Ended()]

    def _resumed(self, message: Resumed, now: Instant) -> list[Effect]:
        bill = self._bill_of(message)
        evidence = self._payer.resume(message.state)
        turned, self.bill = bill.turns != self.bill.turns, bill
        kept: list[Effect] = [self._persist()] if turned else []  # before anything is paid at the new price
        if not self.linked:
            self._linked_at = now
        self.linked = True
        if self.state is State.SQUARING:
            assert self.receipt is not None
            last = self._payer.square(self.receipt.paid)
            return [*kept, Send(Square(self.receipt, self.row.consumer_signature, last.data))]
        received = min(message.total, self.meter.total + self.terms.offer.tolerance.at(self.meter.total))
        self.control.get(bill.due(received))
        effects = kept + self._give(evidence)
        self.control.give(self._payer.paid)
        if self.state is State.STOPPING:
            assert self.row.reason is not None
            return [*effects, Send(Stop(self.row.reason))]
        metered = Metered(message.total, message.at, Amount(0), message.evidence, message.record)
        return effects + self._metered(metered, now)

    def _bill_of(self, message: Resumed) -> Bill:
        """Our bill with the turns that the supplier made while we were apart: none of them before what we heard, none
        after where it stands, none before its step's time."""
        tariff, mine, turns = self.terms.offer.tariff, self.bill.turns, message.turns
        ahead = turns[len(mine) :]
        if turns[: len(mine)] != mine or any(not self.claimed <= total <= message.total for total in ahead):
            raise BadTerms("the supplier turned its bill at other totals than those that it announced")
        bill = Bill(tariff, turns)
        if ahead and tariff.steps[len(turns)].start > message.at:
            raise BadTerms("the supplier turned its bill before the time of the step")
        return bill

    # ---- both

    def _stop(self, reason: Reason, now: Instant) -> list[Effect]:
        if self.state is not State.STREAMING:
            return []
        return [*self._stopping(reason, now), Send(Stop(reason))]

    def _told_to_stop(self, message: Stop, now: Instant) -> list[Effect]:
        return self._stopping(message.reason, now) if self.state is State.STREAMING else []

    def _stopping(self, reason: Reason, now: Instant) -> list[Effect]:
        self._enter(State.STOPPING)
        self._moved = now
        shut = self._shut() if self.payee is not None else []
        return [*shut, self._persist(reason=reason)]

    def _give_up(self, reason: Reason, now: Instant) -> list[Effect]:
        """End without the peer: what is secured is ours, and the ledger pays it."""
        shut = self._shut() if self.payee is not None else []
        self._enter(State.ENDED)
        self._moved = now
        return [*shut, self._persist(reason=self.row.reason or reason), Ended()]

    def _ignore(self, message: Message, now: Instant) -> list[Effect]:
        """It crossed with ours on the way, and is out of date."""
        return []

    def _enter(self, state: State) -> None:
        self.state = state
        self._handlers = _HANDLERS[self.row.role, state]

    def _persist(self, reason: Reason | None = None) -> Persist:
        return Persist(self._row(reason=reason or self.row.reason))

    def _unpaid(self) -> Amount:
        if self.payee is None or self.state is not State.ENDED:
            return Amount(0)
        due = min(self.bill.due(self.meter.total), self.terms.budget, self.payee.capacity)
        return Amount(max(0, due - self.payee.secured))

    def _row(self, **changes: object) -> Rows:
        self.row = msgspec.structs.replace(
            self.row,
            state=self.state,
            turns=self.bill.turns,
            receipt=self.receipt,
            worst=Amount(self.control.worst),
            unpaid=self._unpaid(),
            **changes,
        )
        return ((SESSION_ROWS + self.digest, encode(self.row)),)


_Handler = Callable[[Session, Any, Instant], list[Effect]]  # each takes the message that it is listed under

_STREAM_SUPPLIER: dict[type, _Handler] = {Stop: Session._told_to_stop}
_STREAM_CONSUMER: dict[type, _Handler] = {
    Metered: Session._metered,
    Stop: Session._told_to_stop,
    Final: Session._finished,
    Resumed: Session._resumed,
}
_HANDLERS: dict[tuple[Role, State], dict[type, _Handler]] = {
    (Role.SUPPLIER, State.STREAMING): _STREAM_SUPPLIER,
    (Role.SUPPLIER, State.STOPPING): _STREAM_SUPPLIER,
    (Role.SUPPLIER, State.SQUARING): _STREAM_SUPPLIER | {Square: Session._square},
    (Role.SUPPLIER, State.ENDED): {},
    (Role.CONSUMER, State.STREAMING): _STREAM_CONSUMER,
    (Role.CONSUMER, State.STOPPING): _STREAM_CONSUMER | {Metered: Session._metered_late},
    (Role.CONSUMER, State.SQUARING): {
        Metered: Session._ignore,
        Stop: Session._ignore,
        Final: Session._ignore,
        Receipted: Session._receipted,
        Resumed: Session._resumed,
    },
    (Role.CONSUMER, State.ENDED): {},
}
