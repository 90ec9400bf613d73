"""What the project says that it needs is what its environment is set up with."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"


def names(lines: Iterable[str]) -> set[str]:
    """The packages that lines of requirements name; comments, options and hashes are none."""
    found = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match.group()).lower() for match in found if match}


@pytest.mark.parametrize("wanted", sorted(REQUIREMENTS.glob("*.in")), ids=lambda path: path.stem)
def test_a_lock_holds_all_that_is_wanted(wanted: Path) -> None:
    locked = names(wanted.with_suffix(".lock").read_text().splitlines())
    assert names(wanted.read_text().splitlines()) <= locked, "run `make lock`"


def test_what_the_package_needs_is_in_the_environment_that_runs_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert names(project["dependencies"]) <= names((REQUIREMENTS / "run.lock").read_text().splitlines())
