"""The form of a link's frames: four bytes of header, then the payload.

    uint8 kind | uint24 length (big-endian) | payload

An application frame has kind 0, so its header is simply its length as a uint32. The other kinds belong to the link and
never reach the application. Nothing here does I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from penstock.core.errors import BadFrame, OutOfRange

# A TLS record holds 16 KiB, and our largest message (a voucher with its locks) is far below that. 64 KiB leaves room,
# and bounds what unfinished frames can make us hold: 640 MB on 10,000 links.
MAX_FRAME = 64 * 1024
MAX_REASON = 512  # bytes of text that a `BYE` carries

DATA, PING, PONG, BYE, HELLO, PROOF = range(6)
_HEADER = struct.Struct(">I")
_MOST = (MAX_FRAME, 0, 0, MAX_REASON, 256, 65)  # payload bytes, by kind
_LEAST = (1, 0, 0, 0, 1, 65)


def header(length: int) -> bytes:
    """The header of an application frame of `length` bytes.

    Raises:
        OutOfRange: no frame may have that length.
    """
    if not 0 < length <= MAX_FRAME:
        raise OutOfRange(f"a frame holds 1..{MAX_FRAME} bytes, not {length}", "split the message")
    return _HEADER.pack(length)


def control(kind: int, payload: bytes = b"") -> bytes:
    """A whole frame of the link's own."""
    return _HEADER.pack(kind << 24 | len(payload)) + payload


def bye(reason: str) -> bytes:
    """The link's last frame. `reason` is cut to `MAX_REASON` bytes of UTF-8."""
    return control(BYE, reason.encode(errors="replace")[:MAX_REASON])


def reason_of(payload: bytes) -> str:
    """The reason in a `BYE`: one line, and nothing in it that a terminal would obey."""
    text = payload.decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)


class Decoder:
    """Cuts a stream of bytes into frames. Holds one unfinished frame at most."""

    __slots__ = ("_missing", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._missing = 0  # how many bytes must come before `_rest` is worth looking at

    def frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The (kind, payload) of each frame that `data` completes. Read it to its end before the next call.

        Raises:
            BadFrame: a kind that is not known, or a length that its kind does not allow. The stream cannot be read on.
        """
        if self._rest:
            self._rest += data  # in place: a frame that drips in byte by byte is not copied for each
            if len(data) < self._missing:
                self._missing -= len(data)
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end = 0, len(data)
        while end - at >= 4:
            (word,) = _HEADER.unpack_from(data, at)
            kind, length = word >> 24, word & 0xFFFFFF
            if kind > PROOF or not _LEAST[kind] <= length <= _MOST[kind]:
                raise BadFrame(f"a frame of kind {kind} and {length} bytes breaks the link's rules")
            if end - at - 4 < length:
                break
            yield kind, data[at + 4 : at + 4 + length]
            at += 4 + length
        if at < end:
            self._rest += data[at:]
            self._missing = (4 if end - at < 4 else 4 + length) - (end - at)
