"""A hub's live view: capacity in and out, locks, fees earned, and what is at risk until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli.money import shown
from penstock.cli.standing import utc
from penstock.core.units import format_decimal

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts

SHOWN = 12  # channels of each kind


def panel(stands: dict[str, Any], token: TokenFacts) -> Panel:
    """One picture of a hub (`node/hub.py`, `Hub.standing`)."""
    channels = Table.grid(padding=(0, 2))
    channels.add_column(style="dim", min_width=17)
    for _ in range(4):
        channels.add_column(justify="right")
    channels.add_column(min_width=12)
    _channels(channels, "paid by", "from", stands["in"], token)
    channels.add_row()
    _channels(channels, "pays", "to", stands["out"], token)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", justify="right")
    facts.add_column()
    facts.add_row("locks", f"{stands['locks']:,} now, {stands['carried']:,} carried since the start")
    facts.add_row("fees earned", shown(max(0, stands["fees"]), token))
    risk = shown(stands["at_risk"], token)
    facts.add_row("at risk", f"{risk} until {utc(stands['until'])}" if stands["until"] else "nothing")
    facts.add_row("ledger seen", _seen(stands))
    facts.add_row("to rebalance", _advice(stands, token))
    return Panel(
        Group(channels, Text(""), facts), title=f"hub {stands['hub'][:14]}...", title_align="left", border_style="cyan"
    )


def _seen(stands: dict[str, Any]) -> Text:
    seen, good = stands["seen_s"], stands["good_s"]
    said = "not yet" if seen is None else f"{seen} s ago" if seen else "just now"
    if not stands["leaning"]:
        return Text(said)
    until = f"good for {good} s more" if good else "no lock is taken"
    return Text(f"{said}, and does not answer: {until}", style="yellow" if good else "red")


def _channels(table: Table, head: str, end: str, rows: list[dict[str, Any]], token: TokenFacts) -> None:
    """A row for each channel; where one is not as it should be, that stands in the place of how much of it is used."""
    table.add_row(f"{head} ({token.symbol})", "deposit", "done", "locked", "locks", "in use", style="dim")
    for one in rows[:SHOWN]:
        done = one["earned"] if end == "from" else one["paid"]
        sums = [format_decimal(value, token.decimals) for value in (one["deposit"], done, one["locked"])]
        bar = ProgressBar(
            total=max(1, one["deposit"]), completed=one["deposit"] - one["free"], width=12, complete_style="yellow"
        )
        state = bar if one["state"] == "open" else Text(one["state"], style="yellow")
        table.add_row(f"{one[end][:14]}...", *sums, str(one["locks"]), state)
    if not rows:
        table.add_row("nobody yet")
    elif len(rows) > SHOWN:
        table.add_row(f"and {len(rows) - SHOWN} more")


def _advice(stands: dict[str, Any], token: TokenFacts) -> str:
    """What the operator can do so that capacity is where it is needed."""
    low = [one for one in stands["out"] if one["state"] == "open" and one["free"] * 5 < one["deposit"]]
    earned = sum(one["earned"] for one in stands["in"])
    if not low:
        return "nothing: every channel onward has room"
    return (
        f"{len(low)} onward with less than a fifth free: start again with more --lend; "
        f"{shown(earned, token)} lie in channels that pay us, for `penstock channel close`"
    )


class HubView:
    """The picture, live."""

    def __init__(self, token: TokenFacts) -> None:
        self._token = token
        self._live = Live(Text("reaching the neighbours ..."), console=Console(), refresh_per_second=4)

    def __enter__(self) -> HubView:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show(self, stands: dict[str, Any]) -> None:
        """Draw the hub as it stands."""
        self._live.update(panel(stands, self._token))
