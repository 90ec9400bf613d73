"""The escrow's two ends: readings secure, nothing else does, and the end is exact."""

from __future__ import annotations

import msgspec
import pytest
from tests.core.pair import CONSUMER, STRANGER, SUPPLIER, make_offer

from penstock.core.codec import decode_part, encode
from penstock.core.errors import (
    BadMessage,
    BadReading,
    BadSignature,
    BadTerms,
    BadVoucher,
    IllegalEvent,
    OutOfFunds,
    RemoteError,
)
from penstock.core.escrow import EscrowDomain, EscrowParams, MeterReading, SignedReading, tariff_hash
from penstock.core.identity import Address, Key
from penstock.core.offer import Offer
from penstock.core.tariff import Bill, Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails.escrow import (
    END_ROWS,
    PROOF_ROWS,
    READING_ROWS,
    EscrowOffer,
    EscrowPayee,
    EscrowPayer,
    EscrowTerms,
    check_offer,
    check_terms,
    decode_end,
    decode_reading,
    next_reading,
)

METER = Key(b"\x09" * 32)
DOMAIN = EscrowDomain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
OURS = EscrowOffer(DOMAIN, SUPPLIER.address, SUPPLIER.address, METER.address, 600, 3_600)
OFFER = make_offer()
DEPOSIT = 100_000


def params_for(offer: Offer = OFFER, deposit: int = DEPOSIT) -> EscrowParams:
    keys = (CONSUMER.address, SUPPLIER.address, METER.address)
    tariff = tariff_hash(offer.tariff)
    return EscrowParams(DOMAIN, CONSUMER.address, SUPPLIER.address, *keys, tariff, deposit, 10_000, 60, 1)


def ends(offer: Offer = OFFER, deposit: int = DEPOSIT) -> tuple[EscrowPayee, EscrowPayer]:
    params = params_for(offer, deposit)
    return EscrowPayee(params, offer, METER), EscrowPayer(params, offer, CONSUMER)


def announce(payee: EscrowPayee, payer: EscrowPayer, bill: Bill, total: int, at: int, last: bool = False) -> None:
    """What a session does with a reading: the payee attests, the payer checks."""
    bill.turn(Quantity(total), Instant(at))
    evidence = payee.metered(bill, Quantity(total), Instant(at), last)
    assert evidence is not None
    payer.metered(evidence.data, bill, Quantity(total), Instant(at), last)


def test_readings_secure_and_both_ends_agree() -> None:
    payee, payer = ends()
    bill = Bill(OFFER.tariff)
    for total in (3, 10, 57):
        announce(payee, payer, bill, total, total)
        assert payee.secured == payer.paid == bill.due(total) == total * 400
    assert payer.pay(10**9) == payer.fold() == []


def test_no_more_is_secured_than_the_deposit() -> None:
    payee, payer = ends(deposit=1_000)
    announce(payee, payer, Bill(OFFER.tariff), 57, 1)
    assert payee.secured == payer.paid == payee.capacity == 1_000


def test_price_steps_are_billed_as_the_tariff_does() -> None:
    offer = make_offer(tariff=Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(50), 100_001))))
    payee, payer = ends(offer)
    bill = Bill(offer.tariff)
    for total, at in ((3, 10), (11, 60), (20, 70)):
        announce(payee, payer, bill, total, at)
        assert payee.secured == payer.paid == bill.due(total)
    assert bill.turns == (11,)


@pytest.mark.parametrize(
    "change",
    [
        {"total": 4},
        {"at": 2},
        {"turns": (1,)},
        {"sequence": 7},
        {"last": True},
    ],
)
def test_a_reading_changed_in_one_field_is_refused(change: dict[str, object]) -> None:
    payee, payer = ends()
    evidence = payee.metered(Bill(OFFER.tariff), Quantity(3), Instant(1), False)
    assert evidence is not None
    signed = decode_part(evidence.data, SignedReading)
    forged = SignedReading(msgspec.structs.replace(signed.reading, **change), signed.signature)  # type: ignore[arg-type]  # any field
    with pytest.raises(RemoteError):
        payer.metered(encode(forged), Bill(OFFER.tariff), Quantity(3), Instant(1), False)
    assert payer.paid == 0


