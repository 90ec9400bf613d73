"""A hub that never comes back, on a real node: who streamed over it gets on the chain what is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.identity import to_hex
from penstock.ledgers.devnet.manifest import Manifest
from penstock.node import book
from penstock.storage.sqlite import SqliteJournal

from ..e2e.test_hops import BILL, ended, expiries, row, tokens
from ..e2e.world import Process, World
from .anvil import Anvil

PERIOD = 3_600  # seconds: the challenge period that the commands take when none is named


@pytest.fixture
def world(tmp_path: Path, manifest: Manifest) -> Iterator[World]:
    made = World(tmp_path, msgspec.to_builtins(manifest), 0, ("pole", "car", "hub1"))
    yield made
    made.end()


def stream_past_a_hub_that_dies(world: World) -> tuple[str, dict[str, Any]]:
    """The pole's address, and what the car says in the end; the pole has ended, too."""
    pole = world.pole("--power-w", "3300")
    supplier, at, (hub,) = row(world, pole, 1)
    car = world.car(supplier, "--hub", at)
    car.until("progress", ticks=100)
    hub.kill()
    bought = car.answer()
    assert bought["complete"]
    assert bought["locked"] > 0, "a hub that is dead cannot have settled"
    pole.answer()
    return supplier, bought


def pass_time(anvil: Anvil, until: int) -> None:
    anvil.increase_time(max(0, until - anvil.now()) + 1)
    anvil.mine()


def claims(world: World, anvil: Anvil, supplier: str) -> Process:
    """The pole begins to claim what it was promised, shortly before that expires."""
    (lent,) = expiries(world, "pole")
    pole = world.pole(listen=supplier)
    pole.until("listening")
    pass_time(anvil, lent - 250)
    pole.until("claiming")
    pole.until("channel closing")
    return pole


def watch(world: World, name: str, *flags: str) -> Process:
    return world.start(
        name, "watch", "--url", world.manifest["url"], "--key", name, "--passphrase-file", str(world.passphrase),
        "--every", "0.5", "--log", "json", "--json", *flags,
    )  # fmt: skip


def gains(world: World, before: dict[str, int]) -> dict[str, int]:
    return {name: has - before[name] for name, has in tokens(world).items()}


def test_a_hub_that_is_gone_for_good_leaves_both_ends_whole(anvil: Anvil, world: World) -> None:
    before = tokens(world)
    supplier, _ = stream_past_a_hub_that_dies(world)
    (promised,) = expiries(world, "hub1")
    ended(claims(world, anvil, supplier))
    pass_time(anvil, promised + 1)
    (owned,) = book.channels(SqliteJournal.open_readonly(world.home("car") / "journal.db"))
    channel = to_hex(owned.params.id)
    closed = world.command("car", "channel", "close", channel, *world.common("car"))
    assert closed.returncode == 0, closed.stderr
    pass_time(anvil, promised + PERIOD + 100)
    assert watch(world, "pole", "--once").answer() == {"settled": 1, "left": 0, "lost": 0}
    settled = world.command("car", "channel", "settle", channel, *world.common("car"))
    assert settled.returncode == 0, settled.stderr
    # The pole is paid by the hub's own deposit; the hub, which never claims its lock, pays for its absence.
    assert gains(world, before) == {"pole": BILL, "car": 0, "hub1": -BILL}


def test_the_watch_over_a_dead_hubs_journal_makes_the_hub_whole_too(anvil: Anvil, world: World) -> None:
    before = tokens(world)
    supplier, bought = stream_past_a_hub_that_dies(world)
    (promised,) = expiries(world, "hub1")
    over = watch(world, "hub1")
    assert over.until("watching")["channels"] == 1
    pole = claims(world, anvil, supplier)
    assert over.until("preimage lifted")["ticks"] == BILL // 1_000
    pass_time(anvil, promised - 100)
    assert over.until("channel closing")["at_risk"] == 0, "it was claimed with all that was proven"
    pass_time(anvil, promised + PERIOD + 100)
    over.until("settled for good")
    assert ended(over)["lost"] == 0
    ended(pole)
    assert gains(world, before) == {"pole": BILL, "car": -BILL - bought["fees"], "hub1": bought["fees"]}


def test_a_channel_to_a_hub_may_take_its_time_to_be_deep_enough(anvil: Anvil, world: World) -> None:
    """The hub wants more blocks above the opening than the car: the car waits for them, and opens no second channel."""
    pole = world.pole()
    supplier = pole.until("listening")["address"]
    hub = world.hub("hub1", supplier, flags=("--confirmations", "30"))
    at = hub.until("listening")["address"]
    hub.until("waiting for confirmations")
    anvil.mine(30)
    anvil.ask("evm_setIntervalMining", 1)
    hub.until("neighbour entered")
    bought = world.car(supplier, "--hub", at).answer()
    assert bought["complete"]
    pole.answer()
    assert len(ended(hub)["in"]) == 1
    assert len(book.channels(SqliteJournal.open_readonly(world.home("car") / "journal.db"))) == 1
