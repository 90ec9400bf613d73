"""What our pages have in common: a template with one style inside, and figures. A page loads nothing from anywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from penstock.cli.plot import DESK, PHONE, Axis, Curve, Mark, legend, plot, thinned
from penstock.core.errors import UsageError


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


def check_writable(path: Path) -> None:
    """Pass where the page can probably be written: that is said before all the work, and nothing is made yet.

    Raises:
        UsageError: it cannot.
    """
    target = path if path.exists() else path.absolute().parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise _unwritable(
            path, "it is a directory" if path.is_dir() else f"{target} is not there, or not ours to write"
        )


def write_page(path: Path, content: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unwritable(path, error.strerror or str(error)) from None


def _unwritable(path: Path, why: str) -> UsageError:
    return UsageError(f"cannot write {path}: {why}", "give --html another file")
