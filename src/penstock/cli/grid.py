"""What joins a pole on the command line to its grid: `supply --grid`, `--site-limit`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli.config import endpoint
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.config import GridSection, SupplySection
    from penstock.core.ports import TokenFacts
    from penstock.gateways.openadr import Credentials
    from penstock.node.supplier import Supplier


def operator_of(section: SupplySection, grid: GridSection) -> Credentials | None:
    """Our credentials at the grid operator's server; None where no server is named.

    Raises:
        UsageError: there is no file of credentials, or it is none; or what is sold is not electricity.
    """
    if (section.grid or section.site_limit is not None) and section.medium != "electricity":
        raise UsageError("a grid steers electricity alone", "leave out --grid and --site-limit")
    if section.grid is None:
        if section.grid_key is not None:
            raise UsageError("--grid-key is for a server that is not named", "give --grid its URL")
        return None
    if section.grid_key is None:
        raise UsageError("the grid's server wants credentials", "give --grid-key the file that holds them")
    if grid.callback is not None and grid.listen is None:
        raise UsageError("grid.callback is where nothing listens", "write listen under [grid], too")
    from penstock.gateways.openadr import load

    return load(Path(section.grid_key))


@asynccontextmanager
async def tied(
    supplier: Supplier, section: SupplySection, grid: GridSection, known: Credentials | None, token: TokenFacts
) -> AsyncIterator[None]:
    """Steer the pole by its grid, and by its own limit, for as long as this lasts; without either, leave it alone.

    Raises:
        UsageError: the server's URL is none, or would show the secret to others.
    """
    if known is None and section.site_limit is None:
        yield
        return
    from penstock.node.grid import Operator, Tie, Tied
    from penstock.node.sharing import Limits, Outlet
    from penstock.sim.line import LineSupply

    pole = supplier.pole
    assert isinstance(pole.valve, LineSupply), "electricity flows through a line"
    outlet = Outlet(pole.name, pole.valve, section.power_w)
    tie = Tie(supplier.site, [Tied(supplier, outlet, pole.valve.power)], Limits(section.site_limit))
    if known is None:
        yield
        return
    from penstock.gateways.openadr import Client, Reading, Site

    assert section.grid is not None, "there are credentials for it"
    client = Client(section.grid, known, grid.token_url)
    listen = endpoint(grid.listen) if grid.listen is not None else None
    names = tuple(grid.programs), tuple(grid.targets)
    site = Site(grid.name or known.client, (pole.name,), *names, listen, grid.callback)
    seed = hashlib.sha256(b"penstock/grid" + supplier.site.key.address).digest()
    reading = Reading({grid.currency: 10**token.decimals}, seed)
    async with tie.listening(Operator(client, site, reading)):
        yield
