"""Each patch in `bugs/` puts one bug into the contract, and the machine finds it.

A patch's header says what is wrong (`bug`), and from which `seed` on the machine is quick to find it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from penstock.ledgers.artifacts import Artifact

from ..mutants.mutant import ROOT
from .machine import run

SOURCE = Path("src/penstock/contracts/Escrow.vy")
PATCHES = sorted((Path(__file__).parent / "bugs").glob("*.patch"))
STEPS, SEEDS = 250, 12  # moves from a seed; and how many seeds at most


@pytest.mark.parametrize("patch", PATCHES, ids=[patch.stem for patch in PATCHES])
def test_the_machine_finds_the_bug(patch: Path, tmp_path: Path) -> None:
    copy = tmp_path / SOURCE
    copy.parent.mkdir(parents=True)
    copy.write_bytes((ROOT / SOURCE).read_bytes())
    subprocess.run(["git", "apply", str(patch)], cwd=tmp_path, check=True)
    artifact, first = _compiled(copy.read_text()), _seed(patch)
    with pytest.raises(AssertionError):
        _hunt(artifact, first)


def _hunt(artifact: Artifact, first: int) -> None:
    for seed in range(first, first + SEEDS):
        run(STEPS, seed, artifact=artifact)


def _seed(patch: Path) -> int:
    head = dict(line.split(": ", 1) for line in patch.read_text().partition("\n\n")[0].splitlines())
    return int(head["seed"])


def _compiled(source: str) -> Artifact:
    """A contract, without the optimizer: it takes half the compiler's time, and the bug stays."""
    from vyper.compiler import compile_code
    from vyper.compiler.settings import OptimizationLevel, Settings

    settings = Settings(evm_version="prague", optimize=OptimizationLevel.NONE)
    made = compile_code(source, output_formats=["abi", "bytecode"], settings=settings)
    return Artifact(abi=made["abi"], bytecode=made["bytecode"])
