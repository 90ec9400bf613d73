"""Prices over time as the world writes them, read exactly, and the tariff that follows from them.

The form is the one that evcc reads for custom tariffs and answers for its own (docs.evcc.io, "Tariffs & Forecasts";
`api/rates.go` there): a JSON list of

    {"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T00:15:00+00:00", "value": -0.0123}

or an object that has the list as "rates". Times are RFC 3339 with an offset; a value is a price in whole tokens (EUR) a
kWh, below 0 where the supplier pays. A value is read from its digits, as a number or as text, and never through a
float. Other members are ignored. Slots may come in any order, and are refused where they overlap or leave a gap: nobody
agreed to a price for it.

`per` of a tariff is chosen so that the smallest digit of a value is a whole number of token units: nothing is rounded.
Other media are quoted alike: whole tokens a m3, a GB, whatever their prices are told for.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NoReturn

import msgspec

from penstock.core.errors import BadRates
from penstock.core.tariff import MAX_STEPS, Step, Tariff
from penstock.core.units import MAX_AMOUNT, MAX_QUANTITY, Instant, format_decimal

WH = 1_000  # in a kWh: what values are quoted for
MAX_SERIES = 8 * 2**20  # bytes; a year of quarter hours has 4 MB
MAX_RATES = 40_000  # slots; a year of quarter hours has 35,136
MAX_SCALE = 18  # digits behind the point; a float that was written out has up to 17
MAX_DIGITS = 24  # before the point
_LONGEST = 64  # characters of a time or a number
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([Ee][+-]?\d+)?", re.ASCII)  # Decimal would take "1_0" and other scripts
_DEEP = re.compile(rb"(?:[\[{][^\[\]{}]*){64}")  # the form has three levels
_MILLISECOND = timedelta(milliseconds=1)
_LAST = Instant((datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND)  # of what can be written


class Rate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """From `start` to before `end` (ms since 1970), `value` units of the series' scale a kWh."""

    start: Instant
    end: Instant
    value: int


class Rates(msgspec.Struct, frozen=True):
    """Prices over time without gap or overlap: 10**`scale` units of a value are one whole token a kWh.

    The scale is the least that holds every value, so that equal prices are equal series.
    """

    scale: int
    slots: tuple[Rate, ...]

    @classmethod
    def of(cls, slots: Iterable[tuple[Instant, Instant, Decimal]]) -> Rates:
        """Prices from (start, end, whole tokens a kWh), in any order.

        Raises:
            BadRates: no slots or too many, a slot that ends before it begins, an overlap, a gap, or an absurd value.
        """
        rows = sorted(slots, key=lambda row: row[0])
        if not 1 <= len(rows) <= MAX_RATES:
            raise BadRates(f"a price series has 1..{MAX_RATES:,} slots, not {len(rows):,}")
        scale = max(_places(value) for _, _, value in rows)
        rates = cls(scale, tuple(Rate(start, end, _scaled(value, scale)) for start, end, value in rows))
        _check_times(rates.slots)
        return rates

    @property
    def start(self) -> Instant:
        """When the first price takes effect."""
        return self.slots[0].start

    @property
    def end(self) -> Instant:
        """When the last price is over."""
        return self.slots[-1].end

    def slot(self, at: Instant) -> Rate:
        """The slot that is in force.

        Raises:
            BadRates: the series does not cover `at`.
        """
        if not self.start <= at < self.end:
            raise BadRates(
                f"the prices run from {written(self.start)} to {written(self.end)}, and say nothing for {written(at)}",
                "get newer ones",
            )
        return self.slots[bisect_right(self.slots, at, key=lambda slot: slot.start) - 1]

    def price(self, at: Instant) -> Decimal:
        """Whole tokens a kWh at an instant, exactly. Raises as `slot` does."""
        return Decimal(format_decimal(self.slot(at).value, self.scale))

    def per(self, decimals: int, quoted: int = WH) -> int:
        """The least that a tariff of these prices can be quoted per, in a token of so many `decimals`: `quoted` (Wh in
        a kWh), or as many of them as make the finest value a whole number of token units.

        Raises:
            BadRates: that is more than any session supplies.
        """
        least: int = quoted * 10 ** max(0, self.scale - decimals)
        if least > MAX_QUANTITY:
            raise BadRates(
                f"prices with {self.scale} digits behind the point are too fine for a token of {decimals} decimals",
                "round them where they are made",
            )
        return least

    def tariff(self, at: Instant, decimals: int, per: int | None = None, quoted: int = WH) -> Tariff:
        """The tariff from `at` on, in units of a token of so many `decimals`, per `per` units of the medium.

        Without `per` it is the least that holds them all. Equal prices that follow each other are one step. A tariff
        has no end: its last price stays in force, so that whoever offers it offers nothing from `horizon` on.

        Raises:
            BadRates: the series does not cover `at`, or a price is no whole number of token units per `per`.
        """
        least = self.per(decimals, quoted)
        per = least if per is None else per
        if not 0 < per <= MAX_QUANTITY:
            raise BadRates(f"prices cannot be quoted per {per}", "a positive quantity is needed")
        first = self.slot(at)
        steps = list[Step]()
        for slot in self.slots[self.slots.index(first) :]:
            amount = self._amount(slot.value, decimals, per, quoted)
            if steps and steps[-1].amount == amount:
                continue
            if len(steps) == MAX_STEPS:
                break
            steps.append(Step(slot.start, amount))
        return Tariff(per, tuple(steps))

    def horizon(self, at: Instant) -> Instant:
        """Up to when the tariff that is made at `at` says what the series says. Raises as `slot` does."""
        changes, before = 0, None
        for slot in self.slots[self.slots.index(self.slot(at)) :]:
            changes += slot.value != before
            before = slot.value
            if changes > MAX_STEPS:
                return slot.start
        return self.end

    def _amount(self, value: int, decimals: int, per: int, quoted: int) -> int:
        amount: int = value * per * 10**decimals
        amount, rest = divmod(amount, quoted * 10**self.scale)
        if rest or abs(amount) > MAX_AMOUNT:
            what = "no whole number of token units" if rest else "more than a token holds"
            raise BadRates(f"a price of {format_decimal(value, self.scale)} is {what} per {per:,}", "quote per more")
        return amount


