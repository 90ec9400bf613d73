"""A mutant: a copy of the project with one bug put in by a patch, built, and put to the tests that must find it.

A patch begins with lines of `name: value`, and the first line of its diff ends them:

    bug: what is wrong, in one line
    found by: tests/contracts/test_claims.py::test_claims_in_two_way_channels_are_refused
    rule: 5                      of DESIGN section 3, or
    mistake: which row of what went wrong in earlier systems

`found by` may stand several times, one node id each. Other names are for readers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
NEEDED = ("src", "tests", "pyproject.toml", "hatch_build.py")
LONGEST = 900  # seconds that the tests of one mutant may take, on a machine that is busy with others
# A contract above the size limit fails every test, and no test has found anything by that.
_BUILD = (
    "import sys; from pathlib import Path; from hatch_build import CompileContracts as C;"
    "C(str(Path.cwd()), {}, None, None, '', 'wheel').initialize('standard', {});"
    "from penstock.ledgers.artifacts import load; from tests.contracts.world import ETHER, Chain, deploy, key;"
    "owner = key('deployer'); chain = Chain({owner.address: 10**6 * ETHER});"
    "deploy(chain, owner, load('Channel'), deploy(chain, owner, load('CryptoEuro')).address)"
)
PATIENCE = "8"  # seconds that a test waits for what a bug may keep from coming; without a bug it comes in two


@dataclass(frozen=True)
class Header:
    """What a patch says of itself."""

    bug: str
    found_by: tuple[str, ...]

    @classmethod
    def of(cls, patch: Path) -> Header:
        """Read a patch's header. Raises ValueError where `bug` or `found by` is missing."""
        bugs, ids = [], []
        for line in patch.read_text().splitlines():
            if line.startswith(("diff ", "--- ")):
                break
            name, _, value = line.partition(": ")
            if name == "bug":
                bugs.append(value.strip())
            elif name == "found by":
                ids.append(value.strip())
        if len(bugs) != 1 or not ids:
            raise ValueError(f"{patch.name} wants one `bug: ...` and at least one `found by: ...` above its diff")
        return cls(bugs[0], tuple(ids))


@dataclass(frozen=True)
class Verdict:
    """How the named tests ended; `output` is pytest's own."""

    exit_code: int
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    broken: tuple[str, ...]  # errors outside the test itself, and skipped ones
    output: str


def copy(to: Path) -> Path:
    """Copy what the tests need into the folder `to`. Returns it."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name)  # with what is compiled: a patched file is newer than that
        else:
            shutil.copy2(source, to / name)
    return to


def apply(patch: Path, tree: Path) -> None:
    """Put the bug into the copy, and build its contracts anew where it is theirs.

    Raises:
        CalledProcessError: the patch does not fit, or what it makes does not compile or cannot be deployed.
    """
    # The copy is no repository: without the ceiling git would take a parent folder's index for it.
    bare = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    subprocess.run(["git", "apply", "--whitespace=nowarn", str(patch)], cwd=tree, env=bare, check=True)
    if ".vy" in patch.read_text():
        subprocess.run([sys.executable, "-c", _BUILD], cwd=tree, env=environment(tree), check=True)


def judge(tree: Path, ids: Sequence[str]) -> Verdict:
    """Run these tests in the copy, with its own sources."""
    report = tree / "report.xml"
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider")  # loading the others takes longer than a test
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--junit-xml={report}", *ids]
    done = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    passed, failed, broken = [], [], []
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None:
            failed.append(name)
        elif case.find("error") is not None or case.find("skipped") is not None:
            broken.append(name)
        else:
            passed.append(name)
    return Verdict(done.returncode, tuple(passed), tuple(failed), tuple(broken), done.stdout + done.stderr)


def environment(tree: Path) -> dict[str, str]:
    """An environment in which `penstock` is the copy's, whatever is installed, and coverage is not measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "COVERAGE_"))}
    path = str(tree / "src") + os.pathsep + str(tree)
    return {
        **kept,
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PATIENCE": PATIENCE,
    }
