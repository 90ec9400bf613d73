"""A crash at every single effect boundary of a short sale, on either side: nothing is lost by any of them."""

from __future__ import annotations

import pytest

from penstock.core.messages import Way
from penstock.core.offer import Feed, Mode
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.sim.scenario import PACKAGE, PER, PRICE, CarPlan, Purchase, Scenario, Turn
from penstock.sim.virtual import EPOCH
from penstock.sim.world import World

TURNS_AT = Instant(EPOCH * 1_000 + 40_300)  # in the middle of the second purchase

PURCHASES = (Purchase("pole0", 9, 1_000_000, False, None), Purchase("pole0", 6, 1_000_000, True, None))


def short_sale(mode: Mode, tick: int) -> Scenario:
    """One pole, one car: 9 units and a signed-off channel, then 6 units over a change of price and a fresh one."""
    return Scenario(
        mode=mode,
        tariff=Tariff(PER, (Step(Instant(0), PRICE), Step(TURNS_AT, PRICE // 2))),
        credit_limit=1_400,
        tick=tick,
        rate=8,
        poles=("pole0",),
        cars=(CarPlan("car0", 0.0, PURCHASES, ""),),
        site_cheat="",
        latency=0.02,
        sync=0.003,
        faults=(),
        brittle=(),
    )


def short_exchange(mode: Mode) -> Scenario:
    """One pole, one car: it takes some, feeds in, takes the rest, at prices that change meanwhile."""
    turns = (Turn(1.4, Way.FEED), Turn(3.0, Way.SUPPLY))
    purchase = Purchase("pole0", 15, 1_000_000, True, 20_000, feed=50, turns=turns)
    begun = EPOCH * 1_000 + 23_050  # when the session begins, if nobody dies before
    steps = (Step(Instant(0), PRICE), Step(Instant(begun + 3_200), -PRICE // 4), Step(Instant(begun + 3_700), PRICE))
    back = (Step(Instant(0), PRICE), Step(Instant(begun + 2_000), PRICE // 4))
    feed = Feed(Tariff(PER, back), 100, PACKAGE, 1_400, 1_000)
    sale = short_sale(mode, 1_000)
    car = CarPlan("car0", 0.0, (purchase,), "")
    return sale._replace(tariff=Tariff(PER, steps), cars=(car,), feed=feed)


@pytest.mark.parametrize("name", ["site", "car0"])
@pytest.mark.parametrize(("mode", "tick"), [("pay-after", 1_000), ("pay-before", 1_000), ("pay-after", 20)])
def test_a_crash_at_any_effect_loses_nothing(mode: Mode, tick: int, name: str) -> None:
    assert _lives_through(short_sale(mode, tick), name) > 60, "a short sale has more effects than these"


@pytest.mark.parametrize(("mode", "name"), [("pay-after", "site"), ("pay-before", "car0")])
def test_a_crash_at_any_effect_of_a_flow_that_turns_loses_nothing(mode: Mode, name: str) -> None:
    assert _lives_through(short_exchange(mode), name) > 60, "a short exchange has more effects than these"


def test_the_flow_really_turns() -> None:
    world = World(0, calm=True, scenario=short_exchange("pay-after"))
    assert not world.run().violation
    receipt = world.cars[0].bought[0].receipt
    assert receipt is not None
    assert receipt.supplier_total == 15
    assert receipt.supplier_export > 3
    assert receipt.repaid > 0
    assert [len(world.cars[0].bought[0].row.turns), len(world.cars[0].bought[0].row.feed_turns)] == [2, 1]


def _lives_through(scenario: Scenario, name: str) -> int:
    """Kill one of them at its first effect, in another world at its second, and so on. How many there are."""
    boundary = 0
    while True:
        boundary += 1
        world = World(0, calm=True, scenario=scenario)
        actor = world.actor(name)
        actor.fuse = boundary
        outcome = world.run()
        assert not outcome.violation, "\n".join([*outcome.tail, f"boundary {boundary}: {outcome.violation}"])
        if actor.lives == 1:
            return boundary  # it has lived through all of them
