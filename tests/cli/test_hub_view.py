"""The picture of a hub, as narrow as a terminal gets."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from penstock.cli.hub_view import panel
from penstock.core.ports import TokenFacts

EURO = TokenFacts("cEUR", 6)
ONE = {"from": "0x" + "ab" * 20, "deposit": 841_050, "earned": 768, "locked": 816_800, "locks": 1, "free": 23_482}


def stands(**change: Any) -> dict[str, Any]:
    """How a hub stands that carries one lock."""
    out = {"to": "0x" + "cd" * 20, "deposit": 10_000_000, "paid": 362, "locked": 808_000, "locks": 1, "free": 9_191_638}
    return {
        "hub": "0x" + "ef" * 20, "in": [ONE | {"state": "open"}], "out": [out | {"state": "open"}],
        "locks": 1, "carried": 1, "fees": 406, "at_risk": 0, "until": None, "leaning": False,
        "good_s": 1_796, "seen_s": 4, **change,
    }  # fmt: skip


def picture(stands: dict[str, Any], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(panel(stands, EURO))
    text = out.getvalue()
    assert all(len(line) == width for line in text.splitlines()), text
    assert "…" not in text, text
    return text


@pytest.mark.parametrize("width", [80, 110])
def test_it_shows_sums_locks_and_what_is_used(width: int) -> None:
    text = picture(stands(), width)
    for part in ("0xabababababab...", "0.84105", "0.8168", "0.000362", "1 now, 1 carried", "0.000406 cEUR", "━━━"):
        assert part in text, text


@pytest.mark.parametrize("state", ["closing", "not reached"])
def test_a_channel_that_is_not_as_it_should_be_is_named_in_the_narrowest_terminal(state: str) -> None:
    assert state in picture(stands(out=[stands()["out"][0] | {"state": state}]))


def test_an_old_view_of_the_ledger_is_told_with_how_long_it_is_good() -> None:
    assert "4 s ago" in picture(stands())
    assert "100 s ago, and does not answer: good for 1700 s more" in picture(
        stands(leaning=True, seen_s=100, good_s=1_700)
    )
    assert "no lock is taken" in picture(stands(leaning=True, seen_s=1_900, good_s=0))


def test_who_has_many_channels_sees_a_screenful() -> None:
    text = picture(stands(**{"in": [ONE | {"state": "open"}] * 40}))
    assert "and 28 more" in text
    assert "nobody yet" in picture(stands(**{"in": []}))
