"""Records in their order: what is replayed, reordered, re-paged or somebody else's is refused, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gateways.records import KEBA, KEBA_KEY, key, payload, record, row, text

from penstock.core.errors import BadReading
from penstock.gateways.ocmf import OcmfKey, OcmfReadings


def taken(*records: str, every: bool = True) -> OcmfReadings:
    readings = OcmfReadings(key(), every=every)
    for one in records:
        readings.take(one)
    return readings


def refused(readings: OcmfReadings, said: str, why: str) -> None:
    before = readings.newest
    with pytest.raises(BadReading, match=why) as error:
        readings.take(said)
    assert "\n" not in error.value.line()
    assert readings.newest is before


SECOND = record("T11", "1.5", 60, "C")


@pytest.fixture
def readings() -> OcmfReadings:
    return taken(record("T10", 1, 0, "B"), SECOND)


def test_a_transaction_is_taken_from_begin_to_end(readings: OcmfReadings) -> None:
    assert readings.take(record("T12", "1.5", 60, "S")).page == 12
    assert readings.take(record("T13", 2, 120, "T")).last.total == 2_000
    assert readings.take(record("T14", 3, 180, "E")).last.reason == "E"
    assert readings.newest is not None
    assert readings.newest.page == 14


def test_readings_outside_transactions_are_taken() -> None:
    readings = taken(record("F1", 1), record("F2", 1), record("F3", 2, 5))
    assert readings.newest is not None
    assert readings.newest.last.total == 2_000


def test_an_unsigned_reading_is_refused(readings: OcmfReadings) -> None:
    said = record("T12", 2, 120, "C")
    refused(readings, said[: said.rindex("|")], "unsigned")
    refused(readings, text(payload("T12", row(2, 120, "C")), SD=""), "unsigned")


def test_a_forged_reading_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T12", 2, 120, "C").replace('"RV": 2', '"RV": 9'), "forged")


def test_a_replayed_reading_is_refused(readings: OcmfReadings) -> None:
    refused(readings, SECOND, "replayed: page T11")


def test_a_replayed_reading_in_another_dress_is_refused(readings: OcmfReadings) -> None:
    """The same payload under another form of its section, or another signature, is the same reading."""
    said = SECOND.split("|")[1]
    refused(readings, text(said, SM="application/x-der", VV="new"), "replayed: page T11")


def test_a_reordered_reading_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T10", 1, 0, "B"), "replayed or reordered: page T10 comes after T11")
    refused(readings, record("T9", 9, 300, "C"), "replayed or reordered: page T9 comes after T11")


def test_a_page_with_another_content_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T11", 2, 120, "C"), "re-paged: page T11 has been taken already, and said something else")


def test_a_page_of_another_context_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("F12", 2, 120), "re-paged: F12 is of another context than T11")


def test_a_page_that_jumps_is_refused_where_every_record_comes_by(readings: OcmfReadings) -> None:
    refused(readings, record("T13", 2, 120, "C"), "re-paged, or pages are missing: T13 comes after T11")
    refused(readings, record("T" + "9" * 18, 2, 120, "C"), "pages are missing")


def test_pages_may_be_left_out_where_only_some_are_shown() -> None:
    readings = taken(record("T10", 1, 0, "B"), SECOND, record("T40", 2, 120, "C"), every=False)
    refused(readings, record("T39", 3, 180, "C"), "reordered")
    refused(readings, record("T40", 3, 180, "C"), "re-paged")


def test_pages_count_as_numbers() -> None:
    taken(record("T9", 1), record("T10", 1))
    taken(record("T99", 1), record("T100", 1))


@pytest.mark.parametrize(
    "fields", [{"GS": "4712"}, {"GS": None}, {"MS": "1"}, {"GS": None, "MS": "4711"}, {"GS": "4711 "}]
)
def test_another_meters_reading_is_refused(readings: OcmfReadings, fields: dict[str, Any]) -> None:
    """Of several meters behind one gateway, all records may be signed by the same key."""
    refused(readings, text(payload("T12", row(2, 120, "C"), **fields)), "of another meter|names no meter")


def test_another_meters_key_is_refused() -> None:
    readings = OcmfReadings(OcmfKey.parse(KEBA_KEY))
    refused(readings, SECOND, "another meter")
    assert readings.take(KEBA).page == 32


def test_a_register_that_falls_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T12", "1.499999", 120, "C"), r"register fell: 1500 Wh .* then 1499.999 Wh")


def test_a_clock_that_falls_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T12", 2, 59, "C"), "clock fell")


def test_a_record_that_starts_before_the_newest_reading_is_refused(readings: OcmfReadings) -> None:
    refused(readings, text(payload("T12", row("1.4", 60, "C"), row(2, 120, "C"))), "register fell")
    refused(readings, text(payload("T12", row("1.5", 59, "C"), row(2, 120, "C"))), "clock fell")


def test_a_change_of_the_unit_is_refused(readings: OcmfReadings) -> None:
    refused(readings, text(payload("T12", row(2_000, 120, "C", RU="Wh"))), "unit changed from kWh to Wh")


def test_a_change_of_the_register_is_refused(readings: OcmfReadings) -> None:
    changed = text(payload("T12", row(2, 120, "C", RI="01-00:B0.08.00*FF")))
    refused(readings, changed, "register changed from 1-b:1.8.0 to 01-00:B0.08.00")


@pytest.mark.parametrize("fields", [{"EF": "E"}, {"EF": "t"}, {"ST": "M"}, {"TX": "X"}])
def test_an_error_that_is_flagged_is_refused(readings: OcmfReadings, fields: dict[str, Any]) -> None:
    refused(readings, text(payload("T12", {**row(2, 120, "C"), **fields})), "flags an error|not well")


@pytest.mark.parametrize("end", "ELRAP")
def test_after_its_end_a_transaction_has_no_more_readings(end: str) -> None:
    readings = taken(record("T1", 1, 0, "B"), record("T2", 2, 60, end))
    refused(readings, record("T3", 2, 60, "C"), "after its transaction's end")
    refused(readings, record("T3", 2, 60, "E"), "after its transaction's end")
    refused(readings, record("T3", "1.9", 60, "B"), "register fell")
    assert readings.take(record("T3", 2, 60, "B")).page == 3


def test_the_record_of_the_end_may_tell_the_begin_again() -> None:
    """As many charge points do, whose last record has both."""
    end = text(payload("T12", row(1, 0, "B"), row(2, 120, "E")))
    assert taken(record("T10", 1, 0, "B"), SECOND).take(end).last.total == 2_000
    assert taken(SECOND).take(end).last.total == 2_000


@pytest.mark.parametrize("begin", [row("0.5", 0, "B"), row(1, 1, "B"), row("1.2", 0, "B")])
def test_another_transactions_begin_is_refused_within_one(readings: OcmfReadings, begin: dict[str, Any]) -> None:
    refused(readings, text(payload("T12", begin, row(2, 120, "E"))), "another transaction's: it began with")


def test_a_second_begin_before_the_end_is_refused(readings: OcmfReadings) -> None:
    refused(readings, record("T12", 2, 120, "B"), "another transaction's")


def test_the_end_told_with_its_begin_must_not_fall(readings: OcmfReadings) -> None:
    refused(readings, text(payload("T12", row(1, 0, "B"), row("1.4", 120, "E"))), "register fell")
    refused(readings, text(payload("T12", row(1, 0, "B"), row(2, 30, "E"))), "clock fell")


def test_the_last_record_of_before_a_restart_keeps_older_ones_out(readings: OcmfReadings) -> None:
    assert readings.newest is not None
    again = taken(readings.newest.text.decode())
    refused(again, SECOND, "replayed")
    refused(again, record("T10", 1, 0, "B"), "reordered")
    assert again.take(record("T12", 2, 120, "C")).page == 12


def test_what_is_checked_is_not_taken_yet(readings: OcmfReadings) -> None:
    following = record("T12", 2, 120, "C")
    first = readings.check(following)
    assert readings.check(following) == first
    readings.accept(first)
    refused(readings, following, "replayed")


def test_a_hostile_name_does_not_reach_a_terminal(readings: OcmfReadings) -> None:
    refused(readings, text(json.dumps(payload("T12", row(2, 120, "C"), GS="\x1b[2J\n" + "x" * 500))), "another meter")
