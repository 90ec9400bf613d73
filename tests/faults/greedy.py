"""Peers that take what they can get: links that they leave idle, drip into, or never read from.

What is left of each is a plain socket. The TLS state of a link that will never speak again is dropped, so that five
thousand of them cost us little, and the node all that it lets them.
"""

from __future__ import annotations

import resource
import socket
import ssl
from contextlib import suppress

from penstock.core.identity import Key
from penstock.transports import frames
from penstock.transports.certificate import contexts
from penstock.transports.frames import control
from penstock.transports.hello import VERSIONS, Hello, Transcript

GREEDY = Key(b"\7" * 32)
PATIENCE = 20.0  # seconds for the other side's next byte


def allow_many() -> int:
    """Let this process have as many descriptors as the system lets it; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Peer:
    """One connection, as far as it has come."""

    def __init__(self, address: tuple[str, int], timeout: float = PATIENCE) -> None:
        self.socket = socket.create_connection(address, timeout)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = contexts().client.wrap_bio(self._in, self._out)
        self._heard = bytearray()

    def shake(self) -> Peer:
        """Complete the TLS handshake, and say nothing more."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            else:
                self._flush()
                return self

    def prove(self) -> Peer:
        """Hello and proof: the link is open."""
        self.shake()
        own = Hello(VERSIONS, b"n" * 32, GREEDY.address).encode()
        self.send(control(frames.HELLO, own))
        theirs = self._frame(frames.HELLO)
        other = ssl_hash(self._tls)
        proof = Transcript(own, theirs, contexts().certificate_hash, other).prove(GREEDY, "client")
        self.send(control(frames.PROOF, proof))
        self._frame(frames.PROOF)
        return self

    def idle(self) -> Peer:
        """Keep the connection, and nothing else."""
        del self._tls, self._in, self._out
        self._heard.clear()
        return self

    def answer(self) -> None:
        """Answer the pings that have come, so that the link is not dropped for its silence."""
        self.socket.setblocking(False)
        with suppress(OSError, ssl.SSLError):
            self._in.write(self.socket.recv(65536))
            pings = self._tls.read(65536).count(control(frames.PING))  # an idle link hears nothing else
            self.send(control(frames.PONG) * pings)

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self._tls.write(data)
        self._flush()

    def first_words(self) -> bytes:
        """What a TLS client says first, not sent yet."""
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    @property
    def ended(self) -> bool:
        """Whether the other side has closed; what it sent before is thrown away."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.socket.close()

    def _flush(self) -> None:
        if self._out.pending:
            self.socket.sendall(self._out.read())

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the other side closed")
        self._in.write(data)

    def _frame(self, wanted: int) -> bytes:
        while True:
            if len(self._heard) >= 4:
                length = int.from_bytes(self._heard[1:4], "big")
                if len(self._heard) >= 4 + length:
                    kind, payload = self._heard[0], bytes(self._heard[4 : 4 + length])
                    del self._heard[: 4 + length]
                    assert kind == wanted, f"a frame of kind {kind}, not {wanted}: {payload[:100]!r}"
                    return payload
            try:
                self._heard += self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._receive()


def ssl_hash(tls: ssl.SSLObject) -> bytes:
    """The SHA-256 of the other side's certificate."""
    from hashlib import sha256

    return sha256(tls.getpeercert(True) or b"").digest()
