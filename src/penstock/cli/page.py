"""A comparison as a page: one file of HTML with its plots inside, which loads nothing and reads well on a phone."""

from __future__ import annotations

from html import escape
from typing import Any

from penstock.cli.compared import (
    FACTS,
    SYMBOL,
    Row,
    begins,
    learned,
    lines,
    money,
    opening,
    seen,
    share,
    span,
    transactions,
)
from penstock.cli.plot import Axis, Curve, Points, stepped
from penstock.cli.sheet import figure, filled

MANY = 30  # sessions: a month of charging
MARGIN = 1.1  # of a plot, above its highest point
HOUR = 3_600


def page(document: Row) -> str:
    """The whole page."""
    return filled(
        "compare.html",
        opening=escape(_sentence(opening(document))),
        verdict=_verdict(document),
        summary=_summary(document),
        many_words=_many_words(document),
        many=_many(document),
        stake_words=_stake_words(document),
        stake=_stake(document),
        cheats=_cheats(document),
        locked_words=_locked_words(document),
        locked=_locked(document),
        learns=_learns(document),
        away=_away(document),
        notes=_notes(document),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _verdict(document: Row) -> str:
    """For each rail, what a reader should take away."""
    items = [f"<li>{_name(at, row)}: {escape(_gist(document, row))}.</li>" for at, row in enumerate(document["rails"])]
    return f"<ul>{''.join(items)}</ul>\n<p>{_why(document)}</p>"


def _why(document: Row) -> str:
    """What the payment method decides: the same cheat, over each rail."""
    taken = [
        f"{_name(at, row)} {escape(money(document, row['exposure']['consumer']['cheats'][-1]['loss']))}"
        for at, row in enumerate(document["rails"])
    ]
    month = [f"{_name(at, row)} {_total(document, row, MANY):.2f} {SYMBOL}" for at, row in enumerate(document["rails"])]
    return (
        "Why stream? A supplier that was paid and stopped supplying halfway, while its meter said otherwise, took from "
        f"the consumer: {', '.join(taken)}. {MANY} sessions between the same two cost in gas: {', '.join(month)}."
    )


def _total(document: Row, row: Row, sessions: int) -> float:
    """What the gas of so many sessions costs, in whole tokens."""
    each = row["cost"] * row["further_sessions"]["gas"] / max(1, row["gas"])
    return float((row["cost"] + (sessions - 1) * each) / 10 ** document["decimals"])


def _gist(document: Row, row: Row) -> str:
    exposure, further = row["exposure"], row["further_sessions"]
    supplier, consumer = (money(document, exposure[side]["cheated"]) for side in ("supplier", "consumer"))
    later = "no more" if not further["gas"] else f"{transactions(further['transactions'])} again"
    return (
        f"{transactions(len(row['transactions']))} for the first session and {later} for each further one; "
        f"a cheat takes at most {supplier} from the supplier and {consumer} from the consumer; "
        f"strangers learn {len(learned(row, 'in order'))} of {len(FACTS)} facts"
    )


def _name(at: int, row: Row) -> str:
    return f'<strong class="rail-{at}">{escape(row["rail"])}</strong>'


def _table(caption: str, head: list[str], body: list[tuple[str, list[str], bool]]) -> str:
    """A table of HTML cells; each row with its label, and whether it is a part of the one above."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    rows = "\n".join(
        f'<tr{" class=part" if part else ""}><th scope="row">{label}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for label, cells, part in body
    )
    return (
        f"<table><caption>{escape(caption)}</caption>\n<thead><tr><th></th>{columns}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table>"
    )


def _heads(document: Row) -> list[str]:
    return [f'<span class="rail-{at}">{escape(row["rail"])}</span>' for at, row in enumerate(document["rails"])]


def _summary(document: Row) -> str:
    found = lines(document)
    until = next(at for at, line in enumerate(found) if line.label.startswith("supplier's worst"))
    body = [
        (escape(line.label.strip()), [escape(cell) for cell in line.cells], line.label.startswith(" "))
        for line in [*found[:until], found[-1]]
    ]
    return _table("For one session in good order", _heads(document), body)


# ---- many sessions


def _many_words(document: Row) -> str:
    parts = []
    for at, row in enumerate(document["rails"]):
        further = row["further_sessions"]["gas"]
        how = "its deposit serves many sessions" if not further else "each session needs a deposit of its own"
        parts.append(f"{_name(at, row)}: {how}")
    return "; ".join(parts) + f". The price of gas for 1 to {MANY} sessions between the same two, in all:"


def _many(document: Row) -> str:
    curves = [
        Curve(row["rail"], at, [(number, _total(document, row, number)) for number in range(1, MANY + 1)])
        for at, row in enumerate(document["rails"])
    ]
    bill = document["bill"] / 10 ** document["decimals"]
    said = "; ".join(f"{curve.name}: {curve.points[-1][1]:.2f} {SYMBOL} after {MANY}" for curve in curves)
    return figure(
        "Price of gas, all sessions together",
        f"{said}. One session's bill is {bill:.2f} {SYMBOL}.",
        Axis("sessions", MANY),
        Axis(SYMBOL, _top(curves)),
        curves,
    )


def _top(curves: list[Curve]) -> float:
    return MARGIN * max(point[1] for curve in curves for point in curve.points) or 1.0


# ---- what is at stake


def _stake_words(document: Row) -> str:
    return (
        "What a side would lose if the other cheated at that moment: what it gave and did not get back yet, and, where "
        "the rail trusts the meter's key, all of the deposit that is not supplied yet. "
        f"Both agreed that at most {escape(money(document, document['credit_limit']))} is ever owed."
    )


def _first_steps(document: Row) -> str:
    """The supplier's exposure at the beginning of the session, step by step."""
    whole = 10 ** document["decimals"]
    curves = [
        Curve(row["rail"], at, [(ms / 1_000, stake / whole) for ms, stake in row["first_steps"]], dashed=at > 0)
        for at, row in enumerate(document["rails"])
    ]
    return figure(
        "The first steps, one by one: the supplier",
        "A package flows, what is owed for it rises, and falls as it is secured; then the next one flows.",
        Axis("seconds into the session", max(point[0] for curve in curves for point in curve.points)),
        Axis(SYMBOL, _top(curves)),
        curves,
    )


def _stake(document: Row) -> str:
    return _first_steps(document) + "\n".join(
        figure(
            f"What the {side} has at stake",
            _stake_caption(document, side),
            Axis("minutes into the session", document["duration_s"] / 60),
            Axis(SYMBOL, _top(curves)),
            curves,
        )
        for side in ("supplier", "consumer")
        for curves in [_stakes(document, side)]
    )


def _stakes(document: Row, side: str) -> list[Curve]:
    return [Curve(row["rail"], at, _at_stake(document, row, side)) for at, row in enumerate(document["rails"])]


def _at_stake(document: Row, row: Row, side: str) -> Points:
    """The series of the run: exposure, or for who deposits under a meter's word, what of it is not supplied yet."""
    whole = 10 ** document["decimals"]
    trusting = side == "consumer" and row["declared"]["payer_at_stake"] == "deposit"
    locked = row["locked"]["tokens"]
    return [
        (at / 60, (max(exposure, locked - paid) if trusting else exposure) / whole)
        for at, exposure, paid in row["series"][side]
    ]


def _stake_caption(document: Row, side: str) -> str:
    said = []
    for row in document["rails"]:
        most = max(point[1] for point in _at_stake(document, row, side))
        said.append(f"{row['rail']}: at most {most:.4g} {SYMBOL}")
    return "; ".join(said) + ". In good order."


def _cheats(document: Row) -> str:
    rows = document["rails"]
    body: list[tuple[str, list[str], bool]] = []
    for side in ("supplier", "consumer"):
        for at, cheat in enumerate(rows[0]["exposure"][side]["cheats"]):
            found = [row["exposure"][side]["cheats"][at] for row in rows]
            body.append(
                (
                    escape(_sentence(cheat["cheat"])[:-1]),
                    [f"{escape(money(document, one['loss']))}, the {side}" for one in found],
                    False,
                )
            )
            body.append(("settled by", [escape(", ".join(one["transactions"][1:])) for one in found], True))
    return _table("What real cheats took, and from whom", _heads(document), body)


# ---- locked


def _locked_words(document: Row) -> str:
    return (
        "The consumer's tokens are locked from before the first watt-hour until the session is settled. Where the "
        "supplier vanishes, the consumer gets what nobody claims back alone, and waits for it (dashed). A deposit that "
        "is to serve many sessions locks what they cost together, for as long as it stands."
    )


def _locked(document: Row) -> str:
    whole = 10 ** document["decimals"]
    most = max(row["locked"]["session_s"] + row["locked"]["alone_s"] for row in document["rails"]) / HOUR
    curves = []
    for at, row in enumerate(document["rails"]):
        kept = row["locked"]
        height, end = kept["tokens"] / whole, kept["session_s"] / HOUR
        left = 0.0 if len(kept["alone"]) == 2 else end / 2  # it waited from its deposit, or from its close
        curves.append(Curve(row["rail"], at, stepped([(0, height), (end, 0), (most, 0)])))
        vanishing = stepped([(end / 2, height), (left + kept["alone_s"] / HOUR, 0), (most, 0)])
        curves.append(Curve(f"{row['rail']}, supplier gone halfway", at, vanishing, dashed=True))
    said = "; ".join(
        f"{row['rail']}: {money(document, row['locked']['tokens'])} for {span(row['locked']['session_s'])}; where "
        f"the supplier was killed halfway, what it had not claimed came back after "
        f"{span(row['locked']['alone_s'])}"
        for row in document["rails"]
    )
    return figure(
        "Tokens locked", said + ".", Axis("hours since the deposit", most), Axis(SYMBOL, _top(curves)), curves
    )


# ---- what strangers learn, and the ledger away


def _learns(document: Row) -> str:
    marks = {"yes": ("yes", "● learns"), "after a dispute": ("yes", "◐ after a dispute"), "no": ("no", "○ does not")}

    def cell(row: Row, name: str) -> str:
        style, words = marks[seen(row, name)]
        return f'<span class="{style}">{words}</span>'

    body = [(escape(words), [cell(row, name) for row in document["rails"]], False) for name, words in FACTS.items()]
    sources = "".join(
        f"<li>{_name(at, row)}: {escape(_sources(row))}.</li>" for at, row in enumerate(document["rails"])
    )
    return (
        _table("Who looks at the chain learns", _heads(document), body)
        + "<p>Both sides know all of it: they agreed on it. Where an observer read it, in good order:</p>"
        + f"<ul>{sources}</ul>"
    )


def _sources(row: Row) -> str:
    facts: dict[str, Any] = row["observer"]["in order"]["facts"]
    return "; ".join(f"{FACTS[name]} ({fact['read_in'][0]})" for name, fact in facts.items() if fact["values"])


def _away(document: Row) -> str:
    def cell(works: bool, yes: str, no: str) -> str:
        return f'<span class="{"works" if works else "waits"}">{"✓ " + yes if works else "… " + no}</span>'

    rows = [row["away"] for row in document["rails"]]
    body = [
        ("a session that streams", [cell(row["streams"], "goes on to its receipt", "stops") for row in rows], False),
        (
            "a new session",
            [cell(begins(row) == "begins", "begins", begins(row)) for row in document["rails"]],
            False,
        ),
        ("settlement", [cell(row["settles"], "goes on", "waits") for row in rows], False),
        ("when it is back: a session", [cell(row["reuses_later"], "begins", "does not begin") for row in rows], False),
        (
            "when it is back: settlement",
            [cell(row["settles_later"], "is made up for", "is lost") for row in rows],
            False,
        ),
    ]
    return _table("Without the ledger", _heads(document), body)


def _notes(document: Row) -> str:
    tolerance = document["tolerance"]
    notes = [
        "Supply ran at full speed: what was allowed flowed at once, the worst that timing can bring. "
        "The minutes are the line's own, on which power times time is energy.",
        f"Two meters may differ by {tolerance['units']} Wh and {tolerance['ppm'] / 10_000:g} %, as the terms say. "
        "A meter that runs fast within that is believed on any rail.",
        "Gas is that of whole transactions, to the nearest hundred; the consumer came for the first time, and the "
        "supplier had been paid before.",
        f"The first watt-hour flowed {', '.join(_first(row) for row in document['rails'])} after the start of the "
        "consumer's program, on a chain that makes blocks at once; elsewhere each transaction before it waits for one.",
        f"Gas at {document['gas_price_wei'] / 10**9:g} gwei: the share of the bill was "
        f"{', '.join(share(row) for row in document['rails'])}. It scales with the price of gas.",
    ]
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _first(row: Row) -> str:
    return f"{row['time']['first_wh_s']:.1f} s ({row['rail']})"
