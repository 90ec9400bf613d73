"""Two sessions over the stream rail, joined back to back without a shell or a ledger (`penstock.testing.rail`)."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode_part, encode
from penstock.core.effects import Effect, Send
from penstock.core.identity import Address, Key
from penstock.core.messages import Paid
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.session import Role, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import Instant, Price, Quantity
from penstock.rails.stream import (
    CAPABILITIES,
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
from penstock.testing.rail import Books
from penstock.testing.rail import pair as kit

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


class Ends:
    """Both ends of a session over PARAMS, without a ledger."""

    def __init__(self, terms: Terms, deposit: int) -> None:
        self.rail_terms, self.deposit = terms.rail_terms, deposit
        self.stream = msgspec.json.decode(terms.rail_terms, type=StreamTerms)

    def payer(self, books: Books) -> StreamPayer:
        paid = books.get(PAID_ROWS + PARAMS.id)
        return StreamPayer(self.stream, self.deposit, CONSUMER, SECRET, decode_paid(paid) if paid else None)

    def payee(self, books: Books) -> StreamPayee:
        earned, ticks = books.get(EARNED_ROWS + PARAMS.id), books.get(TICK_ROWS + PARAMS.id)
        return StreamPayee(self.stream, self.deposit, decode_earned(earned) if earned else None, ticks)


class Side(kit.Side):
    """One session with its journal and its meter's register, over the stream rail."""

    def __init__(self, role: Role, terms: Terms, deposit: int, max_price: Price | None = None) -> None:
        key, register = (SUPPLIER, 1_000) if role is Role.SUPPLIER else (CONSUMER, 50)
        row = session_row(role, terms, Reading(Quantity(register), START))
        self.deposit = deposit
        super().__init__(role, key, row, Ends(terms, deposit), max_price)

    def end(self) -> StreamPayee | StreamPayer:
        return self.payee_in_journal() if self.role is Role.SUPPLIER else self.ends.payer(self.journal)

    def payee_in_journal(self) -> StreamPayee:
        """The payee's end as the journal alone has it."""
        return self.ends.payee(self.journal)

    def secured(self) -> int:
        return self.payee_in_journal().secured


class Pair(kit.Pair):
    """A supplier and a consumer on one line, under one clock. What left the consumer is read off its evidence."""

    supplier: Side
    consumer: Side

    def __init__(
        self, terms: Terms | None = None, deposit: int = DEPOSIT, max_price: Price | None = None, begin: bool = True
    ) -> None:
        terms = terms or make_terms()
        sides = Side(Role.SUPPLIER, terms, deposit), Side(Role.CONSUMER, terms, deposit, max_price)
        super().__init__(*sides, CAPABILITIES, begin)

    def listen(self, evidence: bytes, least: int | None = None) -> None:
        self.revealed = max(self.revealed, worth_of(evidence, self.consumer))

    def check_order(self, side: kit.Side, effect: Effect) -> None:
        super().check_order(side, effect)
        match effect:
            case Send(Paid(_, evidence)):
                newest = decode_paid(side.journal[PAID_ROWS + PARAMS.id]).note.voucher.nonce
                assert all(nonce_of(one) <= newest for one in evidence), "a voucher sent before it was durable"

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


def worth_of(evidence: bytes, payer: kit.Side) -> int:
    """What a piece of evidence gives the payee in this session, as its payer's books have it."""
    if evidence[:1] == b"\x02":
        return decode_part(evidence[1:], VoucherNote).voucher.amount
    note = decode_paid(payer.journal[PAID_ROWS + PARAMS.id]).note
    if note.voucher.nonce != nonce_of(evidence):
        return 0  # a newer voucher follows in the same message, and is worth at least as much
    return note.voucher.amount + int.from_bytes(evidence[9:13], "big") * payer.terms.offer.tick_value
