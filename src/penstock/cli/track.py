"""What a replay looks like while it runs: a bar for each of its steps, or lines where there is no terminal."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Track:
    """Hears the events of a replay's processes."""

    def __init__(self, *, live: bool, silent: bool) -> None:
        self._silent = silent
        self._live = live
        self._of = 1
        self._bars = Progress(
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not live,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Track:
        self._bars.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bars.__exit__(*error)

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""
        if event == "ready":
            self._line(f"devnet at {facts['url']}; an fsync takes {facts['fsync_ms']} ms")
        elif event == "opened":
            self._bar("opening", facts["channels"], facts["of"], "channels, by permit")
        elif event == "streaming":
            self._of = facts["sessions"]
            self._line(f"streaming {self._of} sessions")
        elif event == "progress":
            note = f"{facts['ticks']:,} ticks, {facts['energy_wh'] / 1000:,.1f} kWh, {facts['paid'] / 1e6:,.2f} cEUR"
            self._bar("streaming", facts["sessions"], self._of, note)
        elif event == "settling":
            self._bar("streaming", self._of, self._of, "")
            self._line(f"settling {facts['channels']} channels in batches")
        elif event == "settled":
            self._bar("settling", facts["channels"], facts["of"], "channels, 50 a transaction")
        elif event in ("failed", "not settled"):
            self._line(f"{who}: {event}: {facts}")

    def _bar(self, name: str, done: int, of: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=of, note=note)
        self._bars.update(self._tasks[name], completed=done, note=note)

    def _line(self, text: str) -> None:
        if not self._live and not self._silent:
            typer.echo(text, err=True)
