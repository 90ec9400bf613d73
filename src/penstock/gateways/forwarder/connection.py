"""One forwarded TCP connection, and the form of the frames that carry it over a session's link.

    uint8 kind | uint32 number of the connection | payload                                        (big-endian)

    kind   payload              from        says
    OPEN   -                    consumer    an application has connected. Numbers rise, and are used once on a link
    DATA   1..65,531 bytes      both        what came in at this end of the connection
    TAKEN  uint32               both        so many of your bytes were passed on: as many more may come
    END    -                    both        nothing more comes from here; the other direction goes on
    CLOSE  up to 200 bytes      both        the connection is broken, or could not be made: why not

No kind is "[", with which the session's own messages begin. At most `WINDOW` bytes of a connection may be under way in
one direction without a TAKEN, so that an application that does not read holds up its own connection alone.

A connection is over when both sides have said END and all that they sent is TAKEN, or when both have said CLOSE:
whoever hears one answers it, even for a connection that was over before. Until then its frames count, whatever became
of its TCP, since what the supplier metered of it the consumer must meter, too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Protocol, cast

OPEN, DATA, TAKEN, END, CLOSE = range(1, 6)
HEAD = struct.Struct(">BI")
COUNT = struct.Struct(">BII")
MAX_DATA = 64 * 1024 - HEAD.size
MAX_REASON = 200
WINDOW = 1024 * 1024
OWED = WINDOW // 8  # bytes passed on that a consumer tells at once: fewer frames, and the window never runs dry
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: whoever is cut off must not take it for the end of the data


class Owner(Protocol):
    """The end of a forwarder that a connection belongs to."""

    def made(self, connection: Connection) -> None:
        """The TCP connection stands."""

    def came(self, connection: Connection) -> None:
        """Bytes have come in, or there is room again for what goes out."""

    def ended(self, connection: Connection) -> None:
        """Nothing more comes in."""

    def gone(self, connection: Connection) -> None:
        """The TCP connection is no more."""


class Connection(asyncio.Protocol):
    """One TCP connection. What comes in waits in `coming`, what the peer sent and may not go out yet in `going`."""

    __slots__ = (
        "blocked",
        "coming",
        "ended",
        "going",
        "granted",
        "heard",
        "number",
        "owed",
        "owner",
        "ready",
        "said",
        "transport",
        "window",
    )

    def __init__(self, owner: Owner, number: int = 0) -> None:
        self.owner = owner
        self.number = number  # 0: not opened yet
        self.transport: asyncio.Transport | None = None
        self.coming: deque[memoryview] = deque()
        self.going: deque[memoryview] = deque()
        self.window = WINDOW  # bytes that we may send
        self.granted = WINDOW  # bytes that the peer may send
        self.owed = 0  # bytes passed on that the peer has not been told of
        self.ended = False  # nothing more comes in
        self.said = 0  # END or CLOSE, once we said it
        self.heard = 0  # END or CLOSE, once the peer said it
        self.blocked = False  # nobody takes what goes out
        self.ready = False  # stands in the owner's queue

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WINDOW // 4)
        self.owner.made(self)

    def data_received(self, data: bytes) -> None:
        self.coming.append(memoryview(data))
        self.owner.came(self)
        if self.coming:
            self.pause()

    def eof_received(self) -> bool:
        self.ended = True
        self.owner.ended(self)
        return True  # the other direction goes on

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self.owner.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.owner.gone(self)

    @property
    def over(self) -> bool:
        """Whether neither side will say anything more of it."""
        if self.said == END == self.heard:
            return self.window == WINDOW == self.granted
        return self.said == CLOSE == self.heard

    @property
    def can_move(self) -> bool:
        """Whether there are bytes that could go either way now."""
        out = bool(self.going) and not self.blocked and self.transport is not None
        return out or (bool(self.coming) and self.window > 0)

    def pause(self) -> None:
        """Read no more: TCP holds up whoever sends."""
        transport = self.transport  # which is asked: uvloop begins to read after `connection_made`, even if that paused
        if transport is not None and not transport.is_closing() and transport.is_reading():
            transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        transport = self.transport
        if transport is not None and not (transport.is_closing() or self.ended or transport.is_reading()):
            transport.resume_reading()

    def write(self, data: memoryview | bytes) -> None:
        """Pass bytes on, where somebody is left to take them."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def finish(self) -> None:
        """Nothing more goes out."""
        if self.transport is not None and not self.transport.is_closing():
            with suppress(OSError):  # reset, which the loop has yet to notice
                self.transport.write_eof()

    def shut(self) -> None:
        """Both directions are over: end the connection in order."""
        if self.transport is not None:
            self.transport.close()

    def cut(self) -> None:
        """Write what was passed on, and reset the connection."""
        self.coming.clear()
        self.going.clear()
        if self.transport is None or self.transport.is_closing():
            return
        connection = self.transport.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.close()

    def part_of(self, most: int) -> memoryview:
        """Take up to `most` of the bytes that came in, `MAX_DATA` at most; long ones in parts of about one size."""
        first = self.coming.popleft()
        size = -(-len(first) // -(-len(first) // MAX_DATA))
        size = min(size, most)
        if size < len(first):
            self.coming.appendleft(first[size:])
        return first[:size]
