"""A way through to a server on another network, that can be shut: `python -m penstock.sim.gate PORT SOCKET`.

The one half listens on a port of its own network's loopback, the other is a socket file, which every network of this
machine sees. What is open through it ends when it is shut.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

CHUNK = 65_536


class Gate:
    """The half beside the server, at a socket file. Shut until it is opened."""

    def __init__(self, socket: Path, port: int) -> None:
        """The server listens at `port` of this network's loopback."""
        self._socket, self._port = socket, port
        self._server: asyncio.Server | None = None
        self._through: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let everybody through."""
        self._server = await asyncio.start_unix_server(self._pass, self._socket)

    async def shut(self) -> None:
        """Let nobody through, and end what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._socket.unlink(missing_ok=True)
        for task in list(self._through):
            task.cancel()
        await asyncio.gather(*self._through, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._through.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):  # cancelled when the gate is shut
                await join(reader, writer, *await asyncio.open_connection("127.0.0.1", self._port))
        finally:
            self._through.discard(task)


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Carry what comes to the other side, both ways, until either ends."""
    ways = [asyncio.ensure_future(_carry(reader, other_writer)), asyncio.ensure_future(_carry(other_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for one in (writer, other_writer):
            one.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def _listen(port: int, socket: Path) -> None:
    async def pass_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await join(reader, writer, *await asyncio.open_unix_connection(socket))
        except OSError:  # it is shut
            writer.close()

    server = await asyncio.start_server(pass_, "127.0.0.1", port)
    print("{}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_listen(int(sys.argv[1]), Path(sys.argv[2])))
