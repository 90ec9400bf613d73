"""A session over time as a page: power and why it changed, prices, what is at stake, meters and payments.

One file of HTML with its plots inside, which loads nothing and reads well on a phone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

from penstock.cli.money import shown
from penstock.cli.plot import Axis, Curve, Mark, Points, reach
from penstock.cli.sheet import filled, long_figure
from penstock.core.ports import TokenFacts
from penstock.sim.samples import About, Course, Sample

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
RULER = (
    *(SECOND * step for step in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * step for step in (1, 2, 5, 10, 15, 30)),
    *(HOUR * step for step in (1, 2, 3, 6, 12)),
    *(DAY * step for step in (1, 2, 7, 14)),
)  # ms: where people expect the marks of a time axis
REASONS = 200  # that a page tells; the file of samples has all
TO, BACK, SUPPLIER, CONSUMER, INK = range(5)  # the colours of lines


def course_page(course: Course) -> str:
    """The whole page."""
    figures = (_power, _prices, _stakes, _registers, _payments, _ticks)
    return filled(
        "course.html",
        title=escape(course.about.title),
        opening=escape(_opening(course)),
        summary=_summary(course),
        figures="\n".join(draw(course) for draw in figures),
        why=_why(course),
    )


def _opening(course: Course) -> str:
    first, last = course.samples[0], course.samples[-1]
    ways = [sample.power > 0 for sample in course.samples if sample.power]
    turns = sum(before is not after for before, after in pairwise(ways))
    turned = {0: "The flow never turned round", 1: "The flow turned round once"}
    return (
        f"{_moment(first.at)} to {_moment(last.at, first.at)}, UTC. "
        f"{_kwh(last.total - first.total)} flowed to the consumer, {_kwh(last.export - first.export)} back. "
        f"{turned.get(turns, f'The flow turned round {turns} times')}."
    )


def _summary(course: Course) -> str:
    about, last = course.about, course.samples[-1]
    net = last.paid - last.paid_back
    worst = max(sample.exposure_supplier for sample in course.samples)
    worst_back = max(sample.exposure_consumer for sample in course.samples)
    rows = [
        ("the consumer paid", f"{_money(last.paid, about)}, in {last.ticks:,} ticks"),
        ("the supplier paid", f"{_money(last.paid_back, about)}, in {last.back_ticks:,} ticks"),
        (f"net, from {'consumer to supplier' if net >= 0 else 'supplier to consumer'}", _money(abs(net), about)),
        ("the supplier had at stake", f"at most {_money(worst, about)} of {_money(about.limit_supplier, about)}"),
        ("the consumer had at stake", f"at most {_money(worst_back, about)} of {_money(about.limit_consumer, about)}"),
    ]
    body = "\n".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f"<table><tbody>{body}</tbody></table>"


def _why(course: Course) -> str:
    """Each reason, under the number that it has in the plot, and what power was from then on."""
    reasons = [sample for sample in course.samples if sample.why]
    if not reasons:
        return "<p>Nothing changed it.</p>"
    items = "\n".join(
        f"<li><time>{_moment(sample.at, reasons[0].at)}</time> {escape(sample.why)}: {_watts(sample.power)}</li>"
        for sample in reasons[:REASONS]
    )
    more = f"<p>{len(reasons) - REASONS:,} more are in the samples.</p>" if len(reasons) > REASONS else ""
    return f'<ol class="why">\n{items}\n</ol>{more}'


# ---- figures


def _power(course: Course) -> str:
    kilowatts = _series(course, lambda sample: sample.power / 1_000)
    to = Curve("to the consumer", TO, [(at, max(0.0, power)) for at, power in kilowatts], area=True, steps=True)
    back = Curve("back", BACK, [(at, min(0.0, power)) for at, power in kilowatts], area=True, steps=True)
    most, least = (one(power for _, power in kilowatts) for one in (max, min))
    said = [f"At most {max(0.0, most):.4g} kW to the consumer", f"{max(0.0, -least):.4g} kW back"]
    reasons = [sample for sample in course.samples if sample.why]
    marks = [Mark(sample.at, number) for number, sample in enumerate(reasons[:REASONS], start=1)]
    if marks:
        said.append("the numbers are those of the reasons below")
    return _figure(
        course, "Power", "; ".join(said) + ".", "kW", [to, back, Curve("power", INK, kilowatts, steps=True)], marks
    )


def _prices(course: Course) -> str:
    whole = _whole(course)
    price = _series(course, lambda sample: sample.price / whole)
    curves = [Curve("to the consumer", TO, price, steps=True)]
    feed: Points = [
        (sample.at, sample.feed_price / whole) for sample in course.samples if sample.feed_price is not None
    ]
    if feed:
        curves.append(Curve("back", BACK, feed, dashed=True, steps=True))
    said = [f"{_range(curve)} {curve.name}" for curve in curves]
    words = f"From {'; from '.join(said)}. Below 0, who supplies pays."
    return _figure(course, "Prices", words, f"{course.about.symbol}/kWh", curves)


def _stakes(course: Course) -> str:
    about, whole = course.about, _whole(course)
    first, last = course.samples[0].at, course.samples[-1].at
    sides = (
        ("the supplier", SUPPLIER, about.limit_supplier, _series(course, lambda one: one.exposure_supplier / whole)),
        ("the consumer", CONSUMER, about.limit_consumer, _series(course, lambda one: one.exposure_consumer / whole)),
    )
    curves = [Curve(name, kind, points, steps=True, peaks=True) for name, kind, _, points in sides]
    for name, kind, limit, _ in sides:
        curves.append(Curve(f"{name}'s limit", kind, [(first, limit / whole), (last, limit / whole)], dashed=True))
    words = "The most that a side would have lost if the other had vanished then, and the limits that both agreed on."
    return _figure(course, "What is at stake", words, about.symbol, curves)


def _registers(course: Course) -> str:
    first = course.samples[0]
    curves = [
        Curve("to the consumer", TO, _series(course, lambda sample: (sample.total - first.total) / 1_000)),
        Curve("back", BACK, _series(course, lambda sample: (sample.export - first.export) / 1_000)),
    ]
    return _figure(course, "Energy", "By the meter's two registers, since the beginning.", "kWh", curves)


def _payments(course: Course) -> str:
    whole = _whole(course)
    curves = [
        Curve("by the consumer", TO, _series(course, lambda sample: sample.paid / whole), steps=True),
        Curve("by the supplier", BACK, _series(course, lambda sample: sample.paid_back / whole), steps=True),
        Curve("net", INK, _series(course, lambda sample: (sample.paid - sample.paid_back) / whole), steps=True),
    ]
    words = "What each side has paid so far. Net is what the consumer paid more than it got."
    return _figure(course, "Payments", words, course.about.symbol, curves)


def _ticks(course: Course) -> str:
    curves = [
        Curve("by the consumer", TO, _series(course, lambda sample: sample.ticks), steps=True),
        Curve("by the supplier", BACK, _series(course, lambda sample: sample.back_ticks), steps=True),
    ]
    return _figure(course, "Ticks", "Proven so far, one hash each.", "ticks", curves)


def _range(curve: Curve) -> str:
    heights = [height for _, height in curve.points]
    return f"{min(heights):.4g} to {max(heights):.4g}"


def _series(course: Course, value: Callable[[Sample], float]) -> Points:
    return [(sample.at, value(sample)) for sample in course.samples]


def _figure(course: Course, title: str, words: str, unit: str, curves: list[Curve], marks: Iterable[Mark] = ()) -> str:
    first, last = course.samples[0].at, course.samples[-1].at
    least, most = reach(curves)
    x = Axis("UTC", last, lambda at: _clock(at, last - first), first, _hours)
    return long_figure(title, words, x, Axis(unit, most, least=least), curves, list(marks))


def _whole(course: Course) -> int:
    whole: int = 10**course.about.decimals
    return whole


# ---- numbers and times as people write them


def _hours(least: float, most: float, number: int) -> list[float]:
    """Round times (ms), about so many."""
    rough = max(most - least, 1) / number
    step = next((one for one in RULER if one >= rough), -(-int(rough) // DAY) * DAY)
    return [float(at) for at in range(-(-int(least) // step) * step, int(most) + 1, step)]


def _clock(at: float, span: float) -> str:
    """A mark of a time axis that spans so many ms: the time of day, or where that says too little, the date."""
    moment = datetime.fromtimestamp(at / 1_000, UTC)
    if span > DAY and at % DAY == 0:
        return f"{moment.day} {moment:%b}"
    return f"{moment:%H:%M:%S}" if span < 10 * MINUTE else f"{moment:%H:%M}"


def _moment(at: int, before: int | None = None) -> str:
    """Date and time, UTC; the time alone where `before` was on the same day."""
    moment = datetime.fromtimestamp(at / 1_000, UTC)
    known = before is not None and before // DAY == at // DAY
    return f"{moment:%H:%M:%S}" if known else f"{moment:%Y-%m-%d %H:%M:%S}"


def _kwh(quantity: int) -> str:
    return f"{quantity / 1_000:,.3f} kWh"


def _watts(power: int) -> str:
    way = "to the consumer" if power > 0 else "back"
    return f"{abs(power) / 1_000:,.4g} kW {way}" if power else "nothing flows"


def _money(sum_: int, about: About) -> str:
    return shown(sum_, TokenFacts(about.symbol, about.decimals))
