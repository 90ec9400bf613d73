"""Signals of the grid from events of OpenADR 3.1: types, units and values (Definition, event payload enumerations).

| type | becomes | value |
| --- | --- | --- |
| ALERT_GRID_EMERGENCY | emergency | W that may still flow; 0 where no number is given |
| IMPORT_CAPACITY_LIMIT, EXPORT_CAPACITY_LIMIT | supply limit, feed limit | W, rounded down |
| DISPATCH_SETPOINT | setpoint | W, rounded towards 0; below 0 is fed in |
| CHARGE_STATE_SETPOINT | charge state | permille (PERCENT: 0.0 to 1.0) or Wh (KWH), rounded down |
| PRICE, EXPORT_PRICE | price, export price | token units a kWh, rounded down |

Other types are not for us and left aside. Numbers are read as decimals and stay exact; there are no floats here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec import Raw

from penstock.core.errors import BadSignal
from penstock.core.grid import LOWEST, MAX_POWER, Event, Kind, Signal
from penstock.core.units import MAX_AMOUNT, Instant
from penstock.gateways.openadr.forms import Descriptor, Dispatched, Payload, clean
from penstock.gateways.openadr.times import instant
from penstock.gateways.openadr.windows import Window, parts, windows

MAX_OF_EVENT = 1_024  # signals: a week of quarter hours, and then some
_LONGEST = 40  # characters of a number
_NUMBER = re.compile(r"(-?\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)

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


def event(said: Dispatched, program: list[Descriptor] | None, now: Instant, reading: Reading) -> Event:
    """The signals of an event; "now" in it is `now`, and `program` has the units that its program states.

    Raises:
        BadSignal: a time, a number or a unit of it cannot be read. Nothing of it is to be obeyed.
    """
    modified = modification(said, now)
    units = {one.payload_type: one for one in (*(program or ()), *(said.payload_descriptors or ()))}
    signals: list[Signal] = []
    for window in windows(said, now, reading.seed):
        for payload in window.interval.payloads:
            kind = KINDS.get(payload.type)
            if kind is not None:
                unit = units.get(payload.type) or Descriptor(payload.type)
                signals.extend(_signals(kind, payload, window, unit, reading))
            if len(signals) > MAX_OF_EVENT:
                raise BadSignal(f"event {said.id} has more than {MAX_OF_EVENT} signals", "it has to be split")
    return Event(said.id, LOWEST if said.priority is None else min(said.priority, LOWEST), modified, tuple(signals))


def modification(said: Dispatched, otherwise: Instant) -> Instant:
    """When an event was changed last, by the server's clock; `otherwise` where it does not say.

    Raises:
        BadSignal: it says no time.
    """
    text = said.modification_date_time or said.created_date_time
    at = instant(text) if text is not None else None
    return otherwise if at is None else at


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
                text = text or clean(msgspec.json.decode(raw, type=str))
                continue
            watts = max(0, _value(Kind.SUPPLY_LIMIT, _number(raw, payload.type), unit, Reading({}, b"")))
        except (BadSignal, ValueError):
            watts = 0
    return Signal(Kind.EMERGENCY, window.start, window.end, watts, window.every, window.stop, text=text)


class _Number(NamedTuple):
    """A decimal number, exactly: `digits` * 10**`tens`."""

    digits: int
    tens: int

    def times(self, factor: int) -> int:
        """The product with a whole number, rounded down."""
        shift: int = 10 ** abs(self.tens)
        return self.digits * factor * shift if self.tens >= 0 else self.digits * factor // shift

    def __str__(self) -> str:
        return f"{self.digits}E{self.tens}"


def _number(raw: Raw, name: str) -> _Number:
    text = bytes(raw)[: _LONGEST + 1].decode(errors="replace")
    parts = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    if parts is None:
        raise BadSignal(f"{name} of {text!r} is no number that we read", f"it has at most {_LONGEST} digits")
    whole, part, exponent = parts.groups(default="")
    tens = int(exponent or 0) - len(part)
    digits = int(whole + part)
    if digits and not -_LONGEST <= tens <= 20:
        raise BadSignal(f"{name} of {text} is beyond all bounds")
    return _Number(digits, tens if digits else 0)


def _value(kind: Kind, number: _Number, unit: Descriptor, reading: Reading) -> int:
    if kind in _PRICES:
        return _price(number, unit, reading)
    if kind is Kind.CHARGE_STATE:
        return _charge(number, unit)
    factor = _WATTS.get(unit.units)
    if factor is None:
        raise BadSignal(f"{unit.payload_type} is in {unit.units}", "it has to be in KW")
    if kind is Kind.SETPOINT and number.digits < 0:
        watts = -_Number(-number.digits, number.tens).times(factor)
    else:
        watts = number.times(factor)
    if not (-MAX_POWER if kind is Kind.SETPOINT else 0) <= watts <= MAX_POWER:
        raise BadSignal(f"{unit.payload_type} of {number} is no power")
    return watts


def _charge(number: _Number, unit: Descriptor) -> int:
    amount = number.times(1_000)
    most = {"PERCENT": 1_000, "KWH": MAX_POWER}.get(unit.units or "", -1)
    if not 0 <= amount <= most:
        raise BadSignal(
            f"{unit.payload_type} of {number} {unit.units or 'without a unit'} is no charge",
            "PERCENT from 0.0 to 1.0, or KWH, is needed",
        )
    return amount


def _price(number: _Number, unit: Descriptor, reading: Reading) -> int:
    if unit.units not in (None, "KWH"):
        raise BadSignal(f"{unit.payload_type} is per {unit.units}", "it has to be per KWH")
    known = reading.rates
    currency = unit.currency or (next(iter(known)) if len(known) == 1 else "")
    if currency not in known:
        raise BadSignal(
            f"{unit.payload_type} is in {currency or 'no currency that it names'}",
            f"what tokens are worth is known in {', '.join(sorted(known)) or 'no currency'}",
        )
    amount = number.times(known[currency])
    if abs(amount) > MAX_AMOUNT:
        raise BadSignal(f"{unit.payload_type} of {number} is no price")
    return amount
