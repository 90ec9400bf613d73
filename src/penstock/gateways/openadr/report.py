"""Reports: what the grid's operator wants to hear back, and when (User Guide 7.5 of OpenADR 3.1).

An event asks by `reportDescriptors`. The first report comes at the end of the interval `startInterval` (-1: the last),
and covers `numIntervals` up to it (-1: all); further ones follow each `frequency` intervals, `repeat` times (-1: for
ever). What has no end, or `frequency` 0, or neither intervals nor a duration, is answered at once, and again whenever
the orders have changed. Times that were over before we knew of the event are not made up for; forecasts
(`historical` false) are not made.

A machine without I/O: it is told the time and the figures, and hands out the reports that are due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Raw

from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.gateways.openadr.forms import Asked, clean
from penstock.gateways.openadr.times import text_of, written

SHORTEST = 1_000  # ms of an interval that is reported on: an event may be cut as finely as it likes
MAX_ROWS = 1_024  # intervals in a report
AGAIN = 5_000  # ms between two answers to one descriptor about orders that change
AGGREGATED = "AGGREGATED_REPORT"


class Figures(NamedTuple):
    """What a resource's meter says: Wh supplied and fed in since ever, W now (above 0: to the consumer), and its state.

    `state` is an operating state of the Definition. `setpoint` is the power that it was told to keep to (W), if any.
    """

    supplied: int
    fed: int
    power: int
    state: str = "NORMAL"
    setpoint: int | None = None


Measured = Mapping[str, Figures]
"""Figures by the name of the resource."""


class Stretch(NamedTuple):
    """An interval of an event: its id, and from when to when it is (ms)."""

    id: int
    start: Instant
    end: Instant


class Wanted(NamedTuple):
    """An event that asks for reports: its intervals, in order of time; with `every` they begin anew until `stop`."""

    event: str
    asked: tuple[Asked, ...]
    stretches: tuple[Stretch, ...]
    every: Duration
    stop: Instant
    seen: Instant

    def stretch(self, number: int) -> Stretch | None:
        """The interval of that number, counted on through all repetitions; None where there is none."""
        turn, place = divmod(number, max(1, len(self.stretches)))
        if not self.stretches or (turn and not self.every):
            return None
        found = self.stretches[place]
        end = min(found.end + turn * self.every, self.stop)
        start = found.start + turn * self.every
        return Stretch(found.id, Instant(start), Instant(end)) if start < end else None


class _Row(NamedTuple):
    stretch: Stretch
    before: Measured
    after: Measured


# What we can report: the unit, the reading type, and the value of a row, in thousandths (None: as it is).
_KWH, _KW = "KWH", "KW"
_UNITS = {"USAGE": _KWH, "READING": _KWH, "DEMAND": _KW, "SETPOINT": _KW, "OPERATING_STATE": None}


class Job:
    """One descriptor of one event, and how far it is answered."""

    def __init__(self, wanted: Wanted, asked: Asked) -> None:
        self.wanted, self.asked = wanted, asked
        whole = len(wanted.stretches)
        lasting = any(one.end >= MAX_INSTANT for one in wanted.stretches)
        self.at_once = not whole or lasting or asked.frequency == 0
        self._first = asked.start_interval if asked.start_interval >= 0 else whole - 1
        self._each = next((n for n in (asked.frequency, asked.num_intervals, whole) if n > 0), 1)
        self._rows: deque[_Row] = deque(
            maxlen=min(asked.num_intervals, MAX_ROWS) if asked.num_intervals > 0 else MAX_ROWS
        )
        self._number = self._current()
        self._before: Measured | None = None
        self._made = 0
        self._answered: tuple[object, Instant] | None = None

    @property
    def fault(self) -> str:
        """Why it cannot be answered; empty where it can."""
        if self.asked.payload_type not in _UNITS:
            return f"{clean(self.asked.payload_type)} is not measured here"
        if not self.asked.historical and not self.at_once:
            return "forecasts are not made here"
        if any(one.end - one.start < SHORTEST for one in self.wanted.stretches):
            return "its intervals are too short"
        return ""

    def next(self) -> Instant:
        """When something is to be measured."""
        stretch = self._stretch()
        if stretch is None:
            return MAX_INSTANT
        return stretch.start if self._before is None else stretch.end

    def due(self, now: Instant, measured: Measured, orders: object) -> Iterator[list[_Row]]:
        """The rows of each report that is due, given the figures of now and the orders that are followed."""
        if self.at_once:
            yield from self._now(now, measured, orders)
            return
        while (stretch := self._stretch()) is not None and now >= self.next():
            if self._before is None:
                self._before = measured
                continue
            self._rows.append(_Row(stretch, self._before, measured))
            self._before = None
            number, self._number = self._number, self._number + 1
            if number >= self._first and (number - self._first) % self._each == 0:
                self._made += 1
                yield list(self._rows)
                if self.asked.num_intervals < 0:
                    self._rows.clear()

    def _now(self, now: Instant, measured: Measured, orders: object) -> Iterator[list[_Row]]:
        if self._answered is not None:
            before, at = self._answered
            if before == orders or now - at < AGAIN:
                return
        self._answered = (orders, now)
        yield [_Row(Stretch(0, now, now), measured, measured)]

    def _stretch(self) -> Stretch | None:
        if self.at_once or (self.asked.repeat >= 0 and self._made >= max(1, self.asked.repeat)):
            return None
        return self.wanted.stretch(self._number)

    def _current(self) -> int:
        """The first interval that was not over when the event became known."""
        wanted = self.wanted
        if self.at_once:
            return 0
        number = 0
        if wanted.every and wanted.seen > wanted.stretches[0].start:
            number = (wanted.seen - wanted.stretches[0].start) // wanted.every * len(wanted.stretches)
            self._first += number if self.asked.start_interval < 0 else 0
        while (stretch := wanted.stretch(number)) is not None and stretch.end <= wanted.seen:
            number += 1
        return number


class Reporter:
    """All that was asked for. `name` is ours at the server."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: dict[tuple[str, int], Job] = {}

    def want(self, wanted: list[Wanted]) -> dict[str, str]:
        """Answer these events and no others; returns why some of it cannot be, by event.

        An event that is as it was goes on where it is; one that has changed begins anew.
        """
        jobs: dict[tuple[str, int], Job] = {}
        faults: dict[str, str] = {}
        for one in wanted:
            for place, asked in enumerate(one.asked):
                known = self._jobs.get((one.event, place))
                job = known if known and known.wanted == one else Job(one, asked)
                if job.fault:
                    faults[one.event] = job.fault
                else:
                    jobs[one.event, place] = job
        self._jobs = jobs
        return faults

    def next(self) -> Instant:
        """When something is to be measured next."""
        return min((job.next() for job in self._jobs.values()), default=MAX_INSTANT)

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for."""
        return not self._jobs

    def due(self, now: Instant, measured: Measured, orders: object) -> list[dict[str, Any]]:
        """The reports that are due, as they are sent."""
        found = ((job, rows) for job in self._jobs.values() for rows in job.due(now, measured, orders))
        return [_report(self._name, job, rows) for job, rows in found]


def _report(name: str, job: Job, rows: list[_Row]) -> dict[str, Any]:
    asked = job.asked
    kind = asked.payload_type
    unit = _UNITS[kind]
    descriptor = {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind} | ({"units": unit} if unit else {})
    if asked.reading_type:
        descriptor["readingType"] = asked.reading_type
    resources = [AGGREGATED] if asked.aggregate else sorted({name for row in rows for name in row.after})
    return {
        "eventID": job.wanted.event,
        "clientName": name,
        "reportName": f"{kind} {written(rows[-1].stretch.end)}",
        "payloadDescriptors": [descriptor],
        "resources": [
            {"resourceName": resource, "intervals": [_interval(kind, row, resource) for row in rows]}
            for resource in resources
        ],
    }


def _interval(kind: str, row: _Row, resource: str) -> dict[str, Any]:
    stretch = row.stretch
    before, after = _of(row.before, resource), _of(row.after, resource)
    period = {"start": written(stretch.start), "duration": text_of(Duration(stretch.end - stretch.start))}
    payload = {"type": kind, "values": _values(kind, before, after, stretch.end - stretch.start)}
    return {"id": stretch.id, "intervalPeriod": period, "payloads": [payload]}


def _of(measured: Measured, resource: str) -> Figures:
    if resource != AGGREGATED:
        return measured.get(resource, Figures(0, 0, 0, "ERROR"))
    all_ = list(measured.values())
    told = [one.setpoint for one in all_ if one.setpoint is not None]
    state = next((one.state for one in all_ if one.state != "NORMAL"), "NORMAL")
    return Figures(
        sum(one.supplied for one in all_),
        sum(one.fed for one in all_),
        sum(one.power for one in all_),
        state,
        sum(told) if told else None,
    )


def _values(kind: str, before: Figures, after: Figures, length: int) -> list[Raw | str]:
    if kind == "OPERATING_STATE":
        return [after.state]
    if kind == "SETPOINT":
        return [] if after.setpoint is None else [_thousandths(after.setpoint)]
    if kind == "READING":
        return [_thousandths(after.supplied)]
    supplied, fed = after.supplied - before.supplied, after.fed - before.fed
    if kind == "USAGE":
        return [_thousandths(max(0, supplied))]
    return [_thousandths((supplied - fed) * 3_600_000 // length if length else after.power)]


def _thousandths(value: int) -> Raw:
    """A number in thousandths (Wh as kWh, W as kW) as JSON, exactly."""
    whole, part = divmod(abs(value), 1_000)
    return Raw(f"{'-' if value < 0 else ''}{whole}.{part:03d}".encode())
