"""The page on the escrow contract names every function, and shows the gas that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.escrow_gas import table
from bench.gas import BEGIN, END

from penstock.ledgers.artifacts import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "escrow.md").read_text()


def test_the_page_names_every_function() -> None:
    for entry in load("Escrow")["abi"]:
        if entry["type"] == "function":
            assert re.search(rf"`{entry['name']}[(`]", PAGE), entry["name"]


def test_the_page_shows_what_was_measured() -> None:
    shown = PAGE.partition(BEGIN)[2].partition(END)[0]
    figures = json.loads((ROOT / "bench" / "escrow_gas.json").read_text())
    assert shown == f"\n{table(figures)}\n", "run `make gas`"


def test_the_page_lists_every_bug_that_the_machine_finds() -> None:
    patches = sorted((ROOT / "tests" / "escrow" / "bugs").glob("*.patch"))
    assert len(patches) >= 10
    for patch in patches:
        assert f"- {patch.read_text().splitlines()[0].removeprefix('bug: ')}\n" in PAGE
