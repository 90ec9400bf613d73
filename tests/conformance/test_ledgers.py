"""Every ledger of channels, the simulated one too, is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from penstock.core.channel import Domain
from penstock.core.identity import Address, Key
from penstock.sim.chain import Chain
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger
from penstock.sim.virtual import VirtualLoop
from penstock.testing.ledger import LEDGER_CHECKS, WALLET, Check, Stand

from .ground import CONSUMER, STRANGER, SUPPLIER, Ground, ground

Play = Callable[[Callable[[Stand], Awaitable[None]]], None]


class DevnetStand:
    """Channels of the real contract."""

    opener, partner, stranger = CONSUMER, SUPPLIER, STRANGER

    def __init__(self, chain: Ground) -> None:
        self.ledger, self.wait, self.lose = chain.channels, chain.wait, chain.stop


class SimStand:
    """Channels of the simulated chain."""

    opener, partner, stranger = (Key(bytes((n,)) * 32) for n in (1, 2, 3))

    def __init__(self, loop: VirtualLoop) -> None:
        chain, self.life = Chain(loop, Random(5)), Life("test", loop)
        for key in (self.opener, self.partner, self.stranger):
            chain.fund(key.address, WALLET)
        domain = Domain(1, Address(b"\xcc" * 20), Address(b"\xee" * 20))
        self.ledger = SimLedger(chain, domain, self.life, lambda: 0.01)
        self.life.spawn(chain.run())

    async def wait(self, seconds: int) -> None:
        await asyncio.sleep(seconds)

    async def lose(self) -> None:
        self.ledger.out_of_reach = True


def on_the_devnet(check: Callable[[Stand], Awaitable[None]]) -> None:
    async def play() -> None:
        async with ground() as chain:
            await check(DevnetStand(chain))

    asyncio.run(play())


def in_the_simulation(check: Callable[[Stand], Awaitable[None]]) -> None:
    loop = VirtualLoop()

    async def play() -> None:
        stand = SimStand(loop)
        await check(stand)
        stand.life.end()

    loop.run(play())


LEDGERS: dict[str, Play] = {"EvmLedger": on_the_devnet, "SimLedger": in_the_simulation}


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("ledger", LEDGERS)
def test_a_ledger_conforms(ledger: str, check: Check) -> None:
    LEDGERS[ledger](check)
