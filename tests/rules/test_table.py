"""Each rule and each mistake has a patch that takes it out, and a test that says what it holds."""

from __future__ import annotations

import ast
import re

import pytest

from .table import DOCUMENT, MARKS, ROOT, Taken, table, taken

RULES, MISTAKES = 14, 25


@pytest.mark.parametrize("kind", ["rule", "mistake"])
def test_the_tables_of_the_document_are_those_of_the_patches(kind: str) -> None:
    begin, end = MARKS[kind]
    shown = DOCUMENT.read_text().split(begin)[1].split(end)[0]
    assert shown == table(kind), "run `python -m tests.rules.table`"


def test_no_rule_and_no_mistake_is_without_a_patch() -> None:
    assert {int(one.what) for one in taken("rule")} == set(range(1, RULES + 1))
    assert len({one.what for one in taken("mistake")}) == MISTAKES


@pytest.mark.parametrize("one", [*taken("rule"), *taken("mistake")], ids=lambda one: one.patch.stem)
def test_a_test_names_the_rule_or_mistake_that_it_finds_missing(one: Taken) -> None:
    for name in one.found_by:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        wanted = re.sub(r"\[.*", "", function)
        (found,) = (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == wanted
        )
        said = " ".join((ast.get_docstring(found) or "").split())
        named = rf"Rule {one.what}\b" if one.what.isdigit() else rf"[Mm]istake: {re.escape(one.what)}"
        assert re.search(named, said), f"{wanted} does not say {one.what!r}"