def of_tariff(tariff: Tariff, decimals: int, start: Instant, end: Instant) -> Rates:
    """The series that a tariff follows between two instants: the way back from `Rates.tariff`.

    Raises:
        BadRates: nothing lies between them, or a price a kWh is no decimal number of at most MAX_SCALE places.
    """
    steps = tariff.since(start).steps
    ends = [min(end, step.start) for step in steps[1:]] + [end]
    starts = [start, *ends[:-1]]
    prices = [_decimal(step.amount * WH, tariff.per * 10**decimals) for step in steps]
    slots = [slot for slot in zip(starts, ends, prices, strict=True) if slot[0] < end]
    return Rates.of(slots)


def parse(data: bytes) -> Rates:
    """Read a series.

    Raises:
        BadRates: it is too large, no JSON, not of this form, or its slots do not hold together.
    """
    return Rates.of(slot(row, place) for place, row in enumerate(rows(document(data))))


def document(data: bytes) -> object:
    """JSON of bounded size whose numbers are exact decimals.

    Raises:
        BadRates: it is too large, no JSON, names something twice, or has numbers that are none.
    """
    if len(data) > MAX_SERIES:
        raise BadRates(f"a price series of more than {MAX_SERIES:,} bytes is not read")
    if _DEEP.search(data):  # a decoder follows as deep as this process allows, and some allow more than its stack has
        raise BadRates("the prices are no JSON: nested too deep", "a list of {start, end, value} is needed")
    try:
        return json.loads(
            data, parse_float=_number, parse_int=_number, parse_constant=_no_number, object_pairs_hook=_once
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        why = " ".join(str(error).split())[:120] or "nested too deep"
        raise BadRates(f"the prices are no JSON: {why}", "a list of {start, end, value} is needed") from None


def rows(found: object) -> list[object]:
    """The list of slots in a document, bare or under "rates".

    Raises:
        BadRates: there is none, or it is too long.
    """
    listed = found.get("rates") if isinstance(found, dict) else found
    if not isinstance(listed, list):
        raise BadRates("the prices are no list", "a list of {start, end, value}, bare or as rates, is needed")
    if len(listed) > MAX_RATES:
        raise BadRates(f"a price series has 1..{MAX_RATES:,} slots, not {len(listed):,}")
    return listed


def slot(row: object, place: int) -> tuple[Instant, Instant, Decimal]:
    """One slot of a document; `place` counts from 0.

    Raises:
        BadRates: it is none.
    """
    if not isinstance(row, dict) or not {"start", "end", "value"} <= row.keys():
        raise BadRates(f"slot {place + 1} of the prices has no start, end and value")
    try:
        return instant(row["start"]), instant(row["end"]), _value(row["value"])
    except BadRates as error:
        raise BadRates(f"slot {place + 1} of the prices: {error}", error.advice) from None


def dump(rates: Rates) -> bytes:
    """The series in the form that `parse` reads, one slot a line, the values as JSON numbers of exact digits."""
    lines = (
        f'{{"start":"{written(slot_.start)}","end":"{written(slot_.end)}",'
        f'"value":{format_decimal(slot_.value, rates.scale)}}}'
        for slot_ in rates.slots
    )
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def instant(text: object) -> Instant:
    """An instant from RFC 3339 text, rounded down to the millisecond.

    Raises:
        BadRates: it is none, has no offset, or is before 1970.
    """
    if not isinstance(text, str) or len(text) > _LONGEST or not _TIME.fullmatch(text):
        raise BadRates(f"{str(text)[:40]!r} is no time", "RFC 3339 with an offset is needed: 2026-03-01T00:00:00Z")
    try:
        at = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        raise BadRates(f"{text!r} is no time of the calendar") from None
    if not 0 <= at <= _LAST:
        raise BadRates(f"{text!r} is before 1970, or after the year 9999")
    return Instant(at)


def written(at: Instant) -> str:
    """An instant as RFC 3339 in UTC, at most the last of the year 9999; milliseconds where there are any."""
    text = (_EPOCH + timedelta(milliseconds=min(at, _LAST))).isoformat(
        timespec="milliseconds" if at % 1000 else "seconds"
    )
    return text.replace("+00:00", "Z")


def _check_times(slots: tuple[Rate, ...]) -> None:
    before: Rate | None = None
    for slot_ in slots:
        if not slot_.start < slot_.end:
            raise BadRates(f"a price from {written(slot_.start)} ends when it begins, or before")
        if before is not None and slot_.start != before.end:
            what = "overlap" if slot_.start < before.end else "leave a gap"
            raise BadRates(
                f"the prices {what}: one ends at {written(before.end)}, the next starts at {written(slot_.start)}"
            )
        before = slot_
    if slots[0].start < 0 or slots[-1].end > _LAST:
        raise BadRates("the prices are for times before 1970, or after the year 9999")


def _number(text: str) -> Decimal:
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:20]}... has too many digits")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent that even Decimal does not hold
        raise ValueError(f"{text!r} is no number") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("something is named twice")
    return found


