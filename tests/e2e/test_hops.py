"""Sessions over hubs between real processes, and what becomes of them when one is killed."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .world import Process, World

_accounts = itertools.count(200, 6)
BILL = 800_000  # of 2 kWh
FEES = {1: 8_000, 2: 16_800, 3: 24_800}  # parts of ticks alone: 1, 2, 3 hubs at 1 percent, rounded up each


@pytest.fixture
def world(devnet: dict[str, Any], tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, devnet, next(_accounts), ("pole", "car", "hub1", "hub2", "hub3"))
    yield made
    made.end()


def row(world: World, pole: Process, hubs: int) -> tuple[str, str, list[Process]]:
    """Hubs from the car to the pole; the pole's address, the first hub's, and the hubs from the first on."""
    supplier = at = pole.until("listening")["address"]
    found = []
    for number in range(hubs, 0, -1):
        found.insert(0, world.hub(f"hub{number}", at))
        at = found[0].until("listening")["address"]
        found[0].until("neighbour entered")
    return supplier, at, found


def ended(process: Process) -> dict[str, Any]:
    process.signal(signal.SIGTERM)
    answer = process.answer()
    assert process.code == 0, process.errors
    return answer


@pytest.mark.parametrize("count", [1, 3])
def test_a_session_over_hubs_is_exact_and_they_hear_nothing_of_its_ticks(world: World, count: int) -> None:
    pole = world.pole()
    supplier, hub, hubs = row(world, pole, count)
    bought = world.car(supplier, "--hub", hub).answer()
    sold = pole.answer()["sessions"][0]
    assert bought["complete"]
    assert (bought["paid"], bought["receipt"]) == (sold["paid"], sold["receipt"])
    assert (bought["paid"], bought["ticks"], bought["locked"]) == (BILL, BILL // 1_000, 0)
    stands = [ended(one) for one in hubs]
    assert [one["locks"] for one in stands] == [0] * count
    assert sum(one["fees"] for one in stands) == bought["fees"]
    paid = [one["out"][0]["paid"] for one in stands]
    holding = [one["fees"] - (one["in"][0]["earned"] - one["out"][0]["paid"]) for one in stands]
    assert paid[-1] == BILL
    assert holding == [0] * count
    assert all(one["messages"] <= 4 for one in stands)  # a lock, its place, its end: of 800 ticks none


def test_a_hub_that_is_killed_in_mid_stream_is_missed_by_nobody_until_it_is_back(world: World) -> None:
    pole = world.pole("--power-w", "3300")
    supplier, at, (hub,) = row(world, pole, 1)
    car = world.car(supplier, "--hub", at)
    car.until("progress", ticks=100)
    hub.kill()
    bought = car.answer()
    assert bought["complete"]
    assert bought["paid"] == BILL
    assert bought["locked"] > 0, "a hub that is dead cannot have settled"
    sold = pole.answer()["sessions"][0]
    assert sold["paid"] == BILL
    back = world.hub("hub1", supplier, listen=at)
    world.pole(listen=supplier)
    back.until("neighbour entered")
    again = world.car(supplier, "--hub", at).answer()

    assert again["locked"] == 0
    stands = ended(back)
    assert (stands["locks"], stands["out"][0]["paid"]) == (0, 2 * BILL)
    assert stands["in"][0]["earned"] == 2 * BILL + bought["fees"] + again["fees"]


@pytest.mark.parametrize("victim", ["pole", "car"])
def test_an_end_that_is_killed_in_mid_stream_goes_on_from_its_journal(world: World, victim: str) -> None:
    pole = world.pole("--power-w", "3300")
    supplier, at, (hub,) = row(world, pole, 1)
    car = world.car(supplier, "--hub", at)
    car.until("progress", ticks=100)
    if victim == "pole":
        pole.kill()
        pole = world.pole(listen=supplier)
    else:
        car.kill()
        car = world.car(supplier, "--hub", at)
    bought, sold = car.answer(), pole.answer()["sessions"][0]
    assert bought["complete"]
    assert (bought["paid"], sold["paid"], bought["locked"]) == (BILL, BILL, 0)
    stands = ended(hub)
    assert (stands["locks"], stands["out"][0]["paid"]) == (0, BILL)


def test_one_channel_reaches_a_second_pole(world: World) -> None:
    pole = world.pole()
    supplier, at, (hub,) = row(world, pole, 1)
    first = world.car(supplier, "--hub", at, "--deposit", "5").answer()
    pole.answer()
    second = world.pole(listen=supplier)
    second.until("listening")
    again = world.car(supplier, "--hub", at).answer()
    assert first.get("complete"), first
    assert again.get("complete"), again

    stands = ended(hub)
    assert len(stands["in"]) == 1, "the car opened a second channel"
    assert stands["in"][0]["deposit"] == 5_000_000
