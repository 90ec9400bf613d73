"""From what a server lists to the events that are for this site: decoded, chosen, and read one by one."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Raw

from penstock.core.errors import BadSignal
from penstock.core.grid import Event, fitting
from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.gateways.openadr import forms, signals
from penstock.gateways.openadr.forms import Dispatched, Program
from penstock.gateways.openadr.report import Stretch, Wanted
from penstock.gateways.openadr.signals import Reading
from penstock.gateways.openadr.windows import windows

MAX_FAULTS = 64  # remembered of one list
MAX_REPORTED = 32  # events that ask for reports and nothing else


class Found(NamedTuple):
    """An event, when its server changed it, what "now" means in it, what it was read from, and what it wants."""

    event: Event
    modified: Instant
    begun: Instant
    source: tuple[bytes, Program | None]
    wanted: Wanted | None


class Batch:
    """What one list held: the events that are for us, and those that cannot be read, with the reason."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.found: dict[str, Found] = {}
        self.faults: list[tuple[str, BadSignal]] = []
        self.faulty = 0
        self.left = 0

    def trim(self) -> None:
        """Keep no more than a grid would: a list may be long, and this is done after each page of it."""
        asking = [found.event for found in self.found.values() if found.event.over > self.now]
        kept = {event.id for event in fitting(asking)}
        self.left += len(asking) - len(kept)
        reported = [name for name, found in self.found.items() if found.wanted and name not in kept]
        kept.update(reported[:MAX_REPORTED])  # an event may ask for a report alone
        self.found = {name: found for name, found in self.found.items() if name in kept}


class Reader:
    """Reads batches, and remembers what an event that is to begin "now" means by that, for as long as it is listed.

    It is when we first saw that version of it: clocks may differ, and an emergency must not be over before we hear of
    it. In the first batch it is when the server changed it, if that is earlier: our restart begins nothing anew.
    """

    def __init__(self, reading: Reading, programs: tuple[str, ...], targets: tuple[str, ...]) -> None:
        """`programs` (names) and `targets` narrow what is taken; empty ones do not."""
        self._reading = reading
        self._chosen, self._targets = set(programs), set(targets)
        self._programs: dict[str, Program] = {}
        self._known: dict[str, Found] = {}
        self._first = True

    def learn(self, programs: list[Raw]) -> None:
        """Take the server's programs: their names, and the units that they state. One that cannot be read is none."""
        self._programs = {}
        for raw in programs:
            with suppress(BadSignal):
                program = forms.decode(raw, Program, "a program")
                self._programs[program.id] = program

    def read(self, raw: Raw, batch: Batch) -> None:
        """Read one event into a batch, or note why it cannot be read."""
        try:
            said = forms.decode(raw, Dispatched, "an event")
            if not self._ours(said):
                return
            found = self._found(raw, said, batch.now)
            known = batch.found.get(said.id)
            if known is None or known.modified <= found.modified:
                batch.found[said.id] = found
        except BadSignal as error:
            batch.faulty += 1
            if len(batch.faults) < MAX_FAULTS:
                shown = BadSignal(forms.clean(str(error), 240), forms.clean(error.advice))
                batch.faults.append((forms.identity(raw), shown))

    def _found(self, raw: Raw, said: Dispatched, now: Instant) -> Found:
        program = self._programs.get(said.program_id)
        source = blake2b(raw, digest_size=16).digest(), program
        before = self._known.get(said.id)
        if before and before.source == source:
            return before
        modified = signals.modification(said, Instant(0))
        begun = min(signals.modification(said, now), now) if self._first else now
        if before and before.modified == modified:
            begun = before.begun
        descriptors = program.payload_descriptors if program else None
        event = signals.event(said, descriptors, begun, self._reading)
        return Found(event, modified, begun, source, self._wanted(said, begun, now))

    def _wanted(self, said: Dispatched, begun: Instant, seen: Instant) -> Wanted | None:
        if not said.report_descriptors:
            return None
        found = windows(said, begun, self._reading.seed)
        stretches = (Stretch(one.interval.id, one.start, one.end) for one in found)
        in_time = tuple(sorted(stretches, key=lambda one: one.start))
        every, stop = (found[0].every, found[0].stop) if found else (Duration(0), MAX_INSTANT)
        return Wanted(said.id, tuple(said.report_descriptors), in_time, every, stop, seen)

    def done(self, batch: Batch) -> None:
        """The batch is whole: what it did not hold is forgotten."""
        self._known, self._first = batch.found, False

    def _ours(self, said: Dispatched) -> bool:
        if self._targets and said.targets and not self._targets & set(said.targets):
            return False
        program = self._programs.get(said.program_id)
        return not self._chosen or (program is not None and program.program_name in self._chosen)
