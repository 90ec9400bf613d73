"""The live view of a running stream: power, energy on both meters, ticks, tokens, exposure against its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli.money import shown
from penstock.core.medium import medium
from penstock.core.units import MAX_QUANTITY

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts
    from penstock.core.session import Session


class Facts(dict[str, Any]):
    """What a view shows: `power`, `supplier_total`, `consumer_total`, `target`, `unit`, `ticks`, `paid`, `exposure`
    {supplier, consumer}, `limit`, `state`."""


def panel(title: str, facts: Facts, token: TokenFacts) -> Panel:
    """One picture of a stream."""
    unit, target = facts["unit"], facts.get("target")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column(min_width=14)
    grid.add_column()
    grid.add_row("rate" if unit == "bytes" else "power", _flow(facts["power"], unit), facts["state"])
    for side in ("supplier", "consumer"):
        total = facts[f"{side}_total"]
        bar = ProgressBar(total=target, completed=min(total, target), width=36) if target else Text("")
        grid.add_row(f"{side}'s meter", f"{total:,} {unit}", bar)
    grid.add_row("ticks", f"{facts['ticks']:,}", "")
    grid.add_row("paid", shown(facts["paid"], token), "")
    for side, exposure in facts["exposure"].items():
        limit = max(1, facts["limit"])
        bar = ProgressBar(total=limit, completed=min(exposure, limit), width=36, complete_style="yellow")
        grid.add_row(f"{side} could lose", shown(exposure, token), Group(bar))
    grid.add_row("credit limit", shown(facts["limit"], token), "")
    return Panel(grid, title=title, title_align="left", border_style="cyan", width=92)


def _flow(power: int, unit: str) -> str:
    """What flows now, as people read it."""
    scale, name = {"Wh": (1_000, "kW"), "bytes": (1_000_000, "MB/s")}.get(unit, (1, ""))
    return f"{power / scale:.1f} {name}" if name else str(power)


class SessionView:
    """A live view of one session, as one of its sides sees it."""

    def __init__(self, token: TokenFacts, supplier: str) -> None:
        self._token = token
        self._title = f"buying from {supplier}"
        self._live = Live(Text("looking for an offer ..."), console=Console(), refresh_per_second=8)

    def __enter__(self) -> SessionView:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def show(self, session: Session, power: int) -> None:
        """Draw the session as it stands."""
        terms = session.terms
        facts = Facts(
            power=power,
            supplier_total=session.claimed,
            consumer_total=session.meter.total,
            target=terms.quantity_limit if terms.quantity_limit < MAX_QUANTITY else None,
            unit=medium(terms.offer.medium).unit,
            ticks=session.ticks,
            paid=session.paid,
            exposure={
                "supplier": max(0, session.bill.due(session.claimed) - session.paid),
                "consumer": session.control.exposure,
            },
            limit=terms.offer.credit_limit,
            state=str(session.state) if session.linked or session.complete else "waiting for the link",
        )
        self._live.update(panel(self._title, facts, self._token))
