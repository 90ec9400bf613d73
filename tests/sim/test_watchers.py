"""Watchers answer stale closes for a site that is gone for longer than a challenge lasts, and one of them is dead."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from penstock.core.channel import Domain
from penstock.core.errors import LedgerError
from penstock.core.identity import Key
from penstock.core.ports import Ledger
from penstock.core.session import Role
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.core.watcher import Evidence
from penstock.node import book, handover
from penstock.node.watch import Watch
from penstock.sim.life import Life
from penstock.sim.scenario import PER, PERIOD, PRICE, CarPlan, Purchase, Scenario
from penstock.sim.tender import SimLedger
from penstock.sim.world import World

POLES = ("pole0", "pole1")
LONG = Purchase("pole0", 250, 1_000_000, True, 150_000)
SHORT = Purchase("pole1", 30, 1_000_000, True, None)
SCENARIO = Scenario(
    mode="pay-after",
    tariff=Tariff(PER, (Step(Instant(0), PRICE),)),
    credit_limit=4_000,
    tick=1_000,
    rate=2,
    poles=POLES,
    cars=(CarPlan("car0", 0.0, (LONG,), ""), CarPlan("car1", 0.0, (SHORT,), "")),
    site_cheat="",
    latency=0.02,
    sync=0.003,
    faults=(),
    brittle=(),
)


class WatchedWorld(World):
    """The site hands its vouchers over and is gone; both cars close behind its back."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, scenario=SCENARIO)
        self.shown: dict[bytes, Evidence] = {}
        self.filed = 0
        self._watchers = [Life(f"watcher{number}", self.loop) for number in range(2)]

    async def trouble(self) -> None:
        rng = Random(self.seed)
        for number, life in enumerate(self._watchers):
            life.spawn(self._watch(life, Key(bytes((7 + number,)) * 32)))
        await asyncio.sleep(rng.uniform(40, 100))  # car0 is in the middle of its session
        self._hand_over()
        self.site.life.end()
        await asyncio.sleep(rng.uniform(0, 20))
        for channel, params in self.chain.head.accounts.params.items():
            car = next(car for car in self.cars if car.key.address == params.opener)
            self.loop.create_task(self._close(car.ledger, car.key, channel))
        self.loop.call_later(rng.uniform(0, 100), self._watchers[rng.randrange(2)].end)
        self.loop.call_later(rng.uniform(0, 300), self.chain.reorganise, 3, 0.5)
        await asyncio.sleep(1.5 * PERIOD)
        self.site.start()

    def _hand_over(self) -> None:
        rows = [row for row in book.channels(self.site.disk) if row.role is Role.SUPPLIER and not row.settled]
        for one in handover.consented(self.site.disk, self.site.key, rows):
            one.check()
            self.shown[one.params.id] = one

    async def _close(self, ledger: Ledger, key: Key, channel: bytes) -> None:
        """Try until it is there to stay."""
        params = self.chain.head.accounts.params[channel]
        while self.chain.final.accounts.channels[channel].status == "open":
            if self.chain.head.accounts.channels[channel].status == "open":
                with suppress(LedgerError):
                    await ledger.close(key, params, None)
            await asyncio.sleep(1)

    async def _watch(self, life: Life, key: Key) -> None:
        async def connect(_: Domain) -> Ledger:
            return SimLedger(self.chain, self.domain, life, lambda: 0.05)

        def tell(event: str, **_: Any) -> None:
            self.trace(life.name, event)
            self.filed += event == "filed"

        await Watch(key, lambda: self.shown, connect, tell).run(asyncio.Event())


@pytest.mark.parametrize("seed", range(8))
def test_a_site_that_is_gone_through_a_challenge_loses_nothing(seed: int) -> None:
    world = WatchedWorld(seed)
    outcome = world.run()
    assert not outcome.violation, "\n".join([*outcome.tail, outcome.violation])
    assert len(world.shown) == 2
    assert world.filed >= 2, "both were answered for"
