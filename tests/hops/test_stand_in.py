"""A watch over the journal of a hub that is down: what it was owed when it died it is paid, whoever cheats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from pathlib import Path

import pytest
from tests.conformance.ground import SUPPLIER

from penstock.core.channel import Domain
from penstock.core.ports import Ledger
from penstock.ledgers.evm import EvmLedger
from penstock.node.stand_in import CLAIM, StandIn
from penstock.node.watch import Watch
from penstock.storage.sqlite import SqliteJournal

from .test_thieves import FEE, proving
from .world import HUB, TICK, Events, HopWorld, until

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def watching(world: HopWorld, directory: Path) -> AsyncIterator[Events]:
    """A watch over the journal of the world's hub; what it tells."""
    told, asked = Events(), asyncio.Event()
    journal = SqliteJournal.open_readonly(directory / "hub.db")
    stand_in = StandIn(journal, HUB, told)

    async def connect(domain: Domain) -> Ledger:
        return await EvmLedger.connect(world.ledger._node._url, domain.contract)

    running = asyncio.ensure_future(Watch(HUB, stand_in.shown, connect, told, stand_in).run(asked, 0.05))
    try:
        await until(lambda: told.named("watching") or running.done())
        yield told
    finally:
        asked.set()
        await running
        await journal.close()


async def test_what_is_proven_against_a_dead_hub_is_claimed_for_it(world: HopWorld, tmp_path: Path) -> None:
    """Rule 11: preimages are lifted from claims made against it, and used before the incoming lock expires."""
    chain = world.chain()
    number = await world.placed(chain)
    expiry = world.held(number).lock.expiry
    incoming, into, out = world.payee.incoming, world.in_params, world.out_params
    await world.stop_hub()
    async with watching(world, tmp_path) as told:
        await world.ledger.close(SUPPLIER, out, proving(incoming, number, 9, chain))
        await until(lambda: told.named("preimage lifted"))
        assert told.named("preimage lifted") == [{"lock": number, "ticks": 9}]
        assert not told.named("claiming"), "there is time"
        await world.wait(expiry - await world.ledger.now() - CLAIM)
        await until(lambda: told.named("channel closing"))
        assert (await world.ledger.filed(into, True)).amount == 9 * (TICK + FEE) + 5
        await world.wait(5_000)
        await until(lambda: told.named("settled for good"))
    assert (await world.tokens())["hub"] - world.before["hub"] == 9 * FEE + 5


async def test_a_payee_that_files_an_old_voucher_against_a_dead_hub_is_held_to_its_release(
    world: HopWorld, tmp_path: Path
) -> None:
    """Rule 9, by whoever has the hub's journal."""
    chain = world.chain()
    number = await world.placed(chain)
    old = copy(world.payee.incoming)
    old.locks = dict(old.locks)
    await world.payee.done(number, 3, chain.preimage(3), 3 * TICK)
    await until(lambda: number in world.listener.gone)
    out = world.out_params
    await world.stop_hub()
    async with watching(world, tmp_path) as told:
        await world.ledger.close(SUPPLIER, out, proving(old, number, 8, chain))
        await until(lambda: told.named("held to its release"))
        await world.wait(5_000)
        async with asyncio.timeout(20):
            while (await world.ledger.channel(out)).status != "settled":  # noqa: ASYNC110 - the chain tells nobody
                await asyncio.sleep(0.05)
    assert len(told.named("held to its release")) == 1
    assert (await world.tokens())["hub"] == world.before["hub"] - 3 * TICK, "the rest came back, and nothing more went"


async def test_a_hub_that_runs_is_left_alone(world: HopWorld, tmp_path: Path) -> None:
    chain = world.chain()
    number = await world.placed(chain)
    async with watching(world, tmp_path) as told:
        await world.payee.done(number, 4, chain.preimage(4), 4 * TICK)
        await until(lambda: number in world.listener.gone)
        await asyncio.sleep(0.3)
    assert {event for event, _ in told.heard} <= {"watching"}
    assert (await world.ledger.channel(world.in_params)).status == "open"
