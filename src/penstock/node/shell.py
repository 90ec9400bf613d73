"""Runs one session: events in from link, meter and clock, effects out to journal, link and valve, in their order.

Effects wait in one queue. The rows of a `Persist` go to the journal at once, but what stands behind it waits until the
journal says that they are durable, so that nothing is acknowledged and no package released before. A `ShutValve` does
not wait: the valve closes at once, and every `Allow` still in the queue is void.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Continue, Effect, Ended, Persist, Send, ShutValve
from penstock.core.errors import DeviceError, JournalError
from penstock.core.messages import AskWay, Message, Paid, Reason, Resume, Way
from penstock.core.meter import Reading
from penstock.core.ports import Carrier, Journal, Link, Meter, TwoWayValve, Valve
from penstock.core.session import Role, Session, State
from penstock.core.units import Instant, Quantity

_MESSAGE = ord("[")  # what every frame of a session begins with (`core/codec.py`)


class SessionShell:
    """One running session. `on_end(error)` is called once: with None when it ended, or with what our journal said."""

    __slots__ = (
        "_carrier",
        "_clock",
        "_draining",
        "_durables",
        "_journal",
        "_link",
        "_meter",
        "_on_end",
        "_queue",
        "_soon",
        "_valve",
        "_writing",
        "over",
        "session",
    )

    def __init__(
        self,
        session: Session,
        journal: Journal,
        meter: Meter,
        valve: Valve | TwoWayValve | None,
        clock: Callable[[], Instant],
        on_end: Callable[[JournalError | None], None],
        carrier: Carrier | None = None,
    ) -> None:
        self.session = session
        self.over = False
        self._journal = journal
        self._meter = meter
        self._valve = valve
        self._clock = clock
        self._on_end = on_end
        self._carrier = carrier
        self._link: Link | None = None
        self._queue: list[Effect] = []  # never long; an empty deque takes 0.7 kB
        self._writing = 0  # writes that the journal has not answered
        self._durables = 0  # answered, while their `Persist` is still in the queue
        self._draining = False
        self._soon = False  # `_secure` will be called in this turn of the loop

    def begin(self, link: Link) -> None:
        """The terms are accepted and durable: start the flow."""
        self.attach(link)
        self._event(lambda now: self.session.begin(now))

    def attach(self, link: Link) -> None:
        """Send over this link from now on."""
        self._link = link
        if self._carrier is not None and self.session.state is State.STREAMING:
            self._carrier.join(link)

    def abandon(self) -> None:
        """The peer will never take the session up again: end it with what there is."""
        self._event(lambda now: self.session.abandon(now))

    def relink(self, link: Link, asked: Resume) -> None:
        """A consumer is back over a new link, and asks to resume.

        Raises:
            RemoteError: it claims what was never paid to it.
        """
        self.attach(link)
        self._read()
        if not self.over:
            self.run(self.session.link_back(self._clock(), asked))

    def direct(self, way: Way | None) -> None:
        """Let the flow go this way; None, at a supplier, is the way that the consumer wants."""
        self._read()  # what may flow the other way is reckoned from here
        self._event(lambda now: self.session.direct(way, now))

    def unlink(self) -> None:
        """The link is gone."""
        self._link = None
        self._part()
        self._event(lambda now: self.session.link_lost(now))

    def bar(self, ways: frozenset[Way]) -> None:
        """Let nothing flow these ways, and everything that another call barred."""
        self._read()
        self._event(lambda now: self.session.bar(ways, now))

    def stop(self, reason: Reason) -> None:
        """End the session from our side."""
        self._event(lambda now: self.session.stop(reason, now))

    def on_time(self) -> None:
        """Once a second."""
        self._read()
        self._event(lambda now: self.session.on_time(now))

    def on_frame(self, frame: bytes) -> None:
        """A frame from the peer.

        Raises:
            RemoteError: the peer broke the protocol; cut the link. The session can be resumed until patience ends.
        """
        if not self.carries(frame):
            self.take(decode(frame))

    def take(self, message: Message) -> None:
        """A message from the peer, of any kind.

        Raises:
            RemoteError: as `on_frame`.
        """
        if type(message) is Paid and not self.over:
            self.on_paid(message)
        else:
            self.on_message(message)

    def carries(self, frame: bytes) -> bool:
        """Hand the frame to the device that flows over the link, if it is the device's.

        Raises:
            RemoteError: as `on_frame`.
        """
        if self._carrier is None or frame[0] == _MESSAGE:
            return False
        self._carrier.on_frame(frame)
        return True

    def on_paid(self, message: Paid) -> None:
        """A payment: the hot path. What comes in one turn of the loop is secured together, at its end.

        Raises:
            RemoteError: as `on_frame`.
        """
        self.session.on_paid(message)
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._secure)

    def on_message(self, message: Message) -> None:
        """A message from the peer. A consumer compares its own meter at once; a supplier's meter tells by itself, but
        where the flow is to turn: what may flow then is reckoned from here.

        Raises:
            RemoteError: as `on_frame`.
        """
        if self.over:
            return
        session = self.session
        if session.heard:
            self._event(session.secure)
        if session.role is Role.CONSUMER or type(message) is AskWay:
            self._read()
        if not self.over:
            self.run(session.on_message(message, self._clock()))

    def on_reading(self, reading: Reading) -> None:
        """A new reading of our own meter."""
        if self.over:
            return
        try:
            effects = self.session.on_reading(reading, self._clock())
        except DeviceError as error:
            self._failed_device(error)
        else:
            if effects:
                self.run(effects)

    def run(self, effects: list[Effect]) -> None:
        """Queue effects and run what need not wait. Nothing once the session is over."""
        if self.over:
            return
        if self._carrier is not None and self.session.state is not State.STREAMING:
            self._carrier.part()
        shut = False
        for effect in effects:
            if type(effect) is ShutValve:
                shut = True
                self._shut()
                continue
            if type(effect) is Persist:  # at once, in its order; what follows it waits for it
                self._writing += 1
                self._journal.write(effect.rows, self._durable)
            self._queue.append(effect)
        self._drain()
        if shut:
            self._report_shut()

    def _secure(self) -> None:
        if self._writing:
            return  # the disk is busy with what came before: `_durable` comes back to all that gathers meanwhile
        self._soon = False
        self._event(self.session.secure)

    def _event(self, event: Callable[[Instant], list[Effect]]) -> None:
        if not self.over:
            self.run(event(self._clock()))

    def _read(self) -> None:
        try:
            reading = self._meter.read()
        except DeviceError as error:
            self._failed_device(error)
        else:
            self.on_reading(reading)

    def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        try:
            while self._queue:
                kind = type(self._queue[0])
                if kind is Persist:
                    if not self._durables:
                        break
                    self._durables -= 1
                effect = self._queue.pop(0)
                if kind is Send:
                    if self._link is not None:
                        self._link.send(encode(effect.message))  # type: ignore[union-attr]  # kind is checked above
                elif kind is Allow:
                    self._open_valve(effect)  # type: ignore[arg-type]
                elif kind is Continue:
                    asyncio.get_running_loop().call_soon(self._event, self.session.go_on)
                elif kind is Ended:
                    self._end(None)
        finally:
            self._draining = False

    def _durable(self, error: JournalError | None) -> None:
        self._writing -= 1
        self._durables += 1
        if self.over:
            return
        if error is None:
            self._drain()
            if self._soon:  # in the next turn: a reading that this release brings goes out before the next commit
                asyncio.get_running_loop().call_soon(self._secure)
            return
        # Nothing that waited was acknowledged. The session can only be taken up from the journal.
        self._queue.clear()
        if self._valve is not None:
            self._close_valve()
        self._end(error)

    def _open_valve(self, allowed: Allow) -> None:
        assert self._valve is not None, "a consumer has no valve"
        try:
            if allowed.export is None:
                self._valve.allow(allowed.total)
            else:
                cast("TwoWayValve", self._valve).allow(allowed.total, allowed.export)
        except DeviceError as error:
            self._failed_device(error)

    def _close_valve(self) -> None:
        assert self._valve is not None, "a consumer has no valve"
        try:
            self._valve.close()
        except DeviceError as error:  # the session ends with what the meter says, and says why
            self.session.fault = self.session.fault or error.line()

    def _shut(self) -> None:
        self._close_valve()
        if any(type(effect) is Allow for effect in self._queue):
            self._queue = [effect for effect in self._queue if type(effect) is not Allow]

    def _report_shut(self) -> None:
        try:
            reading = self._meter.read()
            effects = self.session.valve_shut(reading, self._clock())
        except DeviceError as error:
            self._failed_device(error)
        else:
            self.run(effects)

    def _failed_device(self, error: DeviceError) -> None:
        """Meter or valve cannot be trusted any more: stop, and bill what the meter said last."""
        session = self.session
        session.fault = session.fault or error.line()
        if session.state is State.STREAMING:
            self.run(session.stop(Reason.DEVICE_FAILED, self._clock()))
        elif session.role is Role.SUPPLIER and session.state is State.STOPPING:
            base, meter = session.row.base, session.meter
            last = Reading(Quantity(base.total + meter.total), meter.at, b"", Quantity(base.export + meter.export))
            self.run(session.valve_shut(last, self._clock()))

    def _part(self) -> None:
        if self._carrier is not None:
            self._carrier.part()

    def _end(self, error: JournalError | None) -> None:
        if not self.over:
            self.over = True
            self._part()
            self._on_end(error)
