"""Readings as they were filed: from the transactions that brought them, for who wants to contest them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.core.errors import BadSignature, WrongLedger
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading
from penstock.core.identity import recover, to_hex
from penstock.ledgers.abi import Interface
from penstock.ledgers.jsonrpc import Node, NodeRefused

LOG_BLOCKS = 2_000  # which every public node searches at once; more are asked for in parts where it refuses


async def filed_since(
    node: Node, interface: Interface, params: EscrowParams, head: bytes, since: int
) -> list[SignedReading]:
    """The readings of an escrow that its meter signed and that were filed at `since` (seconds) or later, oldest first.

    They are read from the calldata of the transactions that filed them, whether these called the contract or another
    one that passed the call on; `head` is how calldata of this escrow's releases begins. What a contract made up in the
    chain itself is not found.
    """
    newest = await node.quantity("eth_blockNumber")
    found: list[SignedReading] = []
    for tx_hash in await _releases(node, interface, params, await _first_block(node, newest, since), newest):
        transaction = await node.record("eth_getTransactionByHash", tx_hash) or {}
        data = node.bytes_of("eth_getTransactionByHash", transaction.get("input"))
        found += (signed for signed in _signed_in(interface, params, head, data) if signed not in found)
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


async def _releases(node: Node, interface: Interface, params: EscrowParams, first: int, last: int) -> list[str]:
    """The hashes of the transactions in these blocks that filed readings of the escrow."""
    wanted = {
        "address": to_hex(params.domain.contract),
        "topics": [to_hex(interface.topic("Released")), to_hex(params.id)],
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
        lower = await _releases(node, interface, params, first, middle)
        return lower + await _releases(node, interface, params, middle + 1, last)
    hashes = [log.get("transactionHash") for log in logs if isinstance(log, dict)] if isinstance(logs, list) else []
    return list(dict.fromkeys(to_hex(node.bytes_of("eth_getLogs", found)) for found in hashes))


def _signed_in(interface: Interface, params: EscrowParams, head: bytes, data: bytes) -> Iterator[SignedReading]:
    """The readings that the escrow's meter signed, wherever they stand in calldata."""
    at = data.find(head)
    while at >= 0:
        signed = _decoded(interface, data[at:])
        if signed is not None and _is_meters(params, signed):
            yield signed
        at = data.find(head, at + 1)


def _decoded(interface: Interface, data: bytes) -> SignedReading | None:
    try:
        _, _, reading, (r, vs) = interface.arguments("release", data)
        said = msgspec.convert(reading, MeterReading)
    except (WrongLedger, msgspec.ValidationError):
        return None
    s = vs & (2**255 - 1)
    return SignedReading(said, r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + (vs >> 255)]))


def _is_meters(params: EscrowParams, signed: SignedReading) -> bool:
    try:
        return recover(signed.reading.digest(params), signed.signature) == params.meter
    except BadSignature:
        return False
