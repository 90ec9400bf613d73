"""What the contracts have logged: readings as they were filed, and ticks as they were proven."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from penstock.core.channel import MAX_TICKS, ChannelParams
from penstock.core.errors import BadSignature
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading
from penstock.core.identity import Address, recover, to_hex
from penstock.core.ports import ProvenTicks
from penstock.ledgers.abi import Interface
from penstock.ledgers.jsonrpc import Node, NodeRefused

LOG_BLOCKS = 2_000  # which every public node searches at once; more are asked for in parts where it refuses


async def filed_since(node: Node, interface: Interface, params: EscrowParams, since: int) -> list[SignedReading]:
    """The readings of an escrow that its meter signed and that were filed at `since` (seconds) or later, oldest first.

    The contract logs each whose claim waits (`Filed`), whoever called it.
    """
    newest = await node.quantity("eth_blockNumber")
    found: list[SignedReading] = []
    topics = [to_hex(interface.topic("Filed")), to_hex(params.id)]
    for log in await logged(node, params.domain.contract, topics, await _first_block(node, newest, since), newest):
        signed = signed_in(interface, node.bytes_of("eth_getLogs", log.get("data")))
        if signed is not None and signed not in found and _is_meters(params, signed):
            found.append(signed)
    return found


async def _first_block(node: Node, newest: int, since: int) -> int:
    """The lowest block whose time is `since` or later; the one after the newest where there is none."""
    low, high = 0, newest + 1
    while low < high:
        middle = (low + high) // 2
        block = await node.record("eth_getBlockByNumber", hex(middle), False) or {}
        if node.number("eth_getBlockByNumber", block.get("timestamp")) < since:
            low = middle + 1
        else:
            high = middle
    return low


async def proven_since(node: Node, interface: Interface, params: ChannelParams, since: int) -> list[ProvenTicks]:
    """The ticks that were proven in a channel at `since` (seconds) or later, oldest first.

    A node is a stranger: what does not hash to its root is left out.
    """
    newest = await node.quantity("eth_blockNumber")
    topics = [to_hex(interface.topic("Proven")), to_hex(params.id)]
    found: list[ProvenTicks] = []
    for log in await logged(node, params.domain.contract, topics, await _first_block(node, newest, since), newest):
        event = interface.event(interface.topic("Proven"), node.bytes_of("eth_getLogs", log.get("data")))
        named = log.get("topics")
        if event is None or not isinstance(named, list) or len(named) != 3:
            continue
        count, preimage = event[1]
        ticks = ProvenTicks(node.bytes_of("eth_getLogs", named[2]), count, preimage)
        if ticks not in found and _hashes(ticks):
            found.append(ticks)
    return found


def _hashes(ticks: ProvenTicks) -> bool:
    link = ticks.preimage
    if not 0 < ticks.count <= MAX_TICKS:
        return False
    for _ in range(ticks.count):
        link = sha256(link).digest()
    return link == ticks.root


async def logged(node: Node, contract: Address, topics: list[str], first: int, last: int) -> list[dict[str, Any]]:
    """The logs of a contract in these blocks that begin with such topics."""
    wanted = {
        "address": to_hex(contract),
        "topics": topics,
        "fromBlock": hex(first),
        "toBlock": hex(last),
    }
    if first > last:
        return []
    try:
        logs: Any = await node.ask("eth_getLogs", wanted)
    except NodeRefused:
        if last - first < LOG_BLOCKS:
            raise
        middle = (first + last) // 2
        lower = await logged(node, contract, topics, first, middle)
        return lower + await logged(node, contract, topics, middle + 1, last)
    return [log for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []


def signed_in(interface: Interface, data: bytes) -> SignedReading | None:
    """The signed reading in a log's data; None where there is none."""
    event = interface.event(interface.topic("Filed"), data)
    if event is None:
        return None
    reading, (r, vs) = event[1]
    try:
        said = msgspec.convert(reading, MeterReading)
    except msgspec.ValidationError:
        return None
    s = vs & (2**255 - 1)
    return SignedReading(said, r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + (vs >> 255)]))


def _is_meters(params: EscrowParams, signed: SignedReading) -> bool:
    try:
        return recover(signed.reading.digest(params), signed.signature) == params.meter
    except BadSignature:
        return False
