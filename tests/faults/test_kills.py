"""A few rounds of what `make faults` plays 200 of: kill -9 at random instants of random processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .plan import plan
from .rounds import run
from .scene import Scene, eventually

SEED = 20261122


def test_kills_at_random_instants_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    figures = run(4, SEED, tmp_path)
    assert figures["problems"] == []
    assert figures["kills"]
    assert figures["ticks_acknowledged"] > 0
    assert figures["ticks_lost"] == 0
    assert figures["units_of_difference"] == 0
    assert 0 <= figures["worst_loss_supplier"] <= figures["credit_limit"]
    assert 0 <= figures["worst_loss_consumer"] <= figures["credit_limit"]


def test_the_stream_goes_on_while_the_ledger_is_dead_and_no_block_is_lost(scene: Scene) -> None:
    scene.start_pole("pay-after")
    car = scene.start_car(scene.side("car"), 3_000)
    eventually(lambda: scene.register() > 200, 20, "nothing flows")
    head = scene.rpc("eth_getBlockByNumber", "latest", False)
    scene.devnet.kill()
    stood = scene.register()
    eventually(lambda: scene.register() > stood + 400, 20, "nothing flows without the ledger")
    assert car.wait() == 0, car.errors
    assert car.answer()["complete"]
    scene.start_devnet()
    assert scene.rpc("eth_getBlockByNumber", head["number"], False)["hash"] == head["hash"]


def test_a_round_follows_from_its_seed() -> None:
    assert plan(7, 3) == plan(7, 3) != plan(7, 4)
    assert plan(7, 3).strikes


@pytest.mark.parametrize("number", range(0, 60, 20))
def test_both_ways_of_paying_are_played(number: int) -> None:
    assert plan(1, number).mode == ("pay-before" if number == 40 else "pay-after")
