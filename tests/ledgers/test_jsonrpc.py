"""A node that is asked, and left alone before it has answered."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.errors import LedgerUnreachable
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


@pytest.mark.asyncio
async def test_what_a_url_hides_is_not_told() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for url in (f"http://user:hidden@127.0.0.1:{port}/v3/hidden?key=hidden", f"http://127.0.0.1:{port}/hidden"):
        node = Node(url)
        with pytest.raises(LedgerUnreachable) as caught:
            await node.ask("eth_chainId")
        assert caught.value.line().startswith(f"no answer from the node at http://127.0.0.1:{port} (401 Unauthorized)")
        assert "hidden" not in caught.value.line()
        await node.close()
    server.close()
    for url in (f"http://127.0.0.1:{port}/hidden", "http://[::1/hidden", "http://[::1]:9/hidden", "http://:hidden@"):
        node = Node(url)
        with pytest.raises(LedgerUnreachable) as caught:
            await node.ask("eth_chainId")
        assert "hidden" not in caught.value.line(), url
        await node.close()
