"""A comparison's figures in words: the lines of its table, with a column for each rail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from penstock.core.units import format_decimal

SYMBOL = "cEUR"

Row = dict[str, Any]

FACTS = {
    "payer": "who pays",
    "payee": "who is paid",
    "deposit": "how much is locked",
    "paid": "how much is paid",
    "times": "when it was funded and settled",
    "price": "the price",
    "energy": "how much energy",
    "meter's key": "whose meter",
    "meter reading": "the meter's reading",
    "time of a reading": "when the meter read that",
    "ticks proven": "how many ticks",
}
"""What an observer may learn, in plain words."""


class Line(NamedTuple):
    """A line of the table: what it says, and one cell for each rail."""

    label: str
    cells: list[str]


def money(document: Row, units: int) -> str:
    """Token units in whole tokens, to a hundredth of a cent."""
    shift = document["decimals"] - 4
    rounded = -(-units // 10**shift)  # up: what something costs or risks is not made smaller
    return f"{format_decimal(rounded, 4)} {SYMBOL}"


def span(seconds: int) -> str:
    """A length of time in its two largest units."""
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"


def share(row: Row) -> str:
    """The gas as a part of the bill."""
    percent: float = 100 * row["share_of_bill"]
    return f"{percent:.1f} %" if percent < 100 else f"{percent / 100:.1f} times the bill"


def learned(row: Row, when: str) -> list[str]:
    """What an observer learns, in plain words."""
    return [FACTS[name] for name, fact in row["observer"][when]["facts"].items() if fact["values"]]


def transactions(count: int) -> str:
    """So many transactions, in words."""
    return f"{count} transaction{'' if count == 1 else 's'}"


def opening(document: Row) -> str:
    """What was compared, in one line."""
    return (
        f"session {document['session']}: {document['energy_wh']:,} Wh at {document['power_w'] / 1000:g} kW in "
        f"{span(document['duration_s'])}, a bill of {money(document, document['bill'])}; gas at "
        f"{document['gas_price_wei'] / 10**9:g} gwei, an ether at {document['ether'] / 10 ** document['decimals']:,g} "
        f"{SYMBOL}"
    )


def lines(document: Row) -> list[Line]:
    """The table's lines, from cost to risk to what is shown."""
    rows = document["rails"]

    def each(label: str, cell: Callable[[Row], str]) -> Line:
        return Line(label, [cell(row) for row in rows])

    def lost(side: str, at: int) -> Line:
        return each(
            f"  lost to {rows[0]['exposure'][side]['cheats'][at]['cheat']}",
            lambda row: money(document, row["exposure"][side]["cheats"][at]["loss"]),
        )

    def learns(name: str, words: str) -> Line:
        return each(f"  {words}", lambda row: seen(row, name))

    return [
        each("transactions", lambda row: str(len(row["transactions"]))),
        each("gas", lambda row: f"{row['gas']:,}"),
        each("  its price", lambda row: money(document, row["cost"])),
        each("  its share of the bill", share),
        each("each further session, gas", lambda row: f"{row['further_sessions']['gas']:,}"),
        each("before the first Wh", lambda row: transactions(row["transactions_before_first_wh"])),
        each("  seconds, on this machine", lambda row: f"{row['time']['first_wh_s']:.1f} s"),
        each("supplier's worst exposure", lambda row: money(document, row["exposure"]["supplier"]["honest"])),
        lost("supplier", 0),
        each("consumer's worst exposure", lambda row: money(document, row["exposure"]["consumer"]["honest"])),
        lost("consumer", 0),
        lost("consumer", 1),
        each("tokens locked", lambda row: money(document, row["locked"]["tokens"])),
        each("  in order, for", lambda row: span(row["locked"]["session_s"])),
        each("  where the supplier vanishes", lambda row: f"+ {span(row['locked']['alone_s'])}"),
        each("an observer learns", lambda row: str(len(learned(row, "in order")))),
        *(learns(name, words) for name, words in FACTS.items()),
        each("ledger away: streaming", lambda row: "goes on" if row["away"]["streams"] else "stops"),
        each("  a new session", begins),
        each("  settlement", lambda row: "goes on" if row["away"]["settles"] else "waits"),
        each("trust, besides the ledger", lambda row: ", ".join(row["declared"]["trust"]) or "nobody"),
    ]


def begins(row: Row) -> str:
    """Whether a session can begin without the ledger."""
    away = row["away"]
    if away["begins"]:
        return "begins"
    return "begins over a deposit that is there" if away["reuses"] else "waits"


def seen(row: Row, name: str) -> str:
    """When an observer learns a fact."""
    in_order, cheated = (row["observer"][when]["facts"][name]["values"] for when in ("in order", "after a cheat"))
    return "yes" if in_order else "after a dispute" if cheated else "no"


def table(document: Row) -> list[str]:
    """The whole comparison as lines of text."""
    found = lines(document)
    first = max(len(line.label) for line in found)
    widths = [
        max(len(row["rail"]), *(len(line.cells[at]) for line in found)) for at, row in enumerate(document["rails"])
    ]
    head = Line("", [row["rail"] for row in document["rails"]])
    return [
        opening(document),
        "",
        *(
            f"{line.label:{first}}  "
            + "  ".join(f"{cell:>{width}}" for cell, width in zip(line.cells, widths, strict=True))
            for line in (head, *found)
        ),
    ]
