"""What must be so at the end of a world over hubs: no honest hub has lost anything, and everybody else little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.node import book
from penstock.rails.hops import END_ROWS, SEED_ROWS, TICK_ROWS, decode_seed, proof_in
from penstock.sim.audit_end import _business, _receipts
from penstock.sim.world import MONEY

if TYPE_CHECKING:
    from penstock.sim.actors import Actor, CarActor
    from penstock.sim.audit_hubs import HubChecks


def audit_end(checks: HubChecks) -> None:
    """Look at the chain and at the disks of a world whose time is over."""
    world = checks.world
    _exits(checks)
    for hub in world.hubs:
        if not (hub.cheat or hub.gone) and (gain := _gain(checks, hub)) < 0:
            checks.fail(f"hub: {hub.name} has lost {-gain}")
    if not world.site.cheat and (gain := _gain(checks, world.site)) < (held := _held(checks)):
        checks.fail(f"payable: the site held {held} by ticks, and was paid {gain}")
    for car in world.cars:
        if not car.cheat:
            _lost(checks, car)
    if world.hops.honest and not any(hub.gone for hub in world.hubs):
        for car in world.cars:
            _business(checks, car)
            _receipts(checks, car)
    if world.hops.calm:
        _exact(checks)
        _silence(checks)


def _gain(checks: HubChecks, actor: Actor) -> int:
    """What an actor has now beyond what it was given (token units)."""
    accounts, funded = checks.world.chain.head.accounts, 0 if actor is checks.world.site else MONEY
    return accounts.wallets[actor.key.address] + accounts.balances[actor.key.address] - funded


def _exits(checks: HubChecks) -> None:
    """Nobody's money is stuck: every channel of an honest party has ended."""
    world = checks.world
    actors, accounts = {actor.key.address: actor for actor in world.actors}, world.chain.head.accounts
    for channel, state in accounts.channels.items():
        params = accounts.params[channel]
        opener = actors[params.opener]
        if state.status != "ended" and not (opener.cheat or opener.gone):
            to = actors[params.partner].name
            checks.fail(f"exit: channel {channel.hex()[:8]} of {opener.name} to {to} is {state.status}")
    for car in world.cars:
        if not (car.cheat or car.done):
            checks.fail(f"exit: {car.name} has not come to an end")


def _held(checks: HubChecks) -> int:
    """What the site can prove, its bills' last parts of a tick aside (token units)."""
    disk, tick, held = checks.world.site.disk, checks.world.scenario.tick, 0
    for key, ticks in disk.load(TICK_ROWS):
        worth, end = proof_in(ticks)[0] * tick, disk.rows.get(END_ROWS + key.removeprefix(TICK_ROWS))
        held += min(worth, proof_in(end)[2]) if end else worth
    return held


def _lost(checks: HubChecks, car: CarActor) -> None:
    """A car has paid for the ticks that it revealed, with the fees that it agreed to, and the rest of one in each."""
    most, tick = 0, checks.world.scenario.tick
    for key, value in car.disk.load(SEED_ROWS):
        seed, root = decode_seed(value), key.removeprefix(SEED_ROWS)
        revealed = checks.cars.revealed.get(root)
        most += seed.holding + (0 if revealed is None else revealed * seed.tick_value + tick - 1)
    if (lost := -_gain(checks, car)) > most:
        checks.fail(f"fees: {car.name} has paid {lost}, {most} at most were agreed")


def _exact(checks: HubChecks) -> None:
    """Where nothing goes wrong, all is paid to the unit: the site its bills, the hubs their fees."""
    world, bills, fees = checks.world, 0, 0
    for row in book.sessions(world.site.disk):
        if row.receipt is not None:
            bills += row.receipt.paid
    for car in world.cars:
        for key, value in car.disk.load(SEED_ROWS):
            seed, end = decode_seed(value), car.disk.rows.get(END_ROWS + key.removeprefix(SEED_ROWS))
            count = proof_in(end)[0] if end else 0
            fees += (seed.tick_value - world.scenario.tick) * count + seed.holding
    if (gain := _gain(checks, world.site)) != bills:
        checks.fail(f"exact: the site was paid {gain}, its bills are {bills}")
    if (gain := sum(_gain(checks, hub) for hub in world.hubs)) != fees:
        checks.fail(f"exact: the hubs have earned {gain}, their fees are {fees}")


def _silence(checks: HubChecks) -> None:
    """Between a lock and its end, hubs hear nothing of it."""
    for root, times in checks.site.times.items():
        if len(times) > 1:
            heard = [what for at, what in checks.hubs.said.get(root, []) if times[0] < at < times[1]]
            if heard:
                checks.fail(f"silence: neighbours spoke of a lock while its session ran: {', '.join(heard)}")
