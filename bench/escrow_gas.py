"""`make gas`: measures the escrow contract, and writes bench/escrow_gas.json and the table of docs/escrow.md."""

from __future__ import annotations

import json

from tests.escrow.gas import measure
from tests.escrow.world import World

from .gas import BEGIN, END, ROOT


def table(figures: dict[str, int]) -> str:
    """The figures as a Markdown table."""
    lines = ["| operation | gas |", "| --- | ---: |"]
    lines += [f"| {name.replace('_', ' ')} | {gas:,} |" for name, gas in figures.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    figures = measure(World())
    (ROOT / "bench" / "escrow_gas.json").write_text(json.dumps(figures, indent=1) + "\n")
    page = ROOT / "docs" / "escrow.md"
    head, _, rest = page.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(head + BEGIN + "\n" + table(figures) + "\n" + END + tail)
    for name, gas in figures.items():
        print(f"{name:48} {gas:>8,}")


if __name__ == "__main__":
    main()
