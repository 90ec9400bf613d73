"""Two nodes and a ledger, driven by bytes: each is an operation, and at the end all is healed and must settle.

    python -m tests.sim.opcodes --runs 10000 --seed 1      random strings; prints one that fails, cut down
    python -m tests.sim.opcodes --replay 8a0dff            one string, with its trace

Nothing arrives, no block is made and no commit ends but where an operation says so, apart from what its byte lets
happen in a moment of time. The first byte says how the world begins; in the others the low four bits are the operation
and the high four its size.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from penstock.core.errors import PenstockError
from penstock.core.grid import Orders
from penstock.core.messages import Way
from penstock.core.offer import Feed
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.sim.actors import Actor
from penstock.sim.network import SimLink
from penstock.sim.scenario import PACKAGE, PER, PRICE, CarPlan, Fault, Purchase, Scenario, Signal, Turn
from penstock.sim.virtual import EPOCH
from penstock.sim.world import World

MOMENT = 0.02  # seconds that pass with each operation
STEPS = (0.01, 0.05, 0.2, 1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0)
MENDED = 90.0  # seconds after which somebody mends what fails: no payee gets its due while its ledger is shut for good
POLE = "pole0"
TURNS = (Turn(2.0, Way.FEED), Turn(6.0, Way.SUPPLY), Turn(9.0, Way.HOLD), Turn(12.0, Way.SUPPLY))


def scenario(first: int) -> Scenario:
    """How the world begins, from a string's first byte: one pole, one car, and what they agree.

    Where it sells both ways, the car turns round a few times by itself, and the grid holds it up once.
    """
    turn = (Step(Instant(EPOCH * 1_000 + 40_000), PRICE // 2),) if first & 8 else ()
    purchases = (Purchase(POLE, 30, 1_000_000, bool(first & 16), None), Purchase(POLE, 9, 3_000, True, 20_000))
    sells = Scenario(
        mode="pay-before" if first & 2 else "pay-after",
        tariff=Tariff(PER, (Step(Instant(0), PRICE), *turn)),
        credit_limit=4_000 if first & 4 else 1_400,
        tick=20 if first & 32 else 1_000,
        rate=8,
        poles=(POLE,),
        cars=(CarPlan("car0", 0.0, purchases, ""),),
        site_cheat="",
        latency=0.002,
        sync=0.001,
        faults=(),
        brittle=(),
    )
    return _both_ways(sells, 10_000 if first & 128 else 0) if first & 64 else sells


def _both_ways(sells: Scenario, stake: int) -> Scenario:
    car = sells.cars[0]
    return sells._replace(
        feed=Feed(Tariff.flat(PRICE // 2, PER), 100, PACKAGE, 2_000, 1_000),
        stake=stake,
        cars=(car._replace(purchases=tuple(one._replace(feed=40, turns=TURNS) for one in car.purchases)),),
        signals=(Signal(5.0, Orders(supply_limit=0)), Signal(8.0, Orders(setpoint=-9_000)), Signal(15.0, Orders())),
    )


class OpcodeWorld(World):
    """A world in which `program` is the trouble."""

    def __init__(self, program: bytes, log: Callable[[str], None] | None = None) -> None:
        first = program[0] if program else 0
        super().__init__(0, calm=True, log=log, scenario=scenario(first))
        self._program = program[1:]
        self._from_scratch = bool(first & 1)
        self.ahead = 0.0  # seconds that pass after the operation

    async def trouble(self) -> None:
        if not self._from_scratch:
            await self.until(lambda: any(supplier.shell for supplier in self.site.suppliers.values()), 120)
        for signal in self.scenario.signals:
            self.loop.call_later(signal.at, self.site.obey, signal.orders)
        self.network.held = self.chain.stalled = True
        for byte in self._program:
            self.trace("world", "operation", name=_OPERATIONS[byte & 15].__name__[1:], size=byte >> 4)
            self.ahead = MOMENT
            _OPERATIONS[byte & 15](self, byte >> 4)
            await asyncio.sleep(self.ahead)
            self.network.held = self.chain.stalled = True
            self.mend()
        self.network.let_go()
        self.chain.stalled = False

    def mend(self) -> None:
        """A challenge period is long enough for a chain that stands still, and for what else is in the way of it."""
        now = self.loop.time()
        if self.loop.seconds() - self.chain.head.time > MENDED / 2:
            self.chain.mine()
        for fault in self.lasting:
            if now - fault.at > MENDED:
                self.heal(fault)

    def someone(self, size: int) -> Actor:
        """The site or the car, by the lowest bit."""
        return self.cars[0] if size & 1 else self.site

    def toggle(self, kind: str, target: str, size: float) -> None:
        """Let a fault begin; or end, where it lasts."""
        fault = Fault(kind, target, self.loop.time(), MENDED, size)
        known = [one for one in self.lasting if (one.kind, one.target) == (kind, target)]
        if known:
            self.heal(known[0])
        else:
            self.begin(fault)


def _to_site(world: OpcodeWorld, size: int) -> None:
    _deliver(world, POLE, "car0", size)


def _to_car(world: OpcodeWorld, size: int) -> None:
    _deliver(world, "car0", POLE, size)


def _deliver(world: OpcodeWorld, where: str, other: str, size: int) -> None:
    for _ in range(1 + size):
        _each(world, where, other, SimLink.next)


def _lose(world: OpcodeWorld, size: int) -> None:
    """The link breaks its promise, as nobody's does: what comes next is lost, or comes twice, or late."""
    world.cars[0].mangled = True
    ends = (POLE, "car0") if size & 1 else ("car0", POLE)
    _each(world, *ends, (SimLink.next_lost, SimLink.next_twice, SimLink.next_late)[(size >> 1) % 3])


