"""Messages as bytes: one JSON array a frame, `[tag, field, ...]`.

JSON, because sums are uint96 and binary codecs end at 64 bits, because anybody can read it, and because it costs only
a fraction of a microsecond more a message. Bytes are base64 text. Unknown tags, missing, extra or mistyped fields are
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from penstock.core.errors import BadMessage, JournalError
from penstock.core.messages import Message

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)

encode = _encoder.encode
"""The bytes of a message, or of any of its parts."""

_Part = TypeVar("_Part")


def _why(error: Exception) -> str:
    """What msgspec says, in one line that can be printed: of a change between neighbours it quotes the unknown tag."""
    return "".join(one if one.isprintable() else "?" for one in str(error)[:120])


def decode(frame: bytes) -> Message:
    """The message in a frame. Numbers are not yet checked against each other; whoever takes the message does that.

    Raises:
        BadMessage: not a message of this version.
    """
    try:
        return _decoder.decode(frame)
    except (ValueError, RecursionError, OverflowError) as error:  # msgspec's errors are ValueErrors
        raise BadMessage(f"not a message of this version: {_why(error)}") from None


def decode_part(data: bytes, type_: type[_Part]) -> _Part:
    """A part in its own encoding (a rail's terms or evidence), strictly.

    Raises:
        BadMessage: not such a part.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (ValueError, RecursionError, OverflowError) as error:
        raise BadMessage(f"malformed {type_.__name__}: {_why(error)}") from None


def part_decoder(type_: type[_Part]) -> Callable[[bytes], _Part]:
    """`decode_part` for one type, made ready once: for parts that come hundreds of times a second."""
    decode_ready = msgspec.json.Decoder(type_).decode

    def decode_it(data: bytes) -> _Part:
        try:
            return decode_ready(data)
        except (ValueError, RecursionError, OverflowError) as error:
            raise BadMessage(f"malformed {type_.__name__}: {_why(error)}") from None

    return decode_it


def decode_row(data: bytes, type_: type[_Part], what: str) -> _Part:
    """A row of our own journal.

    Raises:
        JournalError: the journal holds what this version never wrote.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (ValueError, RecursionError, OverflowError) as error:
        raise JournalError(
            f"the journal's {what} cannot be read: {_why(error)}",
            "restore a backup, or use the version that wrote it",
        ) from None
