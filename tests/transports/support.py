"""A server with its links, a raw TLS peer that may misbehave, and a relay in the middle."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from penstock.core.errors import PenstockError
from penstock.core.identity import Key
from penstock.transports import frames
from penstock.transports.certificate import contexts
from penstock.transports.hello import VERSIONS, Hello, Transcript
from penstock.transports.tls import Limits, Server, TlsLink, connect, serve

HOST = "127.0.0.1"
SUPPLIER, CONSUMER, CHEATER = Key(b"\1" * 32), Key(b"\2" * 32), Key(b"\3" * 32)


USUAL = Limits()


class Pole:
    """A serving machine that echoes, and keeps how its links ended."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[TlsLink] = asyncio.Queue()
        self.ends: asyncio.Queue[PenstockError] = asyncio.Queue()
        self.server: Server

    @property
    def port(self) -> int:
        return self.server.port

    def on_link(self, link: TlsLink) -> None:
        link.attach(link.send, self.ends.put_nowait)
        self.links.put_nowait(link)

    async def end(self) -> PenstockError:
        return await asyncio.wait_for(self.ends.get(), 10)


@asynccontextmanager
async def pole(limits: Limits = USUAL) -> AsyncIterator[Pole]:
    it = Pole()
    it.server = await serve(HOST, 0, SUPPLIER, it.on_link, limits=limits)
    try:
        yield it
        assert await echoes(it), "the server no longer serves others"
    finally:
        await asyncio.wait_for(it.server.close(), 10)


async def echoes(it: Pole) -> bool:
    """Whether an honest consumer is still served."""
    link = await connect(HOST, it.port, CONSUMER, expect=SUPPLIER.address)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link.attach(answer.set_result, answer.set_exception)
    link.send(b"are you there?")
    try:
        return await asyncio.wait_for(answer, 10) == b"are you there?"
    finally:
        link.close()


class RawPeer:
    """A peer that speaks TLS with streams of its own and sends whatever bytes a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, port: int, tls: ssl.SSLContext | None = None) -> RawPeer:
        tls = tls or contexts().client
        return cls(*await asyncio.open_connection(HOST, port, ssl=tls, server_hostname=""))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame that comes: kind, payload."""
        async with asyncio.timeout(10):
            head = await self.reader.readexactly(4)
            return head[0], await self.reader.readexactly(int.from_bytes(head[1:], "big"))

    async def prove(self, key: Key = CHEATER, versions: tuple[int, ...] = VERSIONS) -> None:
        """Complete the handshake as the client that it is."""
        own = Hello(versions, b"n" * 32, key.address).encode()
        self.writer.write(frames.control(frames.HELLO, own))
        kind, theirs = await self.frame()
        assert kind == frames.HELLO
        transcript = Transcript(own, theirs, contexts().certificate_hash, contexts().certificate_hash)
        self.writer.write(frames.control(frames.PROOF, transcript.prove(key, "client")))
        kind, _ = await self.frame()
        assert kind == frames.PROOF

    async def reason(self) -> str:
        """The reason in the BYE that ends this connection; other frames are passed over."""
        while True:
            kind, payload = await self.frame()
            if kind == frames.BYE:
                return frames.reason_of(payload)

    async def ended(self) -> bool:
        """Whether the other side closes."""
        try:
            async with asyncio.timeout(10):
                while await self.reader.read(65536):
                    pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def tcp_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server on a free port that is none of ours; yields the port."""
    writers: list[asyncio.StreamWriter] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            await handle(reader, writer)

    server = await asyncio.start_server(run, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
