"""What a car must keep to: nothing is promised that is not written down, nothing twice, and no more than was got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.channel import Close
from penstock.core.codec import decode, decode_part
from penstock.core.messages import AskClose, Message, Paid, Propose, Square
from penstock.core.offer import Receipt
from penstock.core.session import SESSION_ROWS, Session
from penstock.core.tariff import Bill
from penstock.core.units import Quantity
from penstock.node import book
from penstock.node.book import SECRET_ROWS
from penstock.node.consumer import Consumer
from penstock.rails.stream import VoucherNote, _parse_tick, decode_terms

if TYPE_CHECKING:
    from penstock.sim.actors import CarActor
    from penstock.sim.checks import Checks


class CarAudit:
    """Follows what cars give away, over all their channels and lives."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._roots: dict[tuple[bytes, bytes], int] = {}  # of locks, by channel, and the voucher that brought each
        self._signed: dict[tuple[bytes, int], bytes] = {}  # vouchers, by channel and nonce
        self._secrets: dict[bytes, bytes] = {}  # the terms that each is for
        self._receipts: dict[bytes, Receipt] = {}  # by terms
        self._closes: dict[bytes, Close] = {}  # by channel
        self._given: dict[bytes, int] = {}  # by channel, as things stand: a bill may be less than what was paid ahead

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
                self._gave(car, decode_terms(message.terms.rail_terms).params.id, (message.evidence,))
            case Paid():
                session = _session(consumer)
                self._gave(car, book.account_in(session.row), message.evidence)
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
        self._gave(car, book.account_in(session.row), (message.evidence,))
        self._check_given(car, session)

    def _check_open(self, message: Message) -> None:
        """A signed close freezes its channel."""
        if isinstance(message, Propose):
            channel = decode_terms(message.terms.rail_terms).params.id
            if channel in self._closes:
                self._checks.fail("one close: a session was proposed over a channel whose close is signed")

    def _gave(self, car: CarActor, channel: bytes, evidence: tuple[bytes, ...]) -> None:
        for one in evidence:
            paid = book.paid_of(car.disk, channel)
            held = paid.note.voucher if paid else None
            if one[:1] == b"\x02":
                note = decode_part(one[1:], VoucherNote)
                nonce, value = note.voucher.nonce, note.voucher.amount
                self._check_once(channel, note)
            else:
                nonce, count, _ = _parse_tick(one)
                if held is None or paid is None or nonce > held.nonce:
                    self._checks.fail(f"durable: ticks were revealed under voucher {nonce}, which is not")
                    return
                if nonce != held.nonce:
                    continue  # a fold in the same message follows
                value = held.amount + count * (paid.note.locks[0].tick_value if paid.note.locks else 0)
            if held is None or held.nonce < nonce:
                self._checks.fail(f"durable: voucher {nonce} was sent, and is not")
            self._given[channel] = value
            self._checks.promised[channel] = max(self._checks.promised.get(channel, 0), value)

    def _check_once(self, channel: bytes, note: VoucherNote) -> None:
        """A nonce is signed once, and a chain is used once."""
        voucher = note.voucher
        if self._signed.setdefault((channel, voucher.nonce), note.signature) != note.signature:
            self._checks.fail(f"no signature twice: there are two vouchers {voucher.nonce} in one channel")
        for lock in note.locks:
            if self._roots.setdefault((channel, lock.root), voucher.nonce) != voucher.nonce:
                self._checks.fail(f"no seed twice: the chain under voucher {voucher.nonce} has been used before")

    def _check_given(self, car: CarActor, session: Session) -> None:
        """A car never gave more than what it got is worth, its own meter's tolerance and its limit aside."""
        stream = decode_terms(session.terms.rail_terms)
        given = self._given.get(stream.params.id, 0) - stream.amount
        if given > session.terms.budget:
            self._checks.fail(f"budget: {given} were given, {session.terms.budget} are the most for this session")
        if car.cheat or car.spoiled:
            return
        offer = session.terms.offer
        got = car.meter.total - session.row.base.total
        units, ppm = offer.tolerance.units, offer.tolerance.ppm
        most = (got + units) * 1_000_000 // (1_000_000 - ppm) + 1
        limit = offer.credit_limit if offer.mode == "pay-before" else 0
        if given > Bill(offer.tariff, session.bill.turns).due(Quantity(most)) + limit:
            self._checks.fail(f"exposure: {given} were given for {got} units, beyond tolerance and limit {limit}")


def _session(consumer: Consumer) -> Session:
    assert consumer.session is not None
    return consumer.session