def _each(world: OpcodeWorld, where: str, other: str, act: Callable[[SimLink], None]) -> None:
    for link in world.network.coming(where, other):
        act(link)


def _reset(world: OpcodeWorld, _size: int) -> None:
    world.network.reset("car0", POLE)


def _crash(world: OpcodeWorld, size: int) -> None:
    world.someone(size).crash()


def _fuse(world: OpcodeWorld, size: int) -> None:
    """It dies at one of its next effect boundaries."""
    actor = world.someone(size)
    if actor.life.alive:
        actor.life.fuse = 1 + (size >> 1)


def _stall(world: OpcodeWorld, size: int) -> None:
    """Commits take long, or again as long as they should."""
    world.toggle("slow disk", world.someone(size).name, (1 + (size >> 1)) / 2)


def _fill(world: OpcodeWorld, size: int) -> None:
    world.toggle("full disk", world.someone(size).name, 0.0)


def _mine(world: OpcodeWorld, size: int) -> None:
    for _ in range(1 + size % 8):
        world.chain.mine()


def _reorganise(world: OpcodeWorld, size: int) -> None:
    world.chain.reorganise(1 + size % 3, lose=(size >> 2) / 3)


def _wait(world: OpcodeWorld, size: int) -> None:
    """Time passes in which nothing arrives, and only old blocks are there."""
    world.ahead = STEPS[size]


def _live(world: OpcodeWorld, size: int) -> None:
    """Time passes as it does: frames arrive, blocks are made."""
    world.network.let_go()
    world.chain.stalled = False
    world.ahead = STEPS[size]


def _close(world: OpcodeWorld, _size: int) -> None:
    """Behind its own node's back, the car begins to close its channels: stale, for a payer has nothing to file."""
    car, accounts = world.cars[0], world.chain.head.accounts
    for channel, params in accounts.params.items():
        if accounts.channels[channel].status == "open":
            world.loop.create_task(_quietly(car.ledger.close(car.key, params, None)))


def _ledger(world: OpcodeWorld, size: int) -> None:
    """The ledger is out of reach, slow, censors, or wants gas that nobody has; or no longer."""
    kind = ("unreachable", "slow ledger", "censor", "no gas")[(size >> 1) % 4]
    world.toggle(kind, world.someone(size).name, 0.5)


def _clock(world: OpcodeWorld, size: int) -> None:
    """A clock is set ahead or back by up to an hour, or again as it should be."""
    world.toggle("jump", world.someone(size).name, (size >> 1) / 7)


def _device(world: OpcodeWorld, size: int) -> None:
    """The pole's valve or a meter fails, or works again."""
    kind = ("valve open", "valve shut", "stuck meter", "mute meter")[(size >> 1) % 4]
    world.toggle(kind, "car0" if size & 1 and "meter" in kind else POLE, 0.0)


async def _quietly(work: Any) -> None:
    with suppress(PenstockError):  # a disk is full, say; it is tried again at the end
        await work


_OPERATIONS: tuple[Callable[[OpcodeWorld, int], None], ...] = (
    _to_site,
    _to_car,
    _lose,
    _reset,
    _crash,
    _fuse,
    _stall,
    _fill,
    _mine,
    _reorganise,
    _wait,
    _live,
    _close,
    _ledger,
    _clock,
    _device,
)


def smallest(program: bytes) -> bytes:
    """A failing string without the operations that it does not need."""
    at = 1
    while at < len(program):
        shorter = program[:at] + program[at + 1 :]
        if OpcodeWorld(shorter).run().violation:
            program = shorter
        else:
            at += 1
    return program


def fuzz(runs: int, seed: int, longest: int = 60) -> bytes | None:
    """Try random strings. The first that fails, cut down; None where all settle."""
    rng = Random(seed)
    for run in range(runs):
        program = rng.randbytes(rng.randint(1, longest))
        if OpcodeWorld(program).run().violation:
            return smallest(program)
        if (run + 1) % 1_000 == 0:
            print(f"{run + 1} strings", flush=True)
    return None


def main() -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.opcodes", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=bytes.fromhex, help="one string, in hexadecimal")
    chosen = parser.parse_args()
    program = chosen.replay if chosen.replay is not None else fuzz(chosen.runs, chosen.seed)
    if program is None:
        print(f"{chosen.runs} strings from seed {chosen.seed}: all settled")
        return 0
    violation = OpcodeWorld(program, log=print).run().violation
    print(f"{program.hex()}: {violation or 'settled'}")
    return 1 if violation else 0


if __name__ == "__main__":
    sys.exit(main())
