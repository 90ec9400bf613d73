"""Target: the frames of a forwarder's other end, mixed with what the valve, the link and the connections do here.

The loop, the link and the sockets are stand-ins that keep what they are given; connections are made when the input
says so.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from penstock.core.identity import ZERO_ADDRESS, Address
from penstock.core.units import Instant, Quantity
from penstock.gateways.forwarder import DataMeter, DataSupply
from penstock.gateways.forwarder.connection import CLOSE, COUNT, DATA, END, HEAD, OPEN, TAKEN, WINDOW, Connection
from penstock.gateways.forwarder.end import CONNECTIONS

FRAME, ALLOW, SHUT, CONNECT, SEND, FINISH, BREAK, BLOCK, FILL = range(9)  # steps of an input
MOST_STEPS = 400


class Loop:
    """What the ends need of an event loop."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def create_task(self, work: Coroutine[Any, Any, None]) -> Loop:
        work.close()
        return self

    def cancel(self) -> None:
        """As a task."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context["message"]) from context.get("exception")

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Link:
    """Keeps what is sent, and holds it to the rules that the other end would hold it to."""

    peer: Address = ZERO_ADDRESS
    version = 1

    def __init__(self) -> None:
        self.full = False
        self.said: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()  # bytes, by connection
        self.told: Counter[int] = Counter()  # bytes that we said are taken
        self.on_room: Callable[[], None] = lambda: None

    def send(self, frame: bytes) -> None:
        kind, number = HEAD.unpack_from(frame)
        size = len(frame) - HEAD.size
        assert kind in (OPEN, DATA, TAKEN, END, CLOSE)
        assert size <= 200 or kind == DATA
        self.said[kind] += 1
        if kind == DATA:
            assert size > 0
            self.sent[number] += size
        if kind == TAKEN:
            self.told[number] += COUNT.unpack(frame)[2]

    def carry(self, on_room: Callable[[], None]) -> None:
        self.on_room = on_room

    def wanted(self, size: int) -> None:
        assert 0 < size <= WINDOW

    def attach(self, on_frame: object, on_lost: object) -> None:
        """Nothing comes by itself."""

    def close(self, reason: str = "") -> None:
        """There is nothing to close."""


class Socket:
    """The transport of a connection."""

    def __init__(self) -> None:
        self.written = 0
        self.reading, self.closing = True, False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written += len(data)

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closing = True

    def write_eof(self) -> None:
        """The other direction stays open."""

    def set_write_buffer_limits(self, high: int) -> None:
        """The input says when it is full."""

    def get_extra_info(self, _: str) -> Socket:
        return self

    def setsockopt(self, *_: object) -> None:
        """Nothing is configured."""


class Scene:
    """One end, and all that it touches."""

    def __init__(self, supplier: bool) -> None:
        self.loop, self.link = Loop(), Link()
        self.sockets: list[tuple[Connection, Socket]] = []
        self.came: Counter[int] = Counter()  # bytes that the peer sent, by connection
        self.allowed = 0
        place = _place() / ("supplied" if supplier else "drawn")
        place.unlink(missing_ok=True)
        self.end: DataSupply | DataMeter
        if supplier:
            self.end = DataSupply(("nowhere.invalid", 1), place, Quantity(1_000), lambda: Instant(0), _untold)
        else:
            self.end = DataMeter(place, lambda: Instant(0), _untold)

    def run(self, steps: Iterator[tuple[int, bytes]]) -> None:
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self.loop))
        try:
            self.end.join(self.link)
            for step, said in steps:
                self.step(step, said)
                self.loop.turn()
                self.holds()
        finally:
            self.end.part()
            self.loop.turn()
            asyncio._set_running_loop(None)
            self.end._count.close()

    def step(self, step: int, said: bytes) -> None:
        chosen = self.sockets[said[0] % len(self.sockets)] if self.sockets and said else None
        if step == FRAME:
            self.frame(said)
        elif step == ALLOW and isinstance(self.end, DataSupply):
            total = self.end.total + int.from_bytes(said[:3], "big")
            self.allowed = max(self.allowed, total)
            self.end.allow(Quantity(total))
        elif step == SHUT and isinstance(self.end, DataSupply):
            self.end.close()
        elif step == CONNECT:
            self.connect()
        elif step == FILL:
            self.link.full = not self.link.full
            if not self.link.full:
                self.link.on_room()
        elif chosen is not None:
            self.play(step, *chosen, said[1:])

    def frame(self, frame: bytes) -> None:
        if frame:
            self.end.on_frame(frame)
            if frame[0] == DATA:
                self.came[HEAD.unpack_from(frame)[1]] += len(frame) - HEAD.size

    def connect(self) -> None:
        """An application comes, or what is forwarded to answers."""
        if isinstance(self.end, DataMeter):
            connection = Connection(self.end)
        elif self.end._connects:
            connection = next(iter(self.end._connects))
            del self.end._connects[connection]
        else:
            return
        self.sockets.append((connection, socket := Socket()))
        connection.connection_made(cast(asyncio.Transport, socket))

    def play(self, step: int, connection: Connection, socket: Socket, said: bytes) -> None:
        if connection.transport is None:
            return
        if step == SEND and socket.reading and not connection.ended and not socket.closing:
            connection.data_received(said * 300 or b"x")
        elif step == FINISH and not connection.ended and not socket.closing:
            connection.eof_received()
        elif step == BREAK:
            connection.connection_lost(ConnectionResetError())
        elif step == BLOCK and not connection.blocked:
            connection.pause_writing()
        elif step == BLOCK:
            connection.resume_writing()

    def holds(self) -> None:
        """What must be true after every step."""
        end, link = self.end, self.link
        assert len(end._connections) <= CONNECTIONS
        for connection in end._connections.values():
            number = connection.number
            assert 0 <= connection.window <= WINDOW
            assert 0 <= connection.granted <= WINDOW
            assert sum(map(len, connection.going)) <= WINDOW - connection.granted
            assert link.told[number] <= self.came[number], "more was taken than came"
        if isinstance(end, DataSupply):
            assert end.total <= self.allowed, "more passed than was allowed"
            assert end.total == link.sent.total() + link.told.total(), "what passed is not what was counted"


@cache
def _place() -> Path:
    """Where the totals are."""
    made = tempfile.mkdtemp(prefix="penstock-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _untold(event: str, **facts: Any) -> None:
    for fact in facts.values():
        assert str(fact).isprintable()


def data(said: bytes) -> object:
    """A first byte says which end we are; then steps: what happens, how many bytes follow (2), and these."""
    if not said:
        return ""
    scene = Scene(bool(said[0] & 1))
    scene.run(_steps(said[1:]))
    return said[0] & 1, sorted(kind for kind, count in scene.link.said.items() if count)


def _steps(said: bytes) -> Iterator[tuple[int, bytes]]:
    for _ in range(MOST_STEPS):
        if len(said) < 3:
            return
        size = int.from_bytes(said[1:3], "big")
        yield said[0] % 9, said[3 : 3 + size]
        said = said[3 + size :]


def _step(step: int, said: bytes = b"\0") -> bytes:
    return bytes((step,)) + len(said).to_bytes(2, "big") + said


def _frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return _step(FRAME, HEAD.pack(kind, number) + payload)


def data_seeds() -> list[bytes]:
    """Connections from beginning to end, in order and broken, of either end."""
    opened = _frame(OPEN, 1) + _step(CONNECT)
    allowed = _step(ALLOW, b"\x01\0\0")
    up = _frame(DATA, 1, b"question") + _frame(END, 1)
    down = _step(SEND, b"\0answer") + _step(FINISH)
    taken = _frame(TAKEN, 1, (1_800).to_bytes(4, "big"))
    closed = _frame(CLOSE, 1, b"enough")
    supplier = [
        opened + allowed + up + down + taken,
        _frame(OPEN, 1) + up + allowed + _step(CONNECT) + down + taken + _frame(OPEN, 2),
        opened + allowed + _step(SEND, b"\0" + b"abc" * 30) + _step(BREAK) + closed,
        opened + up + _step(BLOCK) + allowed + _step(BLOCK) + closed + _frame(OPEN, 2),
        opened + allowed + _step(FILL) + _step(SEND, b"\0some") + _step(SHUT) + _step(FILL) + allowed + down,
    ]
    answered = _frame(DATA, 1, b"answer") + _frame(END, 1)
    asked = _step(CONNECT) + _step(SEND, b"\0question") + _frame(TAKEN, 1, (8 * 300).to_bytes(4, "big"))
    consumer = [
        asked + _step(FINISH) + answered,
        asked + _step(BLOCK) + answered + _step(BLOCK) + _step(FINISH),
        asked + _frame(CLOSE, 1, b"the supplier cannot reach what it forwards to: connection refused"),
        asked + _step(BREAK) + answered + _frame(CLOSE, 1) + _step(CONNECT),
        _step(CONNECT) * 70 + _step(SEND, b"\x45late") + _frame(CLOSE, 3) + _frame(CLOSE, 4),
    ]
    return [b"\1" + one for one in supplier] + [b"\0" + one for one in consumer]
