"""Fuzz targets, one after the other: `python -m tests.fuzz [--target NAME]... [--runs N]`.

Each gets ten million executions, a million where signatures are checked, unless `--runs` says otherwise. What it found
goes to `.venv/fuzz-found`: an input for each kind of outcome, and whatever must not be. The figures are added to the
table of docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

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
    words.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations")
    asked = words.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    failed = [name for name in asked.target or TARGETS if not _fuzz(name, asked.runs, asked.seed)]
    print(f"failed: {', '.join(failed)}" if failed else "no undocumented error")
    return 1 if failed else 0


def _fuzz(name: str, runs: int | None, seed: int) -> bool:
    runs = runs or (SIGNED_RUNS if TARGETS[name].signed else RUNS)
    log = FOUND / f"{name}.log"
    command = [sys.executable, "-m", "tests.fuzz.drive", name, str(runs), str(FOUND), str(seed)]
    began = time.monotonic()
    with log.open("wb") as said:
        code = subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=False).returncode
    took = time.monotonic() - began
    if code:
        print(f"{name}: failed; see {log} and {FOUND / name}.bad-*")
        return False
    ended = re.search(r"^Done (\d+) runs", log.read_text(errors="replace"), re.MULTILINE)
    executed = int(ended[1]) if ended else 0
    kinds = sum(1 for _ in (FOUND / f"{name}.kinds").iterdir())
    print(f"{name}: {executed:,} executions, {executed / took:,.0f} a second, {kinds} kinds of outcome, no error")
    write_row(TABLE, name, f"{executed:,} | {executed / took:,.0f} | {kinds} | 0 | {datetime.now(UTC):%Y-%m-%d} {seed}")
    return True


def write_row(table: Path, name: str, cells: str) -> None:
    """Put a target's row into the document's table, in the order of the targets."""
    head, _, rest = table.read_text().partition(_BEGIN)
    body, _, tail = rest.partition(_END)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", body, re.MULTILINE)) | {name: cells}
    lines = [f"| `{known}` | {rows[known]} |" for known in TARGETS if known in rows]
    title = "| target | executions | a second | kinds of outcome | undocumented errors | day, seed |"
    ruler = "| --- | ---: | ---: | ---: | ---: | --- |"
    table.write_text("\n".join([f"{head}{_BEGIN}", "", title, ruler, *lines, "", f"{_END}{tail}"]))


if __name__ == "__main__":
    sys.exit(main())
