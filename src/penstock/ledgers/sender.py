"""Transactions from keys to blocks: nonce, fee, gas, signature, submission, receipt."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

from eth_account import Account

from penstock.core.errors import LedgerError, LedgerUnreachable, OutOfFunds, TransactionFailed, WrongLedger
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Mined
from penstock.ledgers.abi import revert_reason
from penstock.ledgers.jsonrpc import Node, NodeRefused

DEADLINE = 180.0  # seconds until a transaction that is in no block is given up: fifteen slots of the main network
REBROADCAST = 5.0  # seconds; nodes drop and forget
MARGIN = 1.25  # gas above the estimate: the state may change before the block
FEE_AGE = 2.0  # seconds for which a fee quotation is used
TIP = 10**9  # wei a gas, where the node suggests none
_FIRST_POLL, _SLOWEST_POLL = 0.02, 1.0  # seconds
_TAKEN_POLL = 0.15  # seconds between polls from which on we ask whether the nonce was taken
_NONCE_TRIES = 100  # every one that fails is another program's success
_ALREADY = ("already known", "known transaction", "already imported", "alreadyknown")
_TAKEN = ("nonce too low", "replacement transaction underpriced", "nonce already used", "could not replace")
_FUNDS = ("insufficient funds", "insufficient balance", "gas required exceeds allowance")


class Sender:
    """Sends for any number of keys at once. Another program may use the same keys: a nonce it took is left to it."""

    def __init__(self, node: Node, chain_id: int) -> None:
        self._node = node
        self._chain_id = chain_id
        self._locks: defaultdict[Address, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_flight: defaultdict[Address, set[int]] = defaultdict(set)
        self._fees: tuple[int, int] | None = None
        self._fees_at = 0.0
        self._fees_lock = asyncio.Lock()

    async def call(self, to: Address, data: bytes, block: str = "latest") -> bytes:
        """What a contract returns after `block`.

        Raises:
            TransactionFailed: it reverted.
            WrongLedger: nothing answers there.
        """
        try:
            returned = await self._node.data("eth_call", {"to": to_hex(to), "data": "0x" + data.hex()}, block)
        except NodeRefused as error:
            raise _failure("a call", error) from error
        if not returned:
            raise WrongLedger(f"no contract answers at {to_hex(to)}", "check the contract's address and the node's URL")
        return returned

    async def block_below(self, depth: int) -> str:
        """The number of the block that lies so many below the newest, as calls take it."""
        return hex(max(0, await self._node.quantity("eth_blockNumber") - depth))

    async def gas_price(self) -> int:
        """What a transaction that is sent now may pay for a unit of gas (wei)."""
        return (await self._quote())[1]

    async def estimate(self, key: Key, to: Address, data: bytes, what: str) -> int:
        """The gas limit for a transaction, with a margin.

        Raises:
            TransactionFailed: it would revert; `reason` is the contract's own word.
        """
        request = {"from": to_hex(key.address), "to": to_hex(to), "data": "0x" + data.hex()}
        try:
            return int(await self._node.quantity("eth_estimateGas", request) * MARGIN)
        except NodeRefused as error:
            raise _failure(what, error) from error

    async def send(self, key: Key, to: Address, data: bytes, what: str, gas: int | None = None) -> tuple[Mined, Any]:
        """Send a transaction and wait until it is in a block; returns it with its receipt (wire form).

        `gas` None asks the node for an estimate, which finds a revert before anything is paid.

        Raises:
            TransactionFailed: the node refused it, or it reverted.
            OutOfFunds: the key's account cannot pay for the gas.
            LedgerUnreachable: no answer, or it is in no block by the deadline; it may still get there.
        """
        limit = gas if gas is not None else await self.estimate(key, to, data, what)
        receipt = None
        while receipt is None:
            nonce, raw, tx_hash = await self._submit(key, to, data, what, limit)
            try:
                receipt = await self._receipt(key.address, nonce, raw, tx_hash, what)
            finally:
                self._in_flight[key.address].discard(nonce)
        number = self._node.number("eth_getTransactionReceipt", receipt.get("blockNumber"))
        used = self._node.number("eth_getTransactionReceipt", receipt.get("gasUsed"))
        if self._node.number("eth_getTransactionReceipt", receipt.get("status")) != 1:
            raise await self._post_mortem(key, to, data, what, limit, used)
        return Mined(what, tx_hash, used, number), receipt

    async def _submit(self, key: Key, to: Address, data: bytes, what: str, gas: int) -> tuple[int, str, bytes]:
        """Take a nonce and hand the transaction to the node. One at a time for a key, so that no nonce is left out."""
        tip, most = await self._quote()
        async with self._locks[key.address]:
            for attempt in range(_NONCE_TRIES):
                nonce = await self._next_nonce(key.address)
                signed = Account.sign_transaction(
                    {
                        "type": 2,
                        "chainId": self._chain_id,
                        "nonce": nonce,
                        "to": bytes(to),
                        "value": 0,
                        "data": data,
                        "gas": gas,
                        "maxFeePerGas": most,
                        "maxPriorityFeePerGas": tip,
                    },
                    key.secret,
                )
                raw = "0x" + bytes(signed.raw_transaction).hex()
                self._in_flight[key.address].add(nonce)
                try:
                    await self._node.ask("eth_sendRawTransaction", raw)
                except LedgerUnreachable:
                    pass  # it may have arrived; the wait for the receipt sends it again
                except NodeRefused as error:
                    words = error.message.lower()
                    if not any(known in words for known in _ALREADY):
                        self._in_flight[key.address].discard(nonce)
                        if any(taken in words for taken in _TAKEN) and attempt + 1 < _NONCE_TRIES:
                            continue  # another program that has the key took this nonce
                        raise _failure(what, error, key.address) from error
                return nonce, raw, bytes(signed.hash)
        raise AssertionError("the last attempt returns or raises")

    async def _next_nonce(self, owner: Address) -> int:
        pending = await self._node.quantity("eth_getTransactionCount", to_hex(owner), "pending")
        return max(pending, *(nonce + 1 for nonce in self._in_flight[owner]), 0)

    async def _quote(self) -> tuple[int, int]:
        """The tip and the highest price (wei a gas): room for the base fee to double."""
        async with self._fees_lock:
            if self._fees is None or time.monotonic() - self._fees_at > FEE_AGE:
                block = await self._node.record("eth_getBlockByNumber", "latest", False)
                base = self._node.number("eth_getBlockByNumber", (block or {}).get("baseFeePerGas"))
                try:
                    tip = await self._node.quantity("eth_maxPriorityFeePerGas")
                except NodeRefused:
                    tip = TIP
                self._fees, self._fees_at = (tip, 2 * base + tip), time.monotonic()
            return self._fees

    async def _receipt(self, owner: Address, nonce: int, raw: str, tx_hash: bytes, what: str) -> dict[str, Any] | None:
        """The receipt, once there is one; None where another program's transaction was mined with this nonce."""
        began = sent = time.monotonic()
        pause = _FIRST_POLL
        while True:
            try:
                receipt = await self._node.record("eth_getTransactionReceipt", "0x" + tx_hash.hex())
                if receipt is not None and receipt.get("blockNumber") is not None:
                    return receipt
                if pause > _TAKEN_POLL and await self._taken(owner, nonce, tx_hash):
                    return None
                if time.monotonic() - sent > REBROADCAST:
                    sent = time.monotonic()
                    await self._node.ask("eth_sendRawTransaction", raw)
            except (NodeRefused, LedgerUnreachable) as error:
                cause = error.line()
            else:
                cause = "it is in no block yet"
            if time.monotonic() - began > DEADLINE:
                raise LedgerUnreachable(
                    f"{what}: transaction 0x{tx_hash.hex()} is not mined after {DEADLINE:.0f} s ({cause})",
                    "it may still be: look it up before you send it again",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SLOWEST_POLL)

    async def _taken(self, owner: Address, nonce: int, tx_hash: bytes) -> bool:
        """Whether a block holds another transaction with our nonce: ours was replaced and can never be mined."""
        if await self._node.quantity("eth_getTransactionCount", to_hex(owner), "latest") <= nonce:
            return False
        return await self._node.record("eth_getTransactionReceipt", "0x" + tx_hash.hex()) is None

    async def _post_mortem(
        self, key: Key, to: Address, data: bytes, what: str, gas: int, used: int
    ) -> TransactionFailed:
        """Why a mined transaction failed, as far as a call at the newest block still tells."""
        if used >= gas:
            return TransactionFailed(f"{what} ran out of gas ({gas})", "try again", reason="out of gas")
        try:
            request = {"from": to_hex(key.address), "to": to_hex(to), "data": "0x" + data.hex()}
            await self._node.data("eth_call", request, "latest")
        except NodeRefused as error:
            return TransactionFailed(_failure(what, error).args[0], reason=_reason(error))
        except LedgerError:
            pass
        return TransactionFailed(f"{what} was reverted in its block", "the state changed meanwhile; try again")


def _reason(error: NodeRefused) -> str:
    decoded = revert_reason(error.data)
    if decoded:
        return decoded
    head, _, tail = error.message.partition("execution reverted")
    return tail.removeprefix(":").strip(" :'\"") if not head else ""


def _failure(what: str, error: NodeRefused, owner: Address | None = None) -> LedgerError | OutOfFunds:
    if any(words in error.message.lower() for words in _FUNDS):
        account = to_hex(owner) if owner is not None else "the account"
        return OutOfFunds(f"{account} cannot pay for the gas of {what}", "send it some ether")
    reason = _reason(error)
    if reason:
        return TransactionFailed(f"{what} is refused by the contract: {reason}", reason=reason)
    return TransactionFailed(f"{what} is refused: {error.message}")
