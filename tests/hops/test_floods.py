"""Numbers of thousands of digits, and other rubbish, in every field of what neighbours say to each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.conformance.ground import STRANGER
from tests.node.world import Thief

from penstock.core.channel import Lock
from penstock.core.codec import decode, encode
from penstock.core.errors import PenstockError
from penstock.core.hops import NO_VOUCHER, Outgoing, OutRow
from penstock.core.messages import Ask, Enter, Entered, Hop, Message, Promise, Settle, Taken, Told
from penstock.core.ticks import TickChain

from .street import HopStreet, until
from .test_double_use import DEPOSIT, LIFE, TICK, channel
from .world import HopWorld

pytestmark = pytest.mark.asyncio
RUBBISH: list[Any] = [-1, 2**63, 2**64, 2**96, 10**4_200, -(10**4_200), "", "x" * 40_000, [], {}, None, True, 1.5]


def spoiled(message: Message) -> Iterator[bytes]:
    """The message with each of its fields in turn, however deep, put out for each piece of rubbish."""

    def places(part: Any, way: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if way:
            yield way
        if isinstance(part, list):
            for at, inner in enumerate(part):
                yield from places(inner, (*way, at))

    text = encode(message)
    for way in places(json.loads(text), ()):
        for rubbish in RUBBISH:
            whole = part = json.loads(text)
            for step in way[:-1]:
                part = part[step]
            if part[way[-1]] != rubbish:
                part[way[-1]] = rubbish
                yield json.dumps(whole).encode()


async def test_rubbish_in_a_payers_fields_changes_nothing(street: HopStreet) -> None:
    """Each is refused or cuts the link off, and leaves no fault, no lock and no row behind."""
    params = await channel(street, STRANGER)
    out = Outgoing(params, DEPOSIT, STRANGER, OutRow(NO_VOUCHER), {})
    expiry = street.clock() // 1_000 + LIFE
    out.add(Lock(TickChain(b"s" * 32, 20).root, TICK, 20, expiry), 0, (Hop(STRANGER.address, 5, expiry, 0),))
    made = out.promise()
    assert made is not None
    promise = made[1]
    others = [
        Promise(params.id, promise.voucher, promise.signature, (Ask(1, 0, b"", 0), Settle(1, 0))),
        Enter(params),
    ]
    frames = [frame for message in (promise, *others) for frame in spoiled(message)]
    thief = await _entered(street, Enter(params))
    for frame in frames:
        if thief.ended.done():
            thief = await _entered(street, Enter(params))
        try:
            thief.send(frame)
        except PenstockError:
            continue  # it has just been cut off
        await until(lambda thief=thief: thief.ended.done() or not thief.inbox.empty())
        while not thief.inbox.empty():
            thief.inbox.get_nowait()
        assert street.site.fault is None
    assert len(frames) > 300
    (incoming,) = street.incomings.channels.values()
    assert incoming.row.voucher in (NO_VOUCHER, promise.voucher)  # nobody signs the way onward
    assert all(held.done == 0 for held in incoming.locks.values()), "which is none of a pole's"
    thief = await _entered(street, Enter(params))
    thief.send(promise)
    await thief.hear((Told, Taken))


async def _entered(street: HopStreet, enter: Enter) -> Thief:
    street.site.clock.offset += 61  # type: ignore[attr-defined]  # asks are counted by the minute
    thief = await street.thief(STRANGER)
    await thief.ask(enter, Entered)
    return thief


async def test_rubbish_in_a_payees_fields_changes_nothing(world: HopWorld) -> None:
    """What a hub hears from whom it pays."""
    number = await world.placed(world.chain())
    channel_ = world.out_params.id
    messages = [Told(channel_, number, True, 3, bytes(32), 0, "why"), Taken(channel_, 2, bytes(65))]
    messages += [Entered(channel_, 1), world.payee.incomings.reach()]
    before = world.onward.outgoing
    assert before is not None
    row = before.row
    for message in messages:
        for frame in spoiled(message):
            await _take(world, frame)
            assert before.row == row
            assert world.held(number).count == 0
    assert world.hub.site.fault is None


async def _take(world: HopWorld, frame: bytes) -> None:
    class Silent:
        peer = world.payee.site.key.address

        def send(self, frame: bytes) -> None:
            pass

    with suppress(PenstockError):
        await world.onward._take(Silent(), decode(frame))  # type: ignore[arg-type]
