"""The interlock of one side: how much more may be let go, given what came back.

The same arithmetic serves both roles. What a supplier gives is supply and what it gets is secured payment; what a
consumer gives is payment and what it gets is supply. `given - got` is what it would lose if the other vanished now,
its exposure, and it may give only up to `got + trust`. Trust starts at one package and doubles with each exchange
that succeeds, up to the credit limit that the terms allow to this side: the whole limit to the side that goes first,
none to the other.
"""

from __future__ import annotations

from penstock.core.units import Amount


class Control:
    """All values in token units since the session began."""

    __slots__ = ("given", "got", "limit", "trust", "worst")

    def __init__(self, limit: int, first: int) -> None:
        """`limit` bounds the exposure, `first` is the trust to begin with. A limit of 0 goes second, without trust."""
        self.limit = limit
        self.trust = min(first, limit)
        self.given = 0
        self.got = 0
        self.worst = 0

    @property
    def exposure(self) -> Amount:
        """What we would lose if the other side vanished now."""
        return Amount(max(0, self.given - self.got))

    @property
    def may_give(self) -> Amount:
        """The worth, since the beginning, up to which we may let go."""
        return Amount(self.got + self.trust)

    def give(self, worth: int) -> None:
        """So much has been let go in all. It is recorded whatever it is: a device may have overrun its bound."""
        self.given = max(self.given, worth)
        self.worst = max(self.worst, self.given - self.got)

    def reckon(self, worth: int) -> None:
        """So much has been let go in all, by a reckoning that may correct itself as meters and prices do."""
        self.given = worth
        self.worst = max(self.worst, worth - self.got)

    def get(self, worth: int) -> None:
        """So much has come back in all. More than before is a success, and trust grows."""
        if worth > self.got:
            self.got = worth
            self.trust = min(self.limit, 2 * self.trust)
