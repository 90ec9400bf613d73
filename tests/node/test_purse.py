"""A purse knows a channel that is gone for now from one that is over, on a chain that reorganises itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from penstock.core.channel import Domain
from penstock.core.errors import LedgerError
from penstock.core.identity import Address, Key
from penstock.core.ports import Ledger
from penstock.node import book
from penstock.node.channel_purse import ChannelPurse
from penstock.rails.stream import StreamOffer
from penstock.sim.chain import Chain
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger
from penstock.sim.virtual import VirtualLoop

DOMAIN = Domain(31_337, Address(b"\x11" * 20), Address(b"\x22" * 20))
PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
DETAILS = StreamOffer(DOMAIN, PAYEE.address, PAYEE.address, 600)


def test_a_channel_that_a_reorganisation_took_out_is_asked_after_and_used_once_it_is_back() -> None:
    async def lives(chain: Chain, disk: Disk, purse: ChannelPurse) -> None:
        row = await purse.channel(DETAILS, 10_000, 0, 600)
        chain.reorganise(3)
        chain.reorganise(3)  # the opening is in no block now
        assert await purse.retire(row)
        kept = book.channel_of(disk, row.params.id)
        assert kept is not None
        assert not kept.over, "it would never be closed"
        await asyncio.sleep(60)
        assert (await purse.channel(DETAILS, 10_000, 0, 600)).params == row.params

    _live(lives)


def test_a_deposit_that_a_reorganisation_lost_is_not_counted_on() -> None:
    async def lives(chain: Chain, disk: Disk, purse: ChannelPurse) -> None:
        row = await purse.channel(DETAILS, 10_000, 0, 600)
        adding = asyncio.ensure_future(purse.channel(DETAILS, 50_000, 0, 600))
        while chain.head.accounts.channels[row.params.id].deposits != (50_000, 0):  # noqa: ASYNC110 - no event tells of a block
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        chain.reorganise(1, lose=1.0)
        with pytest.raises(LedgerError, match="not final"):
            await adding
        assert (await purse.channel(DETAILS, 50_000, 0, 600)).deposit == 50_000
        assert chain.final.accounts.channels[row.params.id].deposits == (50_000, 0)

    _live(lives)


def _live(lives: Callable[[Chain, Disk, ChannelPurse], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    chain, disk, life = Chain(loop, Random(1)), Disk(), Life("test", loop)
    chain.fund(PAYER.address, 1_000_000)

    async def main() -> None:
        async def ledger() -> Ledger:
            return SimLedger(chain, DOMAIN, life, lambda: 0.01)

        mining = asyncio.ensure_future(chain.run())
        await lives(chain, disk, ChannelPurse(PAYER, MemoryJournal(disk, life), ledger, _silent))
        mining.cancel()

    loop.run(main())


def _silent(event: str, **facts: Any) -> None:
    """Nobody listens."""
