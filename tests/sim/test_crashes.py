"""A crash at every single effect boundary of a short sale, on either side: nothing is lost by any of them."""

from __future__ import annotations

import pytest

from penstock.core.offer import Mode
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.sim.scenario import PER, PRICE, CarPlan, Purchase, Scenario
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


@pytest.mark.parametrize("name", ["site", "car0"])
@pytest.mark.parametrize(("mode", "tick"), [("pay-after", 1_000), ("pay-before", 1_000), ("pay-after", 20)])
def test_a_crash_at_any_effect_loses_nothing(mode: Mode, tick: int, name: str) -> None:
    boundary = 0
    while True:
        boundary += 1
        world = World(0, calm=True, scenario=short_sale(mode, tick))
        actor = world.actor(name)
        actor.fuse = boundary
        outcome = world.run()
        assert not outcome.violation, "\n".join([*outcome.tail, f"boundary {boundary}: {outcome.violation}"])
        if actor.lives == 1:
            break  # it has lived through all of them
    assert boundary > 60, "a short sale has more effects than these"