def test_a_reading_that_another_key_signed_is_refused() -> None:
    _, payer = ends()
    reading = MeterReading(1, Instant(1), Quantity(3))
    signed = SignedReading(reading, STRANGER.sign(reading.digest(params_for())))
    with pytest.raises(BadSignature):
        payer.metered(encode(signed), Bill(OFFER.tariff), Quantity(3), Instant(1), False)
    assert payer.paid == 0


def test_an_older_reading_is_refused_and_the_same_one_again_changes_nothing() -> None:
    payee, payer = ends()
    bill = Bill(OFFER.tariff)
    old = payee.metered(bill, Quantity(3), Instant(1), False)
    assert old is not None
    payer.metered(old.data, bill, Quantity(3), Instant(1), False)
    assert payer.metered(old.data, bill, Quantity(3), Instant(1), False) == ()
    announce(payee, payer, bill, 5, 2)
    with pytest.raises(BadReading) as refused:
        payer.metered(old.data, bill, Quantity(3), Instant(1), False)
    assert refused.value.proof == ()
    assert payer.paid == 2_000


def test_a_meter_that_contradicts_itself_leaves_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    payee, payer = ends()
    bill = Bill(OFFER.tariff)
    announce(payee, payer, bill, 5, 2)
    reading = MeterReading(9, Instant(3), Quantity(4))
    lie = encode(SignedReading(reading, METER.sign(reading.digest(params_for()))))
    with pytest.raises(BadReading) as refused:
        payer.metered(lie, bill, Quantity(4), Instant(3), False)
    assert refused.value.proof == ((PROOF_ROWS + params_for().id, lie),)
    assert payer.paid == 2_000
    forged = encode(SignedReading(reading, STRANGER.sign(reading.digest(params_for()))))
    with pytest.raises(BadSignature):
        payer.metered(forged, bill, Quantity(4), Instant(3), False)


def test_a_supply_that_is_over_needs_the_last_reading() -> None:
    payee, payer = ends()
    bill = Bill(OFFER.tariff)
    evidence = payee.metered(bill, Quantity(3), Instant(1), False)
    assert evidence is not None
    payer.metered(evidence.data, bill, Quantity(3), Instant(1), False)  # and not the one before, once more
    with pytest.raises(BadReading):
        payer.metered(evidence.data, bill, Quantity(3), Instant(1), True)
    announce(payee, payer, bill, 3, 1, last=True)


def test_after_the_last_reading_the_meter_signs_nothing_else() -> None:
    payee, _ = ends()
    bill = Bill(OFFER.tariff)
    last = payee.metered(bill, Quantity(3), Instant(1), True)
    again = payee.metered(bill, Quantity(3), Instant(1), True)
    assert last is not None
    assert again is not None
    assert again.data == last.data
    assert again.rows == ()
    late = payee.metered(bill, Quantity(4), Instant(2), True)
    assert late is not None
    assert late.data == last.data
    with pytest.raises(IllegalEvent, match="contradicts"):
        next_reading(params_for(), METER, decode_reading(last.rows[0][1] or b""), Quantity(4), Instant(2), (), True)


def test_the_end_pays_the_bill_exactly_and_is_durable_at_both_ends() -> None:
    payee, payer = ends()
    announce(payee, payer, Bill(OFFER.tariff), 57, 1, last=True)
    end = payer.square(22_800)
    rows = payee.take(end.data, least=22_800)
    assert payee.secured == payer.paid == 22_800
    for kept in (rows, end.rows):
        ((key, value),) = kept
        assert key == END_ROWS + params_for().id
        assert decode_end(value or b"").amount == 22_800


