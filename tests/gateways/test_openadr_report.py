"""Reports back to the grid's operator: which, when, over which intervals, and of what."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.gateways.openadr import Figures
from penstock.gateways.openadr.forms import Asked
from penstock.gateways.openadr.report import Measured, Reporter, Stretch, Wanted
from penstock.gateways.openadr.times import text_of, written

from .grid import clock, operator, site, until, vtn

HOUR = 3_600_000
START = 1_774_000_800_000  # 2026-03-20T10:00:00Z


def wanted(count: int, seen: int = START - 1, every: bool = False, **more: Any) -> Wanted:
    """An event of so many hours that asks for one report."""
    hours = tuple(Stretch(10 + n, Instant(START + n * HOUR), Instant(START + (n + 1) * HOUR)) for n in range(count))
    again = Duration(count * HOUR if every else 0)
    return Wanted("event", (Asked("USAGE", **more),), hours, again, MAX_INSTANT, Instant(seen))


def measured(now: int) -> Measured:
    """A pole that supplies 1 kW from the start on, and one that feeds in 500 W."""
    hours_in_thousandths = max(0, now - START) * 1_000 // HOUR
    return {
        "pole-1": Figures(5_000 + hours_in_thousandths, 0, 1_000, "RUNNING_NORMAL", 1_000),
        "pole-2": Figures(0, hours_in_thousandths // 2, -500),
    }


def played(reporter: Reporter, end: int) -> list[tuple[int, list[int], dict[str, Any]]]:
    """When each report came (hours since the start), the intervals that it covers, and itself."""
    found: list[tuple[int, list[int], dict[str, Any]]] = []
    now = START - 1
    while now < end:
        for report in reporter.due(Instant(now), measured(now), None):
            whole = msgspec.json.decode(msgspec.json.encode(report))
            ids = [one["id"] for one in whole["resources"][0]["intervals"]]
            found.append(((now - START) // HOUR, ids, whole))
        now = max(now + 1, min(end, reporter.next()))
    return found


def values(report: dict[str, Any], resource: int = 0) -> list[Any]:
    return [one["payloads"][0]["values"] for one in report["resources"][resource]["intervals"]]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [(4, [10, 11, 12, 13])]),
        ({"start_interval": 1, "num_intervals": 2}, [(2, [10, 11])]),
        (
            {"start_interval": 1, "num_intervals": 2, "frequency": 2, "repeat": 3},
            [(2, [10, 11]), (4, [12, 13])],
        ),
        ({"start_interval": 0, "num_intervals": 1, "frequency": 1, "repeat": 2}, [(1, [10]), (2, [11])]),
        (
            {"start_interval": 2, "num_intervals": 3, "frequency": 1, "repeat": -1},
            [(3, [10, 11, 12]), (4, [11, 12, 13])],
        ),
    ],
)
def test_reports_come_after_the_intervals_that_were_named(asked: dict[str, Any], expected: list[Any]) -> None:
    reporter = Reporter("site")
    assert reporter.want([wanted(4, **asked)]) == {}
    assert [(at, ids) for at, ids, _ in played(reporter, START + 10 * HOUR)] == expected


def test_intervals_that_repeat_are_reported_on_each_time_where_that_is_asked() -> None:
    reporter = Reporter("site")
    reporter.want([wanted(2, every=True, repeat=-1)])
    assert [(at, ids) for at, ids, _ in played(reporter, START + 6 * HOUR + 1)] == [
        (2, [10, 11]),
        (4, [10, 11]),
        (6, [10, 11]),
    ]


def test_of_an_event_that_was_under_way_the_rest_is_reported() -> None:
    reporter = Reporter("site")
    reporter.want([wanted(4, seen=START + 2 * HOUR + 1)])
    assert [(at, ids) for at, ids, _ in played(reporter, START + 6 * HOUR)] == [(4, [12, 13])]
    reporter.want([wanted(2, every=True, seen=START + 101 * HOUR)])
    assert reporter.next() == START + 101 * HOUR


def test_usage_is_what_the_register_moved_and_demand_its_mean_with_what_was_fed_in_taken_off() -> None:
    reporter = Reporter("site")
    both = wanted(2)._replace(asked=(Asked("USAGE"), Asked("DEMAND", aggregate=True), Asked("READING")))
    reporter.want([both])
    usage, demand, reading = [report for _, _, report in played(reporter, START + 3 * HOUR)]
    assert [one["resourceName"] for one in usage["resources"]] == ["pole-1", "pole-2"]
    assert values(usage) == [[1.0], [1.0]]
    assert values(usage, 1) == [[0.0], [0.0]]
    assert [one["resourceName"] for one in demand["resources"]] == ["AGGREGATED_REPORT"]
    assert values(demand) == [[0.5], [0.5]]
    assert values(reading) == [[6.0], [7.0]]
    assert usage["payloadDescriptors"][0]["units"] == "KWH"
    period = usage["resources"][0]["intervals"][0]["intervalPeriod"]
    assert period == {"start": written(Instant(START)), "duration": text_of(Duration(HOUR))}


def test_what_has_no_end_is_answered_at_once_and_when_orders_change() -> None:
    reporter = Reporter("site")
    for_ever = (Stretch(0, Instant(START), MAX_INSTANT),)
    reporter.want([wanted(1)._replace(asked=(Asked("OPERATING_STATE"),), stretches=for_ever)])
    now = Instant(START)
    (first,) = reporter.due(now, measured(now), "limit")
    assert values(msgspec.json.decode(msgspec.json.encode(first))) == [["RUNNING_NORMAL"]]
    assert reporter.due(Instant(now + HOUR), measured(now), "limit") == []
    assert len(reporter.due(Instant(now + HOUR), measured(now), "no limit")) == 1
    assert reporter.due(Instant(now + HOUR + 1), measured(now), "limit") == [], "not so soon"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"historical": False}, "forecasts are not made"),
        ({"payload_type": "STORAGE_CHARGE_LEVEL"}, "is not measured here"),
    ],
)
def test_what_cannot_be_reported_is_said(asked: dict[str, Any], reason: str) -> None:
    reporter = Reporter("site")
    one = wanted(1)
    assert reason in reporter.want([one._replace(asked=(msgspec.structs.replace(one.asked[0], **asked),))])["event"]
    short = one._replace(stretches=(Stretch(0, Instant(START), Instant(START + 1)),))
    assert "too short" in reporter.want([short])["event"]
    assert reporter.idle


@pytest.mark.asyncio
async def test_the_operator_finds_the_reports_that_it_asked_for() -> None:
    def figures() -> Measured:
        return {"pole-1": Figures(12_345, 678, 3_700, "RUNNING_CURTAILED", 3_700)}

    async with vtn() as server, operator(server.url) as grid:
        start = written(Instant(clock()))
        asked = [{"payloadType": kind} for kind in ("READING", "OPERATING_STATE", "SETPOINT", "GHG")]
        period = {"start": start, "duration": "PT1.5S"}
        await grid.ask("IMPORT_CAPACITY_LIMIT", 3.7, intervalPeriod=period, reportDescriptors=asked)
        async with site(server.url, measured=figures) as (_, watched):
            await until(lambda: len(list(server.objects.all("REPORT"))) == 3)
            found = {one["payloadDescriptors"][0]["payloadType"]: one for one in server.objects.all("REPORT")}
            assert values(found["READING"]) == [[12.345]]
            assert values(found["OPERATING_STATE"]) == [["RUNNING_CURTAILED"]]
            assert values(found["SETPOINT"]) == [[3.7]]
            assert {one["clientID"] for one in found.values()} == {"site"}
            assert len(watched.of("report not made")) == 1


@pytest.mark.asyncio
async def test_an_event_may_ask_for_a_report_and_nothing_else() -> None:
    async with vtn() as server, operator(server.url) as grid:
        name = await grid.ask("X", intervals=[], reportDescriptors=[{"payloadType": "DEMAND", "aggregate": True}])
        async with site(server.url, measured=lambda: {"pole-1": Figures(0, 0, -2_500)}):
            await until(lambda: list(server.objects.all("REPORT")))
            (report,) = server.objects.all("REPORT")
            assert report["eventID"] == name
            assert values(report) == [[-2.5]]
