"""A whole world from one seed: the real node code of a site and some cars, under virtual time, with faults and cheats.

    world = World(seed); outcome = world.run()

The first part is trouble; then all is healed, everybody still wanting something gets it, all channels are closed, and
time passes until everything is settled. What must always hold is checked at every step (`checks.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from penstock.core.channel import Domain
from penstock.core.grid import Orders
from penstock.core.identity import Address
from penstock.sim import faults
from penstock.sim.actors import Actor, CarActor, SiteActor
from penstock.sim.chain import Chain
from penstock.sim.checks import Checks, Violation
from penstock.sim.life import task_of_a_life
from penstock.sim.network import Network
from penstock.sim.scenario import PERIOD, PROOF, TROUBLE, CarPlan, Fault, Purchase, Scenario, draw
from penstock.sim.trace import Trace
from penstock.sim.turning import turned
from penstock.sim.virtual import Deadlock, VirtualLoop

DOMAIN = Domain(31_337, Address(b"\x11" * 20), Address(b"\x22" * 20))
MONEY = 10_000_000  # token units in each car's wallet
WRAP_UP = 3_000.0  # seconds after the trouble in which every car must have left
SETTLED = 3.0 * PERIOD  # seconds after that in which everything must be settled


class Outcome(NamedTuple):
    """How a seed went. `violation` says what did not hold, "" where everything did."""

    seed: int
    hash: str
    violation: str
    events: int
    sessions: int
    virtual_s: float
    tail: list[str]


class World:
    """One seed's world. A calm one has neither faults nor cheats; `scenario` takes the place of the seed's own."""

    def __init__(
        self,
        seed: int,
        calm: bool = False,
        log: Callable[[str], None] | None = None,
        scenario: Scenario | None = None,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)  # noqa: S311 - a simulation has to be repeatable
        self.loop = VirtualLoop()
        self.loop.set_task_factory(task_of_a_life)  # type: ignore[arg-type]  # typeshed's protocol is narrower
        self.loop.set_exception_handler(self._on_fault)
        self.trace = Trace(self.loop.time, log)
        self.scenario = self.drawn(scenario, calm)
        self.healed = False
        self._faults: dict[Fault, None] = {}  # those that last
        self.domain = DOMAIN
        self.checks = self.checked()
        self.network = Network(self.loop, self._child(), self._delay)
        self.chain = Chain(self.loop, self._child())
        self.chain.on_block = self.checks.block
        self.site = self.seller()
        self.cars = [self.buyer(plan) for plan in self.scenario.cars]
        for car in self.cars:
            self.chain.fund(car.key.address, MONEY)
        if self.scenario.stake:
            self.chain.fund(self.site.key.address, MONEY)
        self._air = self._child()

    def drawn(self, scenario: Scenario | None, calm: bool) -> Scenario:
        """What the seed means; its numbers are drawn where the scenario is given, too."""
        drawn = draw(self.rng, self.loop.instant(), calm)
        apart = Random(f"both ways {self.seed}")  # noqa: S311 - a simulation has to be repeatable
        return scenario or turned(drawn, apart, self.loop.instant())

    def checked(self) -> Checks:
        """What looks over everybody's shoulder."""
        return Checks(self)

    def seller(self) -> SiteActor:
        """The site."""
        return SiteActor(self, self.scenario.site_cheat)

    def buyer(self, plan: CarPlan) -> CarActor:
        """A car."""
        return CarActor(self, plan)

    @property
    def actors(self) -> list[Actor]:
        """All who act."""
        return [self.site, *self.cars]

    def places(self, actor: Actor) -> list[str]:
        """To where links lead that a fault of this actor's way spoils."""
        return list(self.site.outlets)

    def actor(self, name: str) -> Actor:
        """Who has that name."""
        return next(actor for actor in self.actors if actor.name == name)

    def car(self, name: str) -> CarActor:
        """The car of that name."""
        return next(car for car in self.cars if car.name == name)

    def run(self) -> Outcome:
        """Live it through."""
        self.loop.on_step = self.checks.step
        violation = ""
        try:
            self.loop.run(self._play())
        except (Violation, Deadlock) as error:
            violation = str(error)
        return Outcome(
            self.seed,
            self.trace.digest(),
            violation,
            self.trace.events,
            len(self.site.sold),
            self.loop.time(),
            list(self.trace.tail),
        )

    async def _play(self) -> None:
        self._mining = asyncio.ensure_future(self.chain.run())
        self.trace("world", "begins", **self.scenario._asdict())
        for name in self.scenario.brittle:
            self.actor(name).brittle = 4
        self.site.start()
        for car in self.cars:
            self.loop.call_later(car.plan.begins, car.start)
        await self.trouble()
        self._heal_all()
        self._prove_that_all_is_well()
        await self.until(lambda: all(car.done for car in self.cars), WRAP_UP)
        await self.until(lambda: self.site.life.alive, SETTLED)
        self.site.life.spawn(self.site.close_rest(self.site.life))
        await self.until(self._settled, SETTLED)
        self.checks.final()
        self.checks.step()
        self.trace("world", "ends")

    async def trouble(self) -> None:
        """The first part: the scenario's faults, until everybody has what it wants or has given up."""
        for fault in self.scenario.faults:
            self.loop.call_later(fault.at, self.begin, fault)
            self.loop.call_later(fault.at + fault.lasts, self.heal, fault)
        for signal in self.scenario.signals:
            self.loop.call_later(signal.at, self.site.obey, signal.orders)
        await self.until(lambda: not any(car.wanted for car in self.cars), TROUBLE)

    def _prove_that_all_is_well(self) -> None:
        """Once all is healed, the honest still do business: each such car makes one more purchase."""
        for car in self.cars:
            if not car.cheat and not self.site.cheat:
                pole = self.rng.choice(self.scenario.poles)
                car.wanted.append(Purchase(pole, PROOF, 1_000_000, self.rng.random() < 0.5, None))

    def _settled(self) -> bool:
        channels = self.chain.head.accounts.channels.values()
        return all(channel.status == "ended" for channel in channels)

    @property
    def lasting(self) -> list[Fault]:
        """The faults that there are now."""
        return list(self._faults)

    def begin(self, fault: Fault) -> None:
        """Let a fault happen."""
        if not self.healed and fault not in self._faults:
            self._faults[fault] = None
            self.trace("world", "fault", kind=fault.kind, target=fault.target, lasts=fault.lasts, size=fault.size)
            faults.begin(self, fault)

    def heal(self, fault: Fault) -> None:
        """A fault is over."""
        if fault in self._faults:
            del self._faults[fault]
            self.trace("world", "healed", kind=fault.kind, target=fault.target)
            faults.heal(self, fault)

    def _heal_all(self) -> None:
        self.trace("world", "all healed")
        for fault in self.lasting:
            self.heal(fault)
        for actor in self.actors:
            actor.life.fuse = 0
        self.site.obey(Orders())
        self.healed = True

    async def until(self, met: Callable[[], bool], seconds: float) -> None:
        """Let time pass until something is so, or for so many seconds."""
        for _ in range(int(seconds)):
            if met():
                return
            await asyncio.sleep(1.0)

    def _child(self) -> Random:
        return Random(self.rng.randbytes(16))  # noqa: S311 - a simulation has to be repeatable

    def _delay(self) -> float:
        return self.scenario.latency * self._air.uniform(0.5, 2.0)

    def _on_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if "never retrieved" not in context["message"] and not isinstance(fault, Violation):
            self.checks.fail(f"{context['message']}: {fault!r}")
