"""Line plots as SVG inside a page: readable on a phone, coloured by its style sheet, described for screen readers.

The classes of lines (`line-0`, `line-1`, ...), grids and texts are the page's; nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

STEPS = (1, 2, 2.5, 5, 10)

Points = list[tuple[float, float]]


class Size(NamedTuple):
    """A drawing's size, in the pixels of about which its texts are readable."""

    width: int
    height: int


PHONE, DESK = Size(360, 220), Size(880, 240)
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 36
TOUCH = 22  # pixels: marks nearer than that are one


def round_marks(least: float, most: float, number: int) -> list[float]:
    """About so many round values between two others, 0 among them where it is."""
    if most <= least:
        return [least]
    rough = (most - least) / number
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * one for one in STEPS if scale * one >= rough * 0.999)
    return [step * at for at in range(math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9) + 1)]


class Axis(NamedTuple):
    """An axis from `least` to `most`, with its unit, how its marks are written, and which values have one."""

    unit: str
    most: float
    shown: Callable[[float], str] = lambda value: f"{value:,.6g}"
    least: float = 0.0
    ruler: Callable[[float, float, int], list[float]] = round_marks

    def marks(self, number: int) -> list[float]:
        """About so many values that get a mark."""
        return self.ruler(self.least, self.most, number)

    def part(self, value: float) -> float:
        """Where a value is on the axis, 0 to 1."""
        return (value - self.least) / (self.most - self.least or 1)


class Curve(NamedTuple):
    """One line: whose it is (`kind` chooses its colour), and how it is drawn.

    It may be dashed, an area between it and zero, or made of steps: it keeps its height until the next point. Where
    it is one of peaks, only the highest point counts of those that a drawing cannot tell apart.
    """

    name: str
    kind: int
    points: Points
    dashed: bool = False
    area: bool = False
    steps: bool = False
    peaks: bool = False


class Mark(NamedTuple):
    """Something that happened at a value of x, which has a number."""

    at: float
    number: int


