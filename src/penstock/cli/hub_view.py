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

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts

SHOWN = 12  # channels of each kind


def panel(stands: dict[str, Any], token: TokenFacts) -> Panel:
    """One picture of a hub (`node/hub.py`, `Hub.standing`)."""
    parts: list[Any] = [_channels("paid by", "from", stands["in"], token), Text("")]
    parts += [_channels("pays", "to", stands["out"], token), Text("")]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", justify="right")
    facts.add_column()
    facts.add_row("locks", f"{stands['locks']:,} now, {stands['carried']:,} carried since the start")
    facts.add_row("fees earned", shown(max(0, stands["fees"]), token))
    risk = shown(stands["at_risk"], token)
    facts.add_row("at risk", f"{risk} until {utc(stands['until'])}" if stands["until"] else "nothing")
    facts.add_row("ledger seen", _seen(stands))
    facts.add_row("to rebalance", _advice(stands, token))
    return Panel(Group(*parts, facts), title=f"hub {stands['hub'][:14]}...", title_align="left", border_style="cyan")


def _seen(stands: dict[str, Any]) -> Text:
    seen, good = stands["seen_s"], stands["good_s"]
    said = "not yet" if seen is None else f"{seen} s ago" if seen else "just now"
    if not stands["leaning"]:
        return Text(said)
    until = f"good for {good} s more" if good else "too long ago: no lock is taken"
    return Text(f"{said}, and does not answer; {until}", style="yellow" if good else "red")


def _channels(head: str, end: str, rows: list[dict[str, Any]], token: TokenFacts) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=18)
    for _ in range(3):
        table.add_column(justify="right", min_width=10)
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    table.add_row(head, "deposit", "done", "locked", "locks", "free", "", style="dim")
    for one in rows[:SHOWN]:
        done = one["earned"] if end == "from" else one["paid"]
        used = one["deposit"] - one["free"]
        bar = ProgressBar(total=max(1, one["deposit"]), completed=used, width=20, complete_style="yellow")
        sums = [shown(value, token) for value in (one["deposit"], done, one["locked"])]
        state = "" if one["state"] == "open" else one["state"]
        table.add_row(f"{one[end][:14]}...", *sums, str(one["locks"]), bar, state)
    if not rows:
        table.add_row("nobody yet")
    elif len(rows) > SHOWN:
        table.add_row(f"and {len(rows) - SHOWN} more")
    return table


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
