"""A site under its grid as one sees it: what each pole draws or feeds in, the limit that all share, and why."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.cli.output import printable
from penstock.cli.plot import Axis, Curve, Mark, Points, reach
from penstock.cli.sheet import check_writable, filled, long_figure, write_page

WIDE = 30  # columns of a bar
MINUTE = 60_000  # ms
TO, BACK, INK = 0, 1, 4  # the colours of lines

Of = Callable[[dict[str, Any]], int | None]
"""Something of a sample, in W."""


class YardView:
    """Hears the events of the demo's processes and shows them; on leaving, it draws them into `chart` where asked."""

    def __init__(self, speed: float, chart: Path | None, *, live: bool, silent: bool) -> None:
        """
        Raises:
            UsageError: the chart cannot be written.
        """
        if chart is not None:
            check_writable(chart)
        self._speed, self._chart, self._silent = speed, chart, silent
        self._samples: list[dict[str, Any]] = []
        self._reasons: list[tuple[int, str]] = []
        self._steps: list[str] = []
        self._live = Live(console=Console(), refresh_per_second=10, transient=False) if live else None

    def __enter__(self) -> YardView:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)
        if self._chart is not None and self._samples and error[0] is None:
            write_page(self._chart, grid_page(self._samples, self._reasons, self._speed))

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""
        if event == "power":
            self._samples.append(facts)
            self._draw()
        elif event == "grid asks":
            why = printable("; ".join(facts["why"])) or "nothing any more"
            self._reasons.append((facts["at"], why))
            self._step(f"grid asks: {why}")
        elif event == "obeyed":
            self._step(
                f"{facts['pole']}: {facts['before']:,} W -> {facts['after']:,} W "
                f"after {facts['ms']:g} ms and {facts['wh']} Wh"
            )
        elif event == "accepted" and who != "site":
            self._step(f"{who}: terms signed by both, streaming")
        elif event == "ended" and who != "site":
            self._step(f"{who}: {facts['reason']}, receipt signed by both")
        elif event == "serving":
            self._step(f"grid operator's server at {facts['url']}")

    def _step(self, text: str) -> None:
        self._steps.append(text)
        if self._live is None and not self._silent:
            typer.echo(text)
        self._draw()

    def _draw(self) -> None:
        if self._live is None:
            return
        steps = Text("\n".join(f"· {step}" for step in self._steps[-16:]), style="dim")
        self._live.update(Group(steps, panel(self._samples[-1])) if self._samples else steps)


def panel(sample: dict[str, Any]) -> Table:
    """What flows at each pole now, and what may in all."""
    grid = Table.grid(padding=(0, 2))
    most = max(1, *(abs(power) for power in sample["poles"].values()))
    for pole, power in sample["poles"].items():
        bar = "█" * (WIDE * abs(power) // most)
        grid.add_row(pole, f"{power:>8,} W", Text(bar, "cyan" if power > 0 else "yellow"))
    limits = [
        f"{name} {most:,} W"
        for name, most in (("supply", sample["supply"]), ("feed-in", sample["feed"]))
        if most is not None
    ]
    grid.add_row(
        "all", f"{sum(sample['poles'].values()):>8,} W", "at most " + ", ".join(limits) if limits else "no limit"
    )
    return grid


def grid_page(samples: list[dict[str, Any]], reasons: list[tuple[int, str]], speed: float) -> str:
    """The page: power of all poles together under the limit, of each pole, and why it changed.

    Times are minutes on the lines' clocks, which run `speed` times as fast as ours.
    """
    begin = next((at for at, one in enumerate(samples) if any(one["poles"].values())), 1)
    samples = samples[max(0, begin - 1) :]  # until then, the cars come
    zero: int = samples[0]["at"]

    def minute(at: int) -> float:
        return float((at - zero) * speed / MINUTE)

    def drawn(title: str, words: str, power: Of, supply: Of, feed: Of) -> str:
        curves = [
            Curve("power", INK, [(minute(one["at"]), (power(one) or 0) / 1_000) for one in samples], steps=True),
            *_broken("most to cars", TO, [(minute(one["at"]), supply(one)) for one in samples]),
            *_broken("most fed in", BACK, [(minute(one["at"]), _minus(feed(one))) for one in samples]),
        ]
        least, most = reach(curves)
        x, y = Axis("min", minute(samples[-1]["at"])), Axis("kW", most, least=least)
        return long_figure(title, words, x, y, curves, marks)

    marks = [Mark(minute(at), number) for number, (at, _) in enumerate(reasons, 1) if at >= zero]
    figures = [
        drawn(
            "All poles together, and the site's limit",
            "Below 0 is what is fed in. The numbers are those of the reasons below.",
            lambda one: sum(one["poles"].values()),
            lambda one: one["supply"],
            lambda one: one["feed"],
        )
    ]
    figures += [
        drawn(
            f"Pole {name}, and its share",
            "Short gaps: the pole waits for a payment.",
            lambda one, name=name: one["poles"][name],  # type: ignore[misc]  # a default binds the name
            lambda one, name=name: one["shares"][name][0],  # type: ignore[misc]  # the same
            lambda one, name=name: one["shares"][name][1],  # type: ignore[misc]  # the same
        )
        for name in samples[0]["poles"]
    ]
    why = "".join(f"<li>{max(0.0, minute(at)):.1f} min: {escape(text)}</li>" for at, text in reasons)
    return filled(
        "course.html",
        title="A site under its grid",
        opening=f"Three cars at three poles, {speed:g} times as fast as in life. The grid asks, and all poles obey.",
        summary="",
        figures="\n".join(figures),
        why=f"<ol>{why}</ol>",
    )


def _minus(watts: int | None) -> int | None:
    return None if watts is None else -watts


def _broken(name: str, kind: int, watts: list[tuple[float, int | None]]) -> list[Curve]:
    """A limit over time, as one dashed line, which breaks off where there is none."""
    stretches: list[Points] = [[]]
    for at, most in watts:
        if most is not None:
            stretches[-1].append((at, most / 1_000))
        elif stretches[-1]:
            stretches[-1].append((at, stretches[-1][-1][1]))
            stretches.append([])
    return [Curve(name, kind, points, dashed=True, steps=True) for points in stretches if points]
