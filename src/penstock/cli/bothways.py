"""The live view of a session that turns round: which way it goes and why, what it costs, who paid, who risks what.

view = BothWays(about)
with Live(view):
    view.take(sample, "streaming", Coming(at, price, feed_price))
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli.money import shown
from penstock.cli.output import printable
from penstock.core.ports import TokenFacts
from penstock.sim.samples import About, Sample

WIDTH = 92
COLUMNS = 64  # of the strip of power
LABEL, SIDE = 14, 34
TO, BACK = "cyan", "yellow"  # the colours of both ways
EIGHTHS = " ▁▂▃▄▅▆▇█"


class Coming(NamedTuple):
    """The next step of the prices: when (ms since 1970), and what a kWh costs then to the consumer and back."""

    at: int
    price: int
    feed_price: int | None


class Strip:
    """Power from the beginning until now, in at most `COLUMNS` columns: in each the largest that flowed."""

    __slots__ = ("_columns", "_since", "_wide")

    def __init__(self) -> None:
        self._columns: list[int] = []
        self._since = 0
        self._wide = 1_000  # ms a column

    def take(self, at: int, power: int) -> None:
        """Power at an instant, which is not before the last."""
        if not self._columns:
            self._since = at
        while (number := max(0, at - self._since) // self._wide) >= COLUMNS:
            pairs = [self._columns[start : start + 2] for start in range(0, len(self._columns), 2)]
            self._columns = [max(pair, key=abs) for pair in pairs]
            self._wide *= 2
        before = self._columns[-1] if self._columns else 0
        self._columns += [before] * (number - len(self._columns))  # it went on as it was
        if number < len(self._columns):
            self._columns[number] = max(self._columns[number], power, key=abs)
        else:
            self._columns.append(power)

    def rows(self) -> tuple[Text, Text]:
        """What flowed to the consumer, upwards; and below it, downwards, what flowed back."""
        up, down = Text(), Text()
        most = max(map(abs, self._columns), default=0) or 1
        for power in self._columns:
            eighths = -(-8 * abs(power) // most)
            up.append(EIGHTHS[eighths] if power > 0 else " ", TO)
            if power < 0:  # the lower part of a block that is inverted is free
                down.append(EIGHTHS[8 - eighths], f"{BACK} reverse")
            else:
                down.append(" ")
        return up, down


class BothWays:
    """What is to be seen of one session; drawn anew whenever rich asks."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._token = TokenFacts(about.symbol, about.decimals)
        self._strip = Strip()
        self._sample: Sample | None = None
        self._coming: Coming | None = None
        self._state = "looking for an offer"
        self._why = ""

    def take(self, sample: Sample, state: str, coming: Coming | None = None) -> None:
        """How the session stands now, and what its prices will be next."""
        self._sample, self._state, self._coming = sample, state, coming
        self._strip.take(sample.at, sample.power)
        if sample.why:
            self._why = f"{printable(sample.why)} ({_clock(sample.at)})"

    def __rich__(self) -> Panel:
        now = self._sample
        return Panel(
            Group(self._head(now), self._sides(now)) if now is not None else Text(self._state),
            title=Text(printable(self._about.title)),
            title_align="left",
            border_style=TO if now is None or now.power >= 0 else BACK,
            width=WIDTH,
        )

    def _head(self, now: Sample) -> Table:
        """Which way it goes, and why."""
        grid = _grid(2)
        up, down = self._strip.rows()
        net = now.paid - now.paid_back
        _add(grid, "flow", _arrow(now.power))
        _add(grid, "", up)
        _add(grid, "", down)
        _add(grid, "why", Text(self._why))
        _add(grid, "at", f"{_clock(now.at)} UTC, {self._state}")
        _add(grid, "net", f"{'consumer' if net >= 0 else 'supplier'} paid {self._money(abs(net))} more than it got")
        return grid

    def _sides(self, now: Sample) -> Table:
        """Both directions beside each other: what flows to the consumer, and what flows back."""
        grid, about = _grid(3), self._about
        _add(grid, "", Text("to the consumer", f"bold {TO}"), Text("back", f"bold {BACK}"))
        _add(grid, "energy", _kwh(now.total), _kwh(now.export))
        _add(grid, "price", self._price(now.price), self._price(now.feed_price))
        if self._coming is not None:
            later = self._price(self._coming.price), self._price(self._coming.feed_price)
            _add(grid, f"from {_clock(self._coming.at)}", *later)
        _add(
            grid,
            "paid",
            f"by the consumer {self._money(now.paid)}",
            f"by the supplier {self._money(now.paid_back)}",
        )
        _add(grid, "ticks", f"{now.ticks:,}", f"{now.back_ticks:,}")
        _add(
            grid,
            "could lose",
            f"supplier {self._money(now.exposure_supplier)}",
            f"consumer {self._money(now.exposure_consumer)}",
        )
        _add(
            grid,
            "",
            _bar(now.exposure_supplier, about.limit_supplier),
            _bar(now.exposure_consumer, about.limit_consumer),
        )
        _add(grid, "limit", self._money(about.limit_supplier), self._money(about.limit_consumer))
        return grid

    def _price(self, price: int | None) -> str:
        return "-" if price is None else f"{self._money(price)}/kWh"

    def _money(self, sum_: int) -> str:
        return shown(sum_, self._token)


def _grid(columns: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right", width=LABEL)
    for _ in range(columns - 1):
        grid.add_column(no_wrap=True, min_width=SIDE)
    return grid


def _add(grid: Table, *cells: str | Text | ProgressBar) -> None:
    """A row of plain text: a token's symbol is somebody else's word, and no markup."""
    grid.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells))


def _bar(exposure: int, limit: int) -> ProgressBar:
    return ProgressBar(total=limit, completed=min(max(0, exposure), limit), width=SIDE, complete_style="magenta")


def _arrow(power: int) -> Text:
    if not power:
        return Text("supplier ┄┄┄┄┄┄┄┄ consumer   nothing flows", "dim")
    way = "━━━━━━━▶" if power > 0 else "◀━━━━━━━"
    return Text(f"supplier {way} consumer   {abs(power) / 1_000:,.2f} kW", TO if power > 0 else BACK)


def _kwh(quantity: int) -> str:
    return f"{quantity / 1_000:,.3f} kWh"


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1_000, UTC):%H:%M:%S}"
