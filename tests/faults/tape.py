"""A tape of all frames that a process sent and heard, written where the node meets its link (`core.ports.Link`).

Each record is written to the file before the node gets the frame, or before the frame leaves: what a killed process had
been told is on its tape. A write to a file outlives the process that made it; a power cut is for the simulation.

    uint64 time (ns, of the machine's monotonic clock) | uint8 heard | uint32 length | frame
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

from penstock.core.channel import Voucher
from penstock.core.codec import decode, decode_part
from penstock.core.messages import Accepted, Closing, Message, Metered, Paid, Propose, Receipted, Resume, Square
from penstock.rails.stream import VoucherNote, decode_terms

_HEAD = Struct("<QBI")
_TICK = Struct(">BQI32s")  # a rail's evidence of ticks, see penstock.rails.stream


def record(path: str) -> None:
    """Put every link of this process on tape from now on."""
    from penstock.transports.link import TlsLink

    tape = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(heard: bool, frame: bytes) -> None:
        os.write(tape, _HEAD.pack(time.monotonic_ns(), heard, len(frame)) + frame)

    attach, send = TlsLink.attach, TlsLink.send

    def taped_attach(self: TlsLink, on_frame: Callable[[bytes], None], on_lost: Callable[[Any], None]) -> None:
        def heard(frame: bytes) -> None:
            note(True, frame)
            on_frame(frame)

        attach(self, heard, on_lost)

    def taped_send(self: TlsLink, frame: bytes) -> None:
        note(False, frame)
        send(self, frame)

    TlsLink.attach, TlsLink.send = taped_attach, taped_send  # type: ignore[method-assign]  # the recorder goes between


class Heard(NamedTuple):
    """A message on tape: when (s, monotonic), whether it came or went, and what it said."""

    at: float
    heard: bool
    message: Message


def messages(path: Path) -> Iterator[Heard]:
    """What is on a tape, in order; a last record that was cut short is left out."""
    content = path.read_bytes() if path.exists() else b""
    at = 0
    while len(content) - at >= _HEAD.size:
        moment, heard, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size + length
        if at <= len(content):
            yield Heard(moment / 1e9, bool(heard), decode(content[at - length : at]))


class Told:
    """What one consumer was told, and what it gave, session by session (keys are the hashes of the terms).

    `secured` is the most that the supplier said it holds durably, `given` the most that the consumer's payments were
    worth (token units since the session began); `accepted`, `receipted` and `closing` (channel ids) hold what the
    supplier confirmed.
    """

    def __init__(self, path: Path) -> None:
        self.secured: dict[bytes, int] = {}
        self.given: dict[bytes, int] = {}
        self.accepted: set[bytes] = set()
        self.receipted: set[bytes] = set()
        self.closing: set[bytes] = set()
        self._vouchers: dict[tuple[bytes, int], Voucher] = {}
        self._terms: dict[bytes, tuple[bytes, int, int]] = {}  # channel, amount at the beginning, tick value
        self._session = b""
        for _, heard, message in messages(path):
            (self._came if heard else self._went)(message)

    def _came(self, message: Message) -> None:
        session = self._session
        match message:
            case Accepted():
                self.accepted.add(session)
            case Metered():
                self.secured[session] = max(self.secured.get(session, 0), message.secured)
            case Receipted():
                self.receipted.add(session)
            case Closing():
                self.closing.add(message.channel)

    def _went(self, message: Message) -> None:
        match message:
            case Propose():
                self._session = message.terms.digest()
                stream = decode_terms(message.terms.rail_terms)
                self._terms[self._session] = (stream.params.id, stream.amount, stream.tick_value)
                self._gave(message.evidence)
            case Resume():
                self._session = message.terms
            case Paid():
                for evidence in message.evidence:
                    self._gave(evidence)
            case Square():
                self._gave(message.evidence)

    def _gave(self, evidence: bytes) -> None:
        channel, start, tick = self._terms[self._session]
        if evidence[0] == 1:
            _, nonce, count, _ = _TICK.unpack(evidence)
            worth = self._vouchers[channel, nonce].amount + count * tick
        else:
            voucher = decode_part(evidence[1:], VoucherNote).voucher
            self._vouchers[channel, voucher.nonce] = voucher
            worth = voucher.amount
        self.given[self._session] = max(self.given.get(self._session, 0), worth - start)
