"""Fuzz targets, one after the other: `python -m tests.fuzz [--target NAME]... [--runs N] [--jobs N]`.

Each gets ten million executions, a million where signatures are checked, unless `--runs` says otherwise. What it found
goes to `.venv/fuzz-found`: an input for each kind of outcome, and whatever must not be. The figures go into
the table of docs/fuzzing.md, where no longer run stands.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".venv" / "fuzz-found"
TABLE = ROOT / "docs" / "fuzzing.md"
RUNS, SIGNED_RUNS = 10_000_000, 1_000_000
_BEGIN, _END = "<!-- runs: begin -->", "<!-- runs: end -->"


def main() -> int:
    """Run what was asked for. 1 where a target failed, 0 otherwise."""
    words = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz parsers of foreign bytes.")
    words.add_argument("--target", action="append", choices=TARGETS, help="one of them; again for more; all otherwise")
    words.add_argument("--runs", type=int, help="executions of each")
    words.add_argument("--jobs", type=int, default=1, help="how many of them at once")
    words.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations")
    asked = words.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    names = asked.target or list(TARGETS)
    with ThreadPoolExecutor(asked.jobs) as pool:
        going = {pool.submit(_fuzz, name, asked.runs, asked.seed): name for name in names}
        failed = [going[done] for done in as_completed(going) if not _tell(going[done], done.result(), asked.seed)]
    print(f"failed: {', '.join(failed)}" if failed else "no undocumented error")
    return 1 if failed else 0


class Ran(NamedTuple):
    """A target's run: its exit code, executions, seconds, and kinds of outcome."""

    code: int
    executed: int
    took: float
    kinds: int


def _fuzz(name: str, runs: int | None, seed: int) -> Ran:
    runs = runs or (SIGNED_RUNS if TARGETS[name].signed else RUNS)
    log = FOUND / f"{name}.log"
    command = [sys.executable, "-m", "tests.fuzz.drive", name, str(runs), str(FOUND), str(seed)]
    began = time.monotonic()
    with log.open("wb") as said:
        code = subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=False).returncode
    ended = re.search(r"^stat::number_of_executed_units:\s*(\d+)", log.read_text(errors="replace"), re.MULTILINE)
    kinds = FOUND / f"{name}.kinds"
    return Ran(
        code,
        int(ended[1]) if ended else 0,
        time.monotonic() - began,
        len(list(kinds.iterdir())) if kinds.is_dir() else 0,
    )


def _tell(name: str, ran: Ran, seed: int) -> bool:
    """Say how a target's run went, and keep its figures; whether all was well."""
    if ran.code:
        print(f"{name}: failed; see {FOUND / name}.log and {FOUND / name}.bad-*", flush=True)
        return False
    rate = f"{ran.executed / ran.took:,.0f}"
    print(f"{name}: {ran.executed:,} executions, {rate} a second, {ran.kinds} kinds, no error", flush=True)
    write_row(TABLE, name, ran.executed, f"{rate} | {ran.kinds} | 0 | {datetime.now(UTC):%Y-%m-%d} {seed}")
    return True


def write_row(table: Path, name: str, executed: int, cells: str) -> None:
    """Put a target's row into the document's table, in the order of the targets, unless a longer run stands there."""
    head, _, rest = table.read_text().partition(_BEGIN)
    body, _, tail = rest.partition(_END)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", body, re.MULTILINE))
    if int(rows.get(name, "0").split(" ")[0].replace(",", "")) <= executed:
        rows[name] = f"{executed:,} | {cells}"
    lines = [f"| `{known}` | {rows[known]} |" for known in TARGETS if known in rows]
    title = "| target | executions | a second | kinds of outcome | undocumented errors | day, seed |"
    ruler = "| --- | ---: | ---: | ---: | ---: | --- |"
    table.write_text("\n".join([f"{head}{_BEGIN}", "", title, ruler, *lines, "", f"{_END}{tail}"]))


if __name__ == "__main__":
    sys.exit(main())
