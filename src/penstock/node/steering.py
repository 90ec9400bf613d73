"""What a grid asks of a site, done: limits shared among its poles, the flow turned where the terms allow it, and why.

A limit holds for all poles together (`sharing.py`). A setpoint above 0 is a limit of what is supplied; below 0 it asks
that so much be fed in, and 0 that nothing flows. A session whose terms have no feed-in rests while others feed in.
Prices are for the sessions to come: one that runs keeps the tariff that both sides have signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.core.grid import Orders
from penstock.core.messages import Way
from penstock.node.sharing import Limits, SiteLimit
from penstock.node.supplier import Supplier
from penstock.node.tell import Tell

Prices = Callable[[int | None, int | None], None]
"""Hears of the grid's prices for supply and feed-in (token units per kWh); None where it has none."""


class Steering:
    """Steers the poles of a site. `own` is the site's own limit, which holds whatever the grid asks."""

    def __init__(
        self,
        poles: Iterable[Supplier],
        limit: SiteLimit,
        tell: Tell,
        own: Limits = Limits(),  # noqa: B008  # it is immutable
        on_prices: Prices = lambda supply, feed: None,
    ) -> None:
        self.orders = Orders()
        self._poles, self._limit, self._tell, self._own, self._on_prices = list(poles), limit, tell, own, on_prices
        self._limit.set(*own, why="the site's own limit" if own != Limits() else "")

    def obey(self, orders: Orders) -> None:
        """Do what is asked from now on; in force when this returns."""
        before, self.orders = self.orders, orders
        why = "; ".join(orders.why)
        limits, way = self._own.lower(Limits(orders.supply_limit, orders.feed_limit)), None
        if orders.setpoint is not None:
            limits = limits.lower(Limits(max(0, orders.setpoint), max(0, -orders.setpoint)))
            way = Way.FEED if orders.setpoint < 0 else Way.SUPPLY if orders.setpoint else Way.HOLD
        self._tell(
            "steered", supply=limits.supply, feed=limits.feed, setpoint=orders.setpoint, why=why or "as it likes"
        )
        self._limit.set(*limits, why=why)
        for pole in self._poles:
            pole.direct(way)
        if (before.price, before.export_price) != (orders.price, orders.export_price):
            self._on_prices(orders.price, orders.export_price)
