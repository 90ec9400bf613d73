"""Targets: a link and its peer, below messages. With TLS as it is, and with TLS that leaves bytes as they are.

No exception may leave `data_received`, nothing may be asked of the loop's exception handler, and the owner hears of one
end at most. The loop here has no clock and no socket: its calls are made when the input is used up.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from penstock.core.errors import BadFrame, PeerRefused, PenstockError
from penstock.core.identity import Digest, Key
from penstock.transports import frames
from penstock.transports.frames import Decoder, control, header
from penstock.transports.hello import VERSIONS, Hello, Role, Transcript
from penstock.transports.link import Limits, State, TlsLink

US, PEER = Key(b"\x0c" * 32), Key(b"\x0d" * 32)
LIMITS = Limits(max_backlog=20_000, max_unsent=100_000)
CERTIFICATE = b"\x30\x03\x02\x01\x00"


class Loop:
    """What a link needs of an event loop."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_later(self, _: float, call: Callable[..., None]) -> Loop:
        return self

    def cancel(self) -> None:
        """As a timer."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context["message"]) from context.get("exception")

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()


class Wire:
    """The transport: keeps what was written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def write_eof(self) -> None:
        """The other direction stays open."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is ever queued."""

    def get_extra_info(self, _: str, default: object = None) -> object:
        return default


class Clear:
    """A TLS session that is there at once and leaves bytes as they are."""

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._in, self._out = incoming, outgoing

    def do_handshake(self) -> None:
        """There is none."""

    def getpeercert(self, _: bool) -> bytes:
        return CERTIFICATE

    def read(self, most: int) -> bytes:
        if not self._in.pending:
            raise ssl.SSLWantReadError
        return self._in.read(most)

    def write(self, data: bytes) -> int:
        return self._out.write(data)

    def unwrap(self) -> None:
        """Nobody is told."""


class Owner:
    """Hears of the link's life, and takes its frames as soon as it is open, if it is to."""

    def __init__(self, attach: bool) -> None:
        self.attach = attach
        self.failures: list[PenstockError] = []
        self.heard: list[bytes] = []
        self.lost: list[PenstockError] = []
        self.was_open = False

    def begun(self, link: TlsLink) -> None:
        """The TCP connection stands."""

    def opened(self, link: TlsLink) -> None:
        self.was_open = True
        if self.attach:
            link.attach(self._take, self.lost.append)

    def failed(self, link: TlsLink, error: PenstockError) -> None:
        self.failures.append(error)

    def gone(self, link: TlsLink) -> None:
        """The TCP connection is no more."""

    def _take(self, frame: bytes) -> None:
        self.heard.append(bytes(frame))
        if frame[:1] == b"\xff":
            raise BadFrame("an application that refuses")


class Scene:
    """A link, its owner, its wire, and how to hand bytes to it."""

    def __init__(self, role: Role, attach: bool) -> None:
        self.loop, self.wire, self.owner = Loop(), Wire(), Owner(attach)
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self.loop))
        try:
            self.link = TlsLink(US, role, LIMITS, self.owner)
        finally:
            asyncio._set_running_loop(None)

    def begin(self) -> None:
        self._call(lambda: self.link.connection_made(cast(asyncio.Transport, self.wire)))

    def feed(self, data: bytes) -> None:
        self._call(lambda: self.link.data_received(data))

    def end(self) -> str:
        """The peer goes. What came of it all."""
        self._call(self.link.eof_received)
        self._call(lambda: self.link.connection_lost(None))
        owner = self.owner
        assert self.link._state is State.ENDED
        assert len(owner.failures) + len(owner.lost) <= 1, "two ends of one link"
        assert not (owner.heard and not owner.was_open), "a frame before the proof"
        ends = owner.failures + owner.lost
        if not ends or isinstance(ends[0], PeerRefused):
            return f"{len(ends)}"  # the peer's own words
        return "".join(char for char in str(ends[0])[:60] if not char.isdigit())

    def _call(self, call: Callable[[], object]) -> None:
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, self.loop))
        try:
            call()
            self.loop.turn()
        finally:
            asyncio._set_running_loop(None)


def link(data: bytes) -> object:
    """A first byte says our role, how far the peer is honest, whether somebody listens, and the size of the pieces."""
    if not data:
        return ""
    kind, said = data[0], data[1:]
    role: Role = "client" if kind & 1 else "server"
    scene = Scene(role, bool(kind & 8))
    scene.link._tls = cast(ssl.SSLObject, Clear(scene.link._in, scene.link._out))
    scene.begin()
    if kind & 6:
        theirs = Hello(VERSIONS, bytes(32), PEER.address).encode()
        scene.feed(control(frames.HELLO, theirs))
        if kind & 4:
            scene.feed(control(frames.PROOF, _proof(scene.link, role, theirs)))
            assert scene.owner.was_open
    size = (kind >> 4) * 37 or len(said) or 1
    for at in range(0, len(said), size):
        scene.feed(said[at : at + size])
    assert not (scene.owner.was_open and not kind & 4), "opened without a proof"
    outcome = scene.end()
    list(Decoder().frames(bytes(scene.wire.written)))
    return role, scene.owner.was_open, outcome


def _proof(link_: TlsLink, role: Role, theirs: bytes) -> bytes:
    transcript = link_._transcript
    assert transcript is not None
    assert theirs in transcript
    return Transcript(*transcript).prove(PEER, "server" if role == "client" else "client")


def link_seeds() -> list[bytes]:
    """In each role and at each stage: what belongs there, and what does not."""
    hello = control(frames.HELLO, Hello(VERSIONS, bytes(32), PEER.address).encode())
    proof, ping = control(frames.PROOF, PEER.sign(Digest(bytes(32)))), control(frames.PING)
    data = header(3) + b"[1]"
    some = (hello + proof, data + ping + data, frames.bye("enough"), data * 20, header(1) + b"\xff" + data)
    return [bytes((kind,)) + said for kind in (0, 1, 2, 5, 12, 13, 28) for said in some]


def tls(data: bytes) -> object:
    """A first byte says our role; the rest comes before or within TLS's own handshake."""
    if not data:
        return ""
    scene = Scene("client" if data[0] & 1 else "server", True)
    scene.begin()
    size = (data[0] >> 1) * 13 or len(data)
    for at in range(1, len(data), size):
        scene.feed(data[at : at + size])
    assert not scene.owner.was_open
    return scene.end()


def tls_seeds() -> list[bytes]:
    """The first flights of a client and of a server, whole and in pieces, and what is no TLS at all."""
    client, server = Scene("client", True), Scene("server", True)
    client.begin()
    server.begin()
    server.feed(bytes(client.wire.written))
    flights = (bytes((0,)) + bytes(client.wire.written), bytes((1,)) + bytes(server.wire.written))
    pieces = (bytes((one[0] | 60,)) + one[1:] for one in flights)
    return [*flights, *pieces, b"\x00GET / HTTP/1.1\r\n\r\n", b"\x01" + bytes(9)]
