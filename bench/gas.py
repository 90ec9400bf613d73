"""`make gas`: measures the channel contract, and writes bench/gas.json and the table of docs/contract.md."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contracts.gas import measure
from tests.contracts.world import World

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- gas: begin -->\n", "<!-- gas: end -->\n"

# Whole transactions, published or measured by running the shipped bytecode under Prague; x402 is execution alone.
OTHERS = {
    "open_from_balance": ("71,088 + approval", "152,292", "84,770"),
    "open_from_token": ("88,976; 120,090", "152,292", "84,770"),
    "open_by_signature_eip3009": ("", "", "111,738"),
    "add_from_balance": ("54,669", "86,006", ""),
    "cooperative_close": ("66,258", "128,030", "40,252 + 31,204"),
    "cooperative_close_50_each": ("", "", ""),
    "claim_50_each": ("", "", "19,204 in ten"),
    "close_and_settle": ("110,796", "322,213", ""),
    "tick_claim_each": ("", "", ""),
}


def table(figures: dict[str, int]) -> str:
    """The figures as a Markdown table beside those of others."""
    lines = [
        "| operation | Penstock | µRaiden | Raiden 0.50 | x402 batch (execution only) |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for name, gas in figures.items():
        others = OTHERS.get(name, ("", "", ""))
        lines.append(f"| {name.replace('_', ' ')} | {gas:,} | {' | '.join(others)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    figures = measure(World())
    (ROOT / "bench" / "gas.json").write_text(json.dumps(figures, indent=1) + "\n")
    page = ROOT / "docs" / "contract.md"
    text = page.read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(head + BEGIN + "\n" + table(figures) + "\n" + END + tail)
    for name, gas in figures.items():
        print(f"{name:48} {gas:>8,}")


if __name__ == "__main__":
    main()
