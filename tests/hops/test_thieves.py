"""A hub between thieves: whatever payer and payee do, together too, it ends with no less than it had.

Each attack answers to a rule of the design; its number stands beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.conformance.ground import CONSUMER

from penstock.core.channel import Lock, Voucher
from penstock.core.codec import encode
from penstock.core.errors import BadTerms, PeerRefused
from penstock.core.hops import Incoming, Outgoing, filing_of
from penstock.core.messages import Add, Enter, Entered, Hop, Message, Promise, Settle, Taken, Told
from penstock.core.ports import Filing
from penstock.core.ticks import TickChain
from penstock.node import book, relay

from .world import DELTA, FEES, LIFE, PERIOD, SUPPLIER, TICK, TICKS, HopWorld, until

pytestmark = pytest.mark.asyncio
FEE = FEES.tick(TICK) - TICK


def proving(incoming: Incoming, number: int, count: int, chain: TickChain) -> Filing:
    """What the payee of a lock files who knows so many of its ticks."""
    locks = dict(incoming.locks)
    locks[number] = msgspec.structs.replace(locks[number], count=count, preimage=chain.preimage(count))
    return filing_of(incoming.row, locks)


async def gains_of_hub(world: HopWorld) -> int:
    return (await world.gains())["hub"]


async def test_an_old_voucher_filed_after_a_fold_brings_nothing(world: HopWorld) -> None:
    """Rule 9: payer and payee fold three ticks, then prove eight on the voucher from before."""
    chain = world.chain()
    number = await world.placed(chain)
    old = copy(world.payee.incoming)
    old.locks = dict(old.locks)
    await world.payee.done(number, 3, chain.preimage(3), 3 * TICK)
    await until(lambda: number in world.listener.gone)
    await world.ledger.close(SUPPLIER, world.out_params, proving(old, number, 8, chain))
    await world.look()
    await world.look()
    assert len(world.told.named("held to its release")) == 1
    assert await gains_of_hub(world) >= 3 * FEE


async def test_a_payee_that_takes_a_fold_in_silence_gains_nothing_by_the_lock_it_kept(world: HopWorld) -> None:
    """Rule 9: nothing is released upstream before downstream. The payee keeps both vouchers, and uses the old one."""
    chain = world.chain()
    number = await world.placed(chain)
    old = copy(world.payee.incoming)
    old.locks = dict(old.locks)
    silence = asyncio.Event()
    honest, world.payee.incomings.promise = world.payee.incomings.promise, lambda *_: silence.wait()  # type: ignore[assignment,method-assign]
    await world.payee.done(number, 3, chain.preimage(3), 3 * TICK)
    await until(lambda: world.onward.outgoing is not None and world.onward.outgoing.leaving)
    assert number not in world.listener.ends, "the hub let its payer off before it was let off itself"
    await world.ledger.close(SUPPLIER, world.out_params, proving(old, number, 8, chain))
    await world.look()
    assert world.held(number).count == 8
    assert await gains_of_hub(world) >= 8 * FEE
    silence.set()
    world.payee.incomings.promise = honest  # type: ignore[method-assign]


async def test_a_payee_that_proves_in_the_last_block_before_the_expiry_costs_the_hub_nothing(world: HopWorld) -> None:
    """Rule 10 and Rule 11: the payer has gone, and the hub has until its own lock's later expiry."""
    chain = world.chain()
    number = await world.placed(chain)
    world.payer._dial = world.onward._dial  # it never comes back
    await world.ledger.close(SUPPLIER, world.out_params, proving(world.payee.incoming, number, 0, chain))
    expiry = world.payee.incoming.locks[number].lock.expiry
    await world.wait(expiry - await world.ledger.now() - 30)
    await world.look()
    assert world.held(number).count == 0
    await world.ledger.prove(SUPPLIER, world.out_params, True, proving(world.payee.incoming, number, 9, chain))
    await world.look()
    assert world.held(number).count == 9
    world.listener.settles = False
    await world.wait(DELTA - 150)
    await world.look()
    assert world.told.named("claiming")
    assert await gains_of_hub(world) >= 9 * FEE


