"""Benchmarks: what this machine's Penstock does, against what the machine can do at all, measured in one run.

    python -m bench                     all modules, one after the other, as `make bench` does
    python -m bench vouchers restart    some; their figures replace the old ones in bench/results.json
    python -m bench replay              a hundred recorded charging sessions; prints, and keeps nothing
    python -m bench --table             print what is kept, and renew the tables of docs/benchmarks.md from it

Each module runs in a process of its own; the tables of docs/benchmarks.md are renewed at the end. Quote the ratios, not
the rates: machines differ and are noisy, a ratio of two figures from one run much less. Nothing is asserted: a missed
target is printed as missed. The exit code is 1 where a module is missing or failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.apart import apart
from bench.figures import KEYS, lines, table, tidy, wrong_shape
from bench.machine import Disturbed, facts

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
UNKEPT = ("replay",)


def load() -> dict[str, Any]:
    """What was kept of earlier runs."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def keep(results: dict[str, Any]) -> None:
    """Write results in the order of the modules, without anything that no module measures any more."""
    order = [key for keys in KEYS.values() for key in keys] + ["machine", "steal", "steal_by_module", "doubts"]
    ordered = {key: results[key] for key in order if key in results}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


def run(modules: list[str]) -> int:
    """Run modules, keep their figures after each, and print the ratios. Returns the exit code."""
    results, failed, whole = load(), [], Disturbed()
    results["machine"] = facts()
    for module in modules:
        print(f"{module} ...", flush=True)
        if find_spec(f"bench.{module}") is None:
            print(f"  bench/{module}.py is missing; going on without it")
            failed.append(module)
            continue
        try:
            figures, disturbance = apart(module)
        except Exception:
            traceback.print_exc()
            failed.append(module)
            continue
        figures = tidy(figures)
        print("\n".join(f"  {key:28} {value}" for key, value in figures.items()), flush=True)
        if module in UNKEPT:
            continue
        if wrong := wrong_shape(module, figures):
            print(f"  not kept: {wrong}")
            failed.append(module)
            continue
        results.update({key: figures[key] for key in KEYS[module]})
        results["steal"] = whole.since_then().steal
        results["steal_by_module"] = {**results.get("steal_by_module", {}), module: disturbance.steal}
        results["doubts"] = {**results.get("doubts", {}), module: disturbance.doubt}
        keep(results)
    renew_page()
    print("\n" + "\n".join(lines(results)))
    if failed:
        print(f"missing or failed: {', '.join(failed)}")
    return 1 if failed else 0


def renew_page() -> None:
    """Put the tables into docs/benchmarks.md between their marks."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(head + BEGIN + "\n" + table(load()) + "\n" + END + rest.partition(END)[2])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*KEYS, *UNKEPT)
    parser.add_argument("module", nargs="*", help=f"of {', '.join(names)}", metavar="module")
    parser.add_argument("--table", action="store_true", help="renew docs/benchmarks.md and print what is kept")
    asked = parser.parse_args()
    if unknown := set(asked.module) - set(names):
        parser.error(f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if asked.table:
        renew_page()
        print("\n".join(lines(load())))
        return 0
    return run(asked.module or list(KEYS))


if __name__ == "__main__":
    sys.exit(main())