def plot(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    curves: list[Curve],
    size: Size = PHONE,
    marks: Sequence[Mark] = (),
) -> str:
    """The plot as an <svg> element with a title and a description."""
    draw = _Drawing(x, y, size)
    parts = [
        f'<svg viewBox="0 0 {size.width} {size.height}" role="img" aria-label="{escape(f"{title}. {description}")}">',
        *(draw.across(mark) for mark in y.marks(4)),
        *(draw.up(mark) for mark in x.marks(size.width // 70)),
        f'<text class="unit" x="{LEFT - 40}" y="12">{escape(y.unit)}</text>',
        f'<text class="unit" x="{size.width - RIGHT}" y="{size.height - 4}" text-anchor="end">{escape(x.unit)}</text>',
        *(draw.marked(group) for group in _together(x, marks, size)),
        *(draw.curve(curve) for curve in curves),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(curves: list[Curve]) -> str:
    """The names of the lines, each behind a sample of its own."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><path class="{_style(curve)}" '
        f'd="{"M1 0H27V8H1Z" if curve.area else "M1 4H27"}"/></svg>'
        f"{escape(curve.name)}</li>"
        for curve in curves
    )
    return f'<ul class="legend">{items}</ul>'


def stepped(points: Points) -> Points:
    """The points of a line that keeps its height until the next one."""
    found: Points = []
    for at, height in points:
        if found:
            found.append((at, found[-1][1]))
        found.append((at, height))
    return found


def thinned(curve: Curve, x: Axis, size: Size) -> Curve:
    """The curve with no more points than make a difference in a drawing.

    Those are the first, lowest, highest and last in each column of pixels: no peak is lost. Of a curve of peaks it is
    the highest, and where no point is in the next column, the last.
    """
    wide = size.width - LEFT - RIGHT
    points = _changes(curve.points) if curve.steps and not curve.peaks else curve.points
    columns = [(number, list(group)) for number, group in groupby(points, lambda point: int(wide * x.part(point[0])))]
    found: Points = []
    for at, (number, column) in enumerate(columns):
        heights = [height for _, height in column]
        kept = {heights.index(max(heights))}
        if not curve.peaks:
            kept |= {0, heights.index(min(heights))}
        if not curve.peaks or columns[at + 1 : at + 2] == [] or columns[at + 1][0] > number + 1:
            kept.add(len(column) - 1)
        found += [column[one] for one in sorted(kept)]
    return curve._replace(points=found)


def reach(curves: Iterable[Curve], margin: float = 1.1) -> tuple[float, float]:
    """The lowest and the highest value that a y axis has to show: those of the curves, with a margin, and 0."""
    heights = [0.0, *(height for curve in curves for _, height in curve.points)]
    least, most = margin * min(heights), margin * max(heights)
    return least, most if most > least else 1.0


def _changes(points: Points) -> Points:
    """The points with another height than the one before, and the last."""
    last = len(points) - 1
    return [point for at, point in enumerate(points) if at in (0, last) or point[1] != points[at - 1][1]]


def _together(x: Axis, marks: Sequence[Mark], size: Size) -> list[list[Mark]]:
    """Marks that would stand upon each other as one."""
    groups: list[list[Mark]] = []
    for mark in marks:
        wide = size.width - LEFT - RIGHT
        if groups and wide * (x.part(mark.at) - x.part(groups[-1][0].at)) < TOUCH:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return groups


def _style(curve: Curve) -> str:
    return f"{'area' if curve.area else 'line'} line-{curve.kind}{' dashed' if curve.dashed else ''}"


class _Drawing(NamedTuple):
    x: Axis
    y: Axis
    size: Size

    def place(self, point: tuple[float, float]) -> tuple[str, str]:
        width, height = self.size
        across = LEFT + (width - LEFT - RIGHT) * self.x.part(point[0])
        up = height - BOTTOM - (height - TOP - BOTTOM) * self.y.part(point[1])
        return f"{across:.1f}", f"{up:.1f}"

    def curve(self, curve: Curve) -> str:
        points = stepped(curve.points) if curve.steps else curve.points
        if curve.area and points:
            points = [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]
        return f'<path class="{_style(curve)}" d="{self.path(points)}"/>'

    def path(self, points: Points) -> str:
        """Through all points; level and upright pieces are written short."""
        parts: list[str] = []
        before = ("", "")
        for place in map(self.place, points):
            if not parts:
                parts.append(f"M{place[0]} {place[1]}")
            elif place[1] == before[1] and place[0] != before[0]:
                parts.append(f"H{place[0]}")
            elif place[0] == before[0] and place[1] != before[1]:
                parts.append(f"V{place[1]}")
            elif place != before:
                parts.append(f"L{place[0]} {place[1]}")
            before = place
        return "".join(parts) or "M0 0"

    def across(self, mark: float) -> str:
        height = self.place((0, mark))[1]
        style = "zero" if mark == 0 and self.y.least < 0 else "grid"
        return (
            f'<path class="{style}" d="M{LEFT} {height}H{self.size.width - RIGHT}"/>'
            f'<text x="{LEFT - 5}" y="{height}" dy="4" text-anchor="end">{escape(self.y.shown(mark))}</text>'
        )

    def up(self, mark: float) -> str:
        across, foot = self.place((mark, 0))[0], self.size.height - BOTTOM
        return (
            f'<path class="grid" d="M{across} {foot}v4"/>'
            f'<text x="{across}" y="{foot + 16}" text-anchor="middle">{escape(self.x.shown(mark))}</text>'
        )

    def marked(self, group: list[Mark]) -> str:
        """An upright line with its number above it, or those of the first and last of several."""
        across, first, last = self.place((group[0].at, 0))[0], group[0].number, group[-1].number
        words = str(first) if first == last else f"{first}-{last}"
        return (
            f'<path class="mark" d="M{across} {TOP}V{self.size.height - BOTTOM}"/>'
            f'<text class="mark" x="{across}" y="{TOP - 4}" text-anchor="middle">{words}</text>'
        )
