"""The reversal demo: what it looks like, and what is said in the end."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from penstock.cli.bothways import BothWays
from penstock.cli.course import course_page
from penstock.cli.money import shown
from penstock.cli.rails import CHANNEL
from penstock.cli.scenarios import Scenario, Setting
from penstock.cli.sheet import check_writable, write_page
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.demo_v2g import CREDIT_TICKS, SAMPLES, TICK_VALUE, profile, run_v2g
from penstock.sim.recorder import about
from penstock.sim.samples import read_course


class TurningView:
    """The steps as they happen, and on a terminal both ways of the session under them."""

    def __init__(self, setting: Setting, live: bool, silent: bool) -> None:
        charge, limit = setting.charge, CREDIT_TICKS * TICK_VALUE
        self._silent, self._speed, self._steps = silent, setting.speed, list[str]()
        self._both = BothWays(about(f"session {charge.session_id} at {charge.station}", limit, limit))
        self._started = False
        self._live = Live(console=Console(), refresh_per_second=10) if live else None
        self._step(self._title(setting))

    def _title(self, setting: Setting) -> str:
        charge, moved = setting.charge, profile(setting.charge)
        return (
            f"real session {charge.session_id} at station {charge.station}: {moved.first:,} Wh to the car, "
            f"{moved.back:,} Wh back, {moved.second:,} Wh to the car, {setting.speed:g} times as fast"
        )

    def __enter__(self) -> TurningView:
        if self._live is not None:
            self._live.__enter__()
            self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""
        if event == "sample":
            self._started = True
            self._both.take(facts["sample"], f"{self._speed:g} times as fast")
            self._draw()
        elif event == "listening":
            self._step(f"pole: sells for {facts['price']} cEUR/kWh, takes back what is fed in")
        elif event == "opened":
            self._step(f"car: opened a channel that pays both ways, {facts['channel'][:18]}... ({facts['gas']:,} gas)")
        elif event == "way":
            self._step(f"car: {facts['why']} (Wh)")
        elif event == "ended" and who == "supplier":
            self._step(f"pole: valve closed, {facts['reason']}, receipt signed by both")
        elif event == "close taken":
            self._step("pole: took the channel's cooperative close, settling it on the chain")
        elif event in ("resumed", "restored", "link lost"):
            self._step(f"{who}: {event}")

    def _step(self, text: str) -> None:
        self._steps.append(text)
        if self._live is not None:
            self._draw()
        elif not self._silent:
            typer.echo(text)

    def _draw(self) -> None:
        if self._live is not None:
            steps = Text("\n".join(f"· {step}" for step in self._steps), style="dim")
            self._live.update(Group(steps, self._both) if self._started else steps)


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    if setting.chart is not None:
        check_writable(setting.chart)
    demo = await run_v2g(setting.charge, setting.speed, directory, watch)
    chart = setting.chart or (directory / "chart.html" if setting.kept else None)
    if chart is not None:
        write_page(chart, course_page(read_course(directory / SAMPLES)))
        demo.document["chart"] = str(chart)
    return demo


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    energy, exposure, limit, chain = (document[key] for key in ("energy_wh", "max_exposure", "limit", "chain"))
    lines = [f"session {document['session']} ended: {document['reason']}"]
    lines += [
        f"  energy    {one['to_consumer']:,} Wh to the car and {one['back']:,} Wh back by the {who}'s meter"
        for who, one in energy.items()
    ]
    lines += [
        f"  payment   {shown(document['paid'], token)} by the car, {shown(document['repaid'], token)} by the pole: "
        f"net {shown(document['net'], token)} ({document['net']:,} token units)",
        *(
            f"  at risk   at most {shown(exposure[who], token)} for the {who}; its limit was {shown(limit[who], token)}"
            for who in exposure
        ),
        f"  on chain  {chain['opens']} opening, {chain['closes']} settlement, {document['gas']:,} gas",
    ]
    lines += [f"            {one['what']:22} {one['gas']:>7,} gas" for one in document["transactions"]]
    return lines + ([f"  chart     {document['chart']}"] if "chart" in document else [])


SCENARIO = Scenario(
    session="S0026",  # from the evening to the next evening
    speed=600.0,
    rails=(CHANNEL,),
    play=_play,
    view=TurningView,
    summary=_summary,
    agreed="both meters, both receipts, both journals and the chain agree to the last token unit, both ways",
    charts=True,
)
