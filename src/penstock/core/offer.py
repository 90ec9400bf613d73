"""Offers and terms: what a supplier asks, what both sides sign. Everything later refers to the terms' hash."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penstock.core.errors import BadTerms, OutOfRange
from penstock.core.identity import Address, Digest, Key, check_signed, purpose_digest
from penstock.core.medium import medium
from penstock.core.meter import Tolerance
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity

Mode = Literal["pay-after", "pay-before"]

MAX_NAME = 80
MAX_RAILS = 16
MAX_METER = 512
MAX_RAIL_BYTES = 4096

_json = msgspec.json.Encoder()


class Feed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """On which terms the supplier takes back what the consumer feeds in: the session's other direction.

    Its own tariff (quoted per the same quantity), tick and limits. `package` and `credit_limit` are the consumer's
    where the supplier's are `Offer`'s. `limit` is the most that the supplier takes in a session (units of the medium);
    0 where it only has to be able to pay, for hours in which its own price is negative.
    """

    tariff: Tariff
    tick_value: int
    package: int
    credit_limit: int
    limit: int

    def check(self, per: int) -> None:
        """Pass where a session can work with this direction, beside a supply that is quoted per `per`.

        Raises:
            BadTerms: a number outside its bounds, or another quantity to quote per.
        """
        self.tariff.check(negative=True)
        if self.tariff.per != per:
            raise BadTerms("both directions are quoted per the same quantity")
        if not 0 < self.tick_value <= MAX_AMOUNT or not 0 < self.package <= MAX_QUANTITY:
            raise BadTerms("a tick is worth at least one token unit, and a package is a positive quantity")
        if not 0 <= self.limit <= MAX_QUANTITY:
            raise BadTerms("the most that is fed in is a quantity")
        least = _least_credit(self.tariff, self.tick_value)
        if not least <= self.credit_limit <= MAX_AMOUNT:
            raise BadTerms(f"a credit limit of {self.credit_limit} for what is fed in: it is at least {least}")

    @property
    def first_trust(self) -> int:
        """The consumer's trust to begin with: what a package is worth, at least what never locks up."""
        return max(_least_credit(self.tariff, self.tick_value), self.tariff.dearest * self.package // self.tariff.per)


class Offer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a supplier sells and how it wants to be paid. Sums in token units, quantities in the medium's unit.

    `supplier` is the address of the key that signs for the supplier. `tick_value` is the smallest payment; it never
    changes, whatever the price does. `package` is what is released on no more than a promise: the trust to begin with.
    `credit_limit` bounds what the side that goes first may have at stake: the supplier in "pay-after", the consumer in
    "pay-before". `rails` has, for each payment method, what that rail needs to know, in its own encoding. `meter` names
    the key of a meter that signs its own readings, after the form of its records ("ocmf:" and a key); every reading
    announced then carries such a record. Empty where the meter signs nothing. `feed` says on which terms the flow may
    turn round; without it there is one direction, and no price below 0.
    """

    supplier: Address
    name: str
    medium: str
    tariff: Tariff
    tick_value: int
    package: int
    credit_limit: int
    mode: Mode
    tolerance: Tolerance
    rails: dict[str, bytes]
    meter: str
    expires: Instant
    feed: Feed | None = None

    def check(self) -> None:
        """Pass where a session under this offer can work at all.

        Raises:
            BadTerms: a number outside its bounds, or a credit limit so small that neither side could ever move.
        """
        try:
            medium(self.medium)
        except OutOfRange as error:
            raise BadTerms(str(error), error.advice) from None
        self.tariff.check(negative=self.feed is not None)
        if self.feed is not None:
            self.feed.check(self.tariff.per)
        if len(self.supplier) != 20 or len(self.name) > MAX_NAME:
            raise BadTerms(f"a supplier is an address of 20 bytes, with a name of at most {MAX_NAME} characters")
        if not 0 < self.tick_value <= MAX_AMOUNT:
            raise BadTerms("a tick is worth at least one token unit")
        if not 0 < self.package <= MAX_QUANTITY:
            raise BadTerms("a package is a positive quantity")
        if not 0 <= self.expires <= MAX_INSTANT:
            raise BadTerms("the offer's expiry is no instant")
        if not (0 <= self.tolerance.units <= MAX_QUANTITY and 0 <= self.tolerance.ppm <= 1_000_000):
            raise BadTerms("the meters' tolerance is 0..1,000,000 ppm and a quantity")
        if len(self.rails) > MAX_RAILS or any(len(details) > MAX_RAIL_BYTES for details in self.rails.values()):
            raise BadTerms("too many payment methods in one offer")
        if len(self.meter) > MAX_METER or not self.meter.isascii() or (self.meter and not self.meter.isprintable()):
            raise BadTerms(f"the meter's key is written in at most {MAX_METER} printable characters")
        if not all(0 < len(rail) <= MAX_NAME and rail.isprintable() for rail in self.rails):
            raise BadTerms(f"a payment method has a name of 1 to {MAX_NAME} printable characters")
        if not self.least_credit <= self.credit_limit <= MAX_AMOUNT:
            raise BadTerms(
                f"a credit limit of {self.credit_limit} stops the session before it starts",
                f"it must cover a tick and a unit of the medium: at least {self.least_credit} token units",
            )

    @property
    def least_credit(self) -> int:
        """The smallest trust that never locks up: one tick, and one unit of the medium that may be too much for it."""
        return _least_credit(self.tariff, self.tick_value)

    @property
    def first_trust(self) -> int:
        """The trust to begin with: what a package costs, at least what never locks up."""
        return max(self.least_credit, self.tariff.dearest * self.package // self.tariff.per)

    def digest(self) -> Digest:
        """What the supplier signs."""
        return purpose_digest("penstock/offer/1", _json.encode(self))


def _least_credit(tariff: Tariff, tick_value: int) -> int:
    return tick_value + -(-tariff.dearest // tariff.per)


class Terms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An offer taken: by whom, up to which quantity and sum, over which rail. Signed by both sides.

    `consumer` is the address of the key that signs for the consumer; `nonce` (16 bytes) makes each session its own.
    `rail_terms` is the rail's, in its own encoding; it names the ledger and, where there is one, the channel.
    `feed_limit` is the most that the consumer feeds in (units of the medium), in a session that pays both ways; 0 is
    one that only can be paid back, and None one of a consumer that cannot: what has a price below 0 is free to it.
    """

    offer: Offer
    consumer: Address
    rail: str
    rail_terms: bytes
    quantity_limit: int
    budget: int
    at: Instant
    nonce: bytes
    feed_limit: int | None = None

    def check(self) -> None:
        """Pass where the terms are well formed and fit their offer. Whose offer, and whether it is ours, is not asked.

        Raises:
            BadTerms: a number outside its bounds, or a rail that is not on offer.
        """
        self.offer.check()
        if len(self.consumer) != 20 or self.consumer == self.offer.supplier:
            raise BadTerms("a consumer is an address of 20 bytes, and not the supplier")
        if self.rail not in self.offer.rails:
            raise BadTerms(f"rail {self.rail[:40]!r} is not on offer", f"one of {', '.join(self.offer.rails)}")
        if len(self.rail_terms) > MAX_RAIL_BYTES or len(self.nonce) != 16:
            raise BadTerms("rail terms are too long, or the session's nonce is not 16 bytes")
        if not 0 < self.quantity_limit <= MAX_QUANTITY:
            raise BadTerms("the quantity limit is a positive quantity")
        most = self.offer.feed.limit if self.offer.feed is not None else -1
        if self.feed_limit is not None and not 0 <= self.feed_limit <= most:
            raise BadTerms(f"at most {max(0, most)} can be fed in under this offer, not {self.feed_limit}")
        if not 0 < self.budget <= MAX_AMOUNT:
            raise BadTerms("the budget is a positive sum")
        if not 0 <= self.at <= self.offer.expires:
            raise BadTerms("the offer had expired when these terms were made", "ask for a new offer")

    @property
    def feed(self) -> Feed | None:
        """On which terms the flow may turn round in this session; None where it may not, and nothing is paid back."""
        return self.offer.feed if self.feed_limit is not None else None

    def digest(self) -> Digest:
        """The terms' hash, which both sides sign and everything later refers to."""
        return purpose_digest("penstock/terms/1", _json.encode(self))


class Receipt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a session ended, signed by both: what either meter counted, what was paid, and why it ended.

    `unpaid` is what the supplier's meter makes due beyond `paid`: 0 unless the meters disagreed. The exports are what
    either meter counted of what was fed in, and `repaid` is what the supplier paid to the consumer.
    """

    terms: bytes
    supplier_total: Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)]
    consumer_total: Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)]
    paid: Annotated[Amount, Meta(ge=0)]
    unpaid: Annotated[Amount, Meta(ge=0)]
    ticks: Annotated[int, Meta(ge=0)]
    reason: str
    at: Annotated[Instant, Meta(ge=0, le=MAX_INSTANT)]
    supplier_export: Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)] = Quantity(0)
    consumer_export: Annotated[Quantity, Meta(ge=0, le=MAX_QUANTITY)] = Quantity(0)
    repaid: Annotated[Amount, Meta(ge=0)] = Amount(0)

    def digest(self) -> Digest:
        """What both sides sign."""
        return purpose_digest("penstock/receipt/1", _json.encode(self))


def accept_digest(terms: Digest) -> Digest:
    """What the supplier signs to accept terms: another purpose than the consumer's proposal, so neither stands in."""
    return purpose_digest("penstock/accept/1", terms)


def propose_digest(terms: Digest) -> Digest:
    """What the consumer signs to propose terms."""
    return purpose_digest("penstock/propose/1", terms)


def sign_offer(key: Key, offer: Offer) -> bytes:
    """The supplier's signature over its offer. 65 bytes."""
    return key.sign(offer.digest())


def check_offer(offer: Offer, signature: bytes) -> None:
    """Pass where an offer is well formed and signed by its supplier.

    Raises:
        BadTerms: it cannot work. BadSignature: it is not the supplier's.
    """
    offer.check()
    check_signed(offer.digest(), signature, offer.supplier, "the offer")
