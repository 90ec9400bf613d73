"""Readings as they were filed: from the logs of the contract, for who wants to contest them."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.errors import BadSignature
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading
from penstock.core.identity import recover, to_hex
from penstock.ledgers.abi import Interface
from penstock.ledgers.jsonrpc import Node, NodeRefused

LOG_BLOCKS = 2_000  # which every public node searches at once; more are asked for in parts where it refuses


async def filed_since(node: Node, interface: Interface, params: EscrowParams, since: int) -> list[SignedReading]:
    """The readings of an escrow that its meter signed and that were filed at `since` (seconds) or later, oldest first.

    The contract logs each whose claim waits (`Filed`), whoever called it.
    """
    newest = await node.quantity("eth_blockNumber")
    found: list[SignedReading] = []
    for data in await _logged(node, interface, params, await _first_block(node, newest, since), newest):
        signed = signed_in(interface, data)
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


async def _logged(node: Node, interface: Interface, params: EscrowParams, first: int, last: int) -> list[bytes]:
    """The data of the logs in these blocks that have readings of the escrow."""
    wanted = {
        "address": to_hex(params.domain.contract),
        "topics": [to_hex(interface.topic("Filed")), to_hex(params.id)],
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
        lower = await _logged(node, interface, params, first, middle)
        return lower + await _logged(node, interface, params, middle + 1, last)
    rows = [log.get("data") for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []
    return [node.bytes_of("eth_getLogs", data) for data in rows]


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
