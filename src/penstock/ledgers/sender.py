"""Transactions from keys to blocks: nonce, fee, gas, signature, submission, receipt; again, for more, where need be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from typing import Any, NamedTuple

from eth_account import Account

from penstock.core.errors import LedgerError, LedgerUnreachable, OutOfGas, TransactionFailed, WrongLedger
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Mined
from penstock.core.units import format_decimal
from penstock.ledgers import fees, nonces
from penstock.ledgers.abi import revert_reason
from penstock.ledgers.fees import Fees, Market, Offer
from penstock.ledgers.jsonrpc import Node, NodeRefused

DEADLINE = 180.0  # seconds until a transaction that is in no block is given up: fifteen slots of the main network
REBROADCAST = 5.0  # seconds; nodes drop and forget
MARGIN = 1.25  # gas above the estimate: the state may change before the block
_FIRST_POLL, _SLOWEST_POLL = 0.02, 1.0  # seconds
_TAKEN_POLL = 0.15  # seconds between polls from which on we ask whether the nonce was taken
_NONCE_TRIES = 100  # every one that fails is another program's success
_BLOCKED = 4  # times the patience until what blocks our account's queue is pushed aside
_EMPTY_GAS = 21_000  # of a transaction that does nothing
_FEE_TRIES = 3  # the base fee may rise between quotation and submission
_ALREADY = ("already known", "known transaction", "already imported", "alreadyknown")
_USED = ("nonce too low", "nonce already used")
_OTHER = ("replacement transaction underpriced", "could not replace")
_FUNDS = ("insufficient funds", "insufficient balance")
_BASE_FEE = ("less than block base fee", "fee cap less than", "below the base fee")


class _Call(NamedTuple):
    """What a transaction does."""

    key: Key
    to: Address
    data: bytes
    what: str
    gas: int


class _Version(NamedTuple):
    hash: bytes
    raw: str


class _Sending:
    """A call under its nonce: the versions of it that were handed to the node, one of which will be mined."""

    __slots__ = ("call", "nonce", "offer", "versions")

    def __init__(self, call: _Call, nonce: int, offer: Offer, version: _Version) -> None:
        self.call = call
        self.nonce = nonce
        self.offer = offer  # the newest version's
        self.versions = [version]


class _NonceTaken(Exception):
    """A block holds another transaction with our nonce: ours can never be mined."""


class Sender:
    """Sends for any number of keys at once. Another program may use the same keys: a nonce it took is left to it."""

    def __init__(self, node: Node, chain_id: int, confirmations: int = 0, limits: Fees | None = None) -> None:
        """A transaction that a reorganisation takes out of the chain before it has so many `confirmations` is sent
        again, in the background, until `close`."""
        self._node = node
        self._chain_id = chain_id
        self._confirmations = confirmations
        self._limits = limits or Fees()
        self._locks: defaultdict[Address, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_flight: defaultdict[Address, set[int]] = defaultdict(set)
        self._following: set[asyncio.Task[None]] = set()
        self._market = Market(node)

    async def close(self) -> None:
        """Follow transactions no further."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

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
        return fees.first(await self._market.quote(), self._limits).most

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

        `gas` None asks the node for an estimate, which finds a revert before anything is paid. While no block takes it,
        it is replaced by one that pays more, up to the ceiling; whichever of them is mined counts.

        Raises:
            TransactionFailed: the node refused it, or it reverted.
            OutOfGas: the key's account cannot pay for the gas.
            LedgerUnreachable: no answer, or it is in no block by the deadline; it may still get there.
        """
        call = _Call(key, to, data, what, gas if gas is not None else await self.estimate(key, to, data, what))
        while True:
            sending = await self._submit(call)
            try:
                receipt = await self._receipt(sending)
            except _NonceTaken:
                self._forget(sending)
                continue
            except BaseException:
                self._forget(sending)
                raise
            break
        method = "eth_getTransactionReceipt"
        if self._confirmations:
            task = asyncio.create_task(self._follow(sending))
            self._following.add(task)
            task.add_done_callback(self._following.discard)
        else:
            self._forget(sending)
        used = self._node.number(method, receipt.get("gasUsed"))
        if self._node.number(method, receipt.get("status")) != 1:
            raise await self._post_mortem(call, used)
        tx_hash = self._node.bytes_of(method, receipt.get("transactionHash"))
        return Mined(what, tx_hash, used, self._node.number(method, receipt.get("blockNumber"))), receipt

    def _forget(self, sending: _Sending) -> None:
        self._in_flight[sending.call.key.address].discard(sending.nonce)

    # Into the pool

    async def _submit(self, call: _Call) -> _Sending:
        """Take a nonce and hand the transaction to the node. One at a time for a key, so that no nonce is left out."""
        owner = call.key.address
        async with self._locks[owner]:
            fee_tries, limits = _FEE_TRIES, self._limits
            for tries_left in reversed(range(_NONCE_TRIES)):
                offer = fees.first(await self._market.quote(), limits)
                nonce = await self._next_nonce(owner)
                version = self._sign(call, nonce, offer)
                self._in_flight[owner].add(nonce)
                try:
                    await self._hand_over(version)
                except LedgerUnreachable:
                    pass  # it may have arrived; the wait for the receipt sends it again
                except NodeRefused as error:
                    if _says(error, _USED) and not await self._is_taken(owner, nonce, [version]):
                        return _Sending(call, nonce, offer, version)  # ours was heard though its answer was not, or so
                    self._in_flight[owner].discard(nonce)
                    if _says(error, _USED + _OTHER) and tries_left:
                        continue  # another program that has the key took this nonce
                    if _says(error, _BASE_FEE) and (fee_tries := fee_tries - 1):
                        self._market.stir()
                        continue
                    if _says(error, _FUNDS):
                        limits = await self._means(call, offer)
                        continue
                    raise _failure(call.what, error) from error
                return _Sending(call, nonce, offer, version)
        raise AssertionError("the last attempt returns or raises")

    def _sign(self, call: _Call, nonce: int, offer: Offer) -> _Version:
        signed = Account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonce,
                "to": bytes(call.to),
                "value": 0,
                "data": call.data,
                "gas": call.gas,
                "maxFeePerGas": offer.most,
                "maxPriorityFeePerGas": offer.tip,
            },
            call.key.secret,
        )
        return _Version(bytes(signed.hash), "0x" + bytes(signed.raw_transaction).hex())

    async def _hand_over(self, version: _Version) -> None:
        try:
            await self._node.ask("eth_sendRawTransaction", version.raw)
        except NodeRefused as error:
            if not _says(error, _ALREADY):
                raise

    async def _next_nonce(self, owner: Address) -> int:
        pending = await self._node.quantity("eth_getTransactionCount", to_hex(owner), "pending")
        return max(pending, *(nonce + 1 for nonce in self._in_flight[owner]), 0)

    # Into a block

    async def _receipt(self, sending: _Sending) -> dict[str, Any]:
        """The receipt of whichever version is mined.

        Raises:
            _NonceTaken: none of them ever will be.
            OutOfGas, LedgerUnreachable: none is by the deadline.
        """
        began = pressed = sent = time.monotonic()
        pause = _FIRST_POLL
        cause: LedgerError | None = None  # the last thing that went wrong
        while True:
            try:
                if (receipt := await self._look(sending, pause > _TAKEN_POLL)) is not None:
                    return receipt
                now = time.monotonic()
                if now - pressed > self._limits.patience:
                    pressed = sent = now
                    if now - began > _BLOCKED * self._limits.patience:
                        await self._unblock(sending)
                    await self._press(sending)
                    cause = None
                elif now - sent > REBROADCAST:
                    sent = now
                    await self._hand_over(sending.versions[-1])
            except (NodeRefused, LedgerUnreachable, OutOfGas) as error:
                cause = error
            if time.monotonic() - began > DEADLINE:
                raise _given_up(sending, cause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SLOWEST_POLL)

    async def _look(self, sending: _Sending, closely: bool) -> dict[str, Any] | None:
        """The receipt of a version that is in a block, if one is. Looking `closely` sees a nonce that was taken."""
        receipt = await self._receipt_of(sending.versions[-1])
        if receipt is not None or not (closely or len(sending.versions) > 1):
            return receipt
        owner = sending.call.key.address
        if await nonces.used(self._node, owner) <= sending.nonce:
            return None
        for version in sending.versions:
            if (receipt := await self._receipt_of(version)) is not None:
                return receipt
        # Behind one URL there may be several nodes, and the one with the receipts late: that is no proof.
        if await self._is_taken(owner, sending.nonce, sending.versions):
            raise _NonceTaken
        return None

    async def _is_taken(self, owner: Address, nonce: int, versions: list[_Version]) -> bool:
        """Whether a block is known to hold, under an account's nonce, something else than these versions."""
        try:
            holder = await nonces.holder(self._node, owner, nonce)
        except LedgerError:
            return False
        return holder is not None and holder not in [version.hash for version in versions]

    async def _receipt_of(self, version: _Version) -> dict[str, Any] | None:
        receipt = await self._node.record("eth_getTransactionReceipt", "0x" + version.hash.hex())
        return receipt if receipt is not None and receipt.get("blockNumber") is not None else None

    async def _press(self, sending: _Sending) -> None:
        """Replace a transaction that no block takes by one that pays more.

        Raises:
            NodeRefused: the node does not take it; the next one offers more.
            OutOfGas: the account cannot pay that much; what is in the pool already stays.
        """
        before, limits = sending.offer, self._limits
        while (offer := fees.raised(before, await self._market.quote(), limits)) is not None:
            version = self._sign(sending.call, sending.nonce, offer)
            sending.offer = offer
            sending.versions.append(version)  # before it is sent: it may arrive without our hearing of it
            try:
                await self._hand_over(version)
            except NodeRefused as error:
                sending.versions.insert(0, sending.versions.pop())  # it may be in the pool for all that was said
                if not _says(error, _FUNDS):
                    raise
                sending.offer = before
                limits = await self._means(sending.call, offer)
            else:
                return
        await self._hand_over(sending.versions[-1])

    async def _means(self, call: _Call, offer: Offer) -> Fees:
        """The limits within which an account that could not pay `offer` can pay what blocks take now.

        Raises:
            OutOfGas: it cannot pay even that.
        """
        owner = call.key.address
        has = await self._node.quantity("eth_getBalance", to_hex(owner), "latest")
        most = has // call.gas
        if (await self._market.quote()).least <= most < offer.most:
            return self._limits._replace(ceiling=most)
        needs = call.gas * offer.most
        raise OutOfGas(
            f"{to_hex(owner)} cannot pay for the gas of {call.what}: it has {format_decimal(has, 18)} ether, "
            f"up to {format_decimal(needs, 18)} are needed",
            "send it some ether",
            owner,
            has,
            needs,
        )

    async def _unblock(self, sending: _Sending) -> None:
        """Push aside what a program that ended has left in the pool before ours, for less than blocks take now."""
        owner = sending.call.key.address
        for nonce in range(await nonces.used(self._node, owner), sending.nonce):
            if nonce not in self._in_flight[owner]:  # those rise on their own
                nothing = sending.call._replace(to=owner, data=b"", gas=_EMPTY_GAS)
                with contextlib.suppress(NodeRefused):  # it pays more than we offer so far
                    await self._hand_over(self._sign(nothing, nonce, sending.offer))

    async def _follow(self, sending: _Sending) -> None:
        """See that a mined transaction stays in the chain until it is deep enough."""
        try:
            while True:
                with contextlib.suppress(LedgerError):  # the node may come back
                    if (receipt := await self._look(sending, closely=True)) is None:
                        await self._hand_over(sending.versions[-1])
                        receipt = await self._receipt(sending)
                    block = self._node.number("eth_getTransactionReceipt", receipt.get("blockNumber"))
                    if await self._node.quantity("eth_blockNumber") - block >= self._confirmations:
                        return
                await asyncio.sleep(_SLOWEST_POLL)
        except _NonceTaken:
            return
        finally:
            self._forget(sending)

    # What went wrong

    async def _post_mortem(self, call: _Call, used: int) -> TransactionFailed:
        """Why a mined transaction failed, as far as a call at the newest block still tells."""
        if used >= call.gas:
            return TransactionFailed(f"{call.what} ran out of gas ({call.gas})", "try again", reason="out of gas")
        try:
            request = {"from": to_hex(call.key.address), "to": to_hex(call.to), "data": "0x" + call.data.hex()}
            await self._node.data("eth_call", request, "latest")
        except NodeRefused as error:
            return TransactionFailed(_failure(call.what, error).args[0], reason=_reason(error))
        except LedgerError:
            pass
        return TransactionFailed(f"{call.what} was reverted in its block", "the state changed meanwhile; try again")


def _given_up(sending: _Sending, cause: LedgerError | None) -> LedgerError:
    if isinstance(cause, OutOfGas):
        return cause
    why = cause.line() if cause is not None else "it is in no block yet"
    return LedgerUnreachable(
        f"{sending.call.what}: transaction {to_hex(sending.versions[-1].hash)} is not mined after {DEADLINE:.0f} s "
        f"({why})",
        "it may still be: look it up before you send it again",
    )


def _says(error: NodeRefused, words: tuple[str, ...]) -> bool:
    return any(known in error.message.lower() for known in words)


def _reason(error: NodeRefused) -> str:
    decoded = revert_reason(error.data)
    if decoded:
        return decoded
    head, _, tail = error.message.partition("execution reverted")
    return tail.removeprefix(":").strip(" :'\"") if not head else ""


def _failure(what: str, error: NodeRefused) -> TransactionFailed:
    reason = _reason(error)
    if reason:
        return TransactionFailed(f"{what} is refused by the contract: {reason}", reason=reason)
    return TransactionFailed(f"{what} is refused: {error.message}")
