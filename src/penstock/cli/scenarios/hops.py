"""Payments over hubs: what it looks like while the ticks go past them, and what is said in the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.cli.money import shown
from penstock.cli.rails import CHANNEL
from penstock.cli.scenarios import Scenario, Setting
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.demo_hops import ABOUT_A_LOCK, TICK_VALUE, run_hops

_EURO = TokenFacts("cEUR", 6)
FLOW = 0.25  # seconds between two pictures of the flow


class PathView:
    """The path from car to pole: locks along it, ticks past it."""

    def __init__(self, setting: Setting, live: bool, silent: bool) -> None:
        self._silent, self._path = silent, [f"hub{number + 1}" for number in range(setting.hubs)] or ["hub"]
        self._steps: list[str] = []
        self._hubs: dict[str, dict[str, Any]] = {}
        self._messages: dict[str, int] = {}
        self._between = 0
        self._streaming = False
        self._car: dict[str, Any] = {}
        self._live = Live(console=Console(), refresh_per_second=8) if live else None
        charge = setting.charge
        self._step(f"real session {charge.session_id}: {charge.energy_wh:,} Wh, {setting.speed:g} times as fast")

    def __enter__(self) -> PathView:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._draw()
            self._live.__exit__(*error)

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""
        if event == "standing":
            self._hubs[who] = facts
        elif event == ABOUT_A_LOCK:
            self._messages[who] = self._messages.get(who, 0) + 1
            self._between += self._streaming
        elif event == "progress" and who == "consumer":
            self._car = facts
        else:
            self._say(who, event, facts)
        self._draw()

    def _say(self, who: str, event: str, facts: dict[str, Any]) -> None:
        if event == "ready":
            self._step(f"devnet: chain {facts['chain_id']} at {facts['url']}")
        elif event == "listening":
            self._step(f"{'pole' if who == 'supplier' else who}: listens at {facts['address']}")
        elif event == "opened":
            self._step(f"{_name(who)}: opened a channel on the chain ({facts['gas']:,} gas)")
        elif event == "lock in place":
            fee, hubs = shown(facts["fee"], _EURO), "one hub" if facts["hubs"] == 1 else f"{facts['hubs']} hubs"
            self._step(f"car: locked {facts['ticks']:,} ticks over {hubs}, for at most {fee} in fees")
        elif event == "accepted" and who == "consumer":
            self._streaming = True
            self._step("car and pole: terms signed by both, streaming past the hubs")
        elif event == "ended" and who == "supplier":
            self._streaming = False
            self._car = {"ticks": facts["paid"] // TICK_VALUE, "paid": facts["paid"]}
            self._step(f"pole: {facts['reason']}, receipt signed by both; the hubs fold")
        elif event == "offline":
            self._step(f"no ledger can be reached now; the car's routes: {'; '.join(facts['routes'])}")
        elif event == "online":
            self._step("the ledger can be reached again, and all is settled")
        elif event == "leaning on an old view":
            self._step(f"{_name(who)}: leans on the ledger as it was {facts['seen_s']} s ago")

    def _step(self, text: str) -> None:
        self._steps.append(text)
        if self._live is None and not self._silent:
            typer.echo(text)

    def _draw(self) -> None:
        if self._live is not None:
            steps = Text("\n".join(f"· {step}" for step in self._steps), style="dim")
            self._live.update(Group(steps, self._panel()) if self._hubs else steps)

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", min_width=6)
        for _ in range(4):
            table.add_column(justify="right", min_width=13)
        table.add_row("", "locked in", "locked out", "fees", "messages", style="dim")
        for name in self._path:
            stands = self._hubs.get(name, {"in": [], "out": [], "fees": 0})
            sums = [sum(one["locked"] for one in stands[side]) for side in ("in", "out")]
            cells = [shown(value, _EURO) for value in (*sums, max(0, stands["fees"]))]
            table.add_row(name, *cells, str(self._messages.get(name, 0)))
        ticks = f"{self._car.get('ticks', 0):,} ticks, {shown(self._car.get('paid', 0), _EURO)}"
        way = Text(" ── ".join(["car", *self._path, "pole"]), style="cyan")
        length = len(way.plain) - 6
        flow = "".join("─" if (at + int(time.monotonic() / FLOW)) % 4 else "●" for at in range(length))
        past = Text(f"  ╰{flow if self._streaming else '─' * length}╯", style="green" if self._streaming else "dim")
        said = f"messages to hubs since the lock: {self._between}" if self._streaming else ""
        body = Group(way, past, Text(f"   {ticks}   {said}", style="green"), Text(""), table)
        return Panel(body, title="ticks go straight from car to pole", title_align="left", border_style="cyan")


def _name(who: str) -> str:
    return {"supplier": "pole", "consumer": "car"}.get(who, who)


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    return await run_hops(setting.charge, setting.speed, directory, watch, setting.hubs)


def summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    """What is said in the end, a line for each fact."""
    energy, exposure, heard = document["energy_wh"], document["max_exposure"], document["hub_messages"]
    lines = [
        f"session {document['session']} ended: {document['reason']}",
        f"  path      {' - '.join(map(_name, document['path']))}",
        f"  energy    {energy['supplier']:,} Wh by the pole's meter, {energy['consumer']:,} Wh by the car's",
        f"  payment   {shown(document['paid'], token)} ({document['paid']:,} token units), {document['ticks']:,} ticks",
        *(
            f"  fees      {shown(fee, token)} for {'the hubs in all' if name == 'all' else name}"
            for name, fee in document["fees"].items()
        ),
        f"  hubs      heard {heard['between_lock_and_fold']} messages between lock and fold, {heard['in_all']} in all",
        f"  at risk   at most {shown(exposure['supplier'], token)} for the pole, "
        f"{shown(exposure['consumer'], token)} for the car",
        f"  limit     {shown(document['credit_limit'], token)} for either",
    ]
    for side, balance in document["balances"].items():
        gain = balance["after"] - balance["before"]
        lines.append(f"  balance   {_name(side):6} {'+' if gain > 0 else ''}{shown(gain, token)}")
    return lines


SCENARIO = Scenario(
    session="S0004",
    speed=600.0,
    rails=(CHANNEL,),
    play=_play,
    view=PathView,
    summary=summary,
    agreed="both receipts, all journals and the chain agree to the last token unit",
    hubs=3,
)
