"""The consumer's end of a forwarder: its meter, and where applications connect to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import UsageError
from penstock.core.ports import Link
from penstock.core.units import Instant
from penstock.gateways.forwarder.connection import OPEN, WINDOW, Connection
from penstock.gateways.forwarder.end import CONNECTIONS, End, Tell, lingering

WAITING = 256  # applications that wait for a connection to be over, or for the link


class DataMeter(End):
    """The consumer's end: `Meter` and `Carrier`, and where applications connect to."""

    def __init__(self, count: Path, clock: Callable[[], Instant], tell: Tell) -> None:
        super().__init__(count, clock, tell)
        self._waiting: deque[Connection] = deque()
        self._server: asyncio.Server | None = None
        self._keeping = False

    async def listen(self, host: str, port: int) -> int:
        """Take applications at `host`:`port` (0 takes a free one), which is returned.

        Raises:
            UsageError: that address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error})", "choose another --listen") from None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def detach(self) -> None:
        """Take no more applications, cut those that are here, and let go of the meter."""
        if self._server is not None:
            self._server.close()
        self.part()
        for connection in self._waiting:
            connection.cut()
        await lingering([*self._waiting, *self._connections.values()])
        self._waiting.clear()
        self._keep()
        self._count.close()

    def join(self, link: Link) -> None:
        super().join(link)
        self._freed()

    def made(self, connection: Connection) -> None:
        """An application has connected."""
        if len(self._waiting) >= WAITING:
            connection.cut()
            return
        connection.pause()
        self._waiting.append(connection)
        self._freed()

    def gone(self, connection: Connection) -> None:
        if not connection.number and connection in self._waiting:
            self._waiting.remove(connection)
        super().gone(connection)

    def _freed(self) -> None:
        while self._waiting and self._link is not None and len(self._connections) < CONNECTIONS:
            connection = self._waiting.popleft()
            self._last += 1
            connection.number = self._last
            self._connections[connection.number] = connection
            self._send(OPEN, connection.number)
            self.came(connection)
            if connection.ended:
                self.ended(connection)
            if not connection.coming:
                connection.resume()

    def _room(self) -> int:
        return WINDOW

    def _arrived(self, connection: Connection, data: memoryview) -> None:
        self._metered(len(data))
        connection.write(data)
        connection.owed += len(data)
        if not connection.blocked:
            self._tell_taken(connection)

    def _passed_there(self, size: int) -> None:
        self._metered(size)

    def _metered(self, size: int) -> None:
        self.total += size
        if not self._keeping:
            self._keeping = True
            asyncio.get_running_loop().call_soon(self._keep)

    def _keep(self) -> None:
        self._keeping = False
        super()._keep()
