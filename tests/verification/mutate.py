"""Ask the contract's tests about every small change of the contract: does one of them fail?

    python -m tests.verification.mutate --minutes 60 --results /tmp/mutation/results.jsonl

Mutants come in the order of their names, which are hashes: what a time budget reaches is a random sample. Each is
compiled and tested in a process of its own, forked from one that has everything imported. Results are JSON lines; a
mutant that has one is not run again, and `--survivors` runs again those that survived.

The tests that killed most mutants of the same function come first. The recorded gas is not asked: a figure that changed
says nothing about what a contract does. Neither is the limit of a contract's size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth.vm.forks.spurious_dragon import computation
from hypothesis import settings
from vyper.compiler import compile_code
from vyper.compiler.settings import OptimizationLevel, Settings
from vyper.exceptions import VyperException, VyperInternalException

from penstock.ledgers import artifacts

from .mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/penstock/contracts/Channel.vy"
TIMEOUT = 600  # seconds for one mutant; the whole set of tests takes 50 on a free core
LAST = "test_machine"  # takes longer than all others together

Result = dict[str, Any]


def compiled(source: str) -> artifacts.Artifact:
    """The contract as the build makes it. Raises what the compiler raises."""
    made = compile_code(
        source,
        output_formats=["abi", "bytecode"],
        settings=Settings(evm_version="prague", optimize=OptimizationLevel.GAS),
    )
    return artifacts.Artifact(abi=made["abi"], bytecode=made["bytecode"])


class Served:
    """Stands in for the build's artifacts: the contract under test is the mutant."""

    def __init__(self) -> None:
        self._load = artifacts.load
        self.channel = self._load("Channel")

    def load(self, name: str) -> artifacts.Artifact:
        return self.channel if name == "Channel" else self._load(name)


class Order:
    """A pytest plugin: the likeliest killers first, and who it was."""

    def __init__(self, function: str, kills: Counter[tuple[str, str]]) -> None:
        self._function, self._kills = function, kills
        self.killer = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        everywhere: Counter[str] = Counter()
        for (_, test), count in self._kills.items():
            everywhere[test] += count
        items.sort(
            key=lambda item: (
                -self._kills[self._function, item.nodeid],
                LAST in item.nodeid,
                -everywhere[item.nodeid],
            )
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.killer:
            self.killer = report.nodeid


class Run:
    """One run over the mutants of one source, by a copy of its tests that nobody edits meanwhile."""

    def __init__(self, work: Path) -> None:
        self._tests = work / "tests/contracts"
        shutil.rmtree(work / "tests", ignore_errors=True)
        kept = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / "tests", work / "tests", ignore=kept)
        shutil.copy(ROOT / "pyproject.toml", work)
        self._source = work / SOURCE.relative_to(ROOT)
        self._source.parent.mkdir(parents=True, exist_ok=True)
        (self._tests / "test_gas.py").unlink()
        os.chdir(work)
        self.source = SOURCE.read_text()
        self._source.write_text(self.source)
        self._original = compiled(self.source)
        self._served = Served()
        self._served.channel = self._original
        self.kills: Counter[tuple[str, str]] = Counter()
        artifacts.load = self._served.load
        computation.EIP170_CODE_SIZE_LIMIT = 2**16
        settings.register_profile("mutation", database=None, derandomize=True, deadline=None)
        settings.load_profile("mutation")
        # Imports the tests once for all children.
        if self._pytest(Order("", Counter()), "--collect-only") != 0:
            raise SystemExit("the tests cannot be collected")
        if self._judge(None)["outcome"] != "survived":
            raise SystemExit("the tests do not pass on the contract as it is")

    def judge(self, mutant: Mutant) -> Result:
        """What becomes of a mutant: "invalid", "same code", "killed" (by which test) or "survived"."""
        result = self._judge(mutant)
        if result["outcome"] == "killed":
            self.kills[mutant.function, result["by"]] += 1
        return result

    def _judge(self, mutant: Mutant | None) -> Result:
        started = time.monotonic()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.close(reader)
            self._child(mutant, writer)
        os.close(writer)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
        signal.alarm(TIMEOUT)
        with os.fdopen(reader, "rb") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        signal.alarm(0)
        result: Result = json.loads(said) if said else {"outcome": "killed", "by": "timeout"}
        return {**result, "seconds": round(time.monotonic() - started, 1)}

    def _child(self, mutant: Mutant | None, writer: int) -> None:
        try:
            os.write(writer, json.dumps(self._outcome(mutant)).encode())
        finally:
            os._exit(0)

    def _outcome(self, mutant: Mutant | None) -> Result:
        if mutant is not None:
            self._source.write_text(mutant.apply(self.source))
            try:
                self._served.channel = compiled(self._source.read_text())
            except (VyperException, VyperInternalException, SyntaxError, ValueError, TypeError) as error:
                return {"outcome": "invalid", "by": type(error).__name__}
            if self._served.channel["bytecode"] == self._original["bytecode"]:
                return {"outcome": "same code", "by": ""}
        order = Order(mutant.function if mutant else "", self.kills)
        code = self._pytest(order, "-x")
        return {"outcome": "survived" if code == 0 else "killed", "by": order.killer}

    def _pytest(self, order: Order, *options: str) -> int:
        quiet = os.open(os.devnull, os.O_WRONLY)
        outputs = [os.dup(1), os.dup(2)]
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            return int(pytest.main(["-q", "--no-header", "--tb=no", *options, str(self._tests)], plugins=[order]))
        finally:
            for number, kept in enumerate(outputs, start=1):
                os.dup2(kept, number)


def recorded(results: Path) -> dict[str, Result]:
    """The last result of every mutant, by its name."""
    lines = results.read_text().splitlines() if results.exists() else []
    return {entry["name"]: entry for entry in map(json.loads, lines)}


def waiting(found: list[Mutant], results: dict[str, Result], survivors: bool) -> Iterator[Mutant]:
    """The mutants to judge, in their shuffled order."""
    for mutant in found:
        known = results.get(mutant.name)
        if known is None if not survivors else known is not None and known["outcome"] == "survived":
            yield mutant


def summary(made: int, results: list[Result]) -> str:
    """One line on all results so far."""
    counts = Counter(entry["outcome"] for entry in results)
    parts = ", ".join(f"{counts[name]} {name}" for name in ("invalid", "same code", "killed", "survived"))
    return f"{made} mutants, {len(results)} judged: {parts}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--results", type=Path, default=Path("/tmp/mutation/results.jsonl"))
    parser.add_argument("--survivors", action="store_true", help="judge again the mutants that survived")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    results_path = given.results.absolute()
    results_path.parent.mkdir(parents=True, exist_ok=True)
    run = Run(results_path.parent)
    found = sorted(mutants(run.source), key=lambda mutant: mutant.name)
    names = {mutant.name for mutant in found}
    known = recorded(results_path)
    for entry in known.values():
        if entry["outcome"] == "killed":
            run.kills[entry["function"], entry["by"]] += 1
    with results_path.open("a") as file:
        for mutant in waiting(found, known, given.survivors):
            if time.monotonic() > end:
                break
            result = {**vars(mutant), **run.judge(mutant)}
            file.write(json.dumps(result) + "\n")
            file.flush()
    print(summary(len(found), [entry for name, entry in recorded(results_path).items() if name in names]))


if __name__ == "__main__":
    sys.exit(main())
