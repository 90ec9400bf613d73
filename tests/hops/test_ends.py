"""A pole and a car with hubs between them: honest ways, and what becomes of the two when hubs fail or rob."""

from __future__ import annotations

import pytest
from tests.node.world import PRICE

from .street import HopStreet, until

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("hubs", [1, 2, 3])
async def test_a_session_over_hubs_is_paid_to_the_unit_and_leaves_nothing_locked(street: HopStreet, hubs: int) -> None:
    """53 Wh cost 21,200: 21 ticks, and a rest of 200 that goes over the hubs."""
    await street.row(hubs)
    car = street.car()
    session = await car.buy(quantity=53)
    bill = 53 * PRICE // 1_000
    assert session.receipt is not None
    assert session.receipt.paid == bill == 21_200
    assert car.purse.costs(session.terms, session.ticks).locked == 0
    (earned,) = [one.row.voucher.amount for one in street.incomings.channels.values()]
    assert earned - bill in range(100), "the bill, and no more than holding fees"
    paid = [next(iter(one.hub.relay.neighbours.values())).outgoing for one in street.hubs]
    assert all(one is not None and not one.all for one in paid)
    await until(lambda: not street.till._uses)
