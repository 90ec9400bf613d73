"""Who acts where payments go over hubs: hubs, and the site and the cars that are paid and pay over them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.core.hops import OUT_ROWS
from penstock.node import book
from penstock.node.hop_purse import HopPurse
from penstock.node.hop_till import HopTill
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings, Terms
from penstock.node.rails import Purse
from penstock.node.site import Site
from penstock.node.supplier import Supplier
from penstock.sim.actors import Actor, CarActor, SiteActor
from penstock.sim.cheats import tamper_of
from penstock.sim.disk import MemoryJournal
from penstock.sim.hub_scenario import FEES, LEND, LIFE, MARGIN, MAX_FEE, ROBBERS, HubPlan
from penstock.sim.hub_thieves import Robber, corrupt, tamper_of_neighbour
from penstock.sim.life import Life
from penstock.sim.network import SimLink
from penstock.sim.scenario import PERIOD, Purchase

if TYPE_CHECKING:
    from penstock.sim.hub_world import HubWorld

MET = 120.0  # seconds that a car gives its hubs to settle before it closes its channels


class HubActor(Actor):
    """A hub."""

    world: HubWorld

    def __init__(self, world: HubWorld, plan: HubPlan) -> None:
        super().__init__(world, plan.name, plan.cheat)
        self.plan = plan
        self.hub: Hub | None = None
        self._reach = plan.reach

    @property
    def lends(self) -> bool:
        """Whether an honest one has promised locks that are not gone."""
        lasting = not (self.cheat or self.gone)
        return lasting and any(len(key) > len(OUT_ROWS) + 32 for key, _ in self.disk.load(OUT_ROWS))

    def retire(self) -> None:
        """Be started again to pay nobody any more, and so open no channel."""
        self._reach = ()
        self.crash()

    async def work(self, life: Life, journal: MemoryJournal) -> None:
        dials = {where: partial(self._dial, life, where) for where in self._reach}
        hub = self.hub = Hub(
            self.key, journal, self.ledger, self.clock, self._heard, dials, LEND, FEES, Terms(margin=MARGIN), PERIOD
        )
        corrupt(hub, self.cheat)
        await hub.start()
        self.world.network.listen(self.name, life, self.key, self._door(hub))
        await hub.site.failed.wait()
        await hub.close()

    async def _dial(self, life: Life, where: str) -> SimLink:
        link = await self.world.network.dial(life, self.name, self.key, where)
        self._over(link)
        return link

    def _door(self, hub: Hub) -> Any:
        def on_link(link: SimLink) -> None:
            self._over(link)
            hub.on_link(link)

        return on_link

    def _over(self, link: SimLink) -> None:
        link.tamper = tamper_of(self.cheat, self.rng, self.key)
        link.on_send = partial(self.world.checks.hubs.sends, self)

    def committed(self, keys: list[bytes]) -> None:
        self.world.checks.hubs.committed(self, keys)

    def _heard(self, event: str, **facts: Any) -> None:
        if self.life.alive:
            self.tell(event, **facts)
            if event == "lock forwarded" and self.cheat == "vanish":
                self.gone = True
                self.life.later(self.rng.uniform(0.1, 60.0), self.crash)


class HubSite(SiteActor):
    """The site, paid over hubs."""

    world: HubWorld

    def account(self, journal: MemoryJournal) -> Site:
        incomings = Incomings(self.key, journal, self.ledger, self.clock, self._heard, Terms(margin=MARGIN))
        site = Site(self.key, journal, self.clock, self._heard, [HopTill(incomings)])
        if self.cheat in ROBBERS:
            self.life.spawn(Robber(self, incomings, self.key).run())
        return site

    def _door(self, supplier: Supplier) -> Any:
        take = super()._door(supplier)

        def on_link(link: SimLink) -> None:
            take(link)
            link.tamper = tamper_of_neighbour(self.cheat) or link.tamper

        return on_link


class HubCar(CarActor):
    """A car that pays over hubs."""

    world: HubWorld
    leaving = False  # whether it has all that it wanted, and its hubs have settled with it

    def purse(self, life: Life, journal: MemoryJournal, wanted: Purchase) -> Purse:
        dials = [partial(self._dial, life, where) for where in self.world.hops.entries[self.name]]
        return HopPurse(
            self.key, journal, self.at, dials, self.clock, self._heard, self.world.domain, 4 * (wanted.deposit or 0),
            PERIOD, MAX_FEE, LIFE, self.rng.randbytes,
        )  # fmt: skip

    async def _dial(self, life: Life, where: str) -> SimLink:
        link = await self.world.network.dial(life, self.name, self.key, where)
        link.tamper = tamper_of_neighbour(self.cheat) or tamper_of(self.cheat, self.rng, self.key)
        link.on_send = partial(self.world.checks.hubs.sends, self)
        return link

    @property
    def sure(self) -> bool:
        return self.world.healed and self.world.hops.honest and not any(hub.gone for hub in self.world.hubs)

    def _cheat(self) -> None:
        if self.cheat == "vanish":
            self.gone = True
        super()._cheat()

    def died(self) -> None:
        """Whoever has gone for good has driven off: nobody waits for its plug."""
        super().died()
        if self.gone:
            for outlet in self.world.site.outlets.values():
                outlet.unplug(self)

    async def _leave(self, life: Life, journal: MemoryJournal) -> None:
        """End what was left unfinished, and let the hubs settle, before the channels are closed."""
        if not self.cheat and any(self._locks(journal)):
            purse = self.purse(life, journal, Purchase("", 0, 0, True, None))
            assert isinstance(purse, HopPurse)
            await purse._reach()
            for _ in range(int(MET)):
                if not any(self._locks(journal)):
                    break
                await asyncio.sleep(1.0)
            await purse.close()
        self.leaving = True
        await super()._leave(life, journal)

    @staticmethod
    def _locks(journal: MemoryJournal) -> list[bool]:
        return [bool(book.hops_out(journal, row.params.id)[1]) for row in book.channels(journal) if not row.settled]
