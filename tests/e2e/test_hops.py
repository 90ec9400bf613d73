"""Sessions over hubs between real processes, and what becomes of them when one is killed."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.identity import parse_address, to_hex
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.storage.sqlite import SqliteJournal

from .test_channel import pass_time
from .world import Process, World

_accounts = itertools.count(0, 6)
BILL = 800_000  # of 2 kWh
FEES = {1: 8_000, 2: 16_800, 3: 24_800}  # parts of ticks alone: 1, 2, 3 hubs at 1 percent, rounded up each


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Not that of other tests: they let hours pass there, and a hub with a clock behind the ledger's lends nothing."""
    process = Process(tmp_path_factory.mktemp("devnet"), "devnet", "--port", "0", "--accounts", "60", "--json")
    try:
        yield process.line()
    finally:
        process.end()


@pytest.fixture
def world(devnet: dict[str, Any], tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, devnet, next(_accounts), ("pole", "car", "hub1", "hub2", "hub3"))
    yield made
    made.end()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A devnet of one's own: where hours pass on the chain, no other test may be on it."""
    (tmp_path / "devnet").mkdir()
    devnet = Process(tmp_path / "devnet", "devnet", "--port", "0", "--accounts", "3", "--json")
    made = World(tmp_path, devnet.line(), 0, ("pole", "car", "hub1"))
    yield made
    made.end()
    devnet.end()


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


def test_a_hub_that_is_somebody_else_is_not_paid(world: World) -> None:
    pole = world.pole()
    supplier, at, _ = row(world, pole, 1)
    wrong = to_hex(world.keys["hub2"].address)
    car = world.car(supplier, "--hub", f"{wrong}@{at}")
    assert wrong in car.until("neighbour not reached")["error"]
    car.popen.wait(60)
    assert car.popen.returncode != 0
    assert not book.channels(SqliteJournal.open_readonly(world.home("car") / "journal.db"))


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


def expiries(world: World, name: str) -> list[int]:
    """When the locks expire that pay this one, by its journal (seconds)."""
    journal = SqliteJournal.open_readonly(world.home(name) / "journal.db")
    rows = [row for row in book.channels(journal) if row.earns]
    found = [lock.lock.expiry for row in rows for lock in book.hops_in(journal, row.params.id)[1].values()]
    journal._reader.close()
    return found


def tokens(world: World) -> dict[str, int]:
    """What each has on the chain outside channels (token units)."""

    async def ask() -> dict[str, int]:
        ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
        try:
            return {name: (await ledger.holdings(key.address)).tokens for name, key in world.keys.items()}
        finally:
            await ledger.disconnect()

    return asyncio.run(ask())


def test_a_hub_that_never_returns_is_paid_by_the_watch_over_its_journal(alone: World) -> None:
    """Its payee proves on the chain what it was promised; the watch claims it from the payer with the same preimage."""
    world, before = alone, tokens(alone)
    pole = world.pole("--power-w", "3300")
    supplier, at, (hub,) = row(world, pole, 1)
    car = world.car(supplier, "--hub", at)
    car.until("progress", ticks=100)
    hub.kill()
    bought = car.answer()
    assert bought["locked"] > 0
    pole.answer()
    watch = world.start(
        "hub1", "watch", "--url", world.manifest["url"], "--key", "hub1", "--passphrase-file", str(world.passphrase),
        "--every", "0.5", "--log", "json", "--json",
    )  # fmt: skip
    assert watch.until("watching")["channels"] == 1
    (lent,), (promised,) = expiries(world, "pole"), expiries(world, "hub1")

    pole = world.pole(listen=supplier)
    pole.until("listening")
    asyncio.run(pass_time(world, lent - 250))
    pole.until("claiming")
    assert watch.until("preimage lifted")["ticks"] == BILL // 1_000
    asyncio.run(pass_time(world, promised - 100))
    assert watch.until("channel closing")["at_risk"] == 0, "it was claimed with all that was proven"
    asyncio.run(pass_time(world, promised + 3_700))
    watch.until("settled for good")
    assert ended(watch)["lost"] == 0
    pole.signal(signal.SIGTERM)
    pole.answer()
    gained = {name: has - before[name] for name, has in tokens(world).items()}
    assert (gained["pole"], gained["car"]) == (BILL, -BILL - bought["fees"])
    assert gained["hub1"] == bought["fees"]
