"""The escrow: a deposit for one session, of which the meter's signed readings release what is due.

Evidence goes from payee to payer, with each reading that the supplier announces: a `SignedReading` (JSON), signed by
the key that the escrow's parameters name as the meter. The contract computes from it what it pays, so the payee is
secured as soon as it holds one; the payer gives nothing but the deposit. At the end of a session the payer signs the
sum, and the escrow ends at once.

    payer -> payee    at the end    JSON of EndNote: the bill, and the payer's signature over it
    payee -> payer    each reading  JSON of SignedReading

The payer trusts the meter: what that signs is paid, up to the deposit. Two readings that contradict each other are
proof against it (`MeterReading.contradicts`).
"""

from __future__ import annotations

import msgspec

from penstock.core.codec import decode_row, encode, part_decoder
from penstock.core.effects import Rows
from penstock.core.errors import BadMessage, BadReading, BadTerms, BadVoucher, IllegalEvent, OutOfFunds, OutOfRange
from penstock.core.escrow import (
    MAX_STEPS,
    EscrowDomain,
    EscrowParams,
    MeterReading,
    SignedReading,
    end_digest,
    tariff_hash,
)
from penstock.core.identity import Address, Key, Signer, check_signed
from penstock.core.offer import Offer
from penstock.core.rail import Capabilities, Evidence
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Instant, Quantity

NAME = "escrow"
READING_ROWS = b"reading/"  # by escrow: the newest reading that its meter signed
PROOF_ROWS = b"proof/"  # by escrow: a reading that its meter signed, and that contradicts the newest
END_ROWS = b"end/"  # by escrow: the end that the payer signed

CAPABILITIES = Capabilities(
    name=NAME,
    direction="one-way",
    hops=False,
    offline=True,
    modes=("pay-after",),
    by_meter=True,
    smallest="token unit",
    refutable=True,
    payer_at_stake="deposit",
    payee_at_stake="credit limit",
    trust=("the meter's key",),
    final="what the meter signed, on the ledger, once the payer's time to object is over; or both signatures",
    transactions=2,
    shared=False,
)


class EscrowOffer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a payee needs of an escrow: its account and key, the meter's key, and times in seconds.

    It waits for its money at most `max_window`, and wants `min_life` to file a reading in.
    """

    domain: EscrowDomain
    payee: Address
    payee_key: Address
    meter: Address
    max_window: int
    min_life: int


class EscrowTerms(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The escrow that pays the session."""

    params: EscrowParams


class EndNote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payer's signature (65 bytes) under an end that gives the payee `amount` in all."""

    amount: int
    signature: bytes


_decode_reading = part_decoder(SignedReading)
_decode_end = part_decoder(EndNote)
decode_terms = part_decoder(EscrowTerms)
decode_offer = part_decoder(EscrowOffer)


def check_terms(ours: EscrowOffer, offer: Offer, terms: EscrowTerms, now: int) -> None:
    """Pass where a payee can be paid under these terms (`now` in seconds). Whether the deposit is there is not asked.

    Raises:
        BadTerms: another ledger, payee, meter or tariff than was offered, or times that do not suit us.
    """
    params = terms.params
    if params.domain != ours.domain:
        raise BadTerms("the escrow is on another ledger than was offered")
    try:
        params.check()
    except OutOfRange as error:
        raise BadTerms(str(error)) from None
    if (params.payee, params.payee_key, params.meter) != (ours.payee, ours.payee_key, ours.meter):
        raise BadTerms("the escrow does not lead to the supplier's account and keys")
    if params.tariff != tariff_hash(offer.tariff):
        raise BadTerms("the escrow commits to another tariff than the offer's")
    if params.window > ours.max_window:
        raise BadTerms(f"the escrow's window of {params.window} s is above {ours.max_window} s")
    if params.deadline < now + ours.min_life:
        raise BadTerms(f"the escrow's deadline leaves less than {ours.min_life} s")


def check_offer(offer: Offer) -> None:
    """Pass where an offer can be paid over an escrow at all.

    Raises:
        BadTerms: it is paid before it is used, or its tariff has more steps than the contract computes.
    """
    if offer.mode not in CAPABILITIES.modes:
        raise BadTerms("an escrow pays by readings, after the supply: it cannot pay before", "choose another rail")
    if len(offer.tariff.steps) > MAX_STEPS:
        raise BadTerms(f"an escrow computes tariffs of at most {MAX_STEPS} steps", "choose another rail")


