"""What a car must keep to: nothing is promised that is not written down, nothing twice, and no more than was got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.channel import Close
from penstock.core.codec import decode
from penstock.core.messages import AskClose, Message, Paid, Propose, Square
from penstock.core.offer import Receipt
from penstock.core.session import SESSION_ROWS, Session, State
from penstock.core.units import Quantity
from penstock.node import book
from penstock.node.book import SECRET_ROWS
from penstock.node.consumer import Consumer
from penstock.rails.stream import StreamTerms, decode_terms
from penstock.sim.promises import Promises
from penstock.sim.reckoning import limits, sums

if TYPE_CHECKING:
    from penstock.sim.actors import CarActor
    from penstock.sim.checks import Checks


class CarAudit:
    """Follows what cars give away, over all their channels and lives."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self.promises = Promises(checks)
        self._secrets: dict[bytes, bytes] = {}  # the terms that each is for
        self._receipts: dict[bytes, Receipt] = {}  # by terms
        self._closes: dict[bytes, Close] = {}  # by channel

    def sends(self, car: CarActor, consumer: Consumer, frame: bytes) -> None:
        """What a car gives away is written down, and no more than it may be without."""
        if car.cheat == "rollback":
            return
        message, disk = decode(frame), car.disk
        match message:
            case Propose():
                digest = message.terms.digest()
                if SECRET_ROWS + digest not in disk.rows or SESSION_ROWS + digest not in disk.rows:
                    self._checks.fail("durable: a session was proposed that is not")
                elif self._secrets.setdefault(disk.rows[SECRET_ROWS + digest], digest) != digest:
                    self._checks.fail("no seed twice: the secret of one session's chains is another's, too")
                self.promises.give(car.disk, decode_terms(message.terms.rail_terms).params.id, (message.evidence,))
            case Paid():
                session = _session(consumer)
                self.promises.give(car.disk, book.account_in(session.row), message.evidence)
                self._check_given(car, session)
            case Square():
                self._square(car, _session(consumer), message)
            case AskClose():
                known = book.channel_of(disk, message.channel)
                if known is None or known.close != message.close:
                    self._checks.fail("durable: a close was signed over that is not")
                if self._closes.setdefault(message.channel, message.close) != message.close:
                    self._checks.fail("one close: the consumer signed another one for the same channel")
        self._check_open(message)

    def committed(self, car: CarActor, keys: list[bytes]) -> None:
        """A car's disk has more: what it holds for over is so for good."""
        if not car.cheat:
            self._checks.check_over(car.disk, keys)

    def _square(self, car: CarActor, session: Session, message: Square) -> None:
        row = book.session_of(car.disk, session.digest)
        if row is None or row.consumer_signature != message.signature:
            self._checks.fail("durable: a receipt was sent that is not")
        if self._receipts.setdefault(session.digest, message.receipt) != message.receipt:
            self._checks.fail("two receipts: the consumer signed another one for the same session")
        self.promises.give(car.disk, book.account_in(session.row), (message.evidence,))
        self._check_given(car, session)

    def _check_open(self, message: Message) -> None:
        """A signed close freezes its channel."""
        if isinstance(message, Propose):
            channel = decode_terms(message.terms.rail_terms).params.id
            if channel in self._closes:
                self._checks.fail("one close: a session was proposed over a channel whose close is signed")

    def _check_given(self, car: CarActor, session: Session) -> None:
        """A car never gave more than what it got is worth, its own meter's tolerance and its limit aside."""
        terms = session.terms
        stream = decode_terms(terms.rail_terms)
        given = self.promises.given.get(stream.params.id, 0) - stream.amount
        back = self._got_back(car, stream) if terms.feed is not None else 0
        if given - back > terms.budget:
            self._checks.fail(f"budget: {given - back} were given, {terms.budget} are the most for this session")
        self._check_exposure(car, session)

    def step(self) -> None:
        """Whenever time may have passed: what a car has fed in and paid beyond what it got is within its limit."""
        for car in self._checks.world.cars:
            session = car.consumer.session if car.consumer is not None and car.life.alive else None
            if session is not None and session.terms.feed is not None and session.state is not State.ENDED:
                self._check_exposure(car, session)

    def _check_exposure(self, car: CarActor, session: Session) -> None:
        terms, base = session.terms, session.row.base
        if car.cheat or car.spoiled:
            return
        if terms.feed is not None and self._checks.world.site.outlets[terms.offer.name].spoiled:
            return  # what its meter does not count flows at a price that nobody announced
        stream, tolerance, limit = decode_terms(terms.rail_terms), terms.offer.tolerance, limits(terms)[1]
        got, fed = car.meter.totals[0] - base.total, car.meter.totals[1] - base.export
        most = (got + tolerance.units) * 1_000_000 // (1_000_000 - tolerance.ppm) + 1
        turns = session.account.bill.turns, session.account.feed_turns
        out = self.promises.given.get(stream.params.id, 0) - stream.amount
        if terms.feed is None:
            due, _ = sums(terms, *turns, most, 0)
        else:
            due, owed = sums(terms, *turns, got, fed)
            due += max(0, terms.offer.tariff.highest.cost(Quantity(most - got)))
            out += owed - self._got_back(car, stream)
        if out > due + limit:
            self._checks.fail(
                f"exposure: {out} were given for {got} units by {car.name}, {fed} were fed in: they are worth {due}, "
                f"beyond tolerance and limit {limit}"
            )

    def _got_back(self, car: CarActor, stream: StreamTerms) -> int:
        """What is secured on the car's disk of what was paid back in this session."""
        before = stream.back.amount if stream.back is not None else 0
        return self._checks.secured(car.disk, stream.params.id) - before


def _session(consumer: Consumer) -> Session:
    assert consumer.session is not None
    return consumer.session
