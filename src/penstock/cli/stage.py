"""What a demo looks like while it runs: its steps as they happen, and the stream as both sides see it."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from penstock.cli.view import Facts, panel
from penstock.core.ports import TokenFacts
from penstock.sim.charges import Charge, power_w

TICK = 1_000  # token units, as the demo sells
AVERAGE = 1.5  # seconds
_EURO = TokenFacts("cEUR", 6)


class Stage:
    """Hears the events of the demo's processes and shows them: live on a terminal, as lines elsewhere."""

    def __init__(self, charge: Charge, speed: float, *, live: bool, silent: bool) -> None:
        self._charge = charge
        self._speed = speed
        self._silent = silent
        self._seen: deque[tuple[float, int]] = deque()
        self._power = 0
        self._steps: list[str] = []
        self._sides: dict[str, dict[str, Any]] = {"supplier": {}, "consumer": {}}
        self._live = Live(console=Console(), refresh_per_second=10, transient=False) if live else None
        hours, minutes = divmod(charge.energy_wh * 60 // power_w(charge), 60)
        self._step(
            f"real session {charge.session_id} at station {charge.station}: {charge.energy_wh:,} Wh at "
            f"{power_w(charge) / 1000:.1f} kW, {hours} h {minutes:02} min, {speed:g} times as fast"
        )

    def __enter__(self) -> Stage:
        if self._live is not None:
            self._live.__enter__()
            self._draw()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def on_event(self, who: str, event: str, facts: dict[str, Any]) -> None:
        """One event of one process."""
        if event == "progress":
            self._sides[who] = facts
            if who == "consumer":
                self._measure(facts["total"])
            self._draw()
        elif event == "ready":
            self._step(f"devnet: chain {facts['chain_id']} at {facts['url']}")
        elif event == "listening":
            self._step(f"pole: sells at {facts['address']} for {facts['price']} cEUR/kWh")
        elif event == "offered":
            self._step(f"car: found {facts['name']}, its price is within the limit")
        elif event == "opened":
            self._step(f"car: opened channel {facts['channel'][:18]}... on the chain ({facts['gas']:,} gas)")
        elif event == "funded":
            self._step(f"car: made the deposit of escrow {facts['escrow'][:18]}... on the chain ({facts['gas']:,} gas)")
        elif event == "accepted" and who == "consumer":
            self._step("car and pole: terms signed by both, streaming")
        elif event == "ended" and who == "supplier":
            self._finish(facts["total"], facts["paid"])
            self._step(f"pole: valve closed, {facts['reason']}, receipt signed by both")
        elif event == "settled" and "escrows" in facts:
            self._step("pole: ended the escrow on the chain, as both had signed")
        elif event == "close taken":
            self._step("pole: took the channel's cooperative close, settling it on the chain")
        elif event in ("resumed", "restored", "link lost"):
            self._step(f"{who}: {event}")

    def _measure(self, total: int) -> None:
        """The power of the last second or so, on the line's own clock: the valve throttles faster than one can see."""
        now = time.monotonic()
        self._seen.append((now, total))
        while now - self._seen[0][0] > AVERAGE:
            self._seen.popleft()
        since, before = self._seen[0]
        if now > since:
            self._power = int((total - before) * 3600 / ((now - since) * self._speed))

    def _finish(self, total: int, paid: int) -> None:
        for facts in self._sides.values():
            if facts:
                facts |= {"total": total, "supplier_total": total, "paid": paid, "ticks": paid // TICK, "exposure": 0}
        self._power = 0

    def _step(self, text: str) -> None:
        self._steps.append(text)
        if self._live is None:
            if not self._silent:
                typer.echo(text)
        else:
            self._draw()

    def _draw(self) -> None:
        if self._live is None:
            return
        steps = Text("\n".join(f"· {step}" for step in self._steps), style="dim")
        supplier, consumer = self._sides["supplier"], self._sides["consumer"]
        if not supplier or not consumer:
            self._live.update(steps)
            return
        facts = Facts(
            power=self._power,
            supplier_total=consumer.get("supplier_total", consumer["total"]),  # both read at the same instant
            consumer_total=consumer["total"],
            target=self._charge.energy_wh,
            unit="Wh",
            ticks=supplier["ticks"],
            paid=supplier["paid"],
            exposure={"supplier": supplier["exposure"], "consumer": consumer["exposure"]},
            limit=supplier["limit"],
            state=f"{self._speed:g} times as fast" if supplier["linked"] else "waiting for the link",
        )
        self._live.update(Group(steps, panel("a car buys from a pole", facts, _EURO)))
