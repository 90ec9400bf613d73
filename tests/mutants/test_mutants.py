"""Every patch in this folder is a bug, and the tests that it names find it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .mutant import Header, apply, copy, environment, judge

PATCHES = sorted(Path(__file__).parent.glob("*.patch"))
PASSED = 0  # pytest's exit codes
TESTS_FAILED = 1


@pytest.mark.parametrize("patch", PATCHES, ids=[patch.stem for patch in PATCHES])
def test_a_mutant_is_found(patch: Path, tmp_path: Path) -> None:
    header = Header.of(patch)
    tree = copy(tmp_path)
    apply(patch, tree)
    verdict = judge(tree, header.found_by)
    assert not verdict.broken, f"tests that neither pass nor fail\n{verdict.output}"
    assert not verdict.passed, f"not found by {verdict.passed}: {header.bug}\n{verdict.output[-2000:]}"
    assert verdict.exit_code == TESTS_FAILED, verdict.output
    assert verdict.failed


def test_without_a_bug_every_named_test_passes(tmp_path: Path) -> None:
    tree = copy(tmp_path)
    source = "import penstock; print(penstock.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", source], cwd=tree, env=environment(tree), capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(tree)
    verdict = judge(tree, sorted({name for patch in PATCHES for name in Header.of(patch).found_by}))
    assert verdict.exit_code == PASSED, verdict.output
    assert verdict.passed
    assert not verdict.failed + verdict.broken
