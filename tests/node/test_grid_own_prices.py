"""What the grid's prices leave of a pole's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from penstock.core.grid import Orders
from penstock.core.tariff import Tariff
from penstock.node.grid import Tie, Tied
from penstock.node.sharing import Outlet

from .world import Street

Open = Callable[..., AbstractAsyncContextManager[Street]]


@pytest.mark.asyncio
async def test_prices_that_came_while_the_grid_had_its_own_are_back_once_it_has_none(open_street: Open) -> None:
    async with open_street() as it:
        supplier = it.supplier
        tie = Tie(it.site, [Tied(supplier, Outlet(supplier.pole.name, None, 11_000), lambda: 0)])
        before = supplier.goods
        newer = before._replace(tariff=Tariff.flat(123, 1_000))
        supplier.sell(newer)
        tie.steering.obey(Orders(price=456))
        assert supplier.goods.tariff == Tariff.flat(456, 1_000)
        tie.steering.obey(Orders())
        assert supplier.goods == newer
        supplier.sell(before)
