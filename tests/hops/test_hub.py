"""A hub between two others: what it carries, what it refuses, and that nothing is lost of it when it dies."""

from __future__ import annotations

import pytest

from penstock.core.errors import LedgerUnreachable
from penstock.core.identity import to_hex

from .world import DELTA, FEES, LIFE, PERIOD, TICK, TICKS, HopWorld, until

pytestmark = pytest.mark.asyncio
FEE = FEES.tick(TICK) - TICK


async def test_a_lock_is_carried_and_settled_downstream_first(world: HopWorld) -> None:
    chain = world.chain()
    number = await world.placed(chain)
    assert world.hub.relay.messages == 2  # it came, and was in place
    await world.payee.done(number, 8, chain.preimage(8), 8 * TICK)
    await until(lambda: number in world.listener.gone)
    told = world.listener.ends[number]
    assert (told.count, told.total) == (8, 8 * (TICK + FEE))
    gains = await world.gains()
    assert gains == {"payer": -8 * (TICK + FEE) - 5, "hub": 8 * FEE + 5, "payee": 8 * TICK}


async def test_the_rest_of_a_tick_goes_ahead_of_the_end(world: HopWorld) -> None:
    chain = world.chain()
    number = await world.placed(chain)
    world.payer.ask(number, 3, chain.preimage(3), 699)
    await until(lambda: world.payee.asked)
    assert world.payee.incoming.locks[number].rest == 699
    await world.payee.done(number, 3, chain.preimage(3), 3 * TICK)
    await until(lambda: number in world.listener.gone)
    gains = await world.gains()
    assert gains["payee"] == 3 * TICK + 699
    assert gains["hub"] == 3 * FEE + 5


async def test_a_payee_that_was_paid_ahead_gives_back_by_taking_less(world: HopWorld) -> None:
    chain = world.chain()
    number = await world.placed(chain)
    await world.payee.done(number, 3, chain.preimage(3), 2 * TICK + 1)
    await until(lambda: number in world.listener.gone)
    assert (await world.gains())["payer"] == -(2 * TICK + 1 + 3 * FEE) - 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"onward": TICK + 1}, "a tick of 701 costs"),
        ({"expiry": 9}, "has expired|would have expired"),
        ({"holding": 0}, "holding so much for so long costs"),
        ({"ticks": 1_300, "holding": 999}, "lent to one neighbour|token units left"),
    ],
)
async def test_a_lock_on_other_terms_is_refused_and_costs_no_more_than_its_fee(
    world: HopWorld, change: dict[str, int], why: str
) -> None:
    """Rule 10: a holding fee is paid up front, and each tick is worth more coming in than going out."""
    number = world.locked(world.chain(), **change)
    await until(lambda: number in world.listener.gone)
    told = world.listener.ends[number]
    assert told.total == 0
    assert any(part in told.why for part in why.split("|")), told.why
    assert not world.payee.incoming.locks


async def test_an_incoming_lock_has_to_outlive_the_outgoing_one(world: HopWorld) -> None:
    """Rule 10: expiries are staggered."""
    late = world.clock() // 1_000 + LIFE + DELTA - (DELTA - 10)
    number = world.locked(world.chain(), expiry=late)
    await until(lambda: number in world.listener.gone)
    assert f"{DELTA} s after" in world.listener.ends[number].why


async def test_a_hub_that_was_killed_takes_its_locks_up_again(world: HopWorld) -> None:
    chain = world.chain()
    number = await world.placed(chain)
    await world.stop_hub()
    await world.payee.done(number, 5, chain.preimage(5), 5 * TICK)
    await world.start_hub()
    await until(lambda: number in world.listener.gone)
    assert world.listener.ends[number].count == 5
    again = await world.placed(world.chain())
    assert again == number + 1
    assert (await world.gains())["hub"] == 5 * FEE + 10


async def test_many_locks_at_once_share_vouchers(world: HopWorld) -> None:
    chains = [world.chain() for _ in range(30)]
    numbers = [world.locked(chain) for chain in chains]
    await until(lambda: world.listener.places >= set(numbers))
    for number, chain in zip(numbers, chains, strict=True):
        await world.payee.done(number, 2, chain.preimage(2), 2 * TICK)
    await until(lambda: world.listener.gone >= set(numbers))
    gains = await world.gains()
    assert gains["payee"] == 60 * TICK
    assert gains["hub"] == 60 * FEE + 150
    assert TICKS > 2


async def test_who_takes_locks_without_the_ledger_says_once_what_that_leans_on(world: HopWorld) -> None:
    """Rule 12: it was seen less than half a challenge period ago, and somebody may be closing since."""
    seen, incomings = world.ledger.now, world.hub.incomings
    await world.placed(world.chain())
    assert not world.told.named("leaning on an old view")
    stands = world.hub.standing()
    assert (stands["leaning"], stands["good_s"]) == (False, PERIOD // 2 - stands["seen_s"])

    async def unreachable() -> int:
        raise LedgerUnreachable("no answer")

    world.ledger.now = unreachable  # type: ignore[method-assign]
    world.hub_clock.offset += 100
    for _ in range(2):
        await incomings.look()
        await world.placed(world.chain())
    (leant,) = world.told.named("leaning on an old view")
    assert leant["channel"] == to_hex(world.in_params.id)
    assert 100 <= leant["seen_s"] <= 130
    stands = world.hub.standing()
    assert stands["leaning"]
    assert stands["seen_s"] + stands["good_s"] == PERIOD // 2
    world.ledger.now = seen  # type: ignore[method-assign]
    await incomings.look()
    assert not world.hub.standing()["leaning"]
