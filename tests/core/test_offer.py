from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.core.errors import BadSignature, BadTerms
from penstock.core.meter import Tolerance
from penstock.core.offer import (
    MAX_NAME,
    MAX_RAIL_BYTES,
    MAX_RAILS,
    Receipt,
    accept_digest,
    check_offer,
    propose_digest,
    sign_offer,
)
from penstock.core.tariff import Step, Tariff
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity

from .pair import CONSUMER, STRANGER, SUPPLIER, make_offer, make_terms

BAD_OFFERS: dict[str, Any] = {
    "medium": ["", "beer"],
    "tariff": [Tariff(1, ()), Tariff.flat(0, 1)],
    "supplier": [b"", bytes(19), bytes(21)],
    "name": ["x" * (MAX_NAME + 1)],
    "tick_value": [0, -1, MAX_AMOUNT + 1],
    "package": [0, -1, MAX_QUANTITY + 1],
    "expires": [-1, MAX_INSTANT + 1],
    "tolerance": [Tolerance(-1, 0), Tolerance(MAX_QUANTITY + 1, 0), Tolerance(0, -1), Tolerance(0, 1_000_001)],
    "rails": [{str(n): b"" for n in range(MAX_RAILS + 1)}, {"stream-channel": bytes(MAX_RAIL_BYTES + 1)}]
    + [{name: b""} for name in ("", "two\nlines", "x" * (MAX_NAME + 1))],
    "credit_limit": [-1, 0, 1_399, MAX_AMOUNT + 1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_OFFERS.items() for value in values]
)
def test_an_offer_that_cannot_work_is_refused(field: str, value: object) -> None:
    make_offer().check()
    with pytest.raises(BadTerms):
        make_offer(**{field: value}).check()
    with pytest.raises(BadTerms):
        make_terms(make_offer(**{field: value})).check()


BAD_TERMS: dict[str, Any] = {
    "consumer": [b"", bytes(21), SUPPLIER.address],
    "rail": ["", "barter"],
    "rail_terms": [bytes(MAX_RAIL_BYTES + 1)],
    "nonce": [b"", bytes(15), bytes(17)],
    "quantity_limit": [0, -1, MAX_QUANTITY + 1],
    "budget": [0, -1, MAX_AMOUNT + 1],
    "at": [-1, make_offer().expires + 1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_TERMS.items() for value in values]
)
def test_terms_that_do_not_fit_their_offer_are_refused(field: str, value: object) -> None:
    make_terms().check()
    with pytest.raises(BadTerms):
        make_terms(None, **{field: value}).check()


def test_the_least_credit_covers_a_tick_and_a_unit_at_the_dearest_price() -> None:
    offer = make_offer(tariff=Tariff(1_000, (Step(Instant(0), 1), Step(Instant(9), 400_001))), credit_limit=1_401)
    assert offer.least_credit == 1_000 + 401
    offer.check()
    assert make_offer(package=3).first_trust == 1_400, "a smaller package than the least credit"
    assert make_offer(package=10).first_trust == 4_000


def receipt(**changes: Any) -> Receipt:
    made = Receipt(bytes(32), Quantity(1), Quantity(2), Amount(3), Amount(4), 5, "target reached", Instant(6))
    return msgspec.structs.replace(made, **changes)


def _digests_differ(make: Any, changes: dict[str, Any]) -> None:
    digests = {make().digest()} | {make(**{field: value}).digest() for field, value in changes.items()}
    assert len(digests) == len(changes) + 1


def test_every_field_is_in_the_digest() -> None:
    _digests_differ(
        make_offer,
        {
            "supplier": STRANGER.address,
            "name": "other",
            "medium": "water",
            "tariff": Tariff.flat(400_000, 1_001),
            "tick_value": 1_001,
            "package": 4,
            "credit_limit": 2_001,
            "mode": "pay-before",
            "tolerance": Tolerance(2, 20_001),
            "rails": {},
            "expires": 0,
        },
    )
    _digests_differ(
        make_terms,
        {
            "offer": make_offer(name="other"),
            "consumer": STRANGER.address,
            "rail": "other",
            "rail_terms": b"",
            "quantity_limit": 1,
            "budget": 1,
            "at": 0,
            "nonce": b"\x01" * 16,
        },
    )
    changes: dict[str, Any] = dict.fromkeys(("supplier_total", "consumer_total", "paid", "unpaid", "ticks", "at"), 77)
    _digests_differ(receipt, changes | {"terms": b"\x01" * 32, "reason": "grid says so"})


def test_no_signature_over_the_same_terms_serves_twice() -> None:
    terms = make_terms().digest()
    assert len({terms, accept_digest(terms), propose_digest(terms), make_terms().offer.digest()}) == 4


def test_an_offer_is_its_suppliers() -> None:
    offer = make_offer()
    check_offer(offer, sign_offer(SUPPLIER, offer))
    with pytest.raises(BadSignature):
        check_offer(offer, sign_offer(CONSUMER, offer))
    with pytest.raises(BadSignature):
        check_offer(make_offer(credit_limit=3_000), sign_offer(SUPPLIER, offer))
    with pytest.raises(BadTerms):
        check_offer(make_offer(package=0), sign_offer(SUPPLIER, make_offer(package=0)))
