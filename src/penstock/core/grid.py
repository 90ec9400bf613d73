"""What the grid's operator asks of a site: signals with a start and an end, and the orders that follow from them now.

A `Signal` is one value of one kind over one stretch of time; an event of the operator is a set of them (`Event`). A
`Grid` holds the events that are known and says what is in force at an instant (`at`). Signals of different kinds do not
conflict, and all of them hold at once: the least of the limits and the emergency is the limit, and a setpoint stays
within the limits. Of signals of one kind that overlap one wins: the lowest priority number; of equal ones the event
that was modified last, then the greater id; within one event the signal that starts last.

Power in W: what may flow to the consumers of the site (`supply_limit`), what may be fed in (`feed_limit`), and a
setpoint between both, above 0 towards the consumers and below 0 from them. Prices in token units per `PRICE_PER` Wh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from penstock.core.units import MAX_INSTANT, Duration, Instant

PRICE_PER = 1_000  # Wh: prices are per kWh
LOWEST = 2**31 - 1  # the priority of what states none: after everything else
MAX_EVENTS = 256  # known at once; a site has a handful
MAX_SIGNALS = 4_096  # of all events; a week of quarter hours is 672
MAX_POWER = 10**12  # W; more than any country draws


class Kind(StrEnum):
    """What a signal is about, and the unit of its value."""

    EMERGENCY = "emergency"  # W that may still be supplied
    SUPPLY_LIMIT = "supply limit"  # W
    FEED_LIMIT = "feed limit"  # W
    SETPOINT = "setpoint"  # W; below 0 is fed in
    CHARGE_STATE = "charge state"  # permille or Wh (`Signal.unit`)
    PRICE = "price"  # token units per PRICE_PER Wh
    EXPORT_PRICE = "export price"  # token units per PRICE_PER Wh


_GRAVITY = {kind: place for place, kind in enumerate(Kind)}  # what is kept where there is too much: the gravest first


class ChargeState(NamedTuple):
    """How full the consumers' storage shall be: in thousandths of its capacity, or in Wh."""

    amount: int
    unit: Literal["permille", "Wh"]


class Signal(msgspec.Struct, frozen=True):
    """`value` from `start` to before `end` (ms); where `every` is not 0, again each so many ms, until `stop`.

    `unit` is that of a charge state, `text` what an emergency says.
    """

    kind: Kind
    start: Instant
    end: Instant
    value: int
    every: Duration = Duration(0)
    stop: Instant = MAX_INSTANT
    unit: Literal["permille", "Wh"] = "Wh"
    text: str = ""

    def active(self, now: Instant) -> bool:
        """Whether it is in force."""
        if not self.start <= now < self.stop:
            return False
        return (now - self.start) % self.every < self.end - self.start if self.every else now < self.end

    def changes(self, now: Instant) -> Instant:
        """When it next begins or ends, after `now`; MAX_INSTANT where it does not."""
        if now < self.start:
            return self.start
        if now >= self.over:
            return MAX_INSTANT
        if not self.every:
            return self.over
        turn = (now - self.start) // self.every
        ends = self.start + turn * self.every + self.end - self.start
        return Instant(min(self.over, ends if now < ends else self.start + (turn + 1) * self.every))

    @property
    def over(self) -> Instant:
        """When it is over for good."""
        return self.stop if self.every else Instant(min(self.end, self.stop))


class Event(msgspec.Struct, frozen=True):
    """Signals that came together: the operator's `id`, its priority (0 is the highest), and when it changed them."""

    id: str
    priority: int
    modified: Instant
    signals: tuple[Signal, ...]

    @property
    def over(self) -> Instant:
        """When its last signal is over."""
        return max((signal.over for signal in self.signals), default=Instant(0))

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """Where there is too much, the least is kept: by the gravest kind, then priority, the newest, the id."""
        gravest = min((_GRAVITY[signal.kind] for signal in self.signals), default=len(_GRAVITY))
        return gravest, self.priority, -self.modified, self.id


