"""A few rounds of what `make faults` plays 200 of: kill -9 at random instants of random processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .rounds import Plan, Strike, plan, run

SEED = 20261122


def test_kills_at_random_instants_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    figures = run(6, SEED, tmp_path)
    assert figures["problems"] == []
    assert figures["kills"]
    assert figures["ticks_acknowledged"] > 0
    assert figures["ticks_lost"] == 0
    assert figures["units_of_difference"] == 0
    assert 0 <= figures["worst_loss_supplier"] <= figures["credit_limit"]
    assert 0 <= figures["worst_loss_consumer"] <= figures["credit_limit"]


def test_a_round_follows_from_its_seed() -> None:
    assert plan(7, 3) == plan(7, 3) != plan(7, 4)
    played: Plan = plan(7, 3)
    assert all(isinstance(strike, Strike) and strike.delay >= 0 for strike in played.strikes)


@pytest.mark.parametrize("number", range(0, 60, 20))
def test_both_ways_of_paying_are_played(number: int) -> None:
    assert plan(1, number).mode == ("pay-before" if number == 40 else "pay-after")
