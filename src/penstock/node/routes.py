"""Which way a lock may go: routes over hubs, from what these say of themselves, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import networkx

from penstock.core.identity import Address
from penstock.core.messages import Hop, Reached, SignedReach
from penstock.core.units import MAX_AMOUNT
from penstock.node.incoming import Terms
from penstock.node.relay import Fees

MAX_HUBS = 3
MAX_DELTA = 86_400  # seconds that a hub may want a lock to outlive the next; it is our money that it keeps so long
TRIED = 32  # routes that are looked at, at most
LONGEST = Terms().longest  # seconds: a hub that wants a lock to last longer is passed by, or it could name any time


class Route(NamedTuple):
    """A way to the payee: what the first lock has to be, and what it carries. `hubs` are named from the first on."""

    hubs: tuple[Address, ...]
    tick_value: int
    expiry: int
    holding: int
    onward: tuple[Hop, ...]

    def cost(self, ticks: int, tick_value: int) -> int:
        """What it costs beyond what the payee gets, where all ticks are paid (token units)."""
        return (self.tick_value - tick_value) * ticks + self.holding


def newest(told: Iterable[SignedReach]) -> dict[Address, Reached]:
    """What each node said last."""
    found: dict[Address, Reached] = {}
    for one in told:
        node = one.reached.node
        if node not in found or found[node].at < one.reached.at:
            found[node] = one.reached
    return found


def routes(
    told: dict[Address, Reached],
    first: Iterable[Address],
    payee: Address,
    tick_value: int,
    ticks: int,
    expiry: int,
    now: int,
) -> list[Route]:
    """The ways from any of the `first` hubs to the payee, over at most three hubs, the cheapest first.

    The payee is to get a lock of so many ticks of that value, which expires at `expiry`; `now` is the time (seconds).
    """
    graph = networkx.DiGraph()
    for node, reached in told.items():
        for edge in reached.edges if reached.delta <= MAX_DELTA else ():
            if edge.capacity >= tick_value * (ticks + 1) and (edge.payee == payee or edge.payee in told):
                graph.add_edge(node, edge.payee)
    found: list[Route] = []
    for hub in first:
        if hub in graph and payee in graph and hub != payee:
            found += [_route(told, path, tick_value, ticks, expiry, now) for path in _simple(graph, hub, payee)]
    fitting = [
        route
        for route in found
        if route.tick_value * ticks + route.holding <= MAX_AMOUNT
        and route.expiry - now <= LONGEST
        and _fits(told, route, ticks)
    ]
    return sorted(fitting, key=lambda route: (route.cost(ticks, tick_value), len(route.hubs), route.hubs))


def _fits(told: dict[Address, Reached], route: Route, ticks: int) -> bool:
    """Whether each hub's channel has room for its lock, the fees of those after it, and the rest of a tick."""
    return all(
        any(
            edge.payee == hop.payee and edge.capacity >= hop.tick_value * (ticks + 1) + hop.holding
            for edge in told[hub].edges
        )
        for hub, hop in zip(route.hubs, route.onward, strict=True)
    )


def _simple(graph: Any, hub: Address, payee: Address) -> Iterator[list[Address]]:
    return islice(networkx.all_simple_paths(graph, hub, payee, cutoff=MAX_HUBS), TRIED)


def _route(
    told: dict[Address, Reached], path: list[Address], tick_value: int, ticks: int, expiry: int, now: int
) -> Route:
    """Reckon back from the payee what each lock on the way has to be."""
    hops: list[Hop] = []
    value, until, holding = tick_value, expiry, 0
    for at in range(len(path) - 2, -1, -1):
        hops.insert(0, Hop(path[at + 1], value, until, holding))
        reached = told[path[at]]
        fees = Fees(reached.fee_ppm, reached.holding_ppm, reached.delta)
        until += reached.delta
        # A minute more than now: the hub reckons when the lock gets there.
        holding += fees.holding(value * ticks, until - now + 60)
        value = fees.tick(value)
    return Route(tuple(path[:-1]), value, until, holding, tuple(hops))