async def test_a_payer_that_closes_in_mid_session_is_claimed_from(world: HopWorld) -> None:
    """Rule 11: the voucher is filed in the challenge with no tick known yet, and proven when one is."""
    chain = world.chain()
    number = await world.placed(chain)
    world.listener.settles = False
    await world.ledger.close(CONSUMER, world.in_params, None)
    await world.look()
    assert (await world.ledger.filed(world.in_params, True)).locked == world.held(number).lock.value
    await world.payee.done(number, 7, chain.preimage(7), 7 * TICK)
    await until(lambda: world.held(number).done is not None)
    await world.look()
    assert await gains_of_hub(world) >= 7 * FEE


async def test_a_payer_that_vanishes_is_claimed_from_before_its_lock_expires(world: HopWorld) -> None:
    """Rule 11: the payee was paid, and the payer does not settle."""
    world.listener.settles = False
    chain = world.chain()
    number = await world.placed(chain)
    await world.payee.done(number, 6, chain.preimage(6), 6 * TICK)
    await until(lambda: number in world.listener.ends)
    await world.wait(world.held(number).lock.expiry - await world.ledger.now() - 190)
    await world.look()
    assert world.told.named("claiming")
    assert await gains_of_hub(world) >= 6 * FEE


async def test_an_end_told_after_the_expiry_is_not_paid(world: HopWorld) -> None:
    """Rule 10: the hub has let its payer off by then."""
    chain = world.chain()
    number = await world.placed(chain)
    await world.wait(LIFE + 40)
    await world.look()
    await until(lambda: number in world.listener.gone)
    await world.payee.done(number, 6, chain.preimage(6), 6 * TICK)
    await asyncio.sleep(0.3)
    await world.look()
    assert await gains_of_hub(world) >= 0


@pytest.mark.parametrize("hours", [-24, 24])
async def test_a_hub_whose_clock_is_wrong_loses_nothing_by_it(world: HopWorld, hours: int) -> None:
    """Rule 10: what has expired is decided by the ledger's time."""
    chain = world.chain()
    number = await world.placed(chain)
    world.hub_clock.offset += hours * 3_600
    await world.look()
    assert world.held(number).done is None, "a lock was let go that its payee can still prove"
    await world.ledger.close(SUPPLIER, world.out_params, proving(world.payee.incoming, number, 4, chain))
    await world.look()
    assert world.held(number).count == 4
    world.listener.settles = False
    await world.wait(world.held(number).lock.expiry - await world.ledger.now() - 190)
    world.hub_clock.offset = world.clock.offset
    await world.look()
    assert await gains_of_hub(world) >= 4 * FEE


async def test_nothing_is_lent_on_a_clock_that_is_behind(world: HopWorld) -> None:
    """Rule 12: what is judged fresh by it may be old."""
    world.hub_clock.offset -= 3_600
    await world.look()
    number = world.locked(world.chain())
    await until(lambda: number in world.listener.ends)
    assert "behind the ledger's" in world.listener.ends[number].why


async def test_nothing_is_lent_when_the_ledger_was_not_seen_for_too_long(world: HopWorld) -> None:
    """Rule 12: the channel may be closing behind our back."""
    world.hub._time.look = lambda: asyncio.sleep(0)  # type: ignore[method-assign,assignment,return-value]
    world.hub_clock.offset += 310
    number = world.locked(world.chain(), holding=999)
    await until(lambda: number in world.listener.ends)
    assert "not seen for too long" in world.listener.ends[number].why


async def test_no_promise_is_taken_in_a_channel_that_is_closing(world: HopWorld) -> None:
    """Rule 7: a voucher that comes after the filing may never be filed."""
    await world.placed(world.chain())
    await world.ledger.close(CONSUMER, world.in_params, None)
    await world.look()
    world.locked(world.chain())
    await until(lambda: "closing" in world.payer.why)


