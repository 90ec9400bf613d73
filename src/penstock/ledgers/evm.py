"""Channels on an EVM chain: `core.ports.Ledger` over any JSON-RPC node, against the contract `contracts/Channel.vy`.

Importing this module costs a second or two (web3, eth-account): only what touches a ledger may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from penstock.core.channel import APART, ChannelParams, Domain, compact, proof_words
from penstock.core.errors import OutOfFunds, PenstockError, TransactionFailed, UsageError, WrongLedger
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import ChannelState, Filing, Holdings, Mined, SignedClose, TokenFacts
from penstock.core.units import Amount
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.sender import Sender
from penstock.ledgers.token import Token

CLOSES_PER_TRANSACTION = 50  # of the contract's 64 rows: below a million gas
PROOF_WORDS = 104  # in one transaction; the contract's bound
PERMIT_LIFE = 3_600  # seconds
_OPEN_ROOM = 2  # an opening into a balance that was zero costs up to this many times one that was not
_EXISTS = 1 << 232  # in a channel's word
_UINT96 = 2**96 - 1
_SPARED = (0, 0)  # the signature of who sends a close itself


class Opening(NamedTuple):
    """A channel to open, by whom, and with how much."""

    key: Key
    params: ChannelParams
    deposit: Amount


class Closed(NamedTuple):
    """Closes that were sent together: the transactions, and why rows were skipped (channel id -> reason)."""

    mined: list[Mined]
    skipped: dict[bytes, str]


class EvmLedger:
    """A channel contract behind a JSON-RPC node. Made by `connect`; close it when done."""

    def __init__(self, node: Node, sender: Sender, domain: Domain, confirmations: int) -> None:
        self.domain = domain
        self._depth = confirmations
        self._node = node
        self._sender = sender
        self._token = Token(sender, domain.token, domain.chain_id)
        self._contract = Interface(load("Channel")["abi"])

    @classmethod
    async def connect(
        cls, url: str, contract: Address, expect_chain_id: int | None = None, confirmations: int = 0
    ) -> EvmLedger:
        """The ledger at `url` (http or https) with its channels in `contract`.

        A channel counts as open once its opening, and a deposit once it, has so many `confirmations`: blocks above it.

        Raises:
            UsageError: `url` is no HTTP URL.
            LedgerUnreachable: nobody answers there, or not as an Ethereum node.
            WrongLedger: another chain, or no channel contract at the address.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url[:80]!r} is not the URL of a JSON-RPC node", "give http://host:port")
        node = Node(url)
        try:
            chain_id = await node.quantity("eth_chainId")
            if expect_chain_id is not None and chain_id != expect_chain_id:
                raise WrongLedger(
                    f"{url} speaks for chain {chain_id}, not {expect_chain_id}", "check the URL, or the chain id"
                )
            if not await node.data("eth_getCode", to_hex(contract), "latest"):
                raise WrongLedger(
                    f"there is no contract at {to_hex(contract)} on chain {chain_id}",
                    "check the contract's address and the node's URL",
                )
            sender = Sender(node, chain_id)
            interface = Interface(load("Channel")["abi"])
            try:
                token = interface.decode("token", await sender.call(contract, interface.encode("token")))[0]
                stated = await sender.call(contract, interface.encode("domain_separator"))
            except TransactionFailed as error:
                raise WrongLedger(f"{to_hex(contract)} is no channel contract", "check the address") from error
            domain = Domain(chain_id, contract, Address(bytes.fromhex(token[2:])))
            if stated != domain.separator:
                raise WrongLedger(
                    f"{to_hex(contract)} signs under another domain: another version, or a fork of chain {chain_id}",
                    "use a channel contract of this version",
                )
        except BaseException:
            await node.close()
            raise
        return cls(node, sender, domain, confirmations)

    async def disconnect(self) -> None:
        """Drop the connections to the node."""
        await self._node.close()

    # Looking

    async def token(self) -> TokenFacts:
        return await self._token.facts()

    async def now(self) -> int:
        block = await self._node.record("eth_getBlockByNumber", "latest", False)
        return self._node.number("eth_getBlockByNumber", (block or {}).get("timestamp"))

    async def channel(self, params: ChannelParams) -> ChannelState:
        state = await self._channel(params, 0)
        if state.status != "open" or not self._depth:
            return state
        try:
            deep = await self._channel(params, self._depth)
        except WrongLedger:  # the contract itself is younger than that
            return ChannelState("absent")
        if deep.status != "open":
            return deep
        return ChannelState(
            "open",
            min(state.opener_deposit, deep.opener_deposit),
            min(state.partner_deposit, deep.partner_deposit),
        )

    async def _channel(self, params: ChannelParams, depth: int) -> ChannelState:
        self._check(params)
        word, _, lowest = await self._read("channel", _params(params), depth=depth)
        return _state(params, word, lowest)

    async def holdings(self, owner: Address) -> Holdings:
        wallet, balance, ether = await asyncio.gather(
            self._token.balance(owner),
            self._balance(owner),
            self._node.quantity("eth_getBalance", to_hex(owner), "latest"),
        )
        return Holdings(Amount(wallet), Amount(balance), ether)

    async def next_counter(self, opener: Address) -> int:
        """A counter with which `opener` can still open a channel.

        Where it has nothing in the contract, so that it will open from its wallet, that is one apart: the milliseconds
        now. It spares the opening a slot.
        """
        balance, lowest = await self._read("account", to_hex(opener))
        return int(lowest) if balance else APART + time.time_ns() // 10**6

    # Opening

    async def open(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        return await self._open(Opening(key, params, deposit), None)

    async def open_many(self, openings: Iterable[Opening]) -> list[list[Mined] | PenstockError]:
        """Open channels of many payers at once; they share blocks. For each what `open` returns, or what it raises.

        Gas is estimated once for each way of opening, and others get room for a dearer case.
        """
        rows = list(openings)
        limits: dict[str, int] = {}
        results: list[list[Mined] | BaseException] = []
        if rows:
            results += await asyncio.gather(self._open(rows[0], limits), return_exceptions=True)
            results += await asyncio.gather(*(self._open(row, limits) for row in rows[1:]), return_exceptions=True)
        kept: list[list[Mined] | PenstockError] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PenstockError):
                raise result
            kept.append(result)
        return kept

    async def _open(self, opening: Opening, limits: dict[str, int] | None) -> list[Mined]:
        key, params, deposit = opening
        self._check(params)
        params.check()
        if key.address != params.opener:
            raise UsageError(f"{to_hex(key.address)} is not the opener of this channel", "open with the opener's key")
        balance, wallet = await asyncio.gather(self._balance(key.address), self._token.balance(key.address))
        place = _place(params, deposit)
        plain = place[2:] == (0, 0)
        if balance >= deposit:
            name, call = ("open", place[:2]) if plain and params.counter < APART else ("open_with_keys", place)
            return [await self._send(key, name, *call, limits=limits)]
        mined = await self._to_wallet(key, wallet, balance, deposit)
        deadline = await self.now() + PERMIT_LIFE
        permit = await self._token.permit(key, self.domain.contract, deposit, deadline)
        if permit is not None:
            signature = compact(permit)
            return [*mined, await self._send(key, "open_with_permit", *place, deadline, signature, limits=limits)]
        mined += await self._approve(key, deposit)
        short = plain and params.counter >= APART
        name, call = ("open_from_token", place[:2]) if short else ("open_from_token_with_keys", place)
        return [*mined, await self._send(key, name, *call, limits=limits)]

    async def add(self, key: Key, params: ChannelParams, deposit: Amount) -> list[Mined]:
        self._check(params)
        balance, wallet = await asyncio.gather(self._balance(key.address), self._token.balance(key.address))
        if balance >= deposit:
            return [await self._send(key, "add", _params(params), deposit)]
        mined = await self._to_wallet(key, wallet, balance, deposit)
        mined += await self._approve(key, deposit)
        return [*mined, await self._send(key, "add_from_token", _params(params), deposit)]

    async def _to_wallet(self, key: Key, wallet: int, balance: int, deposit: int) -> list[Mined]:
        """Bring the balance home where only wallet and balance together suffice."""
        if wallet + balance < deposit:
            raise OutOfFunds(
                f"{to_hex(key.address)} has {wallet} token units in its wallet and {balance} in the contract, "
                f"{deposit} are needed",
                "send it tokens, or deposit less",
            )
        return await self.withdraw(key, Amount(balance)) if wallet < deposit else []

    async def _approve(self, key: Key, amount: int) -> list[Mined]:
        contract = self.domain.contract
        if await self._token.allowance(key.address, contract) >= amount:
            return []
        data = self._token.interface.encode("approve", to_hex(contract), amount)
        return [(await self._sender.send(key, self.domain.token, data, "approve"))[0]]

    # Ending

    async def close_together(self, key: Key, rows: list[SignedClose]) -> list[Mined]:
        return (await self.close_many(key, rows)).mined

    async def close_many(self, key: Key, rows: Sequence[SignedClose]) -> Closed:
        """Close channels that both sides have signed for, in transactions of a bounded size; bad rows are skipped."""
        for row in rows:
            self._check(row.params)
        closed = Closed([], {})
        if len(rows) == 1:
            closed.mined.append(await self._send(key, "close_together", _close(key, rows[0])))
            return closed
        mine = [row for row in rows if _is_mine(key, row)]
        for voucher_key in sorted({row.params.partner_key for row in mine}):
            own = [row for row in mine if row.params.partner_key == voucher_key]
            resolved = 0 if voucher_key == key.address else _word(voucher_key)
            await self._close_batches(key, own, closed, "close_mine", (resolved,), _row)
        others = [row for row in rows if not _is_mine(key, row)]
        await self._close_batches(key, others, closed, "close_many", (), partial(_close, key))
        return closed

    async def _close_batches(
        self,
        key: Key,
        rows: Sequence[SignedClose],
        closed: Closed,
        name: str,
        before: tuple[int, ...],
        form: Callable[[SignedClose], tuple[object, ...]],
    ) -> None:
        for first in range(0, len(rows), CLOSES_PER_TRANSACTION):
            batch = rows[first : first + CLOSES_PER_TRANSACTION]
            data = self._contract.encode(name, *before, [form(row) for row in batch])
            mined, receipt = await self._sender.send(key, self.domain.contract, data, f"close of {len(batch)} channels")
            closed.mined.append(mined)
            closed.skipped.update(self._skipped(receipt))

    def _skipped(self, receipt: dict[str, Any]) -> dict[bytes, str]:
        method, found = "eth_getTransactionReceipt", {}
        logs = receipt.get("logs")
        for log in logs if isinstance(logs, list) else []:
            topics = [self._node.bytes_of(method, topic) for topic in log.get("topics", ())]
            event = self._contract.event(topics[0], self._node.bytes_of(method, log.get("data"))) if topics else None
            if event is not None and event[0] == "Skipped":
                found[topics[1]] = f"channel: {event[1][0]}"
        return found

    async def close(self, key: Key, params: ChannelParams, filing: Filing | None) -> list[Mined]:
        """Begin a unilateral close, filing the best voucher received, if any.

        The payee of a one-way channel is paid in this very transaction where its voucher holds nothing that could still
        be proven later (no lock with an expiry, and few enough claims): the channel is settled then, not closing.
        """
        self._check(params)
        if filing is None:
            return [await self._send(key, "close", _params(params))]
        proofs = _proofs(filing)
        final = all(lock.expiry == 0 for lock in filing.locks) and len(proofs) <= 1
        if not params.two_way and key.address == params.partner and final:
            return [await self._send(key, "finish", *_filed(params, filing, proofs))]
        return await self._file(key, params, filing, begin=True)

    async def file(self, key: Key, params: ChannelParams, filing: Filing) -> list[Mined]:
        self._check(params)
        return await self._file(key, params, filing, begin=False)

    async def _file(self, key: Key, params: ChannelParams, filing: Filing, begin: bool) -> list[Mined]:
        first, *rest = _proofs(filing) or [[]]
        mined = [await self._send(key, "file", *_filed(params, filing, [first]), begin)]
        for proofs in rest:
            mined += [await self._send(key, "prove", _params(params), key.address == params.partner, proofs)]
        return mined

    async def settle(self, key: Key, params: ChannelParams) -> list[Mined]:
        self._check(params)
        return [await self._send(key, "settle", _params(params))]

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        return [await self._send(key, "withdraw", amount)]

    # Inside

    def _check(self, params: ChannelParams) -> None:
        if params.domain != self.domain:
            raise WrongLedger(
                f"the channel is kept by {to_hex(params.domain.contract)} on chain {params.domain.chain_id}, this is "
                f"{to_hex(self.domain.contract)} on chain {self.domain.chain_id}",
                "connect to the channel's own ledger",
            )

    async def _balance(self, owner: Address) -> int:
        return int((await self._read("account", to_hex(owner)))[0])

    async def _read(self, name: str, *values: object, depth: int = 0) -> tuple[Any, ...]:
        data = self._contract.encode(name, *values)
        return self._contract.decode(name, await self._sender.call(self.domain.contract, data, depth))

    async def _send(self, key: Key, name: str, *values: object, limits: dict[str, int] | None = None) -> Mined:
        data = self._contract.encode(name, *values)
        what = name.replace("_", " ")
        gas = None
        if limits is not None:
            if name not in limits:
                estimate = await self._sender.estimate(key, self.domain.contract, data, what)
                limits[name] = _OPEN_ROOM * estimate
            gas = limits[name]
        return (await self._sender.send(key, self.domain.contract, data, what, gas))[0]