class EscrowPayer:
    """The payer's end for one session."""

    by_meter = True

    __slots__ = ("_key", "_params", "_signed", "_signer", "_tariff", "_tick", "paid")

    def __init__(
        self, params: EscrowParams, offer: Offer, key: Key, row: SignedReading | None = None, end: EndNote | None = None
    ) -> None:
        """`row` and `end` are the journal's where a session is taken up again."""
        self._params, self._key = params, key
        self._tariff, self._tick = offer.tariff, offer.tick_value
        self._signed, self._signer = row, Signer(params.meter)
        self.paid = Amount(0)
        if row is not None:
            self.paid = row.reading.due(self._tariff, params.deposit)
        if end is not None:
            self.paid = Amount(end.amount)

    @property
    def ticks(self) -> int:
        return self.paid // self._tick

    @property
    def capacity(self) -> Amount:
        return Amount(self._params.deposit)

    def open(self) -> Evidence:
        return Evidence(b"")  # the deposit speaks for itself

    def pay(self, upto: int) -> list[Evidence]:
        return []  # readings pay

    def fold(self) -> list[Evidence]:
        return []

    def metered(self, evidence: bytes, bill: Bill, total: Quantity, at: Instant, last: bool) -> Rows:
        signed, before = _decode_reading(evidence), self._signed
        if signed == before and (signed.reading.last or not last):
            return ()  # repeated after a lost link
        reading = signed.reading
        if (reading.total, reading.at, reading.turns) != (total, at, bill.turns) or (last and not reading.last):
            raise BadReading("the meter's signature is under another reading than the one announced")
        self._signer.check(reading.digest(self._params), signed.signature, "the reading")
        if before is not None and (reading.sequence <= before.reading.sequence or reading.contradicts(before.reading)):
            error = BadReading(f"reading {reading.sequence} does not follow reading {before.reading.sequence}")
            if reading.contradicts(before.reading):
                error.proof = ((PROOF_ROWS + self._params.id, encode(signed)),)
            raise error
        due = reading.due(self._tariff, self._params.deposit)
        self._signed, self.paid = signed, due
        return ((READING_ROWS + self._params.id, encode(signed)),)

    def square(self, bill: int) -> Evidence:
        if not self.paid <= bill <= self.capacity:
            raise OutOfFunds(f"a bill of {bill} is not within {self.paid}..{self.capacity}")
        note = EndNote(bill, self._key.sign(end_digest(self._params, bill)))
        self.paid = Amount(bill)
        return Evidence(encode(note), ((END_ROWS + self._params.id, encode(note)),))

    def resume(self, state: bytes) -> list[Evidence]:
        if state:
            raise BadMessage("a payee that is paid by readings has nothing else to show")
        return []


class EscrowPayee:
    """The payee's end for one session; `meter` is the key that signs readings."""

    __slots__ = ("_meter", "_params", "_signed", "_tariff", "_tick", "secured")

    def __init__(
        self,
        params: EscrowParams,
        offer: Offer,
        meter: Key,
        row: SignedReading | None = None,
        end: EndNote | None = None,
    ) -> None:
        """`row` and `end` are the journal's where a session is taken up again.

        Raises:
            BadTerms: the escrow trusts another meter.
        """
        if meter.address != params.meter:
            raise BadTerms("the escrow trusts another meter's key than ours", "start again with the meter's own key")
        self._params, self._meter = params, meter
        self._tariff, self._tick = offer.tariff, offer.tick_value
        self._signed = row
        self.secured = Amount(0)
        if row is not None:
            self.secured = row.reading.due(self._tariff, params.deposit)
        if end is not None:
            self.secured = Amount(end.amount)

    @property
    def ticks(self) -> int:
        return self.secured // self._tick

    @property
    def capacity(self) -> Amount:
        return Amount(self._params.deposit)

    def metered(self, bill: Bill, total: Quantity, at: Instant, last: bool) -> Evidence | None:
        if self._signed is not None and self._signed.reading.last:
            return Evidence(encode(self._signed))  # the meter has said its last word, whatever flows
        signed = next_reading(self._params, self._meter, self._signed, total, at, bill.turns, last)
        if signed == self._signed:
            return Evidence(encode(signed))
        self._signed, self.secured = signed, signed.reading.due(self._tariff, self._params.deposit)
        return Evidence(encode(signed), ((READING_ROWS + self._params.id, encode(signed)),))

    def take(self, evidence: bytes, least: int | None = None) -> Rows:
        if least is None:
            if evidence:
                raise BadMessage("an escrow is paid by readings, and by nothing that its payer sends")
            return ()
        note = _decode_end(evidence)
        if note.amount != least or not 0 <= least <= self._params.deposit:
            raise BadVoucher(f"the end is worth {note.amount}, not the {least} due")
        check_signed(end_digest(self._params, least), note.signature, self._params.payer_key, "the end")
        self.secured = Amount(least)
        return ((END_ROWS + self._params.id, encode(note)),)

    def state(self) -> bytes:
        return b""


def next_reading(
    params: EscrowParams,
    meter: Key,
    before: SignedReading | None,
    total: Quantity,
    at: Instant,
    turns: tuple[Quantity, ...],
    last: bool,
) -> SignedReading:
    """The meter's signature over what it reads now; the same as before where that is what it signed already.

    The sequence is at least the reading's time: whoever signs from an old copy of its journal goes on above all that it
    signed since, and does not contradict it.

    Raises:
        IllegalEvent: it signed its last reading, or one that this would contradict.
    """
    sequence = max(1, at)
    if before is not None:
        old = before.reading
        if (old.total, old.at, old.turns, old.last) == (total, at, turns, last):
            return before
        sequence = max(sequence, old.sequence + 1)
    reading = MeterReading(sequence, at, total, turns, last)
    if before is not None and reading.contradicts(before.reading):
        raise IllegalEvent("a meter that signs this contradicts what it signed before")
    return SignedReading(reading, meter.sign(reading.digest(params)))


def decode_reading(data: bytes) -> SignedReading:
    """The newest reading from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, SignedReading, "record of a reading")


def decode_end(data: bytes) -> EndNote:
    """The payer's signed end from a journal row.

    Raises:
        JournalError: this version never wrote that.
    """
    return decode_row(data, EndNote, "record of an end")
