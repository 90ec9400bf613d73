"""Target: what a grid's server lists: its programs, then its events, a JSON array of both arrays, as pages of it come.

Whatever it is, what is read of it makes orders that a site can keep, at any time; reports are made of it in bounds.
"""

from __future__ import annotations

import json

import msgspec
from msgspec import Raw

from penstock.core.grid import MAX_EVENTS, MAX_POWER, Grid
from penstock.core.units import MAX_INSTANT, Instant
from penstock.gateways.openadr import Figures, Reading
from penstock.gateways.openadr.reader import Batch, Reader
from penstock.gateways.openadr.report import Reporter

NOW = 1_774_000_800_000  # 2026-03-20T10:00:00Z
_READING = Reading({"EUR": 1_000_000, "USD": 900_000}, b"seed")
_LOOKS = 8  # at the orders, one after the other


def signals(data: bytes) -> object:
    """One list; returns which kinds of orders followed from it, and how many faults it had."""
    try:
        programs, events = msgspec.json.decode(data, type=tuple[list[Raw], list[Raw]])
    except (ValueError, RecursionError):
        return "no list"
    reader, batch = Reader(_READING, (), ()), Batch(Instant(NOW))
    reader.learn(programs)
    for raw in events:
        reader.read(raw, batch)
        assert all("\n" not in fault.line() for _, fault in batch.faults), "an error is one line"
    batch.trim()
    reader.done(batch)
    grid = Grid()
    grid.replace([found.event for found in batch.found.values()], batch.now)
    assert len(grid) <= MAX_EVENTS
    return sorted(_followed(grid)), len(batch.faults), _reported(batch)


def _followed(grid: Grid) -> set[str]:
    kinds: set[str] = set()
    now = NOW
    for _ in range(_LOOKS):
        orders = grid.at(Instant(now))
        assert now < orders.until <= MAX_INSTANT
        for limit in (orders.supply_limit, orders.feed_limit):
            assert limit is None or 0 <= limit <= MAX_POWER
        if orders.setpoint is not None:
            assert orders.supply_limit is None or orders.setpoint <= orders.supply_limit
            assert orders.feed_limit is None or orders.setpoint >= -orders.feed_limit
        assert orders.emergency is None or (orders.supply_limit is not None and orders.emergency.isprintable())
        assert all(line.isprintable() for line in orders.why)
        kinds |= {line.split(" ")[0] for line in orders.why}
        if orders.until == MAX_INSTANT:
            break
        now = orders.until
    return kinds


def _reported(batch: Batch) -> str:
    reporter = Reporter("site")
    faults = reporter.want([found.wanted for found in batch.found.values() if found.wanted])
    made = 0
    now = NOW
    for turn in range(_LOOKS):
        for report in reporter.due(Instant(now), {"pole": Figures(turn, 0, turn)}, turn):
            json.loads(msgspec.json.encode(report))
            made += 1
        now = min(max(now + 1, reporter.next()), NOW + 86_400_000)
    return f"{min(made, 2)} reports, {len(faults)} not made"


def signals_seeds() -> list[bytes]:
    """Lists of a server: each kind of signal, periods of each form, reports of each form."""
    period = {"start": "2026-03-20T09:00:00Z", "duration": "PT2H"}
    units = [
        {"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": unit, "currency": "EUR"}
        for kind, unit in (("PRICE", "KWH"), ("IMPORT_CAPACITY_LIMIT", "KW"), ("CHARGE_STATE_SETPOINT", "PERCENT"))
    ]
    program = {"id": "p", "programName": "night", "payloadDescriptors": units}

    def event(name: str, *payloads: tuple[str, list[object]], **more: object) -> dict[str, object]:
        said = [{"type": kind, "values": values} for kind, values in payloads]
        whole = {"id": name, "programID": "p", "modificationDateTime": "2026-03-20T08:00:00Z", "intervalPeriod": period}
        return whole | {"intervals": [{"id": 0, "payloads": said}]} | more

    limit = ("IMPORT_CAPACITY_LIMIT", [11.5])
    asked = {"payloadType": "USAGE", "startInterval": 0, "frequency": 1, "repeat": -1}
    hours = [
        {"id": n, "intervalPeriod": {"duration": "PT1H"}, "payloads": [{"type": "PRICE", "values": [n - 1.25]}]}
        for n in range(4)
    ]
    lists = [
        [event("a", ("ALERT_GRID_EMERGENCY", ["failing"])), event("b", limit, priority=1)],
        [event("c", ("DISPATCH_SETPOINT", [-3.7])), event("d", ("EXPORT_CAPACITY_LIMIT", [4]), priority=0)],
        [event("e", ("CHARGE_STATE_SETPOINT", [0.8]), ("PRICE", [0.31, -0.02]), ("EXPORT_PRICE", [0.05]))],
        [event("f", intervals=hours, duration="P9999Y", targets=["street"])],
        [event("g", intervals=hours, reportDescriptors=[asked, {"payloadType": "READING", "frequency": 0}])],
        [event("h", limit, intervalPeriod={"start": "0001-01-01", "duration": "P9999Y", "randomizeStart": "PT5M"})],
        [event("i", intervals=[], reportDescriptors=[{"payloadType": "OPERATING_STATE", "aggregate": True}])],
    ]
    return [json.dumps([[program], listed]).encode() for listed in lists]
