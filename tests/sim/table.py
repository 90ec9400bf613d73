"""The seeded bugs as docs/simulation.md lists them: `python -m tests.sim.table` writes the table anew."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "simulation.md"
BUGS = Path(__file__).parent / "bugs"
BEGIN, END = "<!-- bugs: begin -->\n", "<!-- bugs: end -->"


def header(patch: Path) -> dict[str, str]:
    """What a patch says of itself: `bug`, `violates`, and perhaps `from seed`."""
    lines = patch.read_text().partition("\n\n")[0].splitlines()
    return dict(line.split(": ", 1) for line in lines)


def table() -> str:
    """The table, in Markdown."""
    rows = ["| patch | bug | what is violated |", "| --- | --- | --- |"]
    for patch in sorted(BUGS.glob("*.patch")):
        head = header(patch)
        rows.append(f"| `{patch.stem}` | {head['bug']} | {head['violates']} |")
    return "\n" + "\n".join(rows) + "\n\n"


def main() -> None:
    """Write the table into the document."""
    head, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(head + BEGIN + table() + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
