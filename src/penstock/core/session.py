"""A session: reading -> due -> ticks, from the first package to the signed receipt. One machine for both roles.

    role      state      what it takes                                         what it waits for
    supplier  STREAMING  reading, Paid, AskWay, Stop, valve shut               payment for what flowed
              STOPPING   reading, Paid, AskWay, Stop, valve shut               the valve, then the last reading
              SQUARING   reading, Paid, AskWay, Stop, Square                   the exact payment and the receipt
    consumer  STREAMING  reading, Metered, Stop, Final, Resumed                supply for what was paid
              STOPPING   reading, Metered, Stop, Final, Resumed                the last reading
              SQUARING   reading, Metered, Stop, Final, Receipted, Resumed     the supplier's signature
    both      ENDED      reading

Where the offer has feed-in, the flow may turn round: then a consumer takes Paid, too, and both sides have a valve.
Which way it goes is the supplier's to say (`Metered.way`); a consumer asks (`AskWay`), and lets nothing flow that it
does not want.

Each event returns effects in the order in which they must happen. An event that does not belong raises and changes
nothing: IllegalEvent for one of ours, BadMessage for the peer's. In every state but ENDED there are also `stop`,
`link_lost`, `link_back` and `on_time`, so that nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from penstock.core.account import Account
from penstock.core.announced import Announced
from penstock.core.codec import encode
from penstock.core.control import Control
from penstock.core.effects import Allow, Continue, Effect, Ended, Persist, Rows, Send, ShutValve
from penstock.core.errors import BadMessage, BadReading, BadVoucher, IllegalEvent, RemoteError, Unbacked
from penstock.core.identity import Key, check_signed
from penstock.core.messages import (
    AskWay,
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
    Way,
)
from penstock.core.meter import Reading, Seal, SessionMeter
from penstock.core.offer import Receipt
from penstock.core.rail import Ends, Evidence, PayeeEnd, PayerEnd
from penstock.core.record import SESSION_ROWS, Patience, Role, SessionRow, State
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Duration, Instant, Price, Quantity

__all__ = ["SESSION_ROWS", "Patience", "Role", "Session", "SessionRow", "State"]

EMPTY = 64  # payments in a row that bring nothing: a resumption repeats one or two
_NOTHING = Evidence(b"")
HEARTBEAT = Duration(1_000)  # after which a supplier announces what is new, where nothing else makes it
TURN_EVERY = Duration(1_000)  # a flow turns no faster, whatever the consumer asks: contactors wear
BUNCHED = 8  # turns that may come at once: a link that stalled brings them together, and a limit does not wait
ALIVE = Duration(4_000)  # after which it repeats its reading where nothing is new: nothing may flow, but it is there


class Session:
    """One side of one session."""

    __slots__ = (
        "_alive", "_allowed", "_announced", "_announced_at", "_before", "_blamed", "_empty", "_handlers", "_heard",
        "_linked_at", "_mark", "_mark_before", "_moved", "_opened", "_reckons", "_rests", "_still", "_supplies",
        "_taken", "_told", "_turned_at", "_two_way", "account", "barred", "control", "digest", "fault", "key",
        "linked", "max_price", "meter", "min_feed", "order", "patience", "payee", "payer", "receipt", "row", "said",
        "seal", "state", "terms", "waits", "wanted", "way",
    )  # fmt: skip

    def __init__(
        self,
        row: SessionRow,
        ends: Ends,
        key: Key,
        now: Instant,
        patience: Patience | None = None,
        max_price: Price | None = None,
        seal: Seal | None = None,
        min_feed: Price | None = None,
        waits: bool = False,
    ) -> None:
        """Take up a session at what the journal has of it; its first row is a session that has just been accepted.

        The meter's own readings must follow before anything is given. `max_price` is the consumer's private limit, and
        `min_feed` the least that it feeds in for; above its limit it ends the session, or where it `waits`, its valve
        stays shut. `seal` checks the records of a supplier's meter that signs. `ends`
        has the payee's end of a supplier, the payer's of a consumer, and both where the consumer may feed in.
        """
        self.row = row
        self.terms = row.terms
        self.digest = row.terms.digest()
        self.key = key
        self.patience = patience or Patience()
        self.max_price, self.min_feed, self.waits = max_price, min_feed, waits
        self.seal = seal
        offer = row.terms.offer
        self.payer, self.payee = ends
        self._supplies = row.role is Role.SUPPLIER
        self._two_way = row.terms.feed is not None
        self._before = offer.mode == "pay-before"
        self.account = Account(row.terms, self._supplies, ends, row.turns, row.feed_turns)
        self.control: Control = self.account.control
        self.control.worst = row.worst
        self.meter = SessionMeter(row.base)
        if row.last is not None:
            self.meter.take(row.last)
        self.receipt = row.receipt
        self.fault = ""
        self.linked = False
        self.way = Way.SUPPLY
        self.wanted = Way.SUPPLY  # the consumer's wish
        self.order: Way | None = None  # the supplier's own, which comes before it
        self.barred: frozenset[Way] = frozenset()  # where nothing may flow for now, whoever wants it
        self.said = Announced(self.meter, offer.tolerance, self.account)
        self._heard = False  # a payment was taken that `secure` has not acted on
        self._blamed: Reason | None = None  # why it ends the session
        self._taken: dict[bytes, bytes | None] = {}  # its rows
        # A consumer that is restored knows what it gave; what came back for that, once its supplier has said so.
        self._reckons = self._supplies
        self._empty = 0  # payments since the last one that brought anything
        self._allowed = (Quantity(0), Quantity(0))
        self._mark = self._mark_before = (now, self.meter.at)  # our clock, and our meter's
        self._still = False  # the valve was shut, so that a dearer price takes effect while nothing flows
        self._opened = Way.HOLD  # the way for which a consumer's valve is open
        self._turned_at = Instant(-TURN_EVERY)
        self._announced = (Quantity(0), Quantity(0))
        self._announced_at = now
        self._told = 0  # what we announced as secured
        self._moved = now  # when the peer last got us on
        self._alive = now  # when it last showed that it is there
        self._rests = ((Quantity(0), Quantity(0)), now)  # where both registers stand, and since when
        self._linked_at = now  # when the link last came or went
        self._enter(row.state)
        if self.payee is not None:
            self.control.get(self.payee.secured)
            self.control.trust = min(self.account.first_trust, self.control.limit)
        if self.payer is not None:
            self.control.given = self.payer.paid  # what came back for it is known once the meters are

    # ---- what anybody may look at

    @property
    def role(self) -> Role:
        """Supplier or consumer."""
        return self.row.role

    @property
    def bill(self) -> Bill:
        """The bill of what is supplied."""
        return self.account.bill

    @property
    def reason(self) -> Reason | None:
        """Why the session ends or ended; None while it streams."""
        return self.row.reason

    @property
    def paid(self) -> Amount:
        """What the consumer paid: secured, as the supplier sees it, or given, as the consumer does."""
        return self._payee.secured if self._supplies else self._payer.paid

    @property
    def repaid(self) -> Amount:
        """What the supplier paid for what was fed in: given, as it sees it, or secured to the consumer."""
        if not self._two_way:
            return Amount(0)
        return self._payer.paid if self._supplies else self._payee.secured

    @property
    def ticks(self) -> int:
        """Ticks of the consumer, proven or revealed in this session."""
        return self._payee.ticks if self._supplies else self._payer.ticks

    @property
    def claimed(self) -> Quantity:
        """What the supplier announced that it supplied, as its consumer heard."""
        return self.said.total

    @property
    def complete(self) -> bool:
        """Whether both sides have signed the receipt."""
        return bool(self.row.consumer_signature and self.row.supplier_signature)

    @property
    def request(self) -> Resume:
        """What a consumer asks to take up the session with."""
        return Resume(self.digest, self._payee.state() if self._two_way else b"", self.wanted)

    # ---- events of our own side

    def begin(self, now: Instant) -> list[Effect]:
        """The terms are signed and the link is there: let the side that goes first give its first package.

        Raises:
            IllegalEvent: it has begun.
        """
        if self.linked or self.state is not State.STREAMING:
            raise IllegalEvent("a session begins once")
        self.linked = self._reckons = True
        self._moved = self._alive = self._announced_at = now
        if self._supplies:
            self.way = self._willing
            if self.way is not Way.SUPPLY or self.account.turns_at(self.meter.at):
                return self._announce(now) + self._release()
        effects = self._release()
        if not self._supplies:
            effects += self._pay()
        return effects

    def on_reading(self, reading: Reading, now: Instant) -> list[Effect]:
        """A reading of our own meter's registers. A supplier announces it when a tick is due, or flow has to wait.

        Raises:
            DeviceError: a register went back; stop with Reason.DEVICE_FAILED.
        """
        if self.row.last is not None:
            return []
        total = self.meter.take(reading)
        if self.state is not State.STREAMING or not (self._supplies or self._two_way):
            return []
        account = self.account
        if self._supplies and self._two_way:
            account.came_to_us(total, self.meter.export)  # first: one that was restored knows of neither
        if self._reckons:
            account.flowed_from_us(*self._stand)
        if not self._supplies:
            return []
        if not self.linked or (total, self.meter.export) == self._announced:
            return []
        if self._two_way and account.payable(self.way, *self._known) - account.paid >= self._tick:
            return self._announce(now) + self._pay()  # what we owe may be what the flow waits for
        return self._announce(now) + self._pay() if self._tick_due() else []

    def _tick_due(self) -> bool:
        """Whether what flowed since the last announcement is worth a tick, or the flow waits for one."""
        meter, before, account, terms = self.meter, self._announced, self.account, self.terms
        if meter.total >= self._allowed[0] and self.way is not Way.FEED:
            return True
        if not self._two_way:
            return account.bill.due(meter.total) - account.bill.due(before[0]) >= terms.offer.tick_value
        if account.due(meter.total, meter.export) - account.due(*before) >= terms.offer.tick_value:
            return True
        assert terms.feed is not None
        if account.owed(meter.total, meter.export) - account.owed(*before) >= terms.feed.tick_value:
            return True
        return self.way is Way.FEED and meter.export >= self._allowed[1]

    def valve_shut(self, reading: Reading, now: Instant) -> list[Effect]:
        """The valve is shut and this is the register. Ends the supply for good where the session is stopping.

        Raises:
            DeviceError: a register went back. IllegalEvent: a consumer has no valve, but where the flow may turn round.
        """
        if not self._valved:
            raise IllegalEvent("a consumer has no valve")
        if self.row.last is not None:
            return []
        total = self.meter.take(reading)
        if self._reckons:
            self.account.flowed_from_us(*self._stand)
        if not self._supplies:
            return []
        if self._still and self.state is State.STREAMING:
            return self._turn(now)
        self._still = False
        if self.state is State.ENDED:  # given up: what the rail makes of the last reading needs nobody else
            self.account.turn(total, self.meter.export, reading.at)
            rows = self._attest().rows
            return [Persist(rows + self._row(last=reading))] if rows else []
        if self.state is not State.STOPPING:
            return []
        effects = self.secure(now)
        self.account.turn(total, self.meter.export, reading.at)
        if self._two_way:
            effects += self._give(self._payer.fold())  # what we paid backs what the consumer still has to pay
        self._enter(State.SQUARING)
        self._moved = now
        proof = self._attest()
        return [*effects, Persist(proof.rows + self._row(last=reading)), Send(self._final(proof))]

    def stop(self, reason: Reason, now: Instant) -> list[Effect]:
        """End the session from our side. Nothing where it is ending already."""
        return self.secure(now) + self._stop(reason, now)

    def bar(self, ways: frozenset[Way], now: Instant) -> list[Effect]:
        """A supplier lets nothing flow these ways from now on, and everything that another call barred."""
        if not self._supplies:
            raise IllegalEvent("a consumer asks for another way")
        self.barred = ways
        if self.state is not State.STREAMING:
            return []
        if self.way in ways:
            self._turned_at = Instant(now - TURN_EVERY)  # a limit does not wait
        return self.secure(now) + self._follow(now)

    def direct(self, way: Way | None, now: Instant) -> list[Effect]:
        """Which way the flow is to go. A supplier decides, whatever the consumer wants (None: as it wants).

        A consumer asks. Until the answer nothing is supplied that it does not want; it feeds in when it is told to, as
        the terms say.
        """
        if self.state is not State.STREAMING:
            return []
        effects = self.secure(now)
        if self._supplies:
            self.order = way
            return effects + self._follow(now)
        self.wanted, self._announced_at = Way.SUPPLY if way is None else way, now
        if self.linked:
            effects.append(Send(AskWay(self.wanted)))
        return effects + self._reopen()

    def link_lost(self, now: Instant) -> list[Effect]:
        """The link is gone: no flow without it. The peer has `patience.return_` to come back."""
        effects = self.secure(now)
        self.linked = False
        self._linked_at = now
        if not self._valved or self.state is State.ENDED:
            return effects
        return effects + self._shut()

    def link_back(self, now: Instant, asked: Resume | None = None) -> list[Effect]:
        """There is a link to the same peer again: the consumer asks to resume, the supplier, who was `asked` so, says
        where it stands.

        Nothing in a session that has ended meanwhile: its last messages are on their way.

        Raises:
            RemoteError: the consumer claims what was never paid to it. Nothing has changed.
        """
        if self.state is State.ENDED:
            return []
        if not self._supplies:
            self._linked_at = now
            return [Send(self.request)]
        again = self._payer.resume(asked.state) if self._two_way and asked is not None else []
        self._linked_at = now
        effects = self.secure(now)
        self.linked = True
        if asked is not None:
            self.wanted = asked.way
        if self.way is not self._willing:
            self.way = self._willing
            if self.state is State.STREAMING:  # we may not have missed the last link: the valve is open the other way
                self._allowed = self._known
                effects.append(ShutValve())
        total, at, export, record = self.meter.total, self.meter.at, self.meter.export, self.meter.record
        self._announced, self._announced_at, self._told = (total, export), now, self.account.received
        turned = self.account.turn(total, export, at)  # as the consumer's will: this reading is announced
        proof = self._attest()
        if turned or proof.rows:
            effects.append(Persist(proof.rows + self._row(reason=self.row.reason)))
        turns, feed_turns, state = self.account.bill.turns, self.account.feed_turns, self._payee.state()
        effects.append(Send(Resumed(total, at, turns, state, proof.data, record, export, feed_turns, self.way)))
        effects += self._give(again)
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
        self._announced_at, self._alive = min(self._announced_at, now), min(self._alive, now)
        streams = self.linked and self.state is State.STREAMING
        if streams and not self._owed():  # it is not the other's move; but a supplier says that it is there
            self._moved = now if self._supplies else max(self._moved, self._alive)
        move, return_ = self.patience.move, self.patience.return_
        apart, waited = now - self._linked_at, min(now - self._linked_at, now - self._moved)
        # A peer that comes back again and again, but never gets on, is as good as gone.
        if now - self._moved > move + return_ or (not self.linked and apart > return_):
            return self._give_up(Reason.PEER_GONE, now)
        if self.linked and not streams and waited > move:
            return self._give_up(Reason.PEER_GONE, now)
        if streams and waited > move:
            paid_for = not self._supplies and not self._gives
            return self._stop(Reason.SUPPLY_STALLED if paid_for else Reason.PAYMENT_STALLED, now)
        if not streams:
            return []
        if self._supplies and self._rested(now) > self.patience.rest:
            return self._stop(Reason.RESTED, now)
        effects = self._release()  # either side may have put more into the channel, for which nothing else wakes us
        if self._supplies:
            effects += self._follow(now)
            if now - self._announced_at >= (HEARTBEAT if self._has_news else ALIVE):
                effects += self._announce(now)
            effects += self._pay()
        elif self._two_way and self.way is not self.wanted and now - self._announced_at >= ALIVE:
            self._announced_at = now  # what we asked for may not have arrived
            effects.append(Send(AskWay(self.wanted)))
        return effects + self._give(self.payer.fold()) if self.payer is not None else effects

    def _rested(self, now: Instant) -> int:
        """For how long nothing has flowed either way (ms)."""
        stand, since = (self.meter.total, self.meter.export), self._rests[1]
        if stand != self._rests[0] or now < since:
            self._rests = stand, now
        return now - self._rests[1]

    @property
    def _has_news(self) -> bool:
        """Whether the consumer does not know our reading, what is secured, or a price that is in force by now."""
        meter, account = self.meter, self.account
        moved = (meter.total, meter.export) != self._announced
        return moved or account.received != self._told or account.turns_at(meter.at)

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
            Unbacked: the supplier counts on a deposit that we have not seen yet; cut the link, and it says it again.
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
            if isinstance(error, Unbacked) and not self._supplies:
                raise
            self.fault, self._blamed = str(error), Reason.PEER_CHEATED
            return
        self._empty += 1
        if self._empty > EMPTY:
            raise BadMessage("payments that bring nothing, one after the other")
        if not self._supplies:
            return
        total, allowed = message.total, self._allowed[0]
        if total > allowed and total > allowed + self.terms.offer.tolerance.at(allowed) and not self._two_way:
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
        if self.account.receive():
            self._moved = now
            self.account.came_to_us(*self._known)
        if self._blamed is not None:
            reason, self._blamed = self._blamed, None
            return effects + self._stop(reason, now)
        return effects + self._release() if self.state is State.STREAMING else effects

    # ---- the flow

    @property
    def _valved(self) -> bool:
        """Whether we have a valve."""
        return self._supplies or self._two_way

    @property
    def _known(self) -> tuple[Quantity, Quantity]:
        """Import and export as both sides know them: our own registers, or what the supplier announced."""
        return (self.meter.total, self.meter.export) if self._supplies else (self.said.total, self.said.export)

    @property
    def _stand(self) -> tuple[Quantity, Quantity]:
        """Import and export by our own meter; a consumer's is set by the supplier's, whose registers are billed."""
        return (self.meter.total, self.meter.export) if self._supplies else self.said.stand

    @property
    def _gives(self) -> bool:
        """Whether what flows now makes the other side owe us, on the consumer's side."""
        return self._two_way and self.account.gives(self.way)

    @property
    def _willing(self) -> Way:
        """The way that a supplier lets the flow go: its own, or the consumer's; back only where the terms have it."""
        way = self.wanted if self.order is None else self.order
        return Way.HOLD if way in self.barred or (way is Way.FEED and not self.terms.feed_limit) else way

    @property
    def _open(self) -> Way:
        """The way for which our own valve opens."""
        if self._supplies or self.way is Way.HOLD:
            return self.way
        if self.way is Way.SUPPLY:
            return self.way if self.wanted is Way.SUPPLY and not self._too_dear else Way.HOLD
        least, feed = self.min_feed, self.account.feed
        if least is None or feed is None or feed.price.amount * least.per >= least.amount * feed.price.per:
            return self.way
        return Way.HOLD

    @property
    def _too_dear(self) -> bool:
        """Whether the price in force is above the consumer's limit."""
        most, price = self.max_price, self.account.bill.price
        return most is not None and price.amount * most.per > most.amount * price.per

    def _follow(self, now: Instant) -> list[Effect]:
        """Turn the flow where it is to go another way, but not faster than a contactor can stand."""
        way = self._willing
        if way is self.way or self.state is not State.STREAMING or not 0 <= now - self._turned_at >= TURN_EVERY:
            return []
        self.way, self._turned_at = way, now
        if not self.linked:
            return []
        self._allowed = self._known
        return [ShutValve(), *self._announce(now), *self._release()]

    def _reopen(self) -> list[Effect]:
        """A consumer's valve, where it is to open another way than it did."""
        if not self._two_way or self._open is self._opened:
            return []
        self._opened = self._open
        self._allowed = self._stand
        return [ShutValve(), *self._release()]

    def _release(self) -> list[Effect]:
        """Let the flow run as far as payment, trust, budget, channel and quantity allow."""
        if not self._valved or not self.linked:
            return []
        stand, (allowed, allowed_back) = self._stand, self._allowed
        supply, back = self.account.reach(self._open, *stand, self.meter.at, self.terms.feed_limit or 0)
        if self._supplies:  # what was allowed stands until the valve is shut, as it is for a dearer price
            supply, back = max(supply, allowed), max(back, allowed_back)
        if (supply, back) == (allowed, allowed_back):
            return []
        self._allowed = supply, back
        base, apart = self.row.base, self.said.apart
        total = Quantity(base.total + self._allowed[0] + apart[0])
        if not self._two_way:
            return [Allow(total)]
        return [Allow(total, Quantity(base.export + self._allowed[1] + apart[1]))]

    def _shut(self) -> list[Effect]:
        self._allowed = (Quantity(0), Quantity(0))
        self.control.trust = min(self.account.first_trust, self.control.limit)
        return [ShutValve()]

    def _owed(self) -> bool:
        """Whether it is the other's move: it owes a tick, or flow has run as far as it may for want of its payment."""
        exposure, terms = self.control.exposure, self.terms
        if self._supplies:
            waits = self.way is Way.SUPPLY and self.meter.total >= self._allowed[0]
            return exposure >= terms.offer.tick_value or waits
        if self._gives:
            return exposure >= (terms.feed or terms.offer).tick_value
        return self._open is Way.SUPPLY

    def _pay(self) -> list[Effect]:
        """Pay what the control unit lets go, in whole ticks."""
        if self.payer is None:
            return []
        known, account = self._known, self.account
        paid = self._give(account.pay(self.way, *known))
        if paid and account.payable(self.way, *known) - self.payer.paid >= self._tick:
            # While the disk takes a voucher, the next part is made; what waits for nothing leaves before.
            paid.insert(0 if type(paid[0]) is Persist else len(paid), Continue())
        return paid

    @property
    def _tick(self) -> int:
        """What one of our own ticks is worth."""
        terms = self.terms
        return terms.feed.tick_value if self._supplies and terms.feed is not None else terms.offer.tick_value

    def _give(self, evidence: list[Evidence]) -> list[Effect]:
        if not evidence:
            return []
        self.account.flowed_from_us(*self._stand)
        rows = tuple(row for one in evidence for row in one.rows)
        total = self.meter.total
        paid: list[Effect] = [Send(Paid(total, (one.data,))) for one in evidence]
        return [Persist(rows), *paid] if rows else paid

    # ---- the supplier

    @property
    def _payee(self) -> PayeeEnd:
        assert self.payee is not None
        return self.payee

    def _square(self, message: Square, now: Instant) -> list[Effect]:
        receipt, rail, account = message.receipt, self._payee, self.account
        net = account.net(self.meter.total, self.meter.export)
        check_signed(receipt.digest(), message.signature, self.terms.consumer, "the receipt")
        expected = Receipt(
            terms=self.digest,
            supplier_total=self.meter.total,
            consumer_total=receipt.consumer_total,
            paid=receipt.paid,
            unpaid=Amount(max(0, net - (receipt.paid - receipt.repaid))),
            ticks=receipt.ticks,
            reason=receipt.reason,
            at=receipt.at,
            supplier_export=self.meter.export,
            consumer_export=receipt.consumer_export,
            repaid=receipt.repaid,
        )
        most = rail.capacity // self.terms.offer.tick_value
        if receipt != expected or receipt.reason not in set(Reason) or not rail.ticks <= receipt.ticks <= most:
            raise BadMessage("the receipt does not say what this session was")
        least = min(rail.secured - account.paid, net)
        if receipt.paid - receipt.repaid < least:
            raise BadVoucher(f"the receipt pays {receipt.paid - receipt.repaid}, less than the {least} secured")
        most_back = max(account.paid, receipt.paid - net)
        if not account.paid <= receipt.repaid <= most_back:
            raise BadMessage(f"the receipt says that we paid {receipt.repaid}, and not {account.paid} to {most_back}")
        rows = rail.take(message.evidence, least=receipt.paid)
        if receipt.repaid and receipt.repaid > self._payer.capacity:  # seen only now: what we were just paid backs it
            self._taken.update(rows)
            self._heard = True  # it is paid all the same
            raise BadMessage(
                f"the receipt says that we pay {receipt.repaid}, more than the {self._payer.capacity} we can"
            )
        last = self._payer.square(receipt.repaid) if receipt.repaid or account.paid else _NOTHING
        account.receive()
        account.came_to_us(*self._known)
        self.receipt = receipt
        self._enter(State.ENDED)
        signature = self.key.sign(receipt.digest())
        row = self._row(
            reason=Reason(receipt.reason),
            consumer_signature=message.signature,
            supplier_signature=signature,
            last_evidence=last.data,
        )
        return [Persist(rows + last.rows + row), Send(Receipted(signature, last.data)), Ended()]

    def _asked(self, message: AskWay, now: Instant) -> list[Effect]:
        self.wanted = message.way
        return self._follow(now)

    def _announce(self, now: Instant) -> list[Effect]:
        if not self._still and self._flows and self.account.grows_dearer(self.meter.at):
            # What still flows after the reading at which a dearer price takes effect would cost more than was allowed:
            # it is the reading after the valve was shut that turns the bill.
            self._still = True
            return [ShutValve()]
        self._still = False
        total, at, export = self.meter.total, self.meter.at, self.meter.export
        turned = self.account.turn(total, export, at)
        proof = self._attest()
        secured = self.account.received
        self._announced, self._announced_at, self._told = (total, export), now, secured
        said = Send(Metered(total, at, secured, proof.data, self.meter.record, export, self.way))
        if not turned:
            return [Persist(proof.rows), said, *self._release()] if proof.rows else [said]
        # What may still flow costs another price now.
        before, self._allowed = self._allowed, (Quantity(0), Quantity(0))
        released = self._release()
        less = self._allowed[0] < before[0] or self._allowed[1] < before[1]
        shut: list[Effect] = [ShutValve()] if less else []
        return [*shut, Persist(proof.rows + self._row(reason=self.row.reason)), said, *released]

    def _turn(self, now: Instant) -> list[Effect]:
        """The valve was shut for a dearer price: announce where it stands, and let flow what that price allows."""
        if not self.linked:
            self._still = False
            return []
        self._allowed = self._known
        announced = self._announce(now)
        return announced if any(isinstance(effect, Allow) for effect in announced) else announced + self._release()

    @property
    def _flows(self) -> bool:
        """Whether our valve lets anything flow now."""
        return self.meter.total < self._allowed[0] or (self._two_way and self.meter.export < self._allowed[1])

    def _attest(self) -> Evidence:
        """What the rail makes of the reading that is about to be announced; it may secure by it."""
        proof = self._payee.metered(self.account.bill, self.meter.total, self.meter.at, self.state is State.SQUARING)
        if proof is None:
            return _NOTHING
        self.account.receive()
        self.account.came_to_us(*self._known)
        return proof

    def _final(self, proof: Evidence) -> Final:
        assert self.row.reason is not None
        meter = self.meter
        return Final(meter.total, meter.at, self.row.reason, proof.data, meter.record, meter.export)

    # ---- the consumer

    @property
    def _payer(self) -> PayerEnd:
        assert self.payer is not None
        return self.payer

    def _metered(self, message: Metered, now: Instant) -> list[Effect]:
        total, export, account = message.total, message.export, self.account
        self._alive = now
        try:
            self._check_record(message)
            self.said.check(total, export, account)
            account.check_clock(message.at, self.meter.at, self._lately(now))
        except BadReading as error:
            self.fault = str(error)
            return self._stop(Reason.PEER_CHEATED, now)
        effects: list[Effect] = [self._persist()] if account.turn(total, export, message.at) else []
        if self.said.exceeds(total, export) or self._beyond_reach(total):
            self.fault = (
                f"the supplier's meter says {total} and {export}, ours {self.meter.total} and {self.meter.export}"
            )
            return [*effects, *self._stop(Reason.METERS_DISAGREE, now)]
        if self.said.take(total, export):
            self._moved = now
        if self._two_way:
            self.said.set_by(total, export)
        if message.way is not self.way and not self._turns(now):
            self.fault = "the supplier turns the flow faster than a contactor can stand"
            return [*effects, *self._stop(Reason.PEER_CHEATED, now)]
        self.way = message.way
        if self._too_dear and not self.waits:
            return [*effects, *self._stop(Reason.PRICE_OVER_LIMIT, now)]
        account.flowed_from_us(*self._stand)
        account.came_to_us(total, export)
        try:
            effects += self._believe(message, last=False)
        except RemoteError as error:
            self.fault = str(error)
            kept = [Persist(error.proof)] if isinstance(error, BadReading) and error.proof else []
            return [*effects, *kept, *self._stop(Reason.PEER_CHEATED, now)]
        effects += self._reopen() or self._release()
        effects += self._pay()
        reason = self._reached(total)
        return [*effects, *self._stop(reason, now)] if reason else effects

    def _lately(self, now: Instant) -> int:
        """How far our meter's clock went in the last few seconds of ours: so late may be what is announced."""
        if not 0 <= now - self._mark[0] < self.patience.move:
            self._mark_before, self._mark = self._mark, (now, self.meter.at)
        return max(0, self.meter.at - self._mark_before[1])

    def _turns(self, now: Instant) -> bool:
        """Count a turn; returns whether there were no more than one in `TURN_EVERY`, but for `BUNCHED`."""
        first = now - BUNCHED * TURN_EVERY
        last = self._turned_at if first < self._turned_at <= now else first  # or our clock was set back
        self._turned_at = Instant(last + TURN_EVERY)
        return self._turned_at <= now

    def _beyond_reach(self, total: int) -> bool:
        """Whether more flowed than the supplier could have let, by what it says that its meter counted: that is a lie.

        Our own valve bounds what flows, where we have one; and where readings pay, what is signed alone is paid.
        """
        if self._two_way or self._payer.by_meter:
            return False
        offer, own = self.terms.offer, self.meter.total
        reach = self.account.bill.affords(self._payer.paid + (0 if self._before else offer.credit_limit), total)
        return own > reach + offer.tolerance.at(own)

    def _believe(self, message: Metered | Final, *, last: bool) -> list[Effect]:
        """What the rail makes of a reading that the supplier announced and we agree with."""
        rail = self._payer
        rows = rail.metered(message.evidence, self.account.bill, message.total, message.at, last)
        if not rows:
            return []
        self.account.flowed_from_us(*self._stand)
        return [Persist(rows)]

    def _check_record(self, message: Metered | Final) -> None:
        if self.seal is not None:
            self.seal.check(message.record, message.total, message.at)

    def _metered_late(self, message: Metered, now: Instant) -> list[Effect]:
        """It crossed with a Stop. Nothing is paid on it, but where the supplier's bill turned here, ours must too."""
        least, least_back = self.said.least(self.account)
        if message.total < least or message.export < least_back:
            return []
        self._check_record(message)
        self.said.take(message.total, message.export)
        turned: list[Effect] = [self._persist()] if self.account.turn(*self._known, message.at) else []
        try:
            return turned + self._believe(message, last=False)
        except BadReading as error:
            if not error.proof:
                raise
            return [*turned, Persist(error.proof)]

    def _reached(self, total: Quantity) -> Reason | None:
        """Which of our limits the supply has reached, if any."""
        if total >= self.terms.quantity_limit and self._open is Way.SUPPLY:
            return Reason.TARGET_REACHED
        account, budget, capacity = self.account, self.terms.budget, self._payer.capacity
        if self._two_way:
            if self._open is not Way.SUPPLY or not account.spent(Way.SUPPLY, *self._stand):
                return None
            spent = account.net(*self._known) + self._tick > budget
            return Reason.BUDGET_SPENT if spent else Reason.WALLET_EMPTY
        sum_ = min(budget, capacity)
        if self._before:
            sum_ -= sum_ % self.terms.offer.tick_value
        if total < account.bill.affords(sum_, total):
            return None
        return Reason.BUDGET_SPENT if budget <= capacity else Reason.WALLET_EMPTY

    def _finished(self, message: Final, now: Instant) -> list[Effect]:
        """The supply is over: agree on the bill, pay it to the token unit, sign the receipt."""
        total, export, account = message.total, message.export, self.account
        own, back = self.meter.total, self.meter.export
        self._check_record(message)
        least, least_back = self.said.least(account)
        account.turn(max(total, least), max(export, least_back), message.at)
        reason = self.row.reason or message.reason
        paid = self._last_payment(total, export)
        believed: list[Effect] = []
        if self.said.differs(total, export) or total < self.claimed or export < self.said.export:
            self.fault = self.fault or f"the supplier's meter ends at {total} and {export}, ours at {own} and {back}"
            reason = Reason.METERS_DISAGREE
        if reason is Reason.METERS_DISAGREE:
            paid = self._payer.paid
        else:
            try:
                believed = self._believe(message, last=True)
            except BadReading as error:
                if not error.proof:
                    raise
                self.fault = str(error)
                return [Persist(error.proof), *self._give_up(Reason.PEER_CHEATED, now)]
        self.said.take(total, export)
        evidence = self._payer.square(paid)
        repaid = account.received
        if self._two_way and reason is not Reason.METERS_DISAGREE:  # backed by what we have just paid, too
            owed_back = paid - min(account.net(total, export), self.terms.budget)
            repaid = max(repaid, min(Amount(owed_back), self._payee.capacity))
        self.receipt = Receipt(
            terms=self.digest,
            supplier_total=total,
            consumer_total=own,
            paid=Amount(paid),
            unpaid=Amount(max(0, account.net(total, export) - (paid - repaid))),
            ticks=self._payer.ticks,
            reason=reason,
            at=now,
            supplier_export=export,
            consumer_export=back,
            repaid=Amount(repaid),
        )
        signature = self.key.sign(self.receipt.digest())
        self._enter(State.SQUARING)
        self._moved = now
        rows = self._row(reason=reason, consumer_signature=signature)
        return [*believed, Persist(evidence.rows + rows), Send(Square(self.receipt, signature, evidence.data))]

    def _last_payment(self, total: Quantity, export: Quantity) -> int:
        """What we shall have paid in all: the net sum, with what was paid back to us; and no less than we have paid,
        but for what was paid ahead."""
        account, payer = self.account, self._payer
        paid = min(payer.paid, account.due(total, export)) if self._before else payer.paid
        if not self._two_way:
            paid = Amount(0)
        net = min(account.net(total, export), self.terms.budget)
        return min(max(net + account.received, paid), payer.capacity)

    def _receipted(self, message: Receipted, now: Instant) -> list[Effect]:
        assert self.receipt is not None
        check_signed(self.receipt.digest(), message.signature, self.terms.offer.supplier, "the receipt")
        rows: Rows = ()
        if message.evidence and self._two_way:
            rows = self._payee.take(message.evidence, least=self.receipt.repaid)
            self.account.receive()
        elif self.receipt.repaid > self.account.received:
            raise BadMessage("the supplier signs a receipt that says more than it paid")
        self._enter(State.ENDED)
        return [Persist(rows + self._row(supplier_signature=message.signature)), Ended()]

    def _resumed(self, message: Resumed, now: Instant) -> list[Effect]:
        if message.at > self.meter.at:  # before the turns that it made meanwhile are believed
            self.account.check_clock(message.at, self.meter.at, self._lately(now))
        bill, feed = self.said.caught_up(self.account, message)
        evidence = self._payer.resume(message.state)
        account, turned = self.account, self.account.take_up(bill, feed)
        kept: list[Effect] = [self._persist()] if turned else []  # before anything is paid at the new price
        if not self.linked:
            self._linked_at = now
        self.linked = True
        self._alive = now
        if self.state is State.SQUARING:
            assert self.receipt is not None
            last = self._payer.square(self.receipt.paid)
            return [*kept, Send(Square(self.receipt, self.row.consumer_signature, last.data))]
        account.came_to_us(*self.said.within(message.total, message.export))
        self._reckons = True
        effects = kept + self._give(evidence)
        account.flowed_from_us(*self._stand)
        if self.state is State.STOPPING:
            assert self.row.reason is not None
            return [*effects, Send(Stop(self.row.reason))]
        total, at, record, way = message.total, message.at, message.record, message.way
        self._opened = Way.HOLD  # our valve was shut with the link
        return effects + self._metered(
            Metered(total, at, Amount(0), message.evidence, record, message.export, way), now
        )

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
        shut = self._shut() if self._valved else []
        return [*shut, self._persist(reason=reason)]

    def _give_up(self, reason: Reason, now: Instant) -> list[Effect]:
        """End without the peer: what is secured is ours, and the ledger pays it."""
        shut = self._shut() if self._valved else []
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
        if not self._supplies or self.state is not State.ENDED:
            return Amount(0)
        account, rail = self.account, self._payee
        net = min(account.net(self.meter.total, self.meter.export), self.terms.budget)
        return Amount(max(0, min(net + account.paid, rail.capacity) - rail.secured))

    def _row(self, **changes: object) -> Rows:
        self.row = msgspec.structs.replace(
            self.row,
            state=self.state,
            turns=self.account.bill.turns,
            feed_turns=self.account.feed_turns,
            receipt=self.receipt,
            worst=Amount(self.control.worst),
            unpaid=self._unpaid(),
            **changes,
        )
        return ((SESSION_ROWS + self.digest, encode(self.row)),)


_Handler = Callable[[Session, Any, Instant], list[Effect]]  # each takes the message that it is listed under

_STREAM_SUPPLIER: dict[type, _Handler] = {Stop: Session._told_to_stop, AskWay: Session._asked}
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