def _value(value: object) -> Decimal:
    if isinstance(value, str):
        try:
            value = _number(value.strip())
        except ValueError as error:
            raise BadRates(f"the value {error}") from None
    if not isinstance(value, Decimal) or not value.is_finite():
        raise BadRates(f"{str(value)[:40]!r} is no price", "a decimal number in whole tokens a kWh is needed")
    return value


def _places(value: Decimal) -> int:
    """Digits behind the point that a value needs."""
    _, digits, exponent = value.as_tuple()
    if not any(digits):
        return 0
    if value.adjusted() >= MAX_DIGITS or value.adjusted() < -MAX_SCALE:
        raise BadRates(f"a price of {str(value)[:40]} a kWh is absurd")
    while not digits[-1]:
        digits, exponent = digits[:-1], int(exponent) + 1
    places = max(0, -int(exponent))
    if places > MAX_SCALE:
        raise BadRates(f"a price of {str(value)[:40]} has more than {MAX_SCALE} digits behind the point", "round it")
    return places


def _scaled(value: Decimal, scale: int) -> int:
    """Whole numbers, because Decimal's own arithmetic rounds to 28 digits."""
    sign, digits, exponent = value.as_tuple()
    whole = int("".join(map(str, digits)))
    shift = int(exponent) + scale
    whole = whole * 10**shift if whole and shift >= 0 else whole // 10 ** min(-shift, _LONGEST) if whole else 0
    return -whole if sign else whole


def _decimal(numerator: int, denominator: int) -> Decimal:
    """A fraction as an exact decimal."""
    for scale in range(MAX_SCALE + 1):
        whole, rest = divmod(numerator * 10**scale, denominator)
        if not rest:
            return Decimal(format_decimal(whole, scale))
    raise BadRates(f"{numerator}/{denominator} a kWh is no decimal number of {MAX_SCALE} places")
