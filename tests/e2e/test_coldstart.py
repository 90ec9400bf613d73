"""A consumer over a channel that is open needs no ledger, and begins without what only a ledger needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from penstock.core.units import Quantity
from penstock.sim.line import LineSupply

from .world import DEADLINE, World

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers
MODULES = """
import json, sys
from penstock.cli import main
try:
    main.run()
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""
HEAVY = {"web3", "eth_account", "eth_abi", "eth", "aiohttp", "vyper", "prometheus_client"}  # structlog loads rich


def limits(world: World, address: str, url: str) -> list[str]:
    flags = world.common("car")
    flags[flags.index("--url") + 1] = url
    return [
        "consume", address, *flags, "--max-price", "0.45", "--budget", "1", "--line", str(world.directory / "line"),
        "--log", "json", "--json",
    ]  # fmt: skip


def test_a_session_over_an_open_channel_needs_no_ledger_and_loads_nothing_for_one(world: World) -> None:
    pole = world.pole(speed=None)
    first = world.car(pole.until("listening")["address"], "--keep", "--deposit", "2", quantity=50)
    opened = first.answer()
    pole.answer()

    pole = world.pole(speed=None)
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *limits(world, pole.until("listening")["address"], NOWHERE), "--quantity", "5"],
        env={**os.environ, "PENSTOCK_HOME": str(world.home("car"))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    bought = json.loads(done.stdout)
    assert bought["channel"] == opened["channel"]
    assert bought["receipt"]["paid"] == 5 * 400
    assert bought["ticks"] == 2
    assert not HEAVY & set(json.loads(done.stderr.splitlines()[-1]))
    assert [one["what"] for one in pole.answer()["transactions"]] == ["close together"]


def test_a_consumer_without_a_channel_or_a_ledger_leaves_nothing_behind(world: World) -> None:
    LineSupply(world.directory / "line", 6_600, package=Quantity(1)).detach()
    before = sorted(world.home("car").rglob("*"))
    car = world.start("car", *limits(world, "127.0.0.1:9", NOWHERE), "--quantity", "50")
    answered = car.answer()
    assert car.code == 1, answered
    assert answered["error"]["kind"] == "LedgerUnreachable"
    assert sorted(world.home("car").rglob("*")) == before


def test_a_channel_that_does_not_suffice_needs_the_ledger_and_says_so(world: World) -> None:
    pole = world.pole(speed=None)
    first = world.car(pole.until("listening")["address"], "--keep", quantity=50)  # spends all that it puts in
    assert first.answer()["complete"]
    pole.answer()

    pole = world.pole(speed=None)
    car = world.start("car", *limits(world, pole.until("listening")["address"], NOWHERE), "--quantity", "50")
    assert car.answer()["error"]["kind"] == "LedgerUnreachable"
    assert car.code == 1
    assert car.errors[-1].startswith(f"penstock: no answer from the node at {NOWHERE}")
