"""What our pages have in common: a template with one style inside, and figures. A page loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from penstock.cli.plot import DESK, PHONE, Axis, Curve, Mark, legend, plot, thinned


def filled(name: str, **parts: str) -> str:
    """A page: its template (a file of `penstock/data`), the style that all share, and its parts, which are HTML."""
    data = files("penstock") / "data"
    template = Template((data / name).read_text("utf-8"))
    return template.substitute(style=(data / "page.css").read_text("utf-8"), **parts)


def figure(title: str, words: str, x: Axis, y: Axis, curves: list[Curve]) -> str:
    """A plot with its title, legend and caption."""
    return _framed(title, words, curves, plot(title, words, x, y, curves))


def long_figure(title: str, words: str, x: Axis, y: Axis, curves: list[Curve], marks: Sequence[Mark] = ()) -> str:
    """A plot of many points: drawn once for a phone and once for a wide window, of which one is shown."""
    drawings = []
    for style, size in (("narrow", PHONE), ("wide", DESK)):
        drawn = [thinned(curve, x, size) for curve in curves]
        drawings.append(f'<div class="{style}">{plot(title, words, x, y, drawn, size, marks)}</div>')
    return _framed(title, words, curves, "\n".join(drawings))


def _framed(title: str, words: str, curves: list[Curve], drawing: str) -> str:
    head, foot = f"<h3>{escape(title)}</h3>\n{legend(curves)}", f"<figcaption>{escape(words)}</figcaption>"
    return f"<figure>{head}\n{drawing}\n{foot}</figure>"
