"""What both ends of a forwarder have in common: the meter's side, the carrier's side, and how bytes move."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.core.errors import BadFrame, DeviceError
from penstock.core.meter import Reading, Tolerance
from penstock.core.ports import Link
from penstock.core.units import Instant, Price, Quantity
from penstock.gateways.forwarder.connection import (
    CLOSE,
    COUNT,
    DATA,
    END,
    HEAD,
    MAX_REASON,
    OPEN,
    OWED,
    TAKEN,
    WINDOW,
    Connection,
)
from penstock.gateways.forwarder.count import Count

CONNECTIONS = 64  # at once on a link: with their windows, the most that a peer can make us hold is 64 MiB a direction
LINGER = 2.0  # seconds for applications to take what was passed on, when we let go
LOSSES = 1_000  # ppm: what repeatedly broken links may add up to

Tell = Callable[..., None]


def tolerance(price: Price, credit_limit: int) -> Tolerance:
    """What the meters of an offer of data may be apart: what a link that breaks may have under way."""
    return Tolerance(price.affords(credit_limit), LOSSES)


class End:
    """What both ends have in common: a meter, and the connections of one link (`Meter`, `Carrier`)."""

    def __init__(self, count: Path, clock: Callable[[], Instant], tell: Tell) -> None:
        """Go on with the total in the file `count`, which is made where there is none.

        Raises:
            DeviceError: another process holds it, or it is no such file.
        """
        self._count = Count(count)
        self.total = self._count.total
        self._at = self._count.at
        self._clock = clock
        self._tell = tell
        self._fault: DeviceError | None = None
        self._watchers: list[Callable[[Reading], None]] = []
        self._link: Link | None = None
        self._connections: dict[int, Connection] = {}
        self._last = 0  # the highest number on this link
        self._ready: deque[Connection] = deque()
        self._pumping = False

    # ---- the meter

    def read(self) -> Reading:
        """All bytes until now.

        Raises:
            DeviceError: the total cannot be kept.
        """
        self._at = max(self._at, self._clock())
        self._keep()
        if self._fault is not None:
            raise self._fault
        return Reading(Quantity(self.total), Instant(self._at))

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` whenever a supplier has news."""
        self._watchers.append(on_reading)

    def _keep(self) -> None:
        if self._fault is None and self.total != self._count.total:
            try:
                self._count.write(self.total, self._at)
            except DeviceError as error:
                self._fault = error

    # ---- the carrier

    def join(self, link: Link) -> None:
        """Forward over this link from now on."""
        self.part()
        self._connections.clear()
        self._last = 0
        self._link = link
        link.carry(self._pump)

    def part(self) -> None:
        """Cut all connections. They are known until the next link: what is under way of them is metered."""
        if self._link is None:
            return
        self._link = None
        self._ready.clear()
        for connection in self._connections.values():
            connection.ready = False
            connection.cut()

    def on_frame(self, frame: bytes) -> None:
        """A frame of the other end.

        Raises:
            BadFrame: it breaks the rules of `connection`.
        """
        size = len(frame) - HEAD.size
        if size < 0:
            raise BadFrame(f"a data frame of {len(frame)} bytes")
        kind, number = HEAD.unpack_from(frame)
        connection = self._connections.get(number)
        if kind == DATA:
            self._data(self._sending(connection, number), frame, size)
        elif kind == TAKEN and size == 4:
            self._taken(self._known(connection, number), COUNT.unpack(frame)[2])
        elif self._link is None:
            return
        elif kind == OPEN and not size:
            self._opened(number)
        elif kind == END and not size:
            self._end(self._sending(connection, number))
        elif kind == CLOSE and size <= MAX_REASON:
            self._close(connection, number, frame[HEAD.size :])
        else:
            raise BadFrame(f"a data frame of kind {kind} and {size} bytes breaks the rules")

    def _known(self, connection: Connection | None, number: int) -> Connection:
        if connection is None:
            raise BadFrame(f"there is no connection {number}")
        return connection

    def _sending(self, connection: Connection | None, number: int) -> Connection:
        if connection is None or connection.heard:
            raise BadFrame(f"connection {number} is over, or was never opened")
        return connection

    def _data(self, connection: Connection, frame: bytes, size: int) -> None:
        if not 0 < size <= connection.granted:
            raise BadFrame(f"{size} bytes of connection {connection.number}, whose window is {connection.granted}")
        connection.granted -= size
        if self._link is not None:
            self._link.wanted(size)
        self._arrived(connection, memoryview(frame)[HEAD.size :])

    def _taken(self, connection: Connection, size: int) -> None:
        under_way = WINDOW - connection.window
        if not 0 < size <= under_way:
            raise BadFrame(f"{size} bytes of connection {connection.number} taken, where {under_way} are under way")
        connection.window += size
        self._passed_there(size)
        self.came(connection)
        self._settle(connection)

    def _end(self, connection: Connection) -> None:
        connection.heard = END
        if not connection.going:
            connection.finish()
        self._tell_taken(connection)
        self._settle(connection)

    def _close(self, connection: Connection | None, number: int, reason: bytes) -> None:
        if connection is None:
            if number > self._last:
                raise BadFrame(f"connection {number} was never opened")
            self._send(CLOSE, number)  # it was over when the other end broke: that waits for an answer
            return
        if reason and connection.heard != CLOSE:
            why = "".join(char if char.isprintable() else "?" for char in reason.decode(errors="replace"))
            self._tell("connection closed", why=why)
        connection.heard = CLOSE
        if connection.said != CLOSE and not self._connecting(connection):
            self._say_close(connection)
        self._settle(connection)

    # ---- what the connections call (`connection.Owner`)

    def came(self, connection: Connection) -> None:
        """Bytes have come, or there is room again."""
        if self._link is not None and self._connections.get(connection.number) is connection:
            if not connection.blocked:
                self._tell_taken(connection)
            if not connection.ready and connection.can_move:
                connection.ready = True
                self._ready.append(connection)
                self._pump()

    def ended(self, connection: Connection) -> None:
        """Nothing more comes in."""
        if self._connections.get(connection.number) is connection and not connection.coming:
            self._say_last(connection)

    def gone(self, connection: Connection) -> None:
        """The TCP connection is no more, in order or not."""
        if self._link is None or self._connections.get(connection.number) is not connection:
            return
        if connection.ended and connection.coming:
            return  # all of it had come: it goes first
        if connection.said == END == connection.heard and not connection.going:
            return  # nothing is missing; for the other end it may be over already, and its number's place taken
        if connection.said != CLOSE:
            self._say_close(connection)
        self._settle(connection)

    # ---- moving bytes

    def _pump(self) -> None:
        """Move what can be moved, a frame of each connection in turn, until the link is full or the valve shuts."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                while self._ready and self._link is not None and not self._link.full and self._room() > 0:
                    connection = self._ready.popleft()
                    self._move(self._link, connection)
                    connection.ready = connection.can_move and self._link is not None
                    if connection.ready:
                        self._ready.append(connection)
                if not self._note():
                    return
        finally:
            self._pumping = False

    def _move(self, link: Link, connection: Connection) -> None:
        """Pass on a part of what the peer sent, and send it a part of what came in."""
        if connection.going and not connection.blocked and connection.transport is not None:
            self._pass_on(connection)
        most = min(connection.window, self._room())
        if connection.coming and most > 0:
            part = connection.part_of(most)
            link.send(b"".join((HEAD.pack(DATA, connection.number), part)))
            connection.window -= len(part)
            self._sent(len(part))
            if not connection.coming:
                connection.resume()
                if connection.ended:
                    self._say_last(connection)

    def _send(self, kind: int, number: int, payload: bytes = b"") -> None:
        if self._link is not None:
            self._link.send(HEAD.pack(kind, number) + payload)

    def _tell_taken(self, connection: Connection) -> None:
        if connection.owed >= (1 if connection.heard else OWED) and connection.said != CLOSE and self._link is not None:
            connection.granted += connection.owed
            self._link.send(COUNT.pack(TAKEN, connection.number, connection.owed))
            connection.owed = 0

    def _say_last(self, connection: Connection) -> None:
        """All that came in is sent."""
        if connection.transport is None and connection.said != CLOSE:  # broken since, and nothing can go out any more
            self._say_close(connection)
        elif not connection.said:
            connection.said = END
            self._send(END, connection.number)
        self._settle(connection)

    def _say_close(self, connection: Connection, why: str = "") -> None:
        connection.said = CLOSE
        connection.cut()
        self._send(CLOSE, connection.number, why.encode()[:MAX_REASON])

    def _settle(self, connection: Connection) -> None:
        """Forget the connection if it is over."""
        if connection.over and self._link is not None and self._connections.pop(connection.number, None) is not None:
            connection.shut()
            self._freed()

    # ---- where the ends differ

    def _room(self) -> int:
        """How many bytes may pass now."""
        raise NotImplementedError

    def _arrived(self, connection: Connection, data: memoryview) -> None:
        """The peer sent this."""
        raise NotImplementedError

    def _pass_on(self, connection: Connection) -> None:
        """Bytes that the peer sent before may go out now."""

    def _sent(self, size: int) -> None:
        """So many bytes were handed to the link."""

    def _passed_there(self, size: int) -> None:
        """The peer has passed on so many bytes of ours."""

    def _note(self) -> bool:
        """Bytes have moved; whether somebody heard of it, who may have let more pass."""
        return False

    def _opened(self, number: int) -> None:
        raise BadFrame("a supplier opens no connections")

    def _connecting(self, connection: Connection) -> bool:
        return False

    def _freed(self) -> None:
        """There is room for another connection."""


async def lingering(connections: Any) -> None:
    """Let what was written arrive, for a while."""
    left = [connection for connection in connections if connection.transport is not None]
    for _ in range(int(LINGER / 0.05)):
        left = [connection for connection in left if connection.transport is not None]
        if not left:
            return
        await asyncio.sleep(0.05)
    for connection in left:
        if connection.transport is not None:
            connection.transport.abort()
