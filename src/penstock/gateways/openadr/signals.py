"""Signals of the grid from events of OpenADR 3.1: types, units and values (Definition, event payload enumerations).

| type | becomes | value |
| --- | --- | --- |
| ALERT_GRID_EMERGENCY | emergency | W that may still flow; 0 where no number is given |
| IMPORT_CAPACITY_LIMIT, EXPORT_CAPACITY_LIMIT | supply limit, feed limit | W, rounded down |
| DISPATCH_SETPOINT | setpoint | W, rounded towards 0; below 0 is fed in |
| CHARGE_STATE_SETPOINT | charge state | permille (PERCENT: 0.0 to 1.0) or Wh (KWH), rounded down |
| PRICE, EXPORT_PRICE | price, export price | token units a kWh, rounded down |

Other types are not for us and left aside. Numbers are read as decimals, never as floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import msgspec
from msgspec import Raw

from penstock.core.errors import BadSignal
from penstock.core.grid import LOWEST, MAX_POWER, Event, Kind, Signal
from penstock.core.units import MAX_AMOUNT, Instant
from penstock.gateways.openadr.forms import Descriptor, Dispatched, Payload
from penstock.gateways.openadr.times import instant
from penstock.gateways.openadr.windows import Window, parts, windows

MAX_OF_EVENT = 1_024  # signals: a week of quarter hours, and then some
_LONGEST = 40  # characters of a number
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)

KINDS = {
    "ALERT_GRID_EMERGENCY": Kind.EMERGENCY,
    "IMPORT_CAPACITY_LIMIT": Kind.SUPPLY_LIMIT,
    "EXPORT_CAPACITY_LIMIT": Kind.FEED_LIMIT,
    "DISPATCH_SETPOINT": Kind.SETPOINT,
    "CHARGE_STATE_SETPOINT": Kind.CHARGE_STATE,
    "PRICE": Kind.PRICE,
    "EXPORT_PRICE": Kind.EXPORT_PRICE,
}
_PRICES = (Kind.PRICE, Kind.EXPORT_PRICE)
# No unit means kW: the definitions have no other unit of real power. kVA bounds kW from above, and stands for it.
_WATTS = {None: 1_000, "KW": 1_000, "KVA": 1_000, "W": 1, "MW": 1_000_000}


class Reading(msgspec.Struct, frozen=True):
    """How a site reads events: token units for one unit of each currency it knows, and a seed for random starts."""

    rates: Mapping[str, int]
    seed: bytes


def event(said: Dispatched, program: list[Descriptor] | None, seen: Instant, reading: Reading) -> Event:
    """The signals of an event that is known since `seen`; `program` has the units that its program states.

    Raises:
        BadSignal: a time, a number or a unit of it cannot be read. Nothing of it is to be obeyed.
    """
    modified = modification(said, seen)
    units = {one.payload_type: one for one in (*(program or ()), *(said.payload_descriptors or ()))}
    signals: list[Signal] = []
    for window in windows(said, modified, seen, reading.seed):
        for payload in window.interval.payloads:
            kind = KINDS.get(payload.type)
            if kind is not None:
                unit = units.get(payload.type) or Descriptor(payload.type)
                signals.extend(_signals(kind, payload, window, unit, reading))
            if len(signals) > MAX_OF_EVENT:
                raise BadSignal(f"event {said.id} has more than {MAX_OF_EVENT} signals", "it has to be split")
    return Event(said.id, LOWEST if said.priority is None else min(said.priority, LOWEST), modified, tuple(signals))


def modification(said: Dispatched, seen: Instant) -> Instant:
    """When an event was changed last, by the server's clock; `seen` where it does not say.

    Raises:
        BadSignal: it says no time.
    """
    text = said.modification_date_time or said.created_date_time
    at = instant(text) if text is not None else None
    return seen if at is None else at


def _signals(kind: Kind, payload: Payload, window: Window, unit: Descriptor, reading: Reading) -> list[Signal]:
    if kind is Kind.EMERGENCY:
        return [_emergency(payload, window, unit)]
    count = len(payload.values)
    if count != 1 and (kind not in _PRICES or not count or window.end - window.start < count):
        raise BadSignal(f"{payload.type} has {count} values", "it has one")
    numbers = [_number(raw, payload.type) for raw in payload.values]
    charge: Literal["permille", "Wh"] = "permille" if unit.units == "PERCENT" else "Wh"
    return [
        Signal(kind, start, end, _value(kind, number, unit, reading), window.every, window.stop, charge)
        for (start, end), number in zip(parts(window, count), numbers, strict=True)
    ]


def _emergency(payload: Payload, window: Window, unit: Descriptor) -> Signal:
    """An emergency counts whatever else it says: what cannot be read of it means 0 W."""
    watts, text = 0, ""
    for raw in payload.values[:2]:
        try:
            if bytes(raw).startswith(b'"'):
                text = text or _clean(msgspec.json.decode(raw, type=str))
                continue
            watts = max(0, _value(Kind.SUPPLY_LIMIT, _number(raw, payload.type), unit, Reading({}, b"")))
        except (BadSignal, ValueError):
            watts = 0
    return Signal(Kind.EMERGENCY, window.start, window.end, watts, window.every, window.stop, text=text)


def _clean(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[:256]).split())[:128]


def _number(raw: Raw, name: str) -> Decimal:
    text = bytes(raw)[: _LONGEST + 1].decode(errors="replace")
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        raise BadSignal(f"{name} of {text!r} is no number that we read", f"at most {_LONGEST} digits")
    value = Decimal(text)
    if value and not -15 <= value.adjusted() <= 15:
        raise BadSignal(f"{name} of {text} is beyond all bounds")
    return value


def _value(kind: Kind, number: Decimal, unit: Descriptor, reading: Reading) -> int:
    exact = Fraction(number)
    if kind in _PRICES:
        return _price(exact, unit, reading)
    if kind is Kind.CHARGE_STATE:
        return _charge(exact, unit)
    factor = _WATTS.get(unit.units)
    if factor is None:
        raise BadSignal(f"{unit.payload_type} is in {unit.units}", "it has to be in KW")
    watts = int(exact * factor) if kind is Kind.SETPOINT else int(exact * factor // 1)
    if not (-MAX_POWER if kind is Kind.SETPOINT else 0) <= watts <= MAX_POWER:
        raise BadSignal(f"{unit.payload_type} of {number} is no power")
    return watts


def _charge(exact: Fraction, unit: Descriptor) -> int:
    if unit.units not in ("PERCENT", "KWH") or exact < 0 or (unit.units == "PERCENT" and exact > 1):
        raise BadSignal(
            f"{unit.payload_type} of {float(exact):g} {unit.units or 'of no unit'} is no charge",
            "PERCENT from 0.0 to 1.0, or KWH, is needed",
        )
    return int(exact * 1_000 // 1)


def _price(exact: Fraction, unit: Descriptor, reading: Reading) -> int:
    if unit.units not in (None, "KWH"):
        raise BadSignal(f"{unit.payload_type} is per {unit.units}", "it has to be per KWH")
    known = reading.rates
    currency = unit.currency or (next(iter(known)) if len(known) == 1 else "")
    if currency not in known:
        raise BadSignal(
            f"{unit.payload_type} is in {currency or 'no currency that it names'}",
            f"what tokens are worth is known in {', '.join(sorted(known)) or 'no currency'}",
        )
    amount = int(exact * known[currency] // 1)
    if abs(amount) > MAX_AMOUNT:
        raise BadSignal(f"{unit.payload_type} of {float(exact):g} is no price")
    return amount
