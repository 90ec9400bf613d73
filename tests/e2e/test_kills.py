"""kill -9 at any instant: once both sides run again they come to one truth, and the chain agrees to the token unit."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import Any

import pytest

from penstock.core.identity import parse_address
from penstock.core.ports import Ledger
from penstock.core.session import Role, SessionRow
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, ending
from penstock.sim.line import LineMeter
from penstock.storage.sqlite import SqliteJournal

from .test_channel import pass_time
from .test_session import holdings
from .world import DEADLINE, World

ENERGY = 600  # Wh
PRICE = 400  # token units per Wh

# After which event, of whom, and within how many seconds of it the kill comes, and whom it hits.
ROUNDS: list[tuple[str, str, float, str]] = [
    ("car", "offered", 0.05, "car"),
    ("car", "opening", 0.12, "car"),
    ("car", "opened", 0.02, "pole"),
    ("pole", "accepted", 0.005, "car"),
    ("pole", "accepted", 0.02, "pole"),
    ("pole", "accepted", 0.6, "pole car"),
    ("pole", "progress", 0.3, "car"),
    ("pole", "ended", 0.0, "car"),
    ("car", "accepted", 0.6, "pole"),
    ("pole", "close taken", 0.25, "pole"),
]


def agreed(world: World) -> tuple[list[SessionRow], list[SessionRow]]:
    """The sessions in the pole's and in the car's journal, all of them ended."""
    sides = []
    for name in ("pole", "car"):
        journal = SqliteJournal.open_readonly(world.home(name) / "journal.db")
        sides.append(book.sessions(journal))
        assert not any(book.unfinished(journal, role) for role in Role), name
        journal._reader.close()
    return sides[0], sides[1]


def bought(world: World) -> bool:
    """Whether the car's session is over: the same command would begin another."""
    journal = SqliteJournal.open_readonly(world.home("car") / "journal.db")
    try:
        return any(row.supplier_signature for row in book.sessions(journal))
    finally:
        journal._reader.close()


async def finish(world: World) -> None:
    """End every channel that is still open, the pole first, with what is in the journals."""
    ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
    try:
        for name in ("pole", "car"):
            journal = SqliteJournal(world.home(name) / "journal.db")
            for row in book.channels(journal):
                await end(world, ledger, journal, name, row)
            await journal.close()
    finally:
        await ledger.disconnect()


async def end(world: World, ledger: Ledger, journal: SqliteJournal, name: str, row: Any) -> None:
    state = await ledger.channel(row.params)
    if state.status == "open":
        _, state = await ending.close(journal, ledger, world.keys[name], row)
    if state.status == "closing":
        await pass_time(world, state.closes_at)
        await ending.settle(journal, ledger, world.keys[name], row)


@pytest.mark.parametrize(("who", "event", "within", "hit"), ROUNDS, ids=lambda value: str(value).replace(" ", "-"))
def test_a_kill_loses_nothing(world: World, who: str, event: str, within: float, hit: str) -> None:
    chance = random.Random(f"{who}{event}{within}{hit}")
    before = holdings(world)
    sides = {"pole": world.pole()}
    address = sides["pole"].until("listening")["address"]
    sides["car"] = world.car(address, quantity=ENERGY)
    sides[who].until(event)
    time.sleep(chance.uniform(0, within))
    for name in hit.split():
        sides[name].kill()
    if "pole" in hit:
        sides["pole"] = world.pole(listen=address)
        sides["pole"].until("listening")
    if "car" in hit and not bought(world):
        sides["car"] = world.car(address, quantity=ENERGY)
    code = sides["car"].popen.wait(DEADLINE)
    if code and not bought(world):  # it had no session yet that could be taken up
        sides["car"] = world.car(address, quantity=ENERGY)
        code = sides["car"].popen.wait(DEADLINE)
    if event == "close taken":  # no session is left for which it was started
        sides["pole"].signal(signal.SIGTERM)
    assert sides["pole"].popen.wait(DEADLINE) == 0, sides["pole"].errors
    asyncio.run(finish(world))

    sold, paid = agreed(world)
    receipts = [row.receipt for row in sold if row.supplier_signature]
    assert receipts == [row.receipt for row in paid if row.receipt], (sides["car"].errors, code)
    meter = LineMeter(world.directory / "line")
    assert meter.read().total == ENERGY
    meter.detach()
    earned, spent = (now - then for now, then in zip(holdings(world), before, strict=True))
    assert (earned, spent) == (ENERGY * PRICE, -ENERGY * PRICE)
