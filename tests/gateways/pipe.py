"""Both ends of a forwarder over a real link, with what it forwards to and its applications, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.core.errors import PenstockError
from penstock.core.identity import Key
from penstock.core.meter import Reading
from penstock.core.units import MAX_QUANTITY, Quantity
from penstock.gateways.forwarder import DataMeter, DataSupply
from penstock.node.clock import now
from penstock.transports.tls import Server, TlsLink, connect, serve

HOST = "127.0.0.1"
SUPPLIER, CONSUMER = Key(b"\1" * 32), Key(b"\2" * 32)
SOON = 10.0
STEP = Quantity(100_000)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until(condition: Callable[[], bool], what: str = "it did not happen") -> None:
    """Poll until a condition holds, but not for long."""
    for _ in range(int(SOON / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(what)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and end when it ends."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class Pipe:
    """The two ends, and the link between them."""

    def __init__(self, directory: Path, target: tuple[str, int]) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.readings: list[Reading] = []
        self.ends: list[PenstockError] = []
        self.supply = DataSupply(target, directory / "supplied", STEP, now, self._tell)
        self.meter = DataMeter(directory / "drawn", now, self._tell)
        self.supply.watch(self.readings.append)
        self.others: list[bytes] = []  # frames that are no device's, as each end got them
        self.server: Server
        self.port = 0
        self.here: list[TlsLink] = []  # the consumer's ends of the links
        self.there: list[TlsLink] = []  # the supplier's

    async def open(self) -> None:
        self.server = await serve(HOST, 0, SUPPLIER, self._on_link)
        self.port = await self.meter.listen(HOST, 0)

    async def link(self) -> TlsLink:
        """A fresh link, with both ends on it."""
        link = await connect(HOST, self.server.port, CONSUMER)
        link.attach(lambda frame: self._on_frame(self.meter, frame), lambda error: self.lost(self.meter, error))
        self.here.append(link)
        await until(lambda: len(self.there) == len(self.here))
        self.meter.join(link)
        return link

    def _on_link(self, link: TlsLink) -> None:
        link.attach(lambda frame: self._on_frame(self.supply, frame), lambda error: self.lost(self.supply, error))
        self.there.append(link)
        self.supply.join(link)

    def _on_frame(self, device: DataSupply | DataMeter, frame: bytes) -> None:
        if frame[:1] == b"[":
            self.others.append(frame)
        else:
            device.on_frame(frame)

    def lost(self, device: DataSupply | DataMeter, error: PenstockError) -> None:
        self.ends.append(error)
        device.part()

    def _tell(self, event: str, **facts: Any) -> None:
        self.told.append((event, facts))

    def agree(self) -> bool:
        """Whether both meters say the same."""
        return self.supply.read().total == self.meter.read().total

    async def application(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An application that has connected to the consumer's end."""
        return await asyncio.open_connection(HOST, self.port)

    async def close(self) -> None:
        for link in self.here:
            link.close()
        await self.meter.detach()
        await self.supply.detach()
        await self.server.close()


@asynccontextmanager
async def pipe(directory: Path, handler: Handler = echo, allowed: int = MAX_QUANTITY) -> AsyncIterator[Pipe]:
    """A pipe to a server that does as `handler` says, with a link, and `allowed` bytes let pass."""
    tasks: list[asyncio.Task[Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()

    target = await asyncio.start_server(handle, HOST, 0)
    made = Pipe(directory, target.sockets[0].getsockname()[:2])
    try:
        await made.open()
        await made.link()
        made.supply.allow(Quantity(allowed))
        yield made
    finally:
        await made.close()
        target.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
