"""Targets: what reaches a link before and below messages. Frames, hellos, proofs."""

from __future__ import annotations

import zlib

from penstock.core.errors import BadFrame, BadSignature
from penstock.core.identity import Address, Key
from penstock.transports import frames
from penstock.transports.frames import Decoder, header, reason_of
from penstock.transports.hello import VERSIONS, Hello, Transcript, common_version, parse_hello

CLIENT, SERVER = Key(b"\x0c" * 32), Key(b"\x0d" * 32)


def frame(data: bytes) -> object:
    """A stream of frames, whole and in pieces: the same frames, then the same refusal, and the same bytes again."""
    found, broken = _frames(Decoder(), [data])
    assert _frames(Decoder(), _pieces(data)) == (found, broken)
    again = b"".join(
        header(len(payload)) + payload if kind == frames.DATA else frames.control(kind, payload)
        for kind, payload in found
    )
    assert data.startswith(again)
    for kind, payload in found:
        if kind == frames.BYE:
            assert reason_of(payload).isprintable()
    if broken:
        raise BadFrame(broken)
    return {kind for kind, _ in found}


def _frames(decoder: Decoder, pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    found: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            found.extend((kind, bytes(payload)) for kind, payload in decoder.frames(piece))
    except BadFrame as error:
        return found, str(error)
    return found, ""


def _pieces(data: bytes) -> list[bytes]:
    """The data cut at points that follow from it alone: short pieces, then longer ones."""
    at, state, pieces = 0, zlib.crc32(data), []
    while at < len(data):
        state = state * 1_103_515_245 + 12_345 & 0x7FFFFFFF
        step = 1 + (state >> 16) % (4 + at)
        pieces.append(data[at : at + step])
        at += step
    return pieces


def frame_seeds() -> list[bytes]:
    """Each kind of frame, several in a row, one that is cut off, one as large as may be."""
    one = header(3) + b"[1]"
    hello = frames.control(frames.HELLO, Hello((1,), bytes(32), CLIENT.address).encode())
    proof = frames.control(frames.PROOF, bytes(65))
    ping, pong = frames.control(frames.PING), frames.control(frames.PONG)
    return [one, one * 5, hello + proof + one, ping + pong, frames.bye("done"), one[:5], header(400) + bytes(400)]


def hello(data: bytes) -> None:
    """A hello; what it says makes the same bytes again, and a version is agreed on only if both speak it."""
    said = parse_hello(data)
    assert said.encode() == data
    assert common_version(VERSIONS, said.versions) in said.versions


def hello_seeds() -> list[bytes]:
    """Hellos of one version, of several, and of sixteen."""
    nonce, address = bytes(range(32)), CLIENT.address
    return [Hello(versions, nonce, address).encode() for versions in ((1,), (1, 2, 700), tuple(range(1, 17)))]


def proof(data: bytes) -> None:
    """A proof of 65 bytes, an address of 20, and both hellos and certificates; taken in one role only."""
    said, address, rest = data[:65], Address(data[65:85]), data[85:]
    size = len(rest) // 4
    transcript = Transcript(rest[:size], rest[size : 2 * size], rest[2 * size : 3 * size], rest[3 * size :])
    transcript.check(said, "client", address)
    try:
        transcript.check(said, "server", address)
    except BadSignature:
        return
    raise AssertionError("a proof of one role was taken for the other's")


def proof_seeds() -> list[bytes]:
    """Proofs over short and long transcripts, and one by another key."""
    seeds = []
    for size in (0, 32, 93):
        parts = [bytes((mark,)) * size for mark in range(4)]
        said = Transcript(*parts).prove(CLIENT, "client")
        seeds += [said + CLIENT.address + b"".join(parts), said + SERVER.address + b"".join(parts)]
    return seeds