def _state(params: ChannelParams, word: int, lowest: int) -> ChannelState:
    """A channel from its word: opener deposit (96 bits) | partner deposit (96) | closes_at (40) | flags.

    A one-way channel has no partner deposit; the contract keeps other things in its place.
    """
    if not word & _EXISTS:
        ended = word or params.counter < lowest
        return ChannelState("settled" if ended else "absent")
    closes_at = word >> 192 & (2**40 - 1)
    partner = word >> 96 & _UINT96 if params.two_way else 0
    return ChannelState("closing" if closes_at else "open", Amount(word & _UINT96), Amount(partner), closes_at)


def _word(address: bytes) -> int:
    return int.from_bytes(address, "big")


def _params(params: ChannelParams) -> tuple[int, ...]:
    """A channel for the contract; a key that is its party's account is left out, and zeros are cheap."""
    return (_word(params.opener), _word(params.partner), *_place(params, Amount(0))[2:], params.terms)


def _place(params: ChannelParams, deposit: Amount) -> tuple[int, int, int, int]:
    """A channel that its opener opens: partner and deposit, terms, keys."""
    return (
        _word(params.partner) | deposit << 160,
        params.terms,
        0 if params.opener_key == params.opener else _word(params.opener_key),
        0 if params.partner_key == params.partner else _word(params.partner_key),
    )


