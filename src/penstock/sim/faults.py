"""Faults of a simulated world: how each begins, and how it is healed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from penstock.sim.scenario import Fault

if TYPE_CHECKING:
    from penstock.sim.actors import Actor, CarActor
    from penstock.sim.world import World


def begin(world: World, fault: Fault) -> None:
    """Let it happen."""
    if fault.target in world.site.outlets:
        _spoil_outlet(world, fault, True)
        return
    actor = world.actor(fault.target)
    match fault.kind:
        case "fuse" if not actor.lives:
            pass
        case "crash":
            actor.crash()
        case "for good":
            actor.gone = True
            actor.crash()
        case "fuse":
            actor.life.fuse = 1 + int(fault.size**3 * 400)
        case "slow disk":
            actor.slow = 1 + 500 * fault.size
            actor.disk.pace = lambda: 2.0 * fault.size
        case "full disk":
            actor.disk.fault = "no space left"
        case "skew":
            actor.skew = int((fault.size - 0.5) * 120_000)
        case "jump":
            actor.skew = int((fault.size - 0.5) * 7_200_000)
        case "far jump":
            actor.skew = int((fault.size - 0.5) * 86_400_000)
        case "reset":
            _each_way(world, actor, world.network.reset)
        case "cut":
            _each_way(world, actor, world.network.cut)
        case "lossy":
            _each_way(world, actor, partial(world.network.worsen, loss=fault.size * 0.8))
        case "mangled":
            world.car(actor.name).mangled = True
            _each_way(world, actor, partial(world.network.mangle, on=True))
        case "unreachable":
            actor.reach(False)
        case "slow ledger":
            actor.ledger_slow = 1 + 100 * fault.size
        case "reorganise":
            blocks, lose = 1 + int(fault.size * 3), (fault.size * 30) % 1 / 2
            world.trace("chain", "reorganised", blocks=blocks, lose=lose)
            world.chain.reorganise(blocks, lose)
        case "no gas":
            actor.drain(True)
        case "censor":
            world.chain.censored.add(actor.key.address)
        case "stalled chain":
            world.chain.stalled = True
        case _:
            _spoil_car(world, fault, True)


def heal(world: World, fault: Fault) -> None:
    """It is over."""
    if fault.target in world.site.outlets:
        _spoil_outlet(world, fault, False)
        return
    actor = world.actor(fault.target)
    match fault.kind:
        case "slow disk":
            actor.slow = 1.0
            actor.disk.pace = actor.pace
        case "full disk":
            actor.disk.fault = ""
        case "skew" | "jump" | "far jump":
            actor.skew = 0
        case "cut":
            _each_way(world, actor, world.network.heal)
        case "lossy":
            _each_way(world, actor, partial(world.network.worsen, loss=0.0))
        case "mangled":
            _each_way(world, actor, partial(world.network.mangle, on=False))
        case "unreachable":
            actor.reach(True)
        case "no gas":
            actor.drain(False)
        case "slow ledger":
            actor.ledger_slow = 1.0
        case "censor":
            world.chain.censored.discard(actor.key.address)
        case "stalled chain":
            world.chain.stalled = False
        case "stuck meter" | "mute meter":
            _spoil_car(world, fault, False)


def _each_way(world: World, actor: Actor, act: Callable[[str, str], None]) -> None:
    for name in world.places(actor):
        act(actor.name, name)


def _spoil_outlet(world: World, fault: Fault, on: bool) -> None:
    """A device of a pole fails: what its supplier loses by it is its own affair."""
    outlet = world.site.outlets[fault.target]
    outlet.spoiled |= fault.kind != "valve shut"
    match fault.kind:
        case "valve open":
            outlet.cable.stick(on, False)
        case "valve shut":
            outlet.cable.stick(False, on)
        case "stuck meter":
            outlet.faults.stick(on, outlet.cable.totals)
        case "mute meter":
            outlet.faults.mute = on


def _spoil_car(world: World, fault: Fault, on: bool) -> None:
    car: CarActor = world.car(fault.target)
    car.spoiled = True
    if fault.kind == "stuck meter":
        car.meter.faults.stick(on, car.meter.totals)
    else:
        car.meter.faults.mute = on
