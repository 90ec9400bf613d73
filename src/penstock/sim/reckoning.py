"""What flowed is worth, reckoned anew: by a tariff's steps and the totals at which each took effect, and nothing else.

None of it is the account's that both sides keep (`core/account.py`), whose sums it checks.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from penstock.core.offer import Terms
from penstock.core.tariff import Tariff

Turns = tuple[int, ...]


def integral(tariff: Tariff, turns: Turns, total: int) -> tuple[Fraction, Fraction]:
    """What `total` units are worth (token units): at prices above 0, and at prices below, both without a sign."""
    bounds = [0, *(min(turn, total) for turn in turns), total]
    worths = [
        Fraction(step.amount * (upto - since), tariff.per)
        for step, (since, upto) in zip(tariff.steps, pairwise(bounds), strict=False)
    ]
    return sum((worth for worth in worths if worth > 0), Fraction()), -sum((w for w in worths if w < 0), Fraction())


def sums(terms: Terms, turns: Turns, feed_turns: Turns, total: int, export: int) -> tuple[int, int]:
    """What the consumer owes for these totals in all, and what the supplier does (token units)."""
    rise, fall = integral(terms.offer.tariff, turns, total)
    if terms.feed is None:
        return int(rise), 0
    back_rise, back_fall = integral(terms.feed.tariff, feed_turns, export)
    return int(rise + back_fall), int(fall + back_rise)


def limits(terms: Terms) -> tuple[int, int]:
    """What may be at stake for the supplier, and for the consumer (token units): whoever goes first has the limit."""
    back = terms.feed.credit_limit if terms.feed is not None else 0
    return (terms.offer.credit_limit, back) if terms.offer.mode == "pay-after" else (back, terms.offer.credit_limit)
