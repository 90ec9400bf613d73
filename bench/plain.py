"""`core.ports.Link` over bare TCP, to measure what TLS costs. It proves nothing: each side believes the other's word.

The first frame each way is the sender's address. No part of the product, which has links over TLS alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from penstock.core.errors import LinkLost, PenstockError
from penstock.core.identity import ZERO_ADDRESS, Address
from penstock.transports.frames import Decoder, header


class PlainLink(asyncio.Protocol):
    """One connection. `opened(link)` is called when the peer has said who it is."""

    __slots__ = ("_deliver", "_frames", "_lost", "_opened", "_parts", "_transport", "peer", "version")

    def __init__(self, address: Address, opened: Callable[[PlainLink], None]) -> None:
        self.peer = ZERO_ADDRESS
        self.version = 1
        self._opened = opened
        self._frames = Decoder()
        self._parts: list[bytes] = [header(20), address]
        self._deliver: Callable[[bytes], None] = self._meet
        self._lost: Callable[[PenstockError], None] | None = None
        self._transport: asyncio.Transport | None = None

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        """As the port says."""
        self._deliver, self._lost = on_frame, on_lost

    def send(self, frame: bytes) -> None:
        """As the port says: what one turn of the loop sends leaves in one write."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts += (header(len(frame)), frame)

    @property
    def full(self) -> bool:
        """Never: it carries what a session says, and no bulk."""
        return False

    def carry(self, on_room: Callable[[], None]) -> None:
        """As the port says."""

    def wanted(self, size: int) -> None:
        """As the port says."""

    def close(self, reason: str = "") -> None:
        """As the port says, but the reason is not told."""
        self._lost = None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands: say who we are."""
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Frames have come."""
        for _, payload in self._frames.frames(data):
            self._deliver(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """The link is over."""
        if self._lost is not None:
            self._lost(LinkLost(str(exc or "closed")))

    def _meet(self, frame: bytes) -> None:
        self.peer = Address(frame)
        self._opened(self)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(parts)


async def serve_plain(host: str, address: Address, on_link: Callable[[PlainLink], None]) -> tuple[asyncio.Server, int]:
    """Listen on a free port; returns the listener and its port."""
    server = await asyncio.get_running_loop().create_server(lambda: PlainLink(address, on_link), host, 0, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def connect_plain(host: str, port: int, address: Address) -> PlainLink:
    """A link to a machine that said who it is."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[PlainLink] = loop.create_future()
    await loop.create_connection(lambda: PlainLink(address, opened.set_result), host, port)
    return await opened
