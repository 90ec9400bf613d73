"""From what a server lists to the events that are for this site: decoded, chosen, and read one by one."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Raw

from penstock.core.errors import BadSignal
from penstock.core.grid import Event, fitting
from penstock.core.units import Instant
from penstock.gateways.openadr import forms, signals
from penstock.gateways.openadr.forms import Dispatched, Program
from penstock.gateways.openadr.signals import Reading

MAX_FAULTS = 64  # remembered of one list


class Found(NamedTuple):
    """An event, when its server changed it, since when that version of it is known here, and what it was read from."""

    event: Event
    modified: Instant
    seen: Instant
    source: tuple[bytes, Program | None]


class Batch:
    """What one list held: the events that are for us, and those that cannot be read, with the reason."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.found: dict[str, Found] = {}
        self.faults: dict[str, BadSignal] = {}
        self.left = 0

    def trim(self) -> None:
        """Keep no more than a grid would: a list may be long, and this is done after each page of it."""
        asking = [found.event for found in self.found.values() if found.event.over > self.now]
        kept = {event.id for event in fitting(asking)}
        self.left += len(asking) - len(kept)
        self.found = {name: found for name, found in self.found.items() if name in kept}
        while len(self.faults) > MAX_FAULTS:
            self.faults.popitem()


class Reader:
    """Reads batches. It remembers since when a version of an event is known, for as long as it is listed."""

    def __init__(self, reading: Reading, programs: tuple[str, ...], targets: tuple[str, ...]) -> None:
        """`programs` (names) and `targets` narrow what is taken; empty ones do not."""
        self._reading = reading
        self._wanted, self._targets = set(programs), set(targets)
        self._programs: dict[str, Program] = {}
        self._known: dict[str, Found] = {}

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
            batch.faults[forms.identity(raw)] = error

    def _found(self, raw: Raw, said: Dispatched, now: Instant) -> Found:
        program = self._programs.get(said.program_id)
        source = blake2b(raw, digest_size=16).digest(), program
        before = self._known.get(said.id)
        if before and before.source == source:
            return before
        modified = signals.modification(said, Instant(0))
        seen = before.seen if before and before.modified == modified else now
        descriptors = program.payload_descriptors if program else None
        return Found(signals.event(said, descriptors, seen, self._reading), modified, seen, source)

    def done(self, batch: Batch) -> None:
        """The batch is whole: what it did not hold is forgotten."""
        self._known = batch.found

    def _ours(self, said: Dispatched) -> bool:
        if self._targets and said.targets and not self._targets & set(said.targets):
            return False
        program = self._programs.get(said.program_id)
        return not self._wanted or (program is not None and program.program_name in self._wanted)
