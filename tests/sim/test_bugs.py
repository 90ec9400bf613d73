"""Each patch in `bugs/` puts one bug into the node, and the simulation finds it, by the invariant that the patch names.

A patch's header says what is wrong (`bug`), what is violated (`violates`, as the violation's first words), and from
which seed on to look (`from seed`, where the first do not find it).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..mutants.mutant import ROOT, apply, environment
from .table import BUGS, DOCUMENT, header, table

PATCHES = sorted(BUGS.glob("*.patch"))
SEEDS = 500  # as many as the tests live through without a bug
LONGEST = 600  # seconds, on a machine that is busy with others


@pytest.mark.parametrize("patch", PATCHES, ids=[patch.stem for patch in PATCHES])
def test_the_simulation_finds_the_bug(patch: Path, tmp_path: Path) -> None:
    head = header(patch)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "artifacts"))
    apply(patch, tmp_path)
    worlds = [f"--{head['worlds']}"] if "worlds" in head else []
    found = _simulate(tmp_path, int(head.get("from seed", "0")), worlds)
    assert found["failed_seed"] is not None, f"{head['bug']}: not found in {found['seeds']} seeds"
    assert found["violation"].startswith(head["violates"] + ":"), found["violation"]


def test_every_bug_is_listed() -> None:
    assert table() in DOCUMENT.read_text(), "python -m tests.sim.table"


def _simulate(tree: Path, first: int, worlds: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "penstock", "sim", f"--seeds={SEEDS}", f"--seed={first}", "--json", *worlds]
    ran = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert ran.stdout, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout.splitlines()[0])  # the second line is the error
    return document
