"""Every ledger of escrows is one."""

from __future__ import annotations

import asyncio

import pytest

from penstock.testing.escrow_ledger import ESCROW_LEDGER_CHECKS, Check

from .ground import CONSUMER, STRANGER, SUPPLIER, Ground, ground


class DevnetStand:
    """Escrows of the real contract."""

    opener, partner, stranger = CONSUMER, SUPPLIER, STRANGER

    def __init__(self, chain: Ground) -> None:
        self.ledger, self.wait, self.lose = chain.escrows, chain.wait, chain.stop


@pytest.mark.parametrize("check", ESCROW_LEDGER_CHECKS, ids=lambda check: check.__name__)
def test_escrows_on_the_devnet_conform(check: Check) -> None:
    async def play() -> None:
        async with ground() as chain:
            await check(DevnetStand(chain))

    asyncio.run(play())
