"""Ticks as they were proven: from the logs of the contract, for who can use their preimages elsewhere."""

from __future__ import annotations

import asyncio

from penstock.core.channel import MAX_TICKS, ChannelParams
from penstock.core.errors import BadPreimage
from penstock.core.ports import ProvenTicks
from penstock.core.ticks import TickProof
from penstock.ledgers.abi import Interface
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.logs import Log, logged_since


async def proven_since(node: Node, interface: Interface, params: ChannelParams, since: int) -> list[ProvenTicks]:
    """The ticks of a channel's locks that were proven at `since` (seconds) or later, oldest first.

    Costs one SHA-256 for each tick, as the contract's own walks do: a proof goes on from the one before it.
    """
    chains: dict[bytes, TickProof] = {}
    found = []
    for log in await logged_since(node, params.domain.contract, (interface.topic("Proven"), params.id), since):
        proven = proven_in(interface, log)
        if proven is not None and _holds(proven, chains):
            found.append(proven)
        await asyncio.sleep(0)  # a lock's walk takes milliseconds, and there may be hundreds
    return found


def proven_in(interface: Interface, log: Log) -> ProvenTicks | None:
    """What a log says was proven; None where it says nothing of the kind. Not yet checked."""
    event = interface.event(interface.topic("Proven"), log.data)
    if event is None or len(log.topics) != 3:
        return None
    return ProvenTicks(log.topics[2], *event[1])


def _holds(proven: ProvenTicks, chains: dict[bytes, TickProof]) -> bool:
    """Whether the preimage proves the ticks, from where the lock's chain stands; then it stands there."""
    chain = chains.get(proven.root)
    if chain is None or proven.count < chain.count:  # fewer: under a later filing, from the root again
        chain = TickProof(proven.root, MAX_TICKS)
    try:
        chain.advance(proven.count, proven.preimage)
    except BadPreimage:
        return False
    chains[proven.root] = chain
    return proven.count > 0
