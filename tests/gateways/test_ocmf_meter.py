"""A meter that signs: its readings carry its records, and its seal takes nothing that it did not sign."""

from __future__ import annotations

import pytest
from tests.gateways.records import key, record, text

from penstock.core.errors import BadReading, BadTerms, DeviceError
from penstock.core.meter import Reading, Seal, SessionMeter
from penstock.core.ports import Meter
from penstock.core.units import Instant, Quantity
from penstock.gateways.ocmf import OcmfMeter, OcmfSeal, verify

START = verify(record("T1", 0), key()).last.at


def at(seconds: int) -> Instant:
    return Instant(START + 1_000 * seconds)


def wh(value: int) -> Quantity:
    return Quantity(value)


def test_a_meter_shows_its_newest_record_and_tells_its_watchers() -> None:
    fed, heard = OcmfMeter(key()), list[Reading]()
    meter: Meter = fed
    meter.watch(heard.append)
    with pytest.raises(DeviceError, match="nothing yet"):
        meter.read()
    first, second = record("T1", "0.2596", 0, "B"), record("T2", "0.2607", 60, "C")
    assert fed.feed(first) == Reading(wh(259), at(0), first.encode())
    fed.feed(second)
    assert meter.read() == Reading(wh(260), at(60), second.encode())
    assert [reading.total for reading in heard] == [259, 260]


def test_a_refused_record_is_told_to_nobody_and_the_one_before_stands() -> None:
    meter, heard = OcmfMeter(key()), list[Reading]()
    meter.feed(record("T1", 1, 0, "B"))
    meter.watch(heard.append)
    for bad in (record("T1", 1, 0, "B"), record("T2", "0.5", 9, "C"), text("{}"), "OCMF|{}"):
        with pytest.raises(BadReading):
            meter.feed(bad)
    assert not heard
    assert meter.read().total == 1_000


def test_a_sessions_totals_pass_the_seal_as_they_were_signed() -> None:
    """The register is rounded down at both ends in the same way, so that fractions of a Wh make no difference."""
    meter, seal = OcmfMeter(key()), OcmfSeal(key())
    session = SessionMeter(meter.feed(record("T7", "0.2596")))
    sealed: Seal = seal
    sealed.check(session.record, session.total, session.at)
    for page, kwh in enumerate(("0.2599", "0.26", "0.3005", "1.0001"), 8):
        session.take(meter.feed(record(f"T{page}", kwh, page)))
        sealed.check(session.record, session.total, session.at)
    assert session.total == 741


def test_records_may_be_left_out_before_the_seal_and_the_newest_repeated() -> None:
    seal, newest = OcmfSeal(key()), record("T9", 2, 60, "C").encode()
    seal.check(record("T1", 1, 0, "B").encode(), wh(0), at(0))
    for _ in range(3):
        seal.check(newest, wh(1_000), at(60))
    with pytest.raises(BadReading, match="not what the meter signed"):
        seal.check(newest, wh(1_001), at(60))


@pytest.mark.parametrize(
    ("said", "total", "seconds", "why"),
    [
        ("", 500, 60, "unsigned"),
        (record("T2", "1.5", 60, "C").replace("1.5", "1.6"), 600, 60, "forged"),
        (record("T2", "1.5", 60, "C"), 501, 60, "not what the meter signed: 500 Wh"),
        (record("T2", "1.5", 60, "C"), 499, 60, "not what the meter signed"),
        (record("T2", "1.5", 60, "C"), 500, 61, "not what the meter signed"),
        (record("T0", "1.5", 60, "C"), 500, 60, "reordered"),
        (record("T1", "1.5", 60, "C"), 500, 60, "re-paged"),
        (record("T2", "0.5", 60, "C"), -500, 60, "register fell"),
        (record("T2", "1.5", 60, "C", GS="4712"), 500, 60, "another meter"),
    ],
)
def test_what_the_meter_did_not_sign_does_not_pass_and_changes_nothing(
    said: str, total: int, seconds: int, why: str
) -> None:
    seal, begin = OcmfSeal(key()), record("T1", 1, 0, "B").encode()
    seal.check(begin, wh(0), at(0))
    with pytest.raises(BadReading, match=why):
        seal.check(said.encode(), wh(total), at(seconds))
    seal.check(begin, wh(0), at(0))
    seal.check(record("T2", "1.5", 60, "C").encode(), wh(500), at(60))


def test_a_seal_is_made_for_the_meter_that_an_offer_names() -> None:
    seal = OcmfSeal.named(str(key()))
    seal.check(record("T1", 1, 0, "B").encode(), wh(0), at(0))
    for other in ("", "edl:1", key().der.hex(), str(key()).upper(), "ocmf:" + key().der.hex().upper(), "ocmf:00"):
        with pytest.raises(BadTerms, match="the offer names"):
            OcmfSeal.named(other)


def test_the_first_record_is_the_begin_of_the_count() -> None:
    seal = OcmfSeal(key())
    with pytest.raises(BadReading, match="not what the meter signed"):
        seal.check(record("T1", 1, 0, "B").encode(), wh(1_000), at(0))
    seal.check(record("T1", 1, 0, "B").encode(), wh(0), at(0))
