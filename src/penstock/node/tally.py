"""What a site has sold since it was started, and what it refused: the figures behind its metrics.

A session costs one entry while it runs and nothing for each tick: whoever wants to know asks the sessions themselves.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from penstock.core.errors import PenstockError
from penstock.core.messages import Reason
from penstock.core.session import Session


class Sold(NamedTuple):
    """Ticks proven, and what is secured to the supplier by them and by its vouchers (token units)."""

    ticks: int
    paid: int


class Exposure(NamedTuple):
    """What the site would lose if all its consumers vanished now, and the most with one of them (token units)."""

    total: int
    worst: int


class Tally:
    """Sessions that run, what those that ended have brought, why they ended, and why peers were refused."""

    def __init__(self) -> None:
        self.ended: Counter[Reason] = Counter()
        self.refused: Counter[str] = Counter()
        """How often a peer was refused or cut off, by the error's kind."""
        self._running: dict[Session, Sold] = {}  # what each had when it was taken up
        self._before = Sold(0, 0)  # by sessions that are over

    def begin(self, session: Session) -> None:
        """A session begins here, or is taken up from the journal."""
        self._running[session] = Sold(session.ticks, session.paid)

    def end(self, session: Session) -> None:
        """A session is over."""
        self._before = _more(self._before, session, self._running.pop(session))
        if session.reason is not None:
            self.ended[session.reason] += 1

    def refuse(self, error: PenstockError) -> None:
        """A peer was refused, or cut off. What it counts by is bounded: no peer can add to it."""
        self.refused[error.kind] += 1

    @property
    def running(self) -> int:
        """How many sessions run."""
        return len(self._running)

    @property
    def sold(self) -> Sold:
        """Since the start, sessions that run included."""
        sold = self._before
        for session, first in self._running.items():
            sold = _more(sold, session, first)
        return sold

    @property
    def exposure(self) -> Exposure:
        """Of all sessions that run."""
        each = [session.control.exposure for session in self._running]
        return Exposure(sum(each), max(each, default=0))


def _more(sold: Sold, session: Session, first: Sold) -> Sold:
    return Sold(sold.ticks + session.ticks - first.ticks, sold.paid + session.paid - first.paid)
