"""What a contract logged, searched as far at once as a node lets us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from penstock.core.identity import Address, to_hex
from penstock.ledgers.jsonrpc import Node, NodeRefused

LOG_BLOCKS = 2_000  # which every public node searches at once; more are asked for in parts where it refuses
_METHOD = "eth_getLogs"


class Log(NamedTuple):
    """What a contract logged: its topics, the event's own first, and its data."""

    topics: list[bytes]
    data: bytes


async def logged_since(node: Node, contract: Address, topics: Sequence[bytes], since: int) -> list[Log]:
    """The contract's logs that begin with these topics, in blocks of `since` (seconds) or later, oldest first.

    What they say is the node's word: whoever uses it checks it.

    Raises:
        NodeRefused: the node does not even search LOG_BLOCKS at once.
    """
    newest = await node.quantity("eth_blockNumber")
    wanted: dict[str, object] = {"address": to_hex(contract), "topics": [to_hex(topic) for topic in topics]}
    rows = await _search(node, wanted, await _first_block(node, newest, since), newest)
    found = [_log(node, row) for row in rows]
    return [log for log in found if log.topics[: len(topics)] == list(topics)]


async def _search(node: Node, wanted: dict[str, object], first: int, last: int) -> list[dict[str, Any]]:
    if first > last:
        return []
    try:
        rows: Any = await node.ask(_METHOD, {**wanted, "fromBlock": hex(first), "toBlock": hex(last)})
    except NodeRefused:
        if last - first < LOG_BLOCKS:
            raise
        middle = (first + last) // 2
        return await _search(node, wanted, first, middle) + await _search(node, wanted, middle + 1, last)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _log(node: Node, row: dict[str, Any]) -> Log:
    topics = row.get("topics")
    words = topics if isinstance(topics, list) else []
    return Log([node.bytes_of(_METHOD, word) for word in words], node.bytes_of(_METHOD, row.get("data")))


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
