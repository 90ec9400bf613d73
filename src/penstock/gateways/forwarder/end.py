"""What both ends of a forwarder have in common: the meter's side, the carrier's side, and how bytes move."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.core.errors import BadFrame, DeviceError
from penstock.core.meter import Reading, Tolerance
from penstock.core.ports import Link
from penstock.core.units import Instant, Price, Quantity
from penstock.gateways.forwarder.count import Count
from penstock.gateways.forwarder.streams import (
    CLOSE,
    COUNT,
    DATA,
    END,
    HEAD,
    MAX_REASON,
    OPEN,
    OWED,
    TAKEN,
    WINDOW,
    Stream,
)

STREAMS = 64  # at once on a link: with their windows, the most that a peer can make us hold is 64 MiB a direction
LINGER = 2.0  # seconds for applications to take what was passed on, when we let go
LOSSES = 1_000  # ppm: what repeatedly broken links may add up to

Tell = Callable[..., None]


def tolerance(price: Price, credit_limit: int) -> Tolerance:
    """What the meters of an offer of data may be apart: what a link that breaks may have under way."""
    return Tolerance(price.affords(credit_limit), LOSSES)


class End:
    """What both ends have in common: a meter, and the streams of one link (`Meter`, `Carrier`)."""

    def __init__(self, count: Path, clock: Callable[[], Instant], tell: Tell) -> None:
        """Go on with the total in the file `count`, which is made where there is none.

        Raises:
            DeviceError: another process holds it, or it is no such file.
        """
        self._count = Count(count)
        self.total = self._count.total
        self._at = self._count.at
        self._clock = clock
        self._tell = tell
        self._fault: DeviceError | None = None
        self._watchers: list[Callable[[Reading], None]] = []
        self._link: Link | None = None
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the highest number on this link
        self._ready: deque[Stream] = deque()
        self._pumping = False

    # ---- the meter

    def read(self) -> Reading:
        """All bytes until now.

        Raises:
            DeviceError: the total cannot be kept.
        """
        self._at = max(self._at, self._clock())
        self._keep()
        if self._fault is not None:
            raise self._fault
        return Reading(Quantity(self.total), Instant(self._at))

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        """Call `on_reading` whenever a supplier has news."""
        self._watchers.append(on_reading)

    def _keep(self) -> None:
        if self._fault is None and self.total != self._count.total:
            try:
                self._count.write(self.total, self._at)
            except DeviceError as error:
                self._fault = error

    # ---- the carrier

    def join(self, link: Link) -> None:
        """Forward over this link from now on."""
        self.part()
        self._streams.clear()
        self._last = 0
        self._link = link
        link.carry(self._pump)

    def part(self) -> None:
        """Cut all connections. Streams are kept until the next link: what is under way of them is metered."""
        if self._link is None:
            return
        self._link = None
        self._ready.clear()
        for stream in self._streams.values():
            stream.ready = False
            stream.cut()

    def on_frame(self, frame: bytes) -> None:
        """A frame of the other end.

        Raises:
            BadFrame: it breaks the rules of `streams`.
        """
        size = len(frame) - HEAD.size
        if size < 0:
            raise BadFrame(f"a data frame of {len(frame)} bytes")
        kind, number = HEAD.unpack_from(frame)
        stream = self._streams.get(number)
        if kind == DATA:
            self._data(self._sending(stream, number), frame, size)
        elif kind == TAKEN and size == 4:
            self._taken(self._known(stream, number), COUNT.unpack(frame)[2])
        elif self._link is None:
            return
        elif kind == OPEN and not size:
            self._opened(number)
        elif kind == END and not size:
            self._end(self._sending(stream, number))
        elif kind == CLOSE and size <= MAX_REASON:
            self._close(stream, number, frame[HEAD.size :])
        else:
            raise BadFrame(f"a data frame of kind {kind} and {size} bytes breaks the rules")

    def _known(self, stream: Stream | None, number: int) -> Stream:
        if stream is None:
            raise BadFrame(f"there is no stream {number}")
        return stream

    def _sending(self, stream: Stream | None, number: int) -> Stream:
        if stream is None or stream.heard:
            raise BadFrame(f"stream {number} is over, or was never opened")
        return stream

    def _data(self, stream: Stream, frame: bytes, size: int) -> None:
        if not 0 < size <= stream.granted:
            raise BadFrame(f"{size} bytes of stream {stream.number}, whose window is {stream.granted}")
        stream.granted -= size
        if self._link is not None:
            self._link.wanted(size)
        self._arrived(stream, memoryview(frame)[HEAD.size :])

    def _taken(self, stream: Stream, size: int) -> None:
        if not 0 < size <= WINDOW - stream.window:
            raise BadFrame(
                f"{size} bytes of stream {stream.number} taken, where {WINDOW - stream.window} are under way"
            )
        stream.window += size
        self._passed_there(size)
        self.came(stream)
        self._settle(stream)

    def _end(self, stream: Stream) -> None:
        stream.heard = END
        if not stream.going:
            stream.finish()
        self._tell_taken(stream)
        self._settle(stream)

    def _close(self, stream: Stream | None, number: int, reason: bytes) -> None:
        if stream is None:
            if number > self._last:
                raise BadFrame(f"stream {number} was never opened")
            self._send(CLOSE, number)  # it was over when the other end broke: that waits for an answer
            return
        if reason and stream.heard != CLOSE:
            why = "".join(char if char.isprintable() else "?" for char in reason.decode(errors="replace"))
            self._tell("connection closed", why=why)
        stream.heard = CLOSE
        if stream.said != CLOSE and not self._connecting(stream):
            self._say_close(stream)
        self._settle(stream)

    # ---- what the streams call (`streams.Owner`)

    def came(self, stream: Stream) -> None:
        """Bytes have come, or there is room again."""
        if self._link is not None and self._streams.get(stream.number) is stream:
            if not stream.blocked:
                self._tell_taken(stream)
            if not stream.ready and stream.can_move:
                stream.ready = True
                self._ready.append(stream)
                self._pump()

    def ended(self, stream: Stream) -> None:
        """Nothing more comes in."""
        if self._streams.get(stream.number) is stream and not stream.coming:
            self._say_last(stream)

    def gone(self, stream: Stream, why: str) -> None:
        """The connection is no more, in order or not."""
        if self._link is None or self._streams.get(stream.number) is not stream:
            return
        if stream.ended and stream.coming:
            return  # all of it had come: it goes first
        if stream.said != CLOSE:
            self._say_close(stream, why)
        self._settle(stream)

    # ---- moving bytes

    def _pump(self) -> None:
        """Move what can be moved, a frame of each stream in turn, until the link is full or the valve is reached."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                while self._ready and self._link is not None and not self._link.full and self._room() > 0:
                    stream = self._ready.popleft()
                    self._move(self._link, stream)
                    stream.ready = stream.can_move and self._link is not None
                    if stream.ready:
                        self._ready.append(stream)
                if not self._note():
                    return
        finally:
            self._pumping = False

    def _move(self, link: Link, stream: Stream) -> None:
        """Pass on a part of what the peer sent, and send it a part of what came in."""
        if stream.going and not stream.blocked and stream.transport is not None:
            self._pass_on(stream)
        most = min(stream.window, self._room())
        if stream.coming and most > 0:
            part = stream.part_of(most)
            link.send(b"".join((HEAD.pack(DATA, stream.number), part)))
            stream.window -= len(part)
            self._sent(len(part))
            if not stream.coming:
                stream.resume()
                if stream.ended:
                    self._say_last(stream)

    def _send(self, kind: int, number: int, payload: bytes = b"") -> None:
        if self._link is not None:
            self._link.send(HEAD.pack(kind, number) + payload)

    def _tell_taken(self, stream: Stream) -> None:
        if stream.owed >= (1 if stream.heard else OWED) and stream.said != CLOSE and self._link is not None:
            stream.granted += stream.owed
            self._link.send(COUNT.pack(TAKEN, stream.number, stream.owed))
            stream.owed = 0

    def _say_last(self, stream: Stream) -> None:
        """All that came in is sent."""
        if stream.transport is None and stream.said != CLOSE:  # broken since, and nothing can go out any more
            self._say_close(stream)
        elif not stream.said:
            stream.said = END
            self._send(END, stream.number)
        self._settle(stream)

    def _say_close(self, stream: Stream, why: str = "") -> None:
        stream.said = CLOSE
        stream.cut()
        self._send(CLOSE, stream.number, why.encode()[:MAX_REASON])

    def _settle(self, stream: Stream) -> None:
        """Forget the stream if it is over."""
        if stream.over and self._link is not None and self._streams.pop(stream.number, None) is not None:
            stream.shut()
            self._freed()

    # ---- where the ends differ

    def _room(self) -> int:
        """How many bytes may pass now."""
        raise NotImplementedError

    def _arrived(self, stream: Stream, data: memoryview) -> None:
        """The peer sent this."""
        raise NotImplementedError

    def _pass_on(self, stream: Stream) -> None:
        """Bytes that the peer sent before may go out now."""

    def _sent(self, size: int) -> None:
        """So many bytes were handed to the link."""

    def _passed_there(self, size: int) -> None:
        """The peer has passed on so many bytes of ours."""

    def _note(self) -> bool:
        """Bytes have moved; whether somebody heard of it, who may have let more pass."""
        return False

    def _opened(self, number: int) -> None:
        raise BadFrame("a supplier opens no streams")

    def _connecting(self, stream: Stream) -> bool:
        return False

    def _freed(self) -> None:
        """There is room for another stream."""


async def lingering(streams: Any) -> None:
    """Let what was written arrive, for a while."""
    left = [stream for stream in streams if stream.transport is not None]
    for _ in range(int(LINGER / 0.05)):
        left = [stream for stream in left if stream.transport is not None]
        if not left:
            return
        await asyncio.sleep(0.05)
    for stream in left:
        if stream.transport is not None:
            stream.transport.abort()
