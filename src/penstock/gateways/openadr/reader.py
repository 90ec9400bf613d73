"""From what a server lists to the events that are for this site: decoded, chosen, and read one by one."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Raw

from penstock.core.errors import BadSignal
from penstock.core.grid import Event
from penstock.core.units import Instant
from penstock.gateways.openadr import forms, signals
from penstock.gateways.openadr.forms import Dispatched, Program
from penstock.gateways.openadr.signals import Reading


class Found(NamedTuple):
    """An event as the server has it and as the grid means it, and since when this version of it is known."""

    said: Dispatched
    event: Event
    seen: Instant


class Batch:
    """What one list held: the events that are for us, and those that cannot be read, with the reason."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.found: dict[str, Found] = {}
        self.faults: dict[str, BadSignal] = {}


class Reader:
    """Reads batches. It remembers since when a version of an event is known, for as long as it is listed."""

    def __init__(self, reading: Reading, programs: tuple[str, ...], targets: tuple[str, ...]) -> None:
        """`programs` (names) and `targets` narrow what is taken; empty ones do not."""
        self._reading = reading
        self._wanted, self._targets = set(programs), set(targets)
        self._programs: dict[str, Program] = {}
        self._seen: dict[str, tuple[Instant, Instant]] = {}

    def learn(self, programs: list[Raw]) -> None:
        """Take the server's programs: their names, and the units that they state. One that cannot be read is none."""
        self._programs = {}
        for raw in programs:
            try:
                program = forms.decode(raw, Program, "a program")
            except BadSignal:
                continue
            self._programs[program.id] = program

    def read(self, raw: Raw, batch: Batch) -> None:
        """Read one event into a batch, or note why it cannot be read."""
        name = "?"
        try:
            name = forms.identity(raw)
            said = forms.decode(raw, Dispatched, "an event")
            if not self._ours(said):
                return
            modified = signals.modification(said, Instant(0))
            before, since = self._seen.get(said.id, (None, batch.now))
            seen = since if before == modified else batch.now
            program = self._programs.get(said.program_id)
            descriptors = program.payload_descriptors if program else None
            event = signals.event(said, descriptors, seen, self._reading)
            known = batch.found.get(said.id)
            if known is None or known.event.modified <= event.modified:
                batch.found[said.id] = Found(said, event, seen)
        except BadSignal as error:
            batch.faults[name] = error

    def done(self, batch: Batch) -> None:
        """The batch is whole: what it did not hold is forgotten."""
        self._seen = {
            name: (signals.modification(found.said, Instant(0)), found.seen) for name, found in batch.found.items()
        }

    def _ours(self, said: Dispatched) -> bool:
        if self._targets and said.targets and not self._targets & set(said.targets):
            return False
        program = self._programs.get(said.program_id)
        return not self._wanted or (program is not None and program.program_name in self._wanted)
