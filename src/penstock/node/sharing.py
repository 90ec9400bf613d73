"""A site's limit, divided among its poles at once: when a grid changes it, and when sessions begin and end.

The rule is `core/share.py`'s, for supply and for feed-in apart: what one pole feeds in is not given to another. A pole
without a session gets nothing. Where somebody waits, turns of a quarter of an hour go round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from penstock.core.errors import DeviceError, OutOfRange, UsageError
from penstock.core.messages import Way
from penstock.core.ports import Throttle
from penstock.core.share import Claim, divide, turned, waiting
from penstock.node.tell import Tell

TURN = 900.0  # s: a metering period, within which a site's mean power counts
LEAST = 1_380  # W: 6 A on one phase of 230 V, the least that a pole can signal to a car (IEC 61851-1)


class Outlet(NamedTuple):
    """A pole as the site's limit sees it: the most that it supplies and takes back (W), and the least that it works at.

    Without a throttle it takes what it takes: the most is set aside for it while a session is on, and where that is not
    there, its session rests.
    """

    name: str
    throttle: Throttle | None
    supply: int
    feed: int = 0
    least: int = LEAST


class Limits(NamedTuple):
    """What may flow to consumers, and what they may feed in (W); None is no limit."""

    supply: int | None = None
    feed: int | None = None

    def hold(self, way: Way) -> bool:
        """Whether nothing may flow that way."""
        return (self.feed if way is Way.FEED else self.supply) == 0

    def lower(self, other: Limits) -> Limits:
        """The lower of both, each way."""
        return Limits(_lower(self.supply, other.supply), _lower(self.feed, other.feed))


Heed = Callable[[Limits], None]
"""What a session is told of its pole's limits: one that is held back must say so to its consumer."""


class SiteLimit:
    """Holds the poles of a site together within a limit; there is none at first.

    Where the limit of a pole with a session changes, it tells "limited": the pole, `supply` and `feed` (W), and why.
    """

    def __init__(self, outlets: Iterable[Outlet], tell: Tell, turn: float = TURN) -> None:
        """`turn` is for how long (s) some are served while others wait.

        Raises:
            UsageError: two outlets of one name.
        """
        self.limits = Limits()
        self._outlets: dict[str, Outlet] = {}
        for outlet in outlets:
            if outlet.name in self._outlets:
                raise UsageError(f"two poles are called {outlet.name!r}", "give each a name of its own")
            self._outlets[outlet.name] = outlet
        self._tell, self._turn, self._why = tell, turn, ""
        self._heeds: dict[str, Heed] = {}  # of the poles with a session
        self._set = {name: Limits() for name in self._outlets}  # what each throttle was set to
        self._failed: dict[str, str] = {}  # throttles that did not take what they should be set to, and why
        self._queues: list[list[str]] = [[], []]  # of the poles with a session: for supply, and for feed
        self._waiting: list[list[str]] = [[], []]
        self._timer: asyncio.TimerHandle | None = None

    def set(self, supply: int | None, feed: int | None, why: str) -> None:
        """The site may draw, and feed in, so much from now on (W); None is no limit. In force when this returns.

        Raises:
            OutOfRange: less than 0 W. Nothing has changed.
        """
        if min(supply or 0, feed or 0) < 0:
            raise OutOfRange(f"a site's limits of {supply} W and {feed} W: neither is below 0")
        self.limits, self._why = Limits(supply, feed), why
        self._divide(why)

    def begin(self, name: str, heed: Heed = lambda limits: None) -> None:
        """A session begins at this pole. To be called before anything flows; `heed` is called with every change."""
        if name not in self._outlets:
            return
        if name not in self._heeds:
            for queue in self._queues:
                queue.append(name)
        self._heeds[name] = heed
        self._divide(self._why)

    def end(self, name: str) -> None:
        """The session at this pole is over, and its valve shut."""
        if self._heeds.pop(name, None) is not None:
            for queue in self._queues:
                queue.remove(name)
            self._divide(self._why)

    def of(self, name: str) -> Limits:
        """The limits of this pole now."""
        return self._set.get(name, Limits())

    def waits(self, name: str) -> bool:
        """Whether a session here waits until others leave it what it needs."""
        return any(name in names for names in self._waiting)

    def close(self) -> None:
        """No more turns."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _divide(self, why: str) -> None:
        """Work out what each gets, set it, and tell."""
        before, failed, self._failed = dict(self._set), self._failed, {}
        self._set.update(dict.fromkeys(failed, Limits()))  # they are tried again
        while not self._settle():  # one that failed goes on taking what it takes: that comes off the others
            pass
        for name, error in self._failed.items():
            if name not in failed:
                self._tell("valve failed", pole=name, error=error)
        for name, limits in list(self._set.items()):
            heed = self._heeds.get(name)
            if heed is not None and limits != before[name]:
                waits = "; waits for its turn" if self.waits(name) else ""
                self._tell("limited", pole=name, supply=limits.supply, feed=limits.feed, why=why + waits)
                heed(limits)
        self._see_to_turns()

    def _settle(self) -> bool:
        """Set what each gets: first what falls, so that all together never exceed the limit. False where one failed."""
        supply, feed = self._shares(0), self._shares(1)
        aims = {name: Limits(supply[name], feed[name]) for name in self._outlets}
        falls = {name: self._set[name].lower(aim) for name, aim in aims.items()}
        if not all(self._throttle(name, limits) for name, limits in (*falls.items(), *aims.items())):
            return False
        self._set.update((name, aim) for name, aim in aims.items() if self._unbridled(name))
        return True

    def _unbridled(self, name: str) -> bool:
        """Whether nothing but its session can hold this pole."""
        return self._outlets[name].throttle is None or name in self._failed

    def _throttle(self, name: str, limits: Limits) -> bool:
        throttle = self._outlets[name].throttle
        if throttle is None or name in self._failed or limits == self._set[name]:
            return True
        try:
            throttle.limit(*limits)
        except DeviceError as error:
            self._failed[name], self._set[name] = error.line(), Limits()
            return False
        self._set[name] = limits
        return True

    def _shares(self, way: int) -> dict[str, int | None]:
        """What each pole may draw (way 0) or feed in (1); notes who waits."""
        limit = self.limits[way]
        self._waiting[way] = []
        if limit is None:
            return dict.fromkeys(self._outlets)
        claims, whole = list[Claim](), dict[str, int | None]()
        for place, name in enumerate(self._queues[way]):
            outlet = self._outlets[name]
            most = (outlet.supply, outlet.feed)[way]
            if self._unbridled(name):
                whole[name] = None if most <= limit else 0
                if most <= limit or outlet.throttle is not None:  # one that failed may not be held by its valve either
                    limit -= most
            else:
                claims.append(Claim(name, most, outlet.least, place))
        shares = divide(max(0, limit), claims)
        if any(shares.values()):  # where nobody is served, nobody waits for others
            self._waiting[way] = waiting(claims, shares)
        return {name: whole[name] if name in whole else shares.get(name, 0) for name in self._outlets}

    def _see_to_turns(self) -> None:
        if not any(self._waiting):
            self.close()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._turn, self._on_turn)

    def _on_turn(self) -> None:
        self._timer = None
        for way, names in enumerate(self._waiting):
            if names:
                queue = self._queues[way]
                self._queues[way] = turned(queue, [name for name in queue if self._set[name][way] != 0])
        self._divide(self._why)


def _lower(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
