"""One link over TLS 1.3: the handshake, the proofs, then frames (`core.ports.Link`).

TLS runs here over memory buffers rather than in the event loop's own TLS layer, so that one deadline covers the whole
handshake, what is sent in one turn of the loop leaves in one write, and a last word still reaches a peer that we cut
off.

    state    what may come                             next
    SHAKING  TLS handshake                             MET
    MET      HELLO                                     TOLD
    TOLD     PROOF                                     OPEN
    OPEN     DATA, PING, PONG                          OPEN
    ENDED    anything, unread, for `LINGER` seconds    -

A BYE, an error or silence leads from every state to ENDED.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Protocol, cast

from penstock.core.errors import BadFrame, BadSignature, LinkLost, PeerRefused, PenstockError
from penstock.core.identity import ZERO_ADDRESS, Address, Key, to_hex
from penstock.transports import frames
from penstock.transports.certificate import contexts
from penstock.transports.frames import Decoder, bye, control, header, reason_of
from penstock.transports.hello import VERSIONS, Hello, Role, Transcript, common_version, parse_hello

LINGER = 2.0  # seconds for the last word to arrive; closing at once would reset the connection and destroy it
FRAME_COST = 256  # bytes that a frame or a TLS record counts besides its own: about what its handling costs us
_SIP = 1024  # bytes that TLS is given at once: its buffer stays as large as the largest gulp for as long as the link
_RECORD = 16 * 1024  # the most that a TLS record holds (RFC 8446, 5.1)
_GULP = 64 * 1024  # bytes that TLS is given at once on a link that carries bulk
FULL = 256 * 1024  # bytes that wait on our side from which on bulk waits, too: 20 ms at 100 Mbit/s
_BLOCKED = 2 * FULL  # in the transport's buffer


@dataclass(frozen=True, slots=True)
class Limits:
    """What a link allows its peer. Times in seconds, sizes in bytes."""

    handshake_timeout: float = 10.0  # TLS, hello and proof together
    idle_timeout: float = 30.0  # a link that was silent for so long is dropped within a third of it more
    max_rate: int = 64 * 1024 * 1024  # per second, each frame counting FRAME_COST more: some 200,000 ticks
    max_unsent: int = 4 * 1024 * 1024  # queued for a peer that does not read
    max_backlog: int = 1024 * 1024  # held for an `attach` to come
    max_links: int = 10_000  # open on one server
    max_pending: int = 1_000  # in their handshakes on one server; above it, the oldest of them gives way


class State(Enum):
    SHAKING, MET, TOLD, OPEN, ENDED = range(5)


class Owner(Protocol):
    """Who made a link, and hears of its life."""

    def begun(self, link: TlsLink) -> None:
        """The TCP connection stands."""

    def opened(self, link: TlsLink) -> None:
        """The peer has proven its key. An error raised here ends the link, and tells the peer why.

        From now on, call `listen` once in every third of the idle timeout.
        """

    def failed(self, link: TlsLink, error: PenstockError) -> None:
        """The link ended before it was open."""

    def gone(self, link: TlsLink) -> None:
        """The TCP connection is no more."""


class TlsLink(asyncio.Protocol):
    """`core.ports.Link` over TCP. Made by `connect` and `serve`; `peer` and `version` are known once it is open."""

    __slots__ = (
        "_backlog",
        "_blocked",
        "_budget",
        "_decoder",
        "_deliver",
        "_expect",
        "_flushing",
        "_held",
        "_in",
        "_key",
        "_limits",
        "_loop",
        "_lost",
        "_on_frame",
        "_on_lost",
        "_on_room",
        "_out",
        "_own_hello",
        "_owner",
        "_parts",
        "_peer_certificate",
        "_queued",
        "_quiet",
        "_refilled",
        "_role",
        "_state",
        "_timer",
        "_tls",
        "_transcript",
        "_transport",
        "peer",
        "version",
    )

    def __init__(self, key: Key, role: Role, limits: Limits, owner: Owner, expect: Address | None = None) -> None:
        self.peer: Address = ZERO_ADDRESS
        self.version = 0
        self._key, self._role, self._limits, self._owner, self._expect = key, role, limits, owner, expect
        self._loop = asyncio.get_running_loop()
        self._state = State.SHAKING
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = contexts().client if role == "client" else contexts().server
        self._tls = context.wrap_bio(self._in, self._out, server_side=role == "server")
        self._own_hello = Hello(VERSIONS, os.urandom(32), key.address).encode()
        self._peer_certificate = b""
        self._transcript: Transcript | None = None
        self._decoder = Decoder()
        self._budget = float(limits.max_rate)
        self._refilled = self._loop.time()
        self._quiet = 0  # thirds of the idle timeout since the peer was heard
        self._parts: list[bytes] = []  # to be sent at the end of this turn of the loop
        self._queued = 0  # bytes of them
        self._blocked = False  # the transport's buffer is above `_BLOCKED`
        self._flushing = False  # somebody will flush: the loop, or the caller further up
        self._backlog: list[bytes] = []
        self._held = 0
        self._on_frame: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[PenstockError], None] | None = None
        self._on_room: Callable[[], None] | None = None
        self._deliver: Callable[[bytes], None] | None = None  # `_on_frame`, once the backlog is delivered
        self._lost: PenstockError | None = None  # an end that `_on_lost` has not heard of

    # What the application calls

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        """Deliver frames to `on_frame` and the link's end to `on_lost`, from the next turn of the loop on.

        A PenstockError that `on_frame` raises ends the link: the peer gets its message as the reason, `on_lost` the
        error. A second call takes over from the first.
        """
        self._on_frame, self._on_lost, self._deliver = on_frame, on_lost, None
        self._loop.call_soon(self._catch_up)

    def send(self, frame: bytes) -> None:
        """Queue a frame of 1..64 KiB; it leaves in this turn of the loop. After the link's end it is dropped.

        Raises:
            OutOfRange: empty, or larger than 64 KiB.
        """
        head = header(len(frame))
        if self._state is State.OPEN:
            self._parts += (head, frame)
            self._queued += len(frame)
            if not self._flushing:
                self._flushing = True
                self._loop.call_soon(self._flush)

    def close(self, reason: str = "") -> None:
        """Send what is queued and the reason, then end the link. Neither callback is called any more."""
        self._on_frame = self._on_lost = self._deliver = self._lost = None
        self._backlog.clear()
        if self._state is not State.ENDED:
            self._finish(bye(reason))

    def carry(self, on_room: Callable[[], None]) -> None:
        """From now on the link carries bulk: call `on_room` whenever it is no longer `full`.

        Little is left to the kernel unsent, so that what is sent after bulk is not long under way, and TLS takes
        larger gulps, for which it keeps larger buffers.
        """
        self._on_room = on_room
        connection = self._transport.get_extra_info("socket") if self._transport is not None else None
        if connection is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with suppress(OSError):  # the connection is gone, which the loop has yet to notice
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, FULL)

    @property
    def full(self) -> bool:
        """Whether so much waits to leave that bulk should wait, too."""
        return self._blocked or self._queued >= FULL

    def wanted(self, size: int) -> None:
        """So many of the bytes that have come were asked for: they are no flood."""
        self._budget += size

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._state is State.ENDED:  # closed while the connection was being made
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=min(_BLOCKED, self._limits.max_unsent))
        self._timer = self._loop.call_later(self._limits.handshake_timeout, self._late)
        self._owner.begun(self)
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self._state is State.ENDED:
            return
        self._quiet = 0
        self._flushing = True  # what is sent in answer leaves below, in one write
        try:
            self._feed(data)
        except PenstockError as error:
            self._end(error)
        except ssl.SSLError as error:
            self._end(BadFrame(f"bytes that TLS refuses ({_tls_reason(error)})", "check host, port and version"))
        except Exception as fault:
            self._fault(fault)
        if self._parts or self._out.pending:
            self._flush()
        else:
            self._flushing = False

    def eof_received(self) -> None:
        self._end(LinkLost("the peer ended the connection without a word"), tell=False)

    def pause_writing(self) -> None:
        self._blocked = True
        self._check_unsent()

    def resume_writing(self) -> None:
        self._blocked = False
        if self._on_room is not None:
            self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(LinkLost(f"the connection broke ({exc or 'reset'})"), tell=False)
        self._set_timer(None)
        self._owner.gone(self)

    @property
    def ended(self) -> bool:
        """Whether nothing but our last word is on its way."""
        return self._state is State.ENDED

    def abort(self) -> None:
        """Drop the TCP connection at once, without a word; `on_lost` is not called."""
        self._state = State.ENDED
        if self._transport is not None:
            self._transport.abort()

    # Reading

    def _feed(self, data: bytes) -> None:
        """Give TLS what has come, in sips, and read what that completes."""
        sip = _SIP if len(data) < _RECORD else 4 * _SIP if self._on_room is None else _GULP
        for at in range(0, len(data) or 1, sip):
            if self._state is State.ENDED:
                return
            self._in.write(data[at : at + sip])
            if self._state is not State.SHAKING or self._shake():
                self._read()

    def _shake(self) -> bool:
        """Drive the TLS handshake; whether it is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._peer_certificate = sha256(self._tls.getpeercert(True) or b"").digest()
        self._state = State.MET
        self._parts.append(control(frames.HELLO, self._own_hello))
        return True

    def _read(self) -> None:
        while True:
            try:
                record = self._tls.read(_RECORD)
            except ssl.SSLWantReadError:
                return
            if not record:
                raise LinkLost("the peer ended the connection without a word")
            came = 0
            for kind, payload in self._decoder.frames(record):
                came += 1
                if kind == frames.DATA and self._deliver is not None:
                    self._deliver(payload)
                else:
                    self._take(kind, payload)
                if self._state is State.ENDED:
                    return
            self._spend(len(record) + FRAME_COST * (came + 1))
            if not self._in.pending:  # saves the exception above, nearly always
                return

    def _take(self, kind: int, payload: bytes) -> None:
        """What is not handed straight to the application."""
        match self._state, kind:
            case State.OPEN, frames.DATA:
                self._hold(payload)
            case State.OPEN, frames.PING:
                self._parts.append(control(frames.PONG))
            case State.OPEN, frames.PONG:
                pass  # that it came is all it says
            case State.MET, frames.HELLO:
                self._meet(payload)
            case State.TOLD, frames.PROOF:
                self._open(payload)
            case _, frames.BYE:
                reason = reason_of(payload)
                self._end(PeerRefused(reason) if reason else LinkLost("the peer closed the link"), tell=False)
            case _:
                raise BadFrame(f"a frame of kind {kind} while the link is {self._state.name}")

    def _meet(self, payload: bytes) -> None:
        """The peer's hello: agree on a version, and prove ourselves."""
        theirs = parse_hello(payload)
        self.version = common_version(VERSIONS, theirs.versions)
        if self._expect is not None and theirs.address != self._expect:
            raise BadSignature(
                f"the peer is {to_hex(theirs.address)}, not {to_hex(self._expect)} as expected",
                "the offer may be out of date",
            )
        self.peer = theirs.address
        own, other = contexts().certificate_hash, self._peer_certificate
        if self._role == "client":
            self._transcript = Transcript(self._own_hello, payload, own, other)
        else:
            self._transcript = Transcript(payload, self._own_hello, other, own)
        self._state = State.TOLD
        self._parts.append(control(frames.PROOF, self._transcript.prove(self._key, self._role)))

    def _open(self, proof: bytes) -> None:
        assert self._transcript is not None
        self._transcript.check(proof, "server" if self._role == "client" else "client", self.peer)
        self._transcript = None
        self._state = State.OPEN
        self._set_timer(None)
        self._own_hello = self._peer_certificate = b""
        self._owner.opened(self)

    def _hold(self, payload: bytes) -> None:
        self._held += len(payload) + FRAME_COST
        if self._held > self._limits.max_backlog:
            raise BadFrame(f"the peer sent more than {self._limits.max_backlog} bytes before they were wanted")
        self._backlog.append(payload)

    def _catch_up(self) -> None:
        """Deliver what came before `attach`, and the end if it came, too."""
        try:
            while self._backlog and self._on_frame is not None:
                backlog, self._backlog = self._backlog, []
                while backlog and self._on_frame is not None:
                    self._on_frame(backlog.pop(0))
        except PenstockError as error:
            self._backlog.clear()
            self._end(error)
        except Exception as fault:
            self._backlog.clear()
            self._fault(fault)
        self._held = 0
        self._deliver = self._on_frame
        self._tell_lost()

    def _spend(self, cost: int) -> None:
        """A token bucket that is filled up only when it runs dry."""
        self._budget -= cost
        if self._budget < 0:
            rate, now = self._limits.max_rate, self._loop.time()
            self._budget = min(rate, self._budget + (now - self._refilled) * rate)
            self._refilled = now
            if self._budget < 0:
                raise BadFrame(f"the peer sends more than {rate} bytes a second")

    # Writing

    def _flush(self) -> None:
        """Encrypt and write all that was queued."""
        self._flushing = False
        was_full, self._queued = self._queued >= FULL, 0
        if self._parts:
            data = memoryview(b"".join(self._parts))
            self._parts.clear()
            try:
                while data:  # a call takes one record
                    data = data[self._tls.write(data) :]
            except ssl.SSLError as error:
                self._end(LinkLost(f"TLS has ended ({_tls_reason(error)})"), tell=False)
        if self._out.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._out.read())
            if self._blocked:
                self._check_unsent()
        if was_full and not self._blocked and self._on_room is not None:
            self._loop.call_soon(self._has_room)

    def _has_room(self) -> None:
        if self._on_room is not None and not self.full:
            self._on_room()

    def _check_unsent(self) -> None:
        """Cut off a peer that does not read."""
        assert self._transport is not None
        if self._state is not State.ENDED and self._transport.get_write_buffer_size() > self._limits.max_unsent:
            self._end(LinkLost(f"the peer does not read: {self._limits.max_unsent} bytes wait for it"), tell=False)
            self.abort()

    # Time and the end

    def _late(self) -> None:
        self._end(LinkLost(f"the peer did not finish its handshake within {self._limits.handshake_timeout:g} s"))

    def listen(self) -> None:
        """A third of the idle timeout is over: for the owner to call, once the link is open. Counting turns, not time:
        after a pause of our own (a suspended machine) the peer still gets its chance to answer."""
        if self._state is not State.OPEN:
            return
        self._quiet += 1
        if self._quiet > 3:
            self._end(LinkLost(f"the peer was silent for {self._limits.idle_timeout:g} s"))
            return
        if self._quiet > 1:
            self._parts.append(control(frames.PING))
            self._flush()

    def _fault(self, fault: Exception) -> None:
        """A handler of ours is broken: that ends this link, and no other."""
        self._loop.call_exception_handler({"message": "a link's handler failed", "exception": fault})
        self._end(LinkLost("the link was closed over an internal error"))

    def _end(self, error: PenstockError, *, tell: bool = True) -> None:
        """An end that we did not choose. The peer is told why, unless the end came from it."""
        if self._state is State.ENDED:
            return
        was_open = self._state is State.OPEN
        self._finish(bye(str(error)) if tell else b"")
        if was_open:
            self._lost = error
            if self._deliver is not None:  # otherwise `_catch_up` tells it after the backlog
                self._tell_lost()
        else:
            self._owner.failed(self, error)

    def _tell_lost(self) -> None:
        on_lost, lost = self._on_lost, self._lost
        if on_lost is None or lost is None:
            return
        self._on_frame = self._on_lost = self._deliver = self._lost = None
        try:
            on_lost(lost)
        except Exception as fault:
            self._loop.call_exception_handler({"message": "a link's on_lost failed", "exception": fault})

    def _finish(self, last: bytes) -> None:
        """Write what is queued and the last frame. After one we wait for the peer to go first, so that it can read."""
        state, self._state = self._state, State.ENDED
        self._on_room = None
        self._set_timer(None)
        if last and state is not State.SHAKING:
            self._parts.append(last)
        self._flush()
        if self._transport is None or self._transport.is_closing():
            return
        with suppress(ssl.SSLError):  # it must wait for the peer's goodbye; we only want to say ours
            self._tls.unwrap()
        self._flush()
        self._set_timer(self._loop.call_later(LINGER, self._transport.abort))
        try:
            if last:
                self._transport.write_eof()
            else:
                self._transport.close()
        except OSError:  # the peer has reset the connection, which the loop has yet to notice
            self._transport.abort()

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


def _tls_reason(error: ssl.SSLError) -> str:
    return (error.reason or "no reason given").lower().replace("_", " ")
