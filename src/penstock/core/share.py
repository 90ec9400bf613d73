"""How a limit of a site is divided among its poles: what each may draw, and who waits.

The rule is max-min fairness (water-filling; Bertsekas and Gallager, Data Networks, 6.5.2), in whole watts: all get the
same, but nobody more than it wants, and what it leaves goes to the others. Some watts may be left where the level does
not go up evenly: they go one each to the first in the queue, so that nothing is lost to rounding.

A charge point cannot work below some power (6 A on three phases are 4140 W). It gets at least that or nothing, and who
gets nothing waits. They stand in a queue, and all are served that can be beside those before them: power is not left
unused for the sake of one that needs more. At the end of a turn those who were served go to its back (`turned`), so
whoever waits is the first after at most as many turns as there are poles, and is served where its least is within the
limit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from penstock.core.errors import OutOfRange


class Claim(msgspec.Struct, frozen=True):
    """What one pole wants (W), and the least with which it can work.

    `place` is its place in the queue: the lowest is first; the names decide among equals.
    """

    name: str
    wants: int
    least: int = 0
    place: int = 0

    @property
    def works(self) -> bool:
        """Whether it wants what it can work with; else it gets nothing, and waits for nothing."""
        return self.wants > 0 and self.wants >= self.least


def divide(limit: int, claims: Collection[Claim]) -> dict[str, int]:
    """What each may draw (W), by its name. The order of the claims makes no difference.

    All of them together draw no more than `limit` (W), and no less, where those who are served want that much. What is
    given in all never falls where the limit rises; where no claim has a least, no share does.

    Raises:
        OutOfRange: a number below 0, or two claims of one name.
    """
    if limit < 0 or any(claim.wants < 0 or claim.least < 0 for claim in claims):
        raise OutOfRange("a limit, and what a pole wants, is at least 0 W")
    shares = {claim.name: 0 for claim in claims}
    if len(shares) != len(claims):
        raise OutOfRange("two poles of one name want power")
    served = _served(limit, claims)
    level = _level(limit, served)
    for claim in served:
        shares[claim.name] = _at(level, claim)
    left = limit - sum(shares.values())
    for claim in served:
        if left and _at(level + 1, claim) > shares[claim.name]:
            shares[claim.name] += 1
            left -= 1
    return shares


def waiting(claims: Collection[Claim], shares: dict[str, int]) -> list[str]:
    """The names of those who could work, and got nothing."""
    return [claim.name for claim in claims if claim.works and claim.least and not shares[claim.name]]


def turned(queue: Sequence[str], served: Collection[str]) -> list[str]:
    """The queue of names for the next turn: those who were served go behind those who waited."""
    return sorted(queue, key=lambda name: name in served)


def _served(limit: int, claims: Collection[Claim]) -> list[Claim]:
    """Those who are served, in the order of the queue: whose least fits beside the leasts of those before it."""
    served, left = [], limit
    for claim in sorted(claims, key=lambda claim: (claim.place, claim.name)):
        if claim.works and claim.least <= left:
            served.append(claim)
            left -= claim.least
    return served


def _at(level: int, claim: Claim) -> int:
    """What a claim gets where the level is that high."""
    return max(claim.least, min(claim.wants, level))


def _level(limit: int, served: list[Claim]) -> int:
    """The highest level at which the shares of all are within the limit; no higher than the highest wish."""
    low, high = 0, max((claim.wants for claim in served), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_at(middle, claim) for claim in served) <= limit:
            low = middle
        else:
            high = middle - 1
    return low
