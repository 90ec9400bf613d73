"""Which patch takes which rule out, and which test finds it: the tables of docs/verification.md.

`python -m tests.rules.table` writes them anew from the headers of the patches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "verification.md"
MARKS = {
    "rule": ("<!-- rules: begin -->\n", "<!-- rules: end -->"),
    "mistake": ("<!-- mistakes: begin -->\n", "<!-- mistakes: end -->"),
}


class Taken(NamedTuple):
    """A patch that takes a rule out, or brings a mistake back."""

    patch: Path
    what: str  # the rule's number, or the mistake
    bug: str
    found_by: tuple[str, ...]


def taken(kind: str) -> Iterator[Taken]:
    """The patches of rules or of mistakes, in their order."""
    for patch in sorted((ROOT / "tests" / "mutants").glob(f"{kind}-*.patch")):
        head = [line.partition(": ") for line in patch.read_text().partition("\n\n")[0].splitlines()]
        said = {name: value for name, _, value in head}
        yield Taken(patch, said[kind], said["bug"], tuple(value for name, _, value in head if name == "found by"))


def table(kind: str) -> str:
    """The table of rules or of mistakes, in Markdown."""
    rows = [f"| {kind} | what the patch does | patch | found by |", "| --- | --- | --- | --- |"]
    for what, bug, patch, ids in ((one.what, one.bug, one.patch.stem, one.found_by) for one in taken(kind)):
        tests = dict.fromkeys(re.sub(r"\[.*", "", name) for name in ids)
        shown = "<br>".join(f"`{name.split('::')[1]}` in `{name.split('::')[0]}`" for name in tests)
        rows.append(f"| {what} | {bug} | `{patch}` | {shown} |")
    return "\n" + "\n".join(rows) + "\n\n"


def main() -> None:
    """Write the tables into the document."""
    text = DOCUMENT.read_text()
    for kind, (begin, end) in MARKS.items():
        head, rest = text.split(begin)
        text = head + begin + table(kind) + end + rest.split(end)[1]
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
