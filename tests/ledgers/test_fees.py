"""Offers for gas: room at first, an eighth more each time, never above the ceiling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.ledgers.fees import GWEI, Fees, Offer, Quote, first, raised

WEI = st.integers(0, 10**15)


def test_the_first_offer_has_room_for_the_base_fee_to_double() -> None:
    assert first(Quote(10 * GWEI, GWEI), Fees()) == Offer(GWEI, 21 * GWEI)


def test_the_ceiling_bounds_the_first_offer_and_its_tip() -> None:
    assert first(Quote(10 * GWEI, GWEI), Fees(ceiling=5 * GWEI)) == Offer(GWEI, 5 * GWEI)
    assert first(Quote(10 * GWEI, 9 * GWEI), Fees(ceiling=5 * GWEI)) == Offer(5 * GWEI, 5 * GWEI)


def test_a_fee_spike_is_followed_at_once() -> None:
    last = Offer(GWEI, 20 * GWEI)
    assert raised(last, Quote(150 * GWEI, GWEI), Fees()) == Offer(GWEI * 9 // 8, 301 * GWEI)
    assert raised(last, Quote(450 * GWEI, GWEI), Fees()) == Offer(GWEI * 9 // 8, 500 * GWEI)


@given(WEI, WEI, WEI, WEI, st.integers(1, 10**15))
def test_a_raised_offer_is_one_that_nodes_take_in_place_of_the_last(
    base: int, tip: int, later_base: int, later_tip: int, ceiling: int
) -> None:
    fees = Fees(ceiling)
    last = first(Quote(base, tip), fees)
    for _ in range(3):
        offer = raised(last, Quote(later_base, later_tip), fees)
        if offer is None:
            assert max(last.most * 9, (last.most + 1) * 8) > ceiling * 8  # not even an eighth more would fit
            return
        assert offer.most * 8 >= last.most * 9
        assert offer.tip * 8 >= last.tip * 9
        assert offer.tip > last.tip
        assert offer.tip <= offer.most <= ceiling
        last = offer
