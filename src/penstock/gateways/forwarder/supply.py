"""The supplier's end of a forwarder: meter, valve, and what connects to where the data comes from and goes to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import BadFrame
from penstock.core.units import Instant, Quantity
from penstock.gateways.forwarder.connection import CLOSE, END, TAKEN, Connection
from penstock.gateways.forwarder.end import CONNECTIONS, End, Tell, lingering

SCRAP = 512  # bytes: shorter ones are joined, so that a peer that sends them one by one costs no more than it sends

CONNECT = 10.0  # seconds to reach what is forwarded to
PACE = 500  # connections made a second: what we forward to must not suffer from a peer that opens and closes
COMPLAINTS = 1.0  # seconds between two events on a target that cannot be reached


class DataSupply(End):
    """The supplier's end: `Meter`, `Valve` and `Carrier`. It connects to `target`, and nowhere else."""

    def __init__(
        self, target: tuple[str, int], count: Path, step: Quantity, clock: Callable[[], Instant], tell: Tell
    ) -> None:
        """Forward to `target`. Watchers hear of every `step` bytes, and where what is allowed is used up.

        Raises:
            DeviceError: as `End`.
        """
        super().__init__(count, clock, tell)
        self._target = target
        self._step = step
        self._told = self.total
        self._allowed = 0
        self._connects: dict[Connection, asyncio.Task[None]] = {}
        self._next_connect = 0.0  # loop time, at the even pace of `PACE`
        self._complained = -COMPLAINTS

    # ---- the valve

    def allow(self, total: Quantity) -> None:
        """Let bytes pass until the meter shows `total`.

        Raises:
            DeviceError: the total cannot be kept.
        """
        if self._fault is not None:
            raise self._fault
        self._allowed = total
        self._pump()

    def close(self) -> None:
        """Let nothing pass. Connections stay, and are read no further."""
        self._allowed = 0

    def part(self) -> None:
        super().part()
        for task in self._connects.values():
            task.cancel()
        self._connects.clear()

    def on_frame(self, frame: bytes) -> None:
        if self._link is not None:  # what is under way to us when we part was let pass by nobody
            super().on_frame(frame)

    async def detach(self) -> None:
        """Cut everything, and let go of the meter."""
        self.part()
        self._watchers.clear()
        await lingering(self._connections.values())
        self._keep()
        self._count.close()

    def made(self, connection: Connection) -> None:
        """What we forward to has answered."""
        ours = self._link is not None and self._connections.get(connection.number) is connection
        if not ours or connection.heard == CLOSE:
            connection.cut()
        else:
            self.came(connection)
            if connection.heard == END and not connection.going:
                connection.finish()

    def _opened(self, number: int) -> None:
        if number <= self._last:
            raise BadFrame(f"connection {number} was opened before")
        if len(self._connections) >= CONNECTIONS:
            raise BadFrame(f"more than {CONNECTIONS} connections at once")
        self._last = number
        connection = self._connections[number] = Connection(self, number)
        self._connects[connection] = asyncio.get_running_loop().create_task(self._connect(connection))

    async def _connect(self, connection: Connection) -> None:
        why = ""
        await asyncio.sleep(self._pace())
        try:
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().create_connection(lambda: connection, *self._target)
        except TimeoutError:
            why = f"no answer within {CONNECT:g} s"
        except (OSError, UnicodeError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number).lower() if number and number > 0 else "no such host"
        self._connects.pop(connection, None)
        if why:
            self._complain(why)
            why = f"the supplier cannot reach what it forwards to: {why}"
        if (why or connection.heard == CLOSE) and connection.said != CLOSE:
            self._say_close(connection, why)
            self._settle(connection)

    def _pace(self) -> float:
        """Seconds until the next connection may be made: asking for one costs a peer nothing."""
        now = asyncio.get_running_loop().time()
        self._next_connect = max(now, self._next_connect) + 1 / PACE
        return max(0.0, self._next_connect - now - CONNECTIONS / PACE)

    def _complain(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= COMPLAINTS:
            self._complained = now
            self._tell("not forwarded", to=f"{self._target[0]}:{self._target[1]}", why=why)

    def _connecting(self, connection: Connection) -> bool:
        return connection in self._connects

    def _room(self) -> int:
        return self._allowed - self.total

    def _arrived(self, connection: Connection, data: memoryview) -> None:
        if connection.said != CLOSE:
            going = connection.going
            if going and len(going[-1]) < SCRAP:  # what holds one byte takes some 400
                going[-1] = memoryview(b"".join((going[-1], data)))
            else:
                going.append(data)
            self.came(connection)

    def _pass_on(self, connection: Connection) -> None:
        data, room = connection.going.popleft(), self._room()
        if len(data) > room:
            connection.going.appendleft(data[room:])
            data = data[:room]
        connection.write(data)
        self.total += len(data)
        connection.granted += len(data)
        self._send(TAKEN, connection.number, len(data).to_bytes(4, "big"))
        if connection.heard == END and not connection.going:
            connection.finish()
            self._settle(connection)

    def _sent(self, size: int) -> None:
        self.total += size

    def _note(self) -> bool:
        """The total is kept before any of the bytes have left: the link sends at the end of this turn of the loop."""
        self._keep()
        moved = self.total - self._told
        if moved < self._step and (not moved or self.total < self._allowed):
            return False
        self._told = self.total
        if self._fault is not None:
            self._allowed = 0
            return False
        reading = self.read()
        for watcher in list(self._watchers):
            watcher(reading)
        return True
