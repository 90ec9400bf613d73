"""Line plots as SVG inside a page: readable on a phone, coloured by its style sheet, described for screen readers.

The classes of lines (`line-0`, `line-1`, ...), grids and texts are the page's; nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360, 220  # of the drawing; a phone shows about so many pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 36
STEPS = (1, 2, 2.5, 5, 10)

Points = list[tuple[float, float]]


class Axis(NamedTuple):
    """An axis from 0 to `most`, with its unit and how its marks are written."""

    unit: str
    most: float
    shown: Callable[[float], str] = lambda value: f"{value:,.6g}"

    def marks(self, number: int) -> list[float]:
        """About so many round values from 0 to `most`."""
        if self.most <= 0:
            return [0.0]
        rough = self.most / number
        scale = 10.0 ** math.floor(math.log10(rough))
        step = next(scale * one for one in STEPS if scale * one >= rough * 0.999)
        return [step * at for at in range(int(self.most / step + 1e-9) + 1)]


class Curve(NamedTuple):
    """One line: whose it is (`kind` chooses its colour), and whether it is dashed."""

    name: str
    kind: int
    points: Points
    dashed: bool = False


def plot(title: str, description: str, x: Axis, y: Axis, curves: list[Curve]) -> str:
    """The plot as an <svg> element with a title and a description."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}. {description}")}">',
        *(_across(x, y, mark) for mark in y.marks(4)),
        *(_up(x, mark) for mark in x.marks(5)),
        f'<text class="unit" x="{LEFT - 40}" y="12">{escape(y.unit)}</text>',
        f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x.unit)}</text>',
        *(_curve(x, y, curve) for curve in curves),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(curves: list[Curve]) -> str:
    """The names of the lines, each behind a sample of its own."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><path class="{_style(curve)}" d="M1 4H27"/></svg>'
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


def _place(x: Axis, y: Axis, point: tuple[float, float]) -> str:
    across = LEFT + (WIDTH - LEFT - RIGHT) * point[0] / (x.most or 1)
    up = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * point[1] / (y.most or 1)
    return f"{across:.1f} {up:.1f}"


def _style(curve: Curve) -> str:
    return f"line line-{curve.kind}{' dashed' if curve.dashed else ''}"


def _curve(x: Axis, y: Axis, curve: Curve) -> str:
    path = "L".join(_place(x, y, point) for point in curve.points)
    return f'<path class="{_style(curve)}" d="M{path}"/>'


def _across(x: Axis, y: Axis, mark: float) -> str:
    height = _place(x, y, (0, mark)).split()[1]
    return (
        f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 5}" y="{height}" dy="4" text-anchor="end">{escape(y.shown(mark))}</text>'
    )


def _up(x: Axis, mark: float) -> str:
    across = _place(x, x, (mark, 0)).split()[0]
    foot = HEIGHT - BOTTOM
    return (
        f'<path class="grid" d="M{across} {foot}v4"/>'
        f'<text x="{across}" y="{foot + 16}" text-anchor="middle">{escape(x.shown(mark))}</text>'
    )
