"""The consumer's end of a forwarder: its meter, and where applications connect to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import UsageError
from penstock.core.ports import Link
from penstock.core.units import Instant
from penstock.gateways.forwarder.end import STREAMS, End, Tell, lingering
from penstock.gateways.forwarder.streams import OPEN, WINDOW, Stream

WAITING = 256  # applications that wait for a stream to be over, or for the link


class DataMeter(End):
    """The consumer's end: `Meter` and `Carrier`, and where applications connect to."""

    def __init__(self, count: Path, clock: Callable[[], Instant], tell: Tell) -> None:
        super().__init__(count, clock, tell)
        self._waiting: deque[Stream] = deque()
        self._server: asyncio.Server | None = None
        self._keeping = False

    async def listen(self, host: str, port: int) -> int:
        """Take applications at `host`:`port` (0 takes a free one), which is returned.

        Raises:
            UsageError: that address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Stream(self), host, port)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"cannot listen on {host}:{port} ({error})", "choose another --listen") from None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def detach(self) -> None:
        """Take no more applications, cut those that are here, and let go of the meter."""
        if self._server is not None:
            self._server.close()
        self.part()
        for stream in self._waiting:
            stream.cut()
        await lingering([*self._waiting, *self._streams.values()])
        self._waiting.clear()
        self._keep()
        self._count.close()

    def join(self, link: Link) -> None:
        super().join(link)
        self._freed()

    def made(self, stream: Stream) -> None:
        """An application has connected."""
        if len(self._waiting) >= WAITING:
            stream.cut()
            return
        stream.pause()
        self._waiting.append(stream)
        self._freed()

    def gone(self, stream: Stream, why: str) -> None:
        if not stream.number and stream in self._waiting:
            self._waiting.remove(stream)
        super().gone(stream, why)

    def _freed(self) -> None:
        while self._waiting and self._link is not None and len(self._streams) < STREAMS:
            stream = self._waiting.popleft()
            self._last += 1
            stream.number = self._last
            self._streams[stream.number] = stream
            self._send(OPEN, stream.number)
            self.came(stream)
            if stream.ended:
                self.ended(stream)
            if not stream.coming:
                stream.resume()

    def _room(self) -> int:
        return WINDOW

    def _arrived(self, stream: Stream, data: memoryview) -> None:
        self._metered(len(data))
        stream.write(data)
        stream.owed += len(data)
        if not stream.blocked:
            self._tell_taken(stream)

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
