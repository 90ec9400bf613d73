"""Signed price series: whoever passes them on cannot change them, nor use them for something else."""

from __future__ import annotations

import json

import pytest

from penstock.core import published, series
from penstock.core.errors import BadRates
from penstock.core.identity import Key
from penstock.core.units import Instant

from .test_series import rates

KEY, OTHER = Key(b"\x21" * 32), Key(b"\x22" * 32)
SIGNED = published.sign(KEY, rates("0.40", "-0.05"), "supply", Instant(1_772_000_000_000))


def test_a_signed_series_is_read_again_and_is_its_signers() -> None:
    found = published.parse(published.dump(SIGNED))
    assert found == SIGNED
    found.check(KEY.address, "supply")
    assert series.parse(published.dump(SIGNED)) == SIGNED.rates


def test_the_signature_is_over_the_prices_and_not_over_their_text() -> None:
    text = json.loads(published.dump(SIGNED))
    for row in text["rates"]:
        row["value"] = f"{row['value']}0"
        row["start"] = row["start"].replace("Z", "+00:00")
    text["rates"].reverse()
    published.parse(json.dumps(text).encode()).check(KEY.address, "supply")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "feed"),
        ("issued", "2026-03-01T00:00:00Z"),
        ("rates", [{"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T00:15:00Z", "value": 0.4}]),
    ],
)
def test_nothing_that_was_signed_can_be_changed(key: str, value: object) -> None:
    text = json.loads(published.dump(SIGNED)) | {key: value}
    with pytest.raises(BadRates):
        published.parse(json.dumps(text).encode()).check(KEY.address, str(text["title"]))


def test_another_signer_another_title_and_no_signature_are_refused() -> None:
    with pytest.raises(BadRates, match="signed by"):
        SIGNED.check(OTHER.address, "supply")
    with pytest.raises(BadRates, match="'feed' is needed"):
        SIGNED.check(KEY.address, "feed")
    with pytest.raises(BadRates, match="nobody signed"):
        published.parse(series.dump(SIGNED.rates)).check(KEY.address, "supply")


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0x12"},
        {"signature": 5},
        {"signature": "0x" + "zz" * 65},
        {"signature": "0x" + "00" * 65},
        {"title": ""},
        {"title": "a\nb"},
        {"title": 5},
        {"issued": None},
        {"issued": "yesterday"},
    ],
)
def test_what_is_malformed_is_refused(change: dict[str, object]) -> None:
    text = json.loads(published.dump(SIGNED)) | change
    with pytest.raises(BadRates):
        published.parse(json.dumps(text).encode()).check(KEY.address, "supply")


@pytest.mark.parametrize("title", ["", "x" * 81, "a\tb"])
def test_a_title_that_nobody_could_read_is_not_signed(title: str) -> None:
    with pytest.raises(BadRates, match="title"):
        published.sign(KEY, SIGNED.rates, title, Instant(0))
