"""A rail is one file, one backend and one setup: what serves every session names none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.node.rails import RAILS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "penstock"
TEXT = (ROOT / "docs" / "adding-a-rail.md").read_text()
FILES = {path.stem for path in (SOURCE / "rails").glob("*.py")} - {"__init__"}
HALVES = {path.stem for path in (SOURCE / "node").glob("*.py") if path.stem.endswith(("_till", "_purse", "_ending"))}
OF_A_RAIL = {f"penstock.rails.{name}" for name in FILES} | {f"penstock.node.{name}" for name in HALVES}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_rail_is_there() -> None:
    assert len(RAILS) == len(FILES)


def test_what_knows_a_rail_by_name_is_told() -> None:
    """In core nothing does; in node nothing but a rail's own halves, and what the document names."""
    told = set(re.findall(r"`node/(\w+)\.py`", TEXT[TEXT.index("## 3.") : TEXT.index("## 4.")]))
    for layer in ("core", "node"):
        for path in (SOURCE / layer).glob("*.py"):
            if path.stem not in HALVES and OF_A_RAIL & set(imports(path)):
                assert layer == "node"
                assert path.stem in told, f"{layer}/{path.name} knows a rail by name"


@pytest.mark.parametrize("named", re.findall(r"\(`((?:core|node)/\w+\.py)`(?:, `((?:core|node)/\w+\.py)`)?\)", TEXT))
def test_what_the_document_calls_untouched_names_no_rail(named: tuple[str, str]) -> None:
    untouched = TEXT[TEXT.index("Nothing else changes") : TEXT.index("## 1.")]
    for name in filter(None, named):
        if name in untouched:
            path = SOURCE / name
            assert not OF_A_RAIL & set(imports(path))
            strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not strings & set(RAILS), f"{name} names a rail"
