"""Real cheats on real chains: what they take is what the rail's capabilities bound it by."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.ledgers.devnet.manifest import dev_key
from penstock.sim.charges import Charge, read_charges
from penstock.sim.deduction import deduce
from penstock.sim.pole import CREDIT
from penstock.sim.scenes import Ground, Scene

CHARGE: Charge = next(charge for charge in read_charges() if charge.session_id == "S0002")
BILL = CHARGE.energy_wh * 400


def play(rail: str, directory: Path, *, meter: str = "true", pays: bool = True) -> Scene:
    async def run() -> Scene:
        async with Ground(rail, CHARGE, directory / "ground", lambda *_: None) as ground:
            return await ground.play("scene", 1, meter=meter, pays=pays)

    return asyncio.run(run())


def test_a_consumer_that_stops_paying_a_stream_takes_no_more_than_the_credit(tmp_path: Path) -> None:
    scene = play("stream-channel", tmp_path, pays=False)
    flowed = scene.sold["flowed"]
    assert CHARGE.energy_wh // 2 <= flowed <= CHARGE.energy_wh // 2 + 10
    assert 0 < flowed * 400 - scene.earned <= CREDIT
    assert (scene.spent, scene.sold["reason"]) == (scene.earned, "payment stalled")
    assert [sight.function for sight in scene.sights][1:] == ["finish"]
    seen = deduce(scene.sights)
    assert seen.facts["ticks proven"].values == (scene.sold["ticks"],)
    assert seen.facts["paid"].values == (scene.earned,)
    assert "energy" in seen.unknown()


def test_a_meter_that_lies_takes_an_escrows_deposit_and_shows_what_it_said(tmp_path: Path) -> None:
    scene = play("escrow", tmp_path, meter="jumps")
    assert scene.sold["flowed"] == CHARGE.energy_wh // 2
    assert scene.bought["reason"] == "meters disagree"
    assert (scene.earned, scene.spent) == (BILL, BILL)
    assert [sight.function for sight in scene.sights][1:] == ["release", "settle"]
    seen = deduce(scene.sights)
    assert seen.facts["meter reading"].values == (CHARGE.energy_wh,)
    assert seen.facts["price"].values == (400_000,)
    assert seen.pairs == (("0x" + dev_key(1).address.hex(), "0x" + dev_key(0).address.hex()),)
