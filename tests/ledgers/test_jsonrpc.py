"""A node that is asked, and left alone before it has answered."""

from __future__ import annotations

import asyncio

import pytest

from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.jsonrpc import Node


@pytest.mark.asyncio
async def test_questions_that_are_cancelled_keep_no_later_one_waiting(devnet: Manifest) -> None:
    node = Node(devnet.url)
    for turns in range(120):  # of the event loop, until it is cancelled
        asked = [asyncio.ensure_future(node.ask("eth_chainId")) for _ in range(4)]
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        for question in asked:
            question.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    async with asyncio.timeout(10):
        assert await node.quantity("eth_chainId") == devnet.chain_id
    await node.close()
