"""What a transaction offers for a unit of gas, and how the offer rises while no block takes it.

Source: EIP-1559. Nodes take another transaction with the same nonce only if tip and maximum are both a tenth higher
(geth's `txpool.pricebump`; for some nodes an eighth).
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from penstock.ledgers.jsonrpc import Node, NodeRefused

GWEI = 10**9
QUOTE_AGE = 2.0  # seconds for which a quotation is used
TIP = GWEI  # wei a gas, where the node suggests none


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


def first(quote: Quote, fees: Fees) -> Offer:
    """An offer with room for the base fee to double (six full blocks)."""
    most = min(2 * quote.base_fee + quote.tip, fees.ceiling)
    return Offer(min(quote.tip, most), most)


def raised(last: Offer, quote: Quote, fees: Fees) -> Offer | None:
    """The offer that replaces `last`: an eighth more, and no less than a first one. None where the ceiling is hit."""
    fresh = first(quote, fees)
    least = Offer(_eighth_more(last.tip), _eighth_more(last.most))
    if least.most > fees.ceiling:
        return None
    most = min(max(least.most, fresh.most), fees.ceiling)
    return Offer(min(max(least.tip, fresh.tip), most), most)


class Quote(NamedTuple):
    """What a unit of gas costs now (wei): the base fee, and the tip that the node suggests."""

    base_fee: int
    tip: int

    @property
    def least(self) -> int:
        """What gets a transaction into one of the next blocks, if they are not all full."""
        return _eighth_more(self.base_fee) + self.tip


class Market:
    """The price of gas, asked for when it is needed and not more often."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._quote: Quote | None = None
        self._asked = 0.0
        self._lock = asyncio.Lock()

    def stir(self) -> None:
        """Forget the last quotation: the node has shown that it is wrong."""
        self._quote = None

    async def quote(self) -> Quote:
        """What gas costs now, or did a moment ago."""
        async with self._lock:
            if self._quote is None or time.monotonic() - self._asked > QUOTE_AGE:
                block = await self._node.record("eth_getBlockByNumber", "latest", False)
                base = self._node.number("eth_getBlockByNumber", (block or {}).get("baseFeePerGas"))
                try:
                    tip = await self._node.quantity("eth_maxPriorityFeePerGas")
                except NodeRefused:
                    tip = TIP
                self._quote, self._asked = Quote(base, tip), time.monotonic()
            return self._quote


def _eighth_more(wei: int) -> int:
    return max(-(-wei * 9 // 8), wei + 1)
