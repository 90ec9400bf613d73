"""Draw the diagrams of ARCHITECTURE.md: each `NAME.txt` beside this file becomes `NAME.svg`.

    python docs/diagrams/make.py

The first line of a text says what it describes. After a colon comes the small print of a box.

    stack       each line is a row of boxes, `a: note | b: note`, the highest first; imports point down
    sequence    the first line names the actors, `a: note | b: note`, in order from left to right; then each line is a
                message `a -> b: text` or a thought of one actor, `a: text`
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
WIDTH = 920
INK, PAPER, SHADE, LINE = "#1f2933", "#ffffff", "#e6eef5", "#52718c"


class Box(NamedTuple):
    """A name and what stands below it."""

    name: str
    note: str


def boxes(line: str) -> list[Box]:
    """The boxes of a line `a: note | b: note`."""
    parts = (part.partition(":") for part in line.split("|"))
    return [Box(name.strip(), note.strip()) for name, _, note in parts]


def text(x: float, y: float, words: str, *, size: int = 12, bold: bool = False) -> str:
    """A line of text around x, whose baseline is at y."""
    weight = ' font-weight="bold"' if bold else ""
    form = f'font-size="{size}" text-anchor="middle"{weight} fill="{INK}"'
    return f'<text x="{x:g}" y="{y:g}" {form}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, content: Box) -> list[str]:
    """A box with a name and a note in it."""
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{SHADE}" stroke="{LINE}"/>'
    middle = x + width / 2
    return [
        frame,
        text(middle, y + height / 2 - 3, content.name, size=14, bold=True),
        text(middle, y + height / 2 + 14, content.note, size=11),
    ]


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight arrow."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{LINE}" marker-end="url(#head)"/>'


def stack(lines: list[str]) -> tuple[list[str], int]:
    """Rows of boxes, and the picture's height."""
    drawn: list[str] = []
    margin, gap, height, step = 20, 12, 56, 84
    for row, line in enumerate(lines):
        contents, y = boxes(line), margin + row * step
        width = (WIDTH - 2 * margin - gap * (len(contents) - 1)) / len(contents)
        for column, content in enumerate(contents):
            drawn += box(margin + column * (width + gap), y, width, height, content)
        if row + 1 < len(lines):
            drawn.append(arrow(WIDTH / 2, y + height + 3, WIDTH / 2, y + step - 6))
    return drawn, 2 * margin + (len(lines) - 1) * step + height


def sequence(lines: list[str]) -> tuple[list[str], int]:
    """Actors with their lifelines and what passes between them, and the picture's height."""
    actors = boxes(lines[0])
    margin, top, height, step = 10, 20, 56, 40
    pitch = (WIDTH - 2 * margin) / len(actors)
    middle = {actor.name: margin + pitch * (place + 0.5) for place, actor in enumerate(actors)}
    bottom = top + height + step * len(lines)
    drawn = [
        f'<line x1="{x:g}" y1="{top + height}" x2="{x:g}" y2="{bottom}" stroke="{LINE}" stroke-dasharray="2 4"/>'
        for x in middle.values()
    ]
    for actor in actors:
        drawn += box(middle[actor.name] - pitch / 2 + 8, top, pitch - 16, height, actor)
    for number, line in enumerate(lines[1:], start=1):
        who, _, words = line.partition(":")
        sender, _, receiver = (name.strip() for name in who.partition("->"))
        y, start = top + height + step * number, middle[sender]
        # A long thought of an actor at the edge would leave the picture.
        half = 3.6 * len(words) + 6
        centre = (start + middle[receiver]) / 2 if receiver else start
        centre = min(max(centre, half), WIDTH - half)
        back = f'<rect x="{centre - half:g}" y="{y - 19}" width="{2 * half:g}" height="15" fill="{PAPER}"/>'
        if receiver:
            end = middle[receiver]
            drawn += [back, arrow(start, y, end + (-2 if end > start else 2), y)]
        else:
            drawn += [back, f'<circle cx="{start:g}" cy="{y}" r="4" fill="{LINE}"/>']
        drawn.append(text(centre, y - 7, words.strip()))
    return drawn, bottom + 20


def svg(source: str) -> str:
    """The picture that a text describes."""
    kind, *lines = [line for line in source.splitlines() if line.strip()]
    drawn, height = {"stack": stack, "sequence": sequence}[kind](lines)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="DejaVu Sans, Verdana, sans-serif">'
    )
    marker = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>'
    )
    paper = f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>'
    return "\n".join([head, marker, paper, *drawn, "</svg>"]) + "\n"


if __name__ == "__main__":
    for path in sorted(HERE.glob("*.txt")):
        path.with_suffix(".svg").write_text(svg(path.read_text()))
        print(f"docs/diagrams/{path.stem}.svg")
