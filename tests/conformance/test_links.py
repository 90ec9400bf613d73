"""A link that is looked at is a link."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.identity import Key
from penstock.sim.gauge import NotedLink
from penstock.testing.transport import LINK_CHECKS, Check, Pair
from penstock.transports.tls import TlsLink, connect, serve

HOST = "127.0.0.1"
SUPPLIER, CONSUMER = Key(b"\1" * 32), Key(b"\2" * 32)


@pytest.mark.parametrize("check", LINK_CHECKS, ids=lambda check: check.__name__)
def test_a_noted_link_conforms(check: Check) -> None:
    async def scenario() -> None:
        accepted: asyncio.Queue[TlsLink] = asyncio.Queue()
        server = await serve(HOST, 0, SUPPLIER, accepted.put_nowait)

        async def pair() -> Pair:
            left = await connect(HOST, server.port, CONSUMER)
            here, there = (NotedLink(link, lambda: None, lambda: False) for link in (left, await accepted.get()))
            return Pair(here, there, CONSUMER.address, SUPPLIER.address)

        await check(pair)
        await server.close()

    asyncio.run(scenario())
