"""A world in which all is paid over hubs: one seed of four. `world_of(seed)` is whichever world a seed means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from penstock.core.identity import Address
from penstock.core.watcher import worth
from penstock.node import book
from penstock.sim import turning
from penstock.sim.actors import Actor
from penstock.sim.audit_hubs import HubChecks
from penstock.sim.hub_actors import HubActor, HubCar, HubSite
from penstock.sim.hub_scenario import DELTA, LIFE, HubScenario, hubs_of
from penstock.sim.model import Channel
from penstock.sim.scenario import PERIOD, CarPlan, Scenario, draw
from penstock.sim.world import MONEY, World

SHARE = 3 / 8  # of the seeds that do not sell both ways: one of four in all
LONGEST = LIFE + 4 * DELTA + 2.0 * PERIOD  # seconds until the last lock has expired, and its channel is paid out


class HubWorld(World):
    """One seed's world, paid over hubs."""

    checks: HubChecks
    site: HubSite
    cars: list[HubCar]  # type: ignore[assignment]  # of our own

    def __init__(self, seed: int, calm: bool = False, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, calm, log)
        self._leaving: list[asyncio.Future[None]] = []
        self.hubs = [HubActor(self, plan) for plan in self.hops.hubs]
        for hub in self.hubs:
            self.chain.fund(hub.key.address, MONEY)

    def drawn(self, scenario: Scenario | None, calm: bool) -> Scenario:
        apart = Random(f"over hubs {self.seed}")  # noqa: S311 - a simulation has to be repeatable
        apart.random()  # whether it is such a world
        self.hops: HubScenario = hubs_of(draw(self.rng, self.loop.instant(), calm), apart, calm)
        return self.hops.world

    def checked(self) -> HubChecks:
        return HubChecks(self)

    def seller(self) -> HubSite:
        return HubSite(self, self.scenario.site_cheat)

    def buyer(self, plan: CarPlan) -> HubCar:
        return HubCar(self, plan)

    @property
    def actors(self) -> list[Actor]:
        return [*super().actors, *self.hubs]

    def places(self, actor: Actor) -> list[str]:
        """Some way of the actor's: to the poles, or to a hub."""
        return [*self.site.outlets, *(hub.name for hub in self.hubs if hub is not actor)]

    async def _play(self) -> None:
        self._mining = asyncio.ensure_future(self.chain.run())
        self.trace("world", "begins", **self.scenario._asdict(), hubs=self.hops.hubs, entries=self.hops.entries)
        for name in self.scenario.brittle:
            self.actor(name).brittle = 4
        for hub in self.hubs:
            hub.start()
        self.site.start()
        for car in self.cars:
            self.loop.call_later(20.0 + car.plan.begins, car.start)
        await self.trouble()
        self._heal_all()
        if self.hops.honest and not any(hub.gone for hub in self.hubs):
            self._prove_that_all_is_well()
        await self.until(lambda: all(car.leaving or car.cheat for car in self.cars), LONGEST)
        await self.until(lambda: not any(hub.lends for hub in self.hubs), LONGEST)
        for hub in self.hubs:
            hub.retire()
        for actor in (*self.hubs, self.site):
            self._leave(actor)
        await self.until(self._finished, LONGEST)
        self.checks.final()
        self.checks.step()
        self.trace("world", "ends")

    def _finished(self) -> bool:
        return self._settled() and all(car.done or car.cheat for car in self.cars)

    def _settled(self) -> bool:
        """Whether every channel has ended in which somebody honest has something."""
        return not any(self._owes(*one) for one in self.chain.head.accounts.channels.items())

    def _owes(self, channel: bytes, state: Channel) -> bool:
        params = self.chain.head.accounts.params[channel]
        opener, partner = (self._at(address) for address in (params.opener, params.partner))
        if state.status == "ended":
            return False
        if not (opener.cheat or opener.gone):
            return True
        evidence = None if partner.cheat or partner.gone else book.evidence_of(partner.disk, channel)
        return evidence is not None and worth(evidence.filing) > state.paid[1]

    def _at(self, address: Address) -> Actor:
        return next(actor for actor in self.actors if actor.key.address == address)

    def _leave(self, actor: Actor) -> None:
        """Close all that is open, at once and later on."""

        async def leave() -> None:
            while not self._settled():
                if actor.life.alive:
                    await actor.life.spawn(actor.close_all(actor.life))
                await asyncio.sleep(30.0)

        if not actor.gone:
            self._leaving.append(asyncio.ensure_future(leave()))


def world_of(seed: int, calm: bool = False, log: Callable[[str], None] | None = None) -> World:
    """The world that a seed means."""
    apart = Random(f"over hubs {seed}")  # noqa: S311 - a simulation has to be repeatable
    both_ways = Random(f"both ways {seed}").random() < turning.SHARE  # noqa: S311
    if not both_ways and apart.random() < SHARE:
        return HubWorld(seed, calm, log)
    return World(seed, calm, log)
