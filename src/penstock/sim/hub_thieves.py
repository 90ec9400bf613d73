"""What thieves do where payments go over hubs: hubs that keep what is not theirs, and a site with cars that help it.

They run the node's own code, and change what it does at one place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.core.codec import decode, encode
from penstock.core.errors import PenstockError
from penstock.core.hops import Incoming, InLock, InRow, OutLock, filing_of
from penstock.core.identity import Key
from penstock.core.messages import Add, Hop, Promise, Settle, Taken, Told
from penstock.core.ports import Filing
from penstock.core.ticks import TickChain
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings
from penstock.node.outgoing import Neighbour
from penstock.rails.hops import SEED_ROWS, TICK_ROWS, decode_seed, proof_in
from penstock.sim.network import Tamper

if TYPE_CHECKING:
    from penstock.sim.hub_actors import HubSite

NEVER = -(10**9)  # seconds: a margin of somebody who claims nothing by itself
LAST = 7  # seconds before an expiry: the last block, more or less

LATE = "late"  # why somebody is done who says so when it is too late


def corrupt(hub: Hub, cheat: str) -> None:
    """Let a hub cheat in what it does with locks; other cheats change its frames, or end it."""
    relay = hub.relay
    checked, forward, finish = relay._checked, relay._forward, relay._finish

    def altered(incoming: Incoming, held: InLock) -> tuple[Neighbour, Hop]:
        neighbour, hop = checked(incoming, held)
        if cheat == "smaller":
            return neighbour, replace(hop, tick_value=max(1, hop.tick_value // 2))
        return neighbour, replace(hop, expiry=hop.expiry - 1_000)

    async def pretend(incoming: Incoming, add: Add) -> None:
        await relay.incomings.keep(incoming, add.number, incoming.place(add.number))

    async def twice(incoming: Incoming, add: Add) -> None:
        await forward(incoming, add)
        await forward(incoming, add)

    async def keep(channel: bytes, told: Told, lock: OutLock) -> bool:
        """Be paid, and pay nothing."""
        if (found := relay._origin(channel, told.number)) is not None and told.count:
            incoming, origin = found
            rows = incoming.prove(origin, told.count, told.preimage)
            await relay.incomings.keep(incoming, origin, rows + incoming.done(origin, 10**12))
        return False

    async def silence(incoming: Incoming, number: int, total: int, why: str = "") -> None:
        if not total:
            await finish(incoming, number, total, why)

    match cheat:
        case "smaller" | "shorter":
            relay._checked = altered  # type: ignore[method-assign]
        case "pretends":
            relay._forward = pretend  # type: ignore[method-assign]
        case "twice":
            relay._forward = twice  # type: ignore[method-assign]
        case "never settles":
            relay.done = keep  # type: ignore[method-assign]
        case "never tells":
            relay._finish = silence  # type: ignore[method-assign]


def tamper_of_neighbour(cheat: str) -> Tamper | None:
    """How a cheating neighbour changes what it says of locks; None for those that cheat in other ways."""

    def unsettled(frame: bytes) -> list[bytes]:
        message = decode(frame)
        settles = isinstance(message, Promise) and any(isinstance(change, Settle) for change in message.changes)
        return [] if settles else [frame]

    def unreleased(frame: bytes) -> list[bytes]:
        message = decode(frame)
        return [] if isinstance(message, Taken) and message.nonce > 1 else [frame]

    def untold(frame: bytes) -> list[bytes]:
        message = decode(frame)
        return [] if isinstance(message, Told) and message.done and message.why != LATE else [frame]

    def too_much(frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Told) and message.done:
            return [encode(replace(message, count=message.count + 1, total=message.total + 1_000))]
        return [frame]

    return {
        "never settles": unsettled, "colludes": unsettled, "never releases": unreleased, "both vouchers": unreleased,
        "tells late": untold, "too much": too_much,
    }.get(cheat)  # fmt: skip


class Robber:
    """A site that goes to the ledger with what it has given up, or as late as it can, with all that cars tell it."""

    def __init__(self, site: HubSite, incomings: Incomings, key: Key) -> None:
        self._site, self._incomings, self._key = site, incomings, key
        self._kept: dict[bytes, tuple[InRow, dict[int, InLock]]] = {}  # by channel: books that pay more
        self._closed: set[bytes] = set()
        self._rob = {"last block": self._late, "tells late": self._tell}.get(site.cheat, self._old)
        if site.cheat in ("last block", "tells late"):
            incomings.terms = replace(incomings.terms, margin=NEVER)
            incomings.lookout.look = _rest  # type: ignore[method-assign]

    async def run(self) -> None:
        """Look for something to take, every second."""
        while True:
            await asyncio.sleep(1.0)
            for channel, incoming in list(self._incomings.channels.items()):
                try:
                    await self._rob(channel, incoming)
                except PenstockError as error:
                    self._site.tell("not robbed", error=error.line())

    async def _old(self, channel: bytes, incoming: Incoming) -> None:
        """File the voucher from before a fold."""
        row, locks = self._kept.get(channel, (incoming.row, {}))
        gone = [number for number in locks if number not in incoming.locks]
        if not gone:
            self._kept[channel] = incoming.row, dict(incoming.locks)
        elif channel not in self._closed:
            self._closed.add(channel)
            self._site.tell("files an old voucher", locks=len(locks))
            await self._site.ledger.close(self._key, incoming.params, self._filing(row, locks))

    async def _late(self, channel: bytes, incoming: Incoming) -> None:
        """File all locks in time, and prove them in the last block before they expire."""
        now = self._site.world.chain.head.time
        ends = [held.lock.expiry for held in incoming.locks.values() if now < held.lock.expiry]
        if not ends:
            return
        filing = self._filing(incoming.row, incoming.locks)
        if now >= min(ends) - 400 and channel not in self._closed:
            self._closed.add(channel)
            await self._site.ledger.close(self._key, incoming.params, replace(filing, proofs=()))
        elif channel in self._closed and now >= min(ends) - LAST:
            await self._site.ledger.prove(self._key, incoming.params, True, filing)

    async def _tell(self, channel: bytes, incoming: Incoming) -> None:
        """Say that locks are done when they have expired."""
        now, payer = self._site.world.chain.head.time, self._incomings._payers.get(channel)
        for number, held in list(incoming.locks.items()):
            proven = self._proven(held)
            if payer is not None and not payer.gone and now > held.lock.expiry + 5 and proven.count:
                payer.send(Told(channel, number, True, proven.count, proven.preimage, proven.worth, LATE))

    def _filing(self, row: InRow, locks: dict[int, InLock]) -> Filing:
        return filing_of(row, {number: self._proven(held) for number, held in locks.items()})

    def _proven(self, held: InLock) -> InLock:
        """A lock with all ticks that a car of ours has told, or that were paid with."""
        for car in self._site.world.cars:
            seed = car.disk.rows.get(SEED_ROWS + held.lock.root)
            if seed is not None and car.cheat == "colludes":
                count = held.lock.ticks
                chain = TickChain(decode_seed(seed).seed, count)
                return replace(held, count=count, preimage=chain.preimage(count))
        ticks = self._site.disk.rows.get(TICK_ROWS + held.lock.root)
        if ticks is None:
            return held
        count, preimage, _ = proof_in(ticks)
        return replace(held, count=count, preimage=preimage)


async def _rest(over: float = 0.0) -> None:
    """In the place of a look at the ledger."""