def test_an_end_that_is_not_the_bill_or_not_the_payers_is_refused() -> None:
    payee, payer = ends()
    announce(payee, payer, Bill(OFFER.tariff), 57, 1, last=True)
    with pytest.raises(BadVoucher):
        payee.take(payer.square(22_800).data, least=22_801)
    _, stranger = EscrowPayee(params_for(), OFFER, METER), EscrowPayer(params_for(), OFFER, STRANGER)
    with pytest.raises(BadSignature):
        payee.take(stranger.square(22_800).data, least=22_800)
    assert payee.secured == 22_800  # by the readings
    with pytest.raises(BadMessage):
        payee.take(b"[1,2]")


def test_a_payer_never_signs_less_than_its_meter_did_nor_more_than_the_deposit() -> None:
    payee, payer = ends()
    announce(payee, payer, Bill(OFFER.tariff), 57, 1)
    for bill in (22_799, DEPOSIT + 1):
        with pytest.raises(OutOfFunds):
            payer.square(bill)


def test_both_ends_are_taken_up_from_their_rows() -> None:
    payee, payer = ends()
    bill = Bill(OFFER.tariff)
    evidence = payee.metered(bill, Quantity(57), Instant(1), False)
    assert evidence is not None
    ((key, kept),) = evidence.rows
    assert key == READING_ROWS + params_for().id
    assert payer.metered(evidence.data, bill, Quantity(57), Instant(1), False) == evidence.rows
    row = decode_reading(kept or b"")
    assert EscrowPayee(params_for(), OFFER, METER, row).secured == 22_800
    assert EscrowPayer(params_for(), OFFER, CONSUMER, row).paid == 22_800
    end = decode_end(payer.square(30_000).rows[0][1] or b"")
    assert EscrowPayee(params_for(), OFFER, METER, row, end).secured == 30_000
    assert EscrowPayer(params_for(), OFFER, CONSUMER, row, end).paid == 30_000


@pytest.mark.parametrize(
    "change",
    [
        {"domain": EscrowDomain(1, DOMAIN.contract, DOMAIN.token)},
        {"payee": STRANGER.address},
        {"payee_key": STRANGER.address},
        {"meter": STRANGER.address},
        {"tariff": bytes(32)},
        {"window": 601},
        {"deadline": 4_599},
        {"deposit": 0},
    ],
)
def test_terms_that_would_not_pay_us_are_refused(change: dict[str, object]) -> None:
    check_terms(OURS, OFFER, EscrowTerms(params_for()), 1_000)
    with pytest.raises(BadTerms):
        check_terms(OURS, OFFER, EscrowTerms(msgspec.structs.replace(params_for(), **change)), 1_000)  # type: ignore[arg-type]  # any field


def test_an_escrow_cannot_pay_before_nor_any_tariff() -> None:
    check_offer(OFFER)
    with pytest.raises(BadTerms, match="before"):
        check_offer(make_offer(mode="pay-before"))
    steps = tuple(Step(Instant(start), 1) for start in range(97))
    with pytest.raises(BadTerms, match="steps"):
        check_offer(make_offer(tariff=Tariff(1, steps)))


def test_a_payee_without_the_meters_key_is_refused() -> None:
    with pytest.raises(BadTerms):
        EscrowPayee(params_for(), OFFER, SUPPLIER)


def test_the_meter_signs_the_same_again_only_where_nothing_moved() -> None:
    first = next_reading(params_for(), METER, None, Quantity(3), Instant(1), (), False)
    assert next_reading(params_for(), METER, first, Quantity(3), Instant(1), (), False) is first
    assert next_reading(params_for(), METER, first, Quantity(3), Instant(2), (), False).reading.sequence == 2


def test_a_step_that_takes_effect_below_what_was_read_before_contradicts_it() -> None:
    before = MeterReading(1, Instant(1), Quantity(10))
    assert MeterReading(2, Instant(60), Quantity(20), (Quantity(9),)).contradicts(before)
    assert not MeterReading(2, Instant(60), Quantity(20), (Quantity(10),)).contradicts(before)
    after = MeterReading(3, Instant(70), Quantity(30), (Quantity(10),))
    assert not after.contradicts(MeterReading(2, Instant(60), Quantity(20), (Quantity(10),)))