HUGE = 10**4_200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: msgspec.structs.replace(p, signature=bytes(65)),
        lambda p: msgspec.structs.replace(p, changes=()),
        lambda p: msgspec.structs.replace(p, changes=p.changes * 65),
        lambda p: msgspec.structs.replace(p, voucher=msgspec.structs.replace(p.voucher, amount=HUGE)),
        lambda p: msgspec.structs.replace(p, voucher=msgspec.structs.replace(p.voucher, nonce=7)),
        lambda p: msgspec.structs.replace(p, changes=(msgspec.structs.replace(p.changes[0], holding=HUGE),)),
        lambda p: msgspec.structs.replace(p, changes=(msgspec.structs.replace(p.changes[0], holding=-1),)),
        lambda p: msgspec.structs.replace(p, changes=(msgspec.structs.replace(p.changes[0], number=0),)),
        lambda p: msgspec.structs.replace(
            p, changes=(msgspec.structs.replace(p.changes[0], onward=p.changes[0].onward * 4),)
        ),
        lambda p: msgspec.structs.replace(p, changes=(Settle(1, 0),)),
        lambda p: msgspec.structs.replace(p, changes=(Add(1, Lock(b"x" * 32, HUGE, 5, 9), 0, ()),)),
        lambda p: msgspec.structs.replace(p, changes=(Add(1, Lock(b"x" * 32, 5, 5, 2**62), 0, ()),)),
    ],
)
async def test_a_promise_that_is_not_what_follows_changes_nothing(world: HopWorld, spoil: object) -> None:
    """Rule 13: the payee recomputes all of it."""
    own = world.payer.outgoing
    assert own is not None
    out = Outgoing(own.params, own.deposit, CONSUMER, own.row, {})
    hop = Hop(SUPPLIER.address, TICK, world.clock() // 1_000 + LIFE, 0)
    out.add(Lock(world.chain().root, TICK + FEE, TICKS, hop.expiry + DELTA), 5, (hop,))
    made = out.promise()
    assert made is not None
    promise: Promise = spoil(made[1])  # type: ignore[operator]
    before = world.hub.incomings.channels[world.in_params.id].row
    link = world.payer._link
    assert link is not None
    link.send(encode(promise))
    await asyncio.sleep(0.4)
    assert world.hub.incomings.channels[world.in_params.id].row == before
    assert world.hub.site.fault is None
    assert not world.hub.incomings.channels[world.in_params.id].locks


@pytest.mark.parametrize(
    "message",
    [
        Told(b"", 1, True, 2**62, bytes(32), 0, ""),
        Told(b"", 1, True, 3, bytes(32), 3 * TICK, ""),
        Told(b"", 1, True, 0, b"", TICK, ""),
        Told(b"", 1, True, 0, b"", HUGE, "x" * 60_000),
        Told(b"", 99, True, 3, bytes(32), TICK, ""),
        Taken(b"", 7, bytes(65)),
        Taken(b"", 2, bytes(65)),
    ],
)
async def test_what_a_payee_says_falsely_changes_nothing(world: HopWorld, message: Told | Taken) -> None:
    number = await world.placed(world.chain())
    visit = world.payee.incomings._payers[world.out_params.id]
    visit.send(msgspec.structs.replace(message, channel=world.out_params.id))
    await asyncio.sleep(0.4)
    assert world.held(number).done is None
    assert world.held(number).count == 0
    await until(world.onward.ready.is_set)
    chain = world.chain()
    again = await world.placed(chain)
    await world.payee.done(again, 2, chain.preimage(2), 2 * TICK)
    await until(lambda: again in world.listener.gone)


async def test_more_than_a_share_is_lent_to_nobody(world: HopWorld) -> None:
    numbers = [world.locked(world.chain(), ticks=700, holding=400) for _ in range(2)]
    await until(lambda: set(numbers) <= world.listener.places | set(world.listener.ends))
    assert numbers[0] in world.listener.places
    assert "lent to one neighbour" in world.listener.ends[numbers[1]].why


async def test_more_than_so_many_in_a_minute_are_refused_and_jam_nothing(world: HopWorld) -> None:
    world.hub.incomings.terms = msgspec.structs.replace(world.hub.incomings.terms, a_minute=3)
    numbers = [world.locked(world.chain()) for _ in range(5)]
    await until(lambda: set(numbers) <= world.listener.places | set(world.listener.ends))
    assert all("in a minute" in one.why for one in world.listener.ends.values())
    world.hub_clock.offset += 61
    world.clock.offset += 61
    await world.placed(world.chain())


async def test_the_books_of_a_hub_are_its_journals(world: HopWorld) -> None:
    """What a hub would know after a crash is what it knows."""

    chains = [world.chain() for _ in range(3)]
    numbers = [await world.placed(chain) for chain in chains]
    await world.payee.done(numbers[1], 2, chains[1].preimage(2), 2 * TICK)
    await until(lambda: numbers[1] in world.listener.gone)
    incoming = world.hub.incomings.channels[world.in_params.id]
    out = world.onward.outgoing
    assert out is not None
    assert book.hops_in(world.hub_journal, world.in_params.id) == (incoming.row, incoming.locks)
    assert book.hops_out(world.hub_journal, world.out_params.id) == (out.row, out.locks)
    held = [one.lock for one in incoming.locks.values()]
    assert incoming.row.voucher == Voucher.over(incoming.row.voucher.nonce, incoming.row.voucher.amount, held)
    assert TICKS


async def test_locks_that_are_settled_while_the_hub_looks_do_not_blind_it(
    world: HopWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 11: a payer that times its settlement must not end the look that claims the next lock."""
    numbers = [await world.placed(world.chain()) for _ in range(2)]
    incomings = world.hub.incomings
    incoming = incomings.channels[world.in_params.id]
    keep = incomings.keep

    async def settled_meanwhile(*given: Any) -> None:
        await keep(*given)
        incoming.locks.pop(numbers[1], None)

    monkeypatch.setattr(incomings, "keep", settled_meanwhile)
    await world.ground.wait(LIFE + DELTA + 60)
    await incomings.look()
    assert incoming.locks[numbers[0]].done == 0


async def test_a_lock_that_is_settled_while_its_preimage_is_written_does_not_blind_the_hub(
    world: HopWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 11: nor the look that holds a payee to its release."""
    chain = world.chain()
    number = await world.placed(chain)
    incoming = world.hub.incomings.channels[world.in_params.id]
    write = relay.durable

    async def settled_meanwhile(*given: Any) -> None:
        await write(*given)
        incoming.locks.pop(number, None)

    monkeypatch.setattr(relay, "durable", settled_meanwhile)
    lock = world.onward.outgoing.locks[number]  # type: ignore[union-attr]
    await world.hub.relay.proven(world.out_params.id, number, lock, TICKS, chain.preimage(TICKS))
    assert number not in incoming.locks


async def test_a_hub_lends_to_nobody_else_at_an_address(world: HopWorld) -> None:
    """Whoever takes an address over would be lent to under one fresh key after the other, for gas of ours each time."""
    reached = world.onward.reached
    assert reached is not None
    other = msgspec.structs.replace(reached, node=CONSUMER.address)
    with pytest.raises(PeerRefused, match="where we lend to"):
        await world.hub._channel("payee", other)
    assert set(world.hub.relay.neighbours) == {SUPPLIER.address}
    assert len(book.channels(world.hub_journal)) == 2


async def test_a_hub_lends_to_nobody_who_could_hold_it_for_longer_than_it_says(world: HopWorld) -> None:
    """A payee that answers no close holds what we lend for as long as the channel's challenge period."""
    reached = world.onward.reached
    assert reached is not None
    world.onward.outgoing = None
    with pytest.raises(BadTerms, match="may hold our deposit"):
        await world.hub._channel("payee", msgspec.structs.replace(reached, min_period=PERIOD + 1))


class Late(NamedTuple):
    """A payee that was done with a lock at nothing, kept its release, and closed with the voucher from before."""

    number: int
    chain: TickChain
    old: Incoming
    release: Taken
    send: Callable[[Message], None]


async def late(world: HopWorld, shown: int) -> Late:
    """`shown`: how many ticks it proves in the close."""
    chain = world.chain()
    number = await world.placed(chain)
    kept: list[tuple[Any, Promise]] = []
    old = copy(world.payee.incoming)
    old.locks = dict(old.locks)

    async def in_silence(payer: Any, promise: Promise) -> None:
        kept.append((payer, promise))

    world.payee.incomings.promise = in_silence  # type: ignore[method-assign]
    await world.payee.done(number, 0, b"", 0)
    await until(lambda: kept)
    payer, promise = kept[0]
    await world.ledger.close(SUPPLIER, world.out_params, proving(old, number, shown, chain))
    return Late(number, chain, old, world.payee.incoming.take(promise, 2**40).answer, payer.send)


@pytest.mark.parametrize("shown", [0, TICKS - 1])
async def test_a_release_that_comes_when_the_ledger_takes_it_no_more_lets_nobody_off(
    world: HopWorld, shown: int
) -> None:
    """Rule 9: the old voucher is what the ledger pays then, whatever was released since."""
    thief = await late(world, shown)
    await world.look()
    await world.wait((await world.ledger.channel(world.out_params)).closes_at - await world.ledger.now() + 30)
    await world.look()
    thief.send(thief.release)
    await until(lambda: world.told.named("release not counted") or thief.number in world.listener.gone)
    assert world.held(thief.number).done is None, "the hub let its payer off"
    await world.ledger.prove(SUPPLIER, world.out_params, True, proving(thief.old, thief.number, TICKS, thief.chain))
    await world.look()
    assert await gains_of_hub(world) >= TICKS * FEE


async def test_a_release_that_a_restarted_hub_is_given_at_once_lets_nobody_off(world: HopWorld) -> None:
    """Rule 9: what was seen before the restart says nothing, and the challenge went by meanwhile."""
    thief, params = await late(world, TICKS - 1), world.out_params
    await world.stop_hub()
    await world.wait(PERIOD + 100)

    async def enter(payer: Any, _peer: bytes, _message: Enter) -> None:
        payer.send(Entered(params.id, thief.release.nonce))
        payer.send(thief.release)

    world.payee.incomings.enter = enter  # type: ignore[method-assign]
    await world.start_hub()
    await until(lambda: world.told.named("release not counted") or thief.number in world.listener.gone)
    assert world.held(thief.number).done is None, "the hub let its payer off"
    await world.look()
    assert await gains_of_hub(world) >= (TICKS - 1) * FEE


async def test_a_release_counts_once_the_ledger_is_seen_again(world: HopWorld) -> None:
    """Rule 9 and Rule 12: who did not see the ledger for half a challenge does not know what a release still binds."""
    number = await world.placed(world.chain())
    world.hub_clock.offset += PERIOD // 2 + 60
    assert not world.onward._answerable
    await world.payee.done(number, 0, b"", 0)
    await until(lambda: world.told.named("release not counted"))
    assert world.held(number).done is None
    await world.look()
    await until(lambda: number in world.listener.gone)


async def test_a_lock_is_not_settled_before_its_payee_is_done_with_it(world: HopWorld) -> None:
    """Rule 8: who pays a small lock in full and takes it away would leave the hub with the one that it paid for, which
    that one's payee then has to claim on the ledger, and everybody's channel is closed."""
    chain = world.chain()
    number = await world.placed(chain)
    out = world.payer.outgoing
    assert out is not None
    out.settle(number, out.locks[number].lock.value)
    world.payer._wake.set()
    await until(lambda: not world.payer.ready.is_set())
    assert "before its payee was done with it" in world.payer.why
    assert number in world.hub.incomings.channels[world.in_params.id].locks
