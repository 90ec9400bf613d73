"""The objects of OpenADR 3.1 that a site reads, as far as it reads them; what else they hold is ignored.

Whoever sends one chooses its size, so lists and words are bounded, and values stay undecoded until their type is known.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from penstock.core.errors import BadSignal

MAX_INTERVALS = 1_024  # of an event: ten days of quarter hours, as many as a tariff has steps
MAX_PAYLOADS = 32  # of an interval
MAX_VALUES = 1_024  # of a payload
MAX_DESCRIPTORS = 32

Id = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}\Z")]
Word = Annotated[str, Meta(max_length=128)]
Words = Annotated[list[Word], Meta(max_length=256)]


class Period(Struct, frozen=True, rename="camel"):
    """`intervalPeriod`: start (RFC 3339), duration and random shift (ISO 8601)."""

    start: Word | None = None
    duration: Word | None = None
    randomize_start: Word | None = None


class Payload(Struct, frozen=True):
    """`valuesMap`: values of a type."""

    type: Word
    values: Annotated[list[Raw], Meta(max_length=MAX_VALUES)]


class Interval(Struct, frozen=True, rename="camel"):
    """A stretch of an event."""

    id: int
    payloads: Annotated[list[Payload], Meta(max_length=MAX_PAYLOADS)]
    interval_period: Period | None = None


class Descriptor(Struct, frozen=True, rename="camel"):
    """`eventPayloadDescriptor`: the units of the values of a type."""

    payload_type: Word
    units: Word | None = None
    currency: Word | None = None


Descriptors = Annotated[list[Descriptor], Meta(max_length=MAX_DESCRIPTORS)]


class Asked(Struct, frozen=True, rename="camel"):
    """`reportDescriptor`: a report that the operator wants."""

    payload_type: Word
    reading_type: Word | None = None
    units: Word | None = None
    aggregate: bool = False
    start_interval: int = -1
    num_intervals: int = -1
    historical: bool = True
    frequency: int = -1
    repeat: int = 1
    report_intervals: Word = "INTERVALS"


class Dispatched(Struct, frozen=True, rename="camel"):
    """`event`, as the server hands it out."""

    id: Id
    program_id: Id = field(name="programID")
    modification_date_time: Word | None = None
    created_date_time: Word | None = None
    event_name: Annotated[str, Meta(max_length=4096)] | None = None
    duration: Word | None = None
    priority: Annotated[int, Meta(ge=0)] | None = None
    targets: Words | None = None
    report_descriptors: Annotated[list[Asked], Meta(max_length=MAX_DESCRIPTORS)] | None = None
    payload_descriptors: Descriptors | None = None
    interval_period: Period | None = None
    intervals: Annotated[list[Interval], Meta(max_length=MAX_INTERVALS)] | None = None


class Program(Struct, frozen=True, rename="camel"):
    """`program`: its name, and the units that its events need not repeat."""

    id: Id
    program_name: Word
    payload_descriptors: Descriptors | None = None


class Named(Struct, frozen=True):
    """Any object of the server's, by its id."""

    id: Id


class Notice(Struct, frozen=True, rename="camel"):
    """`notification`: what the server posts to whom has subscribed."""

    object_type: Word
    operation: Word
    object: Raw


class TokenServer(Struct, frozen=True):
    """`authServerInfo`: where tokens are to be had."""

    token_url: Annotated[str, Meta(max_length=8000)] = field(name="tokenURL")


class Token(Struct, frozen=True):
    """`clientCredentialResponse`: a token, and for how many seconds it is good."""

    access_token: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[\x21-\x7e]+\Z")]
    expires_in: int | None = None


T = TypeVar("T")


def decode(body: bytes | Raw, form: type[T], name: str) -> T:
    """Bytes of JSON as one of the forms above; `name` is what they should be, for the error.

    Raises:
        BadSignal: they are not.
    """
    try:
        return msgspec.json.decode(body, type=form)
    except (ValueError, RecursionError) as error:
        raise BadSignal(f"what should be {name} is none ({' '.join(str(error).split())[:160]})") from None


def identity(raw: Raw) -> str:
    """The id of an object that could not be read, for a message; "?" where it has none."""
    try:
        return msgspec.json.decode(raw, type=Named).id
    except (ValueError, RecursionError):
        return "?"


def clean(text: str, longest: int = 128) -> str:
    """What a server says, fit to be shown: in one line, printable, of at most so many characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 2 * longest]).split())[:longest]


def written(value: Any) -> bytes:
    """JSON of what is sent."""
    return msgspec.json.encode(value)
