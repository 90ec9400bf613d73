"""A site under its grid: what the operator asks reaches the poles, and what their meters say goes back.

    server <--> Ven (gateways/openadr) --orders--> Steering --> SiteLimit, Supplier
                                       <--figures-- meters

All of it runs beside the sessions: whatever the server does, or does not, no session hears of it but by orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from msgspec.structs import replace

from penstock.core.errors import BadTerms, DeviceError, UsageError
from penstock.core.grid import PRICE_PER
from penstock.core.tariff import Tariff
from penstock.gateways.openadr import Client, Figures, Reading, Ven
from penstock.gateways.openadr import Site as Enrolled
from penstock.gateways.openadr.report import Measured
from penstock.node.sharing import Limits, Outlet, SiteLimit
from penstock.node.site import Site
from penstock.node.steering import Steering
from penstock.node.supplier import Goods, Supplier

EVERY = 30.0  # seconds between two polls; a subscription makes it hear at once


class Tied(NamedTuple):
    """A pole that the grid may steer: who sells there, its place in the site's limit, and what flows now (W)."""

    supplier: Supplier
    outlet: Outlet
    power: Callable[[], int]


class Operator(NamedTuple):
    """The grid's server, and what we are to it. `reading` says how its events are read."""

    client: Client
    site: Enrolled
    reading: Reading
    every: float = EVERY


class Tie:
    """Joins the poles of a site to its grid. To be made before their sessions are taken up again, and then `run`.

    `own` is the site's own limit, which holds whatever the grid asks, and where it asks nothing.
    """

    def __init__(self, site: Site, poles: Sequence[Tied], own: Limits = Limits()) -> None:  # noqa: B008  # immutable
        """
        Raises:
            UsageError: two poles of one name.
        """
        self._poles, self._tell, self._clock = poles, site.tell, site.clock
        self._goods = [(one.supplier.goods, one.supplier.goods) for one in poles]  # its own, and what we made of them
        self.limit = site.limit = SiteLimit([one.outlet for one in poles], site.tell)
        self.steering = Steering([one.supplier for one in poles], self.limit, site.tell, own, self._reprice)

    @asynccontextmanager
    async def listening(self, operator: Operator) -> AsyncIterator[Ven]:
        """Listen to the grid's server for as long as this lasts; the operator's client is closed with it."""
        client, site, reading, every = operator
        ven = Ven(client, site, reading, self.steering.obey, self._clock, self._tell, every, self._measure)
        running = asyncio.ensure_future(self._run(ven, client.place))
        try:
            yield ven
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await ven.close()

    async def _run(self, ven: Ven, server: str) -> None:
        try:
            await ven.run()
        except UsageError as error:  # notifications cannot be listened for: the poles sell on
            self._tell("grid not reached", server=server, reason=error.line(), events=0)
        except Exception as fault:  # ours: it is not to end what streams
            what = {"message": "the grid is not listened to any more", "exception": fault}
            asyncio.get_running_loop().call_exception_handler(what)

    def _reprice(self, price: int | None, feed_price: int | None) -> None:
        """Offer at these prices (token units per kWh) from now on; at our own where none is given, or it cannot be."""
        for place, ((own, made), (supplier, *_)) in enumerate(zip(self._goods, self._poles, strict=True)):
            own = own if supplier.goods == made else supplier.goods  # it has got newer ones meanwhile
            supplier.goods = priced(own, price, feed_price)
            try:
                supplier.offer()
            except BadTerms as error:
                supplier.goods = own
                self._tell("price not taken", pole=supplier.pole.name, price=price, feed=feed_price, error=error.line())
            self._goods[place] = (own, supplier.goods)

    def _measure(self) -> Measured:
        """What the poles' meters say now, by their names."""
        return {one.outlet.name: self._figures(one) for one in self._poles}

    def _figures(self, one: Tied) -> Figures:
        limits, setpoint = self.limit.of(one.outlet.name), self.steering.orders.setpoint
        try:
            reading, power = one.supplier.pole.meter.read(), one.power()
        except DeviceError:
            return Figures(0, 0, 0, "ERROR")
        state = f"{'RUNNING' if power else 'IDLE'}_{'NORMAL' if limits == Limits() else 'CURTAILED'}"
        told = None if setpoint is None else limits.supply if setpoint > 0 else -(limits.feed or 0)
        return Figures(reading.total, reading.export, power, state, told)


def priced(goods: Goods, price: int | None, feed_price: int | None) -> Goods:
    """These goods at other prices (token units per kWh), and on no less credit than those need; None leaves one."""
    if price is not None:
        tariff = Tariff.flat(price, PRICE_PER)
        least = goods.tick_value + -(-tariff.dearest // PRICE_PER)
        goods = goods._replace(tariff=tariff, credit_limit=max(goods.credit_limit, least))
    if feed_price is not None and goods.feed is not None:
        goods = goods._replace(feed=replace(goods.feed, tariff=Tariff.flat(feed_price, PRICE_PER)))
    return goods
