"""Whatever implements one of our interfaces is in the document's table, and goes through its kit as that says."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.core import ports, rail

ROOT = Path(__file__).parents[2]
TABLES = (ROOT / "docs" / "conformance.md").read_text()
ROWS = re.findall(r"^\| `(penstock\.testing\.\w+)` \| (.+?) \| .+? \| `(.+?)` \|$", TABLES, re.MULTILINE)
# What tells an implementation: these are its methods. Some names are common, so that each has at least two.
METHODS = {
    ports.Journal: ("load", "write", "close"),
    ports.Link: ("attach", "send", "close"),
    ports.Meter: ("read", "watch"),
    ports.Valve: ("allow", "close"),
    ports.Ledger: ("open", "claim", "settle", "filed"),
    ports.EscrowLedger: ("fund", "contest", "settle"),
    rail.PayerEnd: ("pay", "square", "resume"),
    rail.PayeeEnd: ("take", "state"),
}


def implementations() -> Iterator[type]:
    """Every class of ours that has the methods of an interface, and is none itself."""
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if module.name in ("penstock.__main__", "penstock.testing") or module.name.startswith("penstock.testing."):
            continue
        for found in vars(importlib.import_module(module.name)).values():
            if not inspect.isclass(found) or found.__module__ != module.name or getattr(found, "_is_protocol", False):
                continue
            if any(all(callable(getattr(found, name, None)) for name in names) for names in METHODS.values()):
                yield found


def test_every_implementation_is_in_the_table() -> None:
    told = {name for _, classes, _ in ROWS for name in re.findall(r"`(\w+)`", classes)}
    found = set(implementations())
    common = {base for one in found for base in one.__mro__[1:]}
    assert {one.__name__ for one in found - common} == told


@pytest.mark.parametrize(("kit", "classes", "test"), ROWS)
def test_a_row_says_what_is_run(kit: str, classes: str, test: str) -> None:
    assert importlib.import_module(kit)
    here = [ROOT / test]
    here += [here[0].with_name(f"{name}.py") for name in re.findall(r"^from \.(\w+) import", here[0].read_text(), re.M)]
    sources = [path.read_text() for path in here if path.exists()]
    assert f"from {kit} import" in sources[0]
    for name in re.findall(r"`(\w+)`", classes):
        assert any(re.search(rf"\b{name}\b", source) for source in sources), name
