"""A flow that turns round between real processes: the demo, and kill -9 of either side while it turns."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import NamedTuple

import pytest

from penstock.core.identity import parse_address
from penstock.core.session import SessionRow
from penstock.core.watcher import worth
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.sim.register import Register
from penstock.storage.sqlite import SqliteJournal

from .test_session import holdings
from .world import DEADLINE, Process, World

PRICE, BACK = 400, 500  # token units per Wh, to the car and back
LEGS = (60, -40, 50, -30, 40)  # Wh
TO_CAR, FED = (sum(abs(leg) for leg in LEGS if leg * way > 0) for way in (1, -1))
SPEED = "60"  # at 6,600 W a Wh takes 9 ms: the turn can be hit
LIMIT = 2_000  # token units, of either side

# Before which leg, how many seconds after the car asked for the flow to turn, and who is killed.
KILLS: list[tuple[int, float, str]] = [(1, 0.0, "pole"), (2, 0.005, "car"), (3, 0.01, "pole car"), (4, 0.0, "car")]


class Held(NamedTuple):
    """What one side's disk has: what it owns of the other's promises since the channel was opened (token units)."""

    row: SessionRow
    got: int


def held(world: World, name: str) -> Held:
    """What the journal of a process that is dead has."""
    journal = SqliteJournal.open_readonly(world.home(name) / "journal.db")
    try:
        (row,), (channel,) = book.sessions(journal), book.channels(journal)
        return Held(row, worth(book.filing_of(journal, channel)))
    finally:
        journal._reader.close()


def flowed(world: World) -> tuple[int, int]:
    """What the line has counted, to the car and back (Wh)."""
    register = Register.read_end(world.directory / "line")
    try:
        entry = register.read()
        return entry.total, entry.export
    finally:
        register.close()


def stakes(world: World) -> tuple[int, int]:
    """What pole and car would lose if the other never came back, by both disks and the line alone (token units)."""
    total, export = flowed(world)
    pole, car = held(world, "pole"), held(world, "car")
    owed = total * PRICE - export * BACK - (pole.got - car.got)
    return owed, -owed


def start_pole(world: World, listen: str = "127.0.0.1:0") -> tuple[Process, str]:
    pole = world.pole("--feed-price", "0.50", listen=listen, speed=SPEED)
    return pole, str(pole.until("listening")["address"])


def start_car(world: World, address: str) -> Process:
    turns = ",".join(str(leg / 1_000) for leg in LEGS)
    return world.car(address, "--turns", turns, quantity=TO_CAR)


async def status(world: World) -> str:
    ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
    journal = SqliteJournal.open_readonly(world.home("car") / "journal.db")
    try:
        (row,) = book.channels(journal)
        return str((await ledger.channel(row.params)).status)
    finally:
        await journal.close()
        await ledger.disconnect()


def test_kills_during_the_turns_cost_neither_side_more_than_its_limit(world: World) -> None:
    before = holdings(world)
    pole, address = start_pole(world)
    sides = {"pole": pole, "car": start_car(world, address)}
    for leg, after, hit in KILLS:
        sides["car"].until("way", leg=leg)
        time.sleep(after)
        for name in hit.split():
            sides[name].kill()
        left = [side for name, side in sides.items() if name not in hit]
        for side in left:
            time.sleep(0.05)  # what it does with what it has
            side.signal(signal.SIGSTOP)  # neither writes while both disks are looked at
        lost = stakes(world)
        assert max(lost) <= LIMIT, (leg, lost)
        for side in left:
            side.signal(signal.SIGCONT)
        if "pole" in hit:
            sides["pole"], _ = start_pole(world, address)
        if "car" in hit:
            sides["car"] = start_car(world, address)
    assert sides["car"].popen.wait(DEADLINE) == 0, sides["car"].errors
    assert sides["pole"].popen.wait(DEADLINE) == 0, sides["pole"].errors

    sold, bought = held(world, "pole").row, held(world, "car").row
    receipt = bought.receipt
    assert receipt is not None
    assert sold.receipt == receipt
    assert sold.supplier_signature
    assert bought.supplier_signature
    assert (receipt.supplier_total, receipt.supplier_export) == flowed(world) == (TO_CAR, FED)
    net = TO_CAR * PRICE - FED * BACK
    assert receipt.paid - receipt.repaid == net
    assert receipt.unpaid == 0
    assert max(sold.worst, bought.worst) <= LIMIT
    assert asyncio.run(status(world)) == "settled"
    earned, spent = (now - then for now, then in zip(holdings(world), before, strict=True))
    assert (earned, spent) == (net, -net)


def test_the_reversal_demo_agrees_to_the_last_token_unit_both_ways(world: World) -> None:
    page = world.directory / "v2g.html"
    done = world.command(
        "car", "demo", "--scenario", "v2g", "--session", "S0002", "--speed", "2000", "--chart", str(page), "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    both = {"to_consumer": 786 + 188, "back": 188}  # 60 % of 786 Wh, 40 % of that back, and what is missing
    assert document["energy_wh"] == {"supplier": both, "consumer": both}
    assert document["net"] == (786 + 188) * 400 - 188 * 500 == document["paid"] - document["repaid"]
    assert document["chain"] == {"opens": 1, "closes": 1}
    assert all(document["max_exposure"][side] <= document["limit"][side] == 2_000 for side in ("supplier", "consumer"))
    assert [one["what"] for one in document["transactions"]] == ["open with authorization", "close together"]
    gains = {side: one["after"] - one["before"] for side, one in document["balances"].items()}
    assert gains == {"supplier": document["net"], "consumer": -document["net"]}
    assert document["reason"] == "target reached"
    assert "back until 188 of 188 have flowed" in page.read_text()


@pytest.mark.parametrize("turns", ["", "0", "-1", "1,x", "1,0,2", "--1", "1,,2"])
def test_a_profile_that_is_none_is_refused_at_once(world: World, turns: str) -> None:
    done = world.command("car", "consume", "127.0.0.1:1", *world.common("car"), "--max-price", "1", "--budget", "1",
                         "--line", "line", f"--turns={turns}")  # fmt: skip
    assert done.returncode == 2
    assert "--turns" in done.stderr
    assert "Traceback" not in done.stderr
