"""The channel contract behind a JSON-RPC node: found and checked, asked and sent to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from penstock.core.channel import ChannelParams, Domain
from penstock.core.errors import LedgerError, OutOfGas, TransactionFailed, UsageError, WrongLedger
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import ChannelState, Mined
from penstock.ledgers import forms
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.fees import Fees
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.sender import Sender
from penstock.ledgers.token import Token

_ROOM = 2  # an opening into a balance that was zero costs up to this many times one that was not


class ChannelContract:
    """A connection to the contract. Made by `connect`; close it when done."""

    def __init__(self, node: Node, sender: Sender, domain: Domain, confirmations: int) -> None:
        self.domain = domain
        self._depth = confirmations
        self._node = node
        self._sender = sender
        self._token = Token(sender, domain.token, domain.chain_id)
        self._contract = Interface(load("Channel")["abi"])

    @classmethod
    async def connect(
        cls,
        url: str,
        contract: Address,
        expect_chain_id: int | None = None,
        confirmations: int = 0,
        fees: Fees | None = None,
    ) -> Self:
        """The ledger at `url` (http or https) with its channels in `contract`.

        A channel counts as open once its opening, and a deposit once it, has so many `confirmations`: blocks above it.
        Until then a transaction of ours that drops out of the chain is sent again. `fees` bounds what gas may cost.

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
                    f"{node.place} speaks for chain {chain_id}, not {expect_chain_id}", "check the URL, or the chain id"
                )
            if not await node.data("eth_getCode", to_hex(contract), "latest"):
                raise WrongLedger(
                    f"there is no contract at {to_hex(contract)} on chain {chain_id}",
                    "check the contract's address and the node's URL",
                )
            sender = Sender(node, chain_id, confirmations, fees)
            domain = await _domain(sender, chain_id, contract)
        except BaseException:
            await node.close()
            raise
        return cls(node, sender, domain, confirmations)

    async def disconnect(self) -> None:
        """Drop the connections to the node, and follow transactions no further."""
        await self._sender.close()
        await self._node.close()

    def _check(self, params: ChannelParams) -> None:
        if params.domain != self.domain:
            raise WrongLedger(
                f"the channel is kept by {to_hex(params.domain.contract)} on chain {params.domain.chain_id}, this is "
                f"{to_hex(self.domain.contract)} on chain {self.domain.chain_id}",
                "connect to the channel's own ledger",
            )

    async def _read(self, name: str, *values: object, block: str = "latest") -> tuple[Any, ...]:
        data = self._contract.encode(name, *values)
        return self._contract.decode(name, await self._sender.call(self.domain.contract, data, block))

    async def _balance(self, owner: Address) -> int:
        """What `owner` has in the contract, outside channels (token units)."""
        return int((await self._read("account", to_hex(owner)))[0])

    async def _state(self, params: ChannelParams, block: str = "latest") -> tuple[ChannelState, int]:
        """The channel after a block, and its word."""
        self._check(params)
        word, drawn, lowest = await self._read("channel", forms.params_words(params), block=block)
        return forms.state_of(params, word, drawn, lowest), word

    async def _send(self, key: Key, name: str, *values: object, limits: dict[str, int] | None = None) -> list[Mined]:
        """Send a call of the contract. `limits` keeps gas estimates by name, for many calls that are much alike."""
        data = self._contract.encode(name, *values)
        what = name.replace("_", " ")
        gas = None
        if limits is not None:
            if name not in limits:
                limits[name] = _ROOM * await self._sender.estimate(key, self.domain.contract, data, what)
            gas = limits[name]
        return [(await self._sender.send(key, self.domain.contract, data, what, gas))[0]]

    async def _refusal(self, key: Key, name: str, *values: object) -> str | None:
        """Why the contract would refuse a call now, in its own words; None where it would take it."""
        try:
            await self._sender.estimate(key, self.domain.contract, self._contract.encode(name, *values), name)
        except TransactionFailed as error:
            if not error.reason:
                raise
            return error.reason
        return None

    @asynccontextmanager
    async def _pressing(self, params: ChannelParams) -> AsyncIterator[None]:
        """What is sent in here presses: where the account cannot pay for it, the error says by when it must."""
        try:
            yield
        except OutOfGas as error:
            try:
                (state, _), now = await self._state(params), await self._now()
            except LedgerError:
                raise error from None
            if not state.closes_at:
                raise
            words = f"{error}; the challenge ends in {max(0, state.closes_at - now)} s"
            raise OutOfGas(words, error.advice, error.account, error.has, error.needs, by=state.closes_at) from error

    async def _now(self) -> int:
        block = await self._node.record("eth_getBlockByNumber", "latest", False)
        return self._node.number("eth_getBlockByNumber", (block or {}).get("timestamp"))


async def _domain(sender: Sender, chain_id: int, contract: Address) -> Domain:
    """What the contract at an address signs under, if it is a channel contract of this version."""
    interface = Interface(load("Channel")["abi"])
    try:
        token, stated = await asyncio.gather(
            sender.call(contract, interface.encode("token")),
            sender.call(contract, interface.encode("domain_separator")),
        )
    except TransactionFailed as error:
        raise WrongLedger(f"{to_hex(contract)} is no channel contract", "check the address") from error
    domain = Domain(chain_id, contract, Address(bytes.fromhex(interface.decode("token", token)[0][2:])))
    if stated != domain.separator:
        raise WrongLedger(
            f"{to_hex(contract)} signs under another domain: another version, or a fork of chain {chain_id}",
            "use a channel contract of this version",
        )
    return domain