def _is_mine(key: Key, row: SignedClose) -> bool:
    """Whether a close takes the short form: sent by the partner, the opener's account being its voucher key."""
    return key.address == row.params.partner and row.params.opener_key == row.params.opener


def _row(row: SignedClose) -> tuple[int, ...]:
    params, close = row.params, row.close
    return (
        _word(params.opener) | close.partner_balance << 160,
        params.terms | close.expiry << 128,
        *compact(row.opener_signature),
    )


def _close(key: Key, row: SignedClose) -> tuple[object, ...]:
    """A close for the contract; the sender needs no signature of its own there."""
    params, close = row.params, row.close
    return (
        _params(params),
        close.opener_balance | close.partner_balance << 96 | close.expiry << 192,
        _SPARED if key.address == params.opener else compact(row.opener_signature),
        _SPARED if key.address == params.partner else compact(row.partner_signature),
    )


def _filed(params: ChannelParams, filing: Filing, proofs: Sequence[list[bytes]]) -> tuple[object, ...]:
    voucher = filing.voucher
    return (
        _params(params),
        (voucher.nonce, voucher.amount, voucher.locked, voucher.locked_until, voucher.locks_root),
        compact(filing.signature),
        proofs[0] if proofs else [],
    )


def _proofs(filing: Filing) -> list[list[bytes]]:
    """The ticks that can be proven, in the order of the locks: words for as many transactions as they need."""
    parts: list[list[bytes]] = []
    for index, (count, preimage) in enumerate(filing.proofs):
        if count > 0:
            words = proof_words(filing.locks, index, count, preimage)
            if not parts or len(parts[-1]) + len(words) > PROOF_WORDS:
                parts.append([])
            parts[-1] += words
    return parts
