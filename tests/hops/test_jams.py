"""What would jam a channel for good: a promise that its payee cannot take, since no other may follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from tests.conformance.ground import SUPPLIER

from penstock.core.channel import Lock
from penstock.core.codec import encode
from penstock.core.errors import PeerRefused
from penstock.core.hops import Place
from penstock.core.identity import Key
from penstock.core.messages import Edge, Hop, Promise, Reached, SignedReach
from penstock.core.units import Instant
from penstock.node.incoming import Payer
from penstock.node.routes import routes
from penstock.transports.frames import MAX_FRAME

from .world import DELTA, FEES, LIFE, TICK, TICKS, HopWorld, until

pytestmark = pytest.mark.asyncio


async def still_carries(world: HopWorld) -> None:
    """The channel onward takes the next promise."""
    await asyncio.sleep(0.3)
    assert world.onward.outgoing is not None
    await until(lambda: world.onward.outgoing is not None and world.onward.outgoing.idle, 5)
    assert world.onward.ready.is_set()
    lock = Lock(world.chain().root, TICK, TICKS, world.clock() // 1_000 + LIFE)
    number = world.onward.add(lock, 0, (), Place(world.in_params.id, 99))
    await until(lambda: number in world.payee.incoming.locks, 5)


@pytest.mark.parametrize("rest", [TICK, TICK + 3, FEES.tick(TICK) - 1])
async def test_a_rest_between_a_tick_here_and_a_tick_there_goes_no_further(world: HopWorld, rest: int) -> None:
    """Rule 7: less than a tick of the incoming lock, and no less than one of the outgoing: the pole would refuse it."""
    chain = world.chain()
    number = await world.placed(chain)
    world.payer.ask(number, 3, chain.preimage(3), rest)
    await still_carries(world)


@asynccontextmanager
async def slow_payee(world: HopWorld) -> AsyncIterator[None]:
    """The payee answers no promise meanwhile: what the hub is asked for waits, and goes onward in one."""
    honest, go = world.payee.incomings.promise, asyncio.Event()

    async def promise(payer: Payer, promise: Promise) -> None:
        await go.wait()
        await honest(payer, promise)

    world.payee.incomings.promise = promise  # type: ignore[method-assign]
    yield
    go.set()


async def test_a_route_that_names_no_accounts_goes_no_further(world: HopWorld) -> None:
    """Many of them would be more than a frame holds."""
    until_ = world.clock() // 1_000 + LIFE
    way = (Hop(SUPPLIER.address, TICK, until_, 0), Hop(b"x" * 30_000, TICK, until_, 0))  # type: ignore[arg-type]
    async with slow_payee(world):
        for _ in range(4):
            with suppress(PeerRefused):  # it is refused at once
                world.payer.add(Lock(world.chain().root, FEES.tick(TICK), TICKS, until_ + DELTA), 5, way)
            await asyncio.sleep(0.2)
    await still_carries(world)


async def test_an_end_that_is_asked_for_without_a_preimage_goes_no_further(world: HopWorld) -> None:
    """Nobody looks at a preimage of no tick; megabytes in place of one would be more than a frame holds."""
    numbers = [await world.placed(world.chain()) for _ in range(4)]
    async with slow_payee(world):
        for number in numbers:
            world.payer.ask(number, 0, b"x" * 30_000, 0)
            await asyncio.sleep(0.2)
    await still_carries(world)


async def test_a_neighbour_that_tells_of_too_much_keeps_nobody_out(world: HopWorld) -> None:
    """What a hub says has to fit into a frame, whatever others told it."""
    keys = [Key(bytes([7]) * 31 + bytes([at])) for at in range(1, 16)]
    edges = tuple(Edge(SUPPLIER.address, 2**90 + at) for at in range(200))
    told = [
        SignedReach.made(key, Reached(key.address, world.ledger.domain, 600, 1, 1, 1, edges, Instant(9)))
        for key in keys
    ]
    world.onward.known = (*world.onward.known, *told)
    said = world.hub.incomings.reach()
    assert len(encode(said)) <= MAX_FRAME
    assert said.known[0].reached.node == world.hub.key.address


def said(key: Key, payee: bytes, delta: int) -> Reached:
    edges = (Edge(payee, 10**12),)  # type: ignore[arg-type]
    return Reached(key.address, None, 600, 0, 0, delta, edges, Instant(9))  # type: ignore[arg-type]


async def test_no_route_leads_over_a_hub_that_wants_locks_for_longer_than_a_day() -> None:
    """The next hop would refuse such a promise, or lock our money for as long."""
    near, far = Key(b"\x01" * 32), Key(b"\x02" * 32)
    told = {near.address: said(near, far.address, 600), far.address: said(far, SUPPLIER.address, 600)}
    assert routes(told, [near.address], SUPPLIER.address, TICK, TICKS, 10_000, 5_000)
    told[far.address] = said(far, SUPPLIER.address, 10**9)
    assert not routes(told, [near.address], SUPPLIER.address, TICK, TICKS, 10_000, 5_000)