class Orders(msgspec.Struct, frozen=True):
    """What is asked of a site now, and `until` when (ms) nothing of it changes. None: nothing is asked.

    `why` names, in a line each, what was asked by whom: the reasons to show where power changes.
    """

    supply_limit: int | None = None
    feed_limit: int | None = None
    setpoint: int | None = None
    charge_state: ChargeState | None = None
    price: int | None = None
    export_price: int | None = None
    emergency: str | None = None
    why: tuple[str, ...] = ()
    until: Instant = MAX_INSTANT

    def same(self, other: Orders) -> bool:
        """Whether another asks the same, for the same reasons, until whenever."""
        return msgspec.structs.replace(self, until=other.until) == other


class Grid:
    """The events that are known. Never more than MAX_EVENTS with MAX_SIGNALS in all: what ranks last goes."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: tuple[Event, ...] = ()

    def __len__(self) -> int:
        return len(self.events)

    def replace(self, events: Iterable[Event], now: Instant) -> int:
        """Know these events and no others, as far as `fitting` keeps them. Returns how many were left out.

        Events that are over, or ask nothing, are not kept and not counted. Their ids are not looked at: each is one.
        """
        asking = [event for event in events if event.over > now]
        self.events = fitting(asking)
        return len(asking) - len(self.events)

    def at(self, now: Instant) -> Orders:
        """What is asked at `now`, whichever way time went since the last question."""
        best: dict[Kind, tuple[tuple[int, int, str, int], Event, Signal]] = {}
        until = MAX_INSTANT
        for event, signal in self._signals():
            until = min(until, signal.changes(now))
            if not signal.active(now):
                continue
            weight = (-event.priority, event.modified, event.id, signal.start)
            if signal.kind not in best or weight > best[signal.kind][0]:
                best[signal.kind] = (weight, event, signal)
        found = {kind: signal for kind, (_, _, signal) in best.items()}
        why = tuple(_reason(best[kind][1], best[kind][2]) for kind in Kind if kind in best)
        return _orders(found, why, Instant(until))

    def _signals(self) -> Iterator[tuple[Event, Signal]]:
        return ((event, signal) for event in self.events for signal in event.signals)


def fitting(events: Iterable[Event]) -> tuple[Event, ...]:
    """As many of the events as are kept, the first in rank before the others: MAX_EVENTS, with MAX_SIGNALS in all."""
    kept: list[Event] = []
    room = MAX_SIGNALS
    for event in sorted(events, key=lambda event: event.rank):
        if len(kept) < MAX_EVENTS and len(event.signals) <= room:
            kept.append(event)
            room -= len(event.signals)
    return tuple(kept)


def _orders(found: dict[Kind, Signal], why: tuple[str, ...], until: Instant) -> Orders:
    value = {kind: signal.value for kind, signal in found.items()}
    ceilings = [value[kind] for kind in (Kind.EMERGENCY, Kind.SUPPLY_LIMIT) if kind in value]
    supply, feed = min(ceilings, default=None), value.get(Kind.FEED_LIMIT)
    setpoint = value.get(Kind.SETPOINT)
    if setpoint is not None:
        setpoint = min(setpoint, supply) if supply is not None else setpoint
        setpoint = max(setpoint, -feed) if feed is not None else setpoint
    charge, emergency = found.get(Kind.CHARGE_STATE), found.get(Kind.EMERGENCY)
    return Orders(
        supply_limit=supply,
        feed_limit=feed,
        setpoint=setpoint,
        charge_state=ChargeState(charge.value, charge.unit) if charge else None,
        price=value.get(Kind.PRICE),
        export_price=value.get(Kind.EXPORT_PRICE),
        emergency=emergency.text if emergency else None,
        why=why,
        until=until,
    )


def _reason(event: Event, signal: Signal) -> str:
    units = {Kind.CHARGE_STATE: signal.unit, Kind.PRICE: "units/kWh", Kind.EXPORT_PRICE: "units/kWh"}
    said = f" ({signal.text})" if signal.text else ""
    return f"{signal.kind} {signal.value:,} {units.get(signal.kind, 'W')}{said}: event {event.id}"
