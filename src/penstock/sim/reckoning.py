"""What flowed is worth, reckoned anew: by a tariff's steps and the totals at which each took effect, and nothing else.

None of it is the account's that both sides keep (`core/account.py`), whose sums it checks.
"""

from __future__ import annotations

from penstock.core.offer import Terms
from penstock.core.tariff import Tariff

Turns = tuple[int, ...]


def integral(tariff: Tariff, turns: Turns, total: int) -> tuple[int, int]:
    """What `total` units are worth at prices above 0, and at prices below, both without a sign.

    Exact: in token units times the tariff's `per`.
    """
    rise = fall = since = 0
    for step, upto in zip(tariff.steps, (*turns, total), strict=False):
        worth = step.amount * (min(upto, total) - since)
        since = min(upto, total)
        if worth > 0:
            rise += worth
        else:
            fall -= worth
    return rise, fall


def sums(terms: Terms, turns: Turns, feed_turns: Turns, total: int, export: int) -> tuple[int, int]:
    """What the consumer owes for these totals in all, and what the supplier does (token units)."""
    per = terms.offer.tariff.per
    rise, fall = integral(terms.offer.tariff, turns, total)
    if terms.feed is None:
        return rise // per, 0
    back_rise, back_fall = integral(terms.feed.tariff, feed_turns, export)
    return (rise + back_fall) // per, (fall + back_rise) // per


def limits(terms: Terms) -> tuple[int, int]:
    """What may be at stake for the supplier, and for the consumer (token units): whoever goes first has the limit."""
    back = terms.feed.credit_limit if terms.feed is not None else 0
    return (terms.offer.credit_limit, back) if terms.offer.mode == "pay-after" else (back, terms.offer.credit_limit)
