"""An account's nonces: how many are used, and which transaction has one."""

from __future__ import annotations

from penstock.core.identity import Address, to_hex
from penstock.ledgers.jsonrpc import Node

BACK = 1_024  # blocks within which we look for what took a nonce


async def used(node: Node, owner: Address, block: str = "latest") -> int:
    """How many nonces of an account are used after a block."""
    return await node.quantity("eth_getTransactionCount", to_hex(owner), block)


async def holder(node: Node, owner: Address, nonce: int) -> bytes | None:
    """The hash of the transaction in a block that has this nonce of an account; None where no block is known to.

    The count after each block leads to the block: first back in leaps, for it is not long ago, then by halves.
    """
    low = high = await node.quantity("eth_blockNumber")
    step = 1
    while await used(node, owner, hex(low)) > nonce:
        if low == 0 or step > BACK:
            return None
        low, high, step = max(0, low - step), low, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if await used(node, owner, hex(middle)) > nonce:
            high = middle
        else:
            low = middle
    return await _sent(node, hex(high), owner, nonce)


async def _sent(node: Node, block: str, owner: Address, nonce: int) -> bytes | None:
    method = "eth_getBlockByNumber"
    held = (await node.record(method, block, True) or {}).get("transactions")
    for one in held if isinstance(held, list) else []:
        ours = isinstance(one, dict) and str(one.get("from")).lower() == to_hex(owner).lower()
        if ours and node.number(method, one.get("nonce")) == nonce:
            return node.bytes_of(method, one.get("hash"))
    return None
