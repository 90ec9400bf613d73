"""What a transaction offers for a unit of gas, and how the offer rises while no block takes it.

Source: EIP-1559. Nodes take another transaction with the same nonce only if tip and maximum are both a tenth higher
(geth's `txpool.pricebump`; for some nodes an eighth).
"""

from __future__ import annotations

from typing import NamedTuple

GWEI = 10**9


class Fees(NamedTuple):
    """How much a unit of gas may cost us at most (wei), and after how many seconds without a block we offer more.

    The default ceiling is above all but a few hours in the main network's history: an answer that does not get into a
    block in time costs what the channel holds.
    """

    ceiling: int = 500 * GWEI
    patience: float = 15.0  # a slot of the main network and some


class Offer(NamedTuple):
    """For a unit of gas, in wei: the tip to whoever makes the block, and the most that is paid, tip and base fee."""

    tip: int
    most: int


def first(base_fee: int, tip: int, fees: Fees) -> Offer:
    """An offer with room for the base fee to double (six full blocks)."""
    most = min(2 * base_fee + tip, fees.ceiling)
    return Offer(min(tip, most), most)


def raised(last: Offer, fresh: Offer, fees: Fees) -> Offer | None:
    """The offer that replaces `last`: an eighth more, and no less than a `fresh` one. None where the ceiling is hit."""
    least = Offer(_eighth_more(last.tip), _eighth_more(last.most))
    if least.most > fees.ceiling:
        return None
    most = min(max(least.most, fresh.most), fees.ceiling)
    return Offer(min(max(least.tip, fresh.tip), most), most)


def _eighth_more(wei: int) -> int:
    return max(-(-wei * 9 // 8), wei + 1)
