"""One of our contracts behind a JSON-RPC node: found and checked, asked and sent to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from penstock.core.channel import Domain, compact
from penstock.core.errors import LedgerError, OutOfFunds, OutOfGas, TransactionFailed, UsageError, WrongLedger
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Holdings, Mined, TokenFacts
from penstock.core.units import Amount
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import Artifact, load, runtime
from penstock.ledgers.fees import Fees
from penstock.ledgers.jsonrpc import Node
from penstock.ledgers.sender import Sender
from penstock.ledgers.token import Token

_SIGNED_LIFE = 3_600  # seconds that what we sign for our own transaction is good for
_ROOM = 2  # a deposit into a balance that was zero costs up to this many times one that was not

_A = TypeVar("_A")


class Kept(Protocol):
    """What a contract keeps: it says where."""

    @property
    def domain(self) -> Domain: ...


class Way(NamedTuple, Generic[_A]):
    """How a deposit is paid, `mined` having been sent for it: by what is given here, or else by an allowance."""

    mined: list[Mined]
    from_balance: bool = False
    authorization: _A | None = None
    permit: tuple[int, tuple[int, int]] | None = None  # until when (seconds), and the signature (EIP-2098)


class Contract:
    """A connection to the contract. Made by `connect`; close it when done."""

    artifact: ClassVar[str]
    keeps: ClassVar[str]  # one of what it keeps, in the words of its errors: "channel"
    domain_type: ClassVar[type[Domain]] = Domain

    def __init__(self, node: Node, sender: Sender, domain: Domain, confirmations: int) -> None:
        self.domain = domain
        self._depth = confirmations
        self._node = node
        self._sender = sender
        self._token = Token(sender, domain.token, domain.chain_id)
        self._contract = Interface(self._built()["abi"])

    @classmethod
    async def connect(
        cls,
        url: str,
        contract: Address,
        expect_chain_id: int | None = None,
        confirmations: int = 0,
        fees: Fees | None = None,
    ) -> Self:
        """The ledger at `url` (http or https) with what it keeps in `contract`.

        What was deposited there counts once it has so many `confirmations`: blocks above it. Until then a transaction
        of ours that drops out of the chain is sent again. `fees` bounds what gas may cost.

        Raises:
            UsageError: `url` is no HTTP URL.
            LedgerUnreachable: nobody answers there, or not as an Ethereum node.
            WrongLedger: another chain, or no such contract at the address.
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
            domain = await cls._domain(sender, chain_id, contract)
        except BaseException:
            await node.close()
            raise
        return cls(node, sender, domain, confirmations)

    @classmethod
    def _built(cls) -> Artifact:
        return load(cls.artifact)

    @classmethod
    async def _domain(cls, sender: Sender, chain_id: int, contract: Address) -> Domain:
        """What the contract at an address signs under, if it is one of this kind and version."""
        interface = Interface(cls._built()["abi"])
        try:
            token, stated = await asyncio.gather(
                sender.call(contract, interface.encode("token")),
                sender.call(contract, interface.encode("domain_separator")),
            )
        except TransactionFailed as error:
            raise WrongLedger(f"{to_hex(contract)} is no {cls.keeps} contract", "check the address") from error
        serves = Address(bytes.fromhex(interface.decode("token", token)[0][2:]))
        domain = cls.domain_type(chain_id, contract, serves)
        if stated != domain.separator:
            raise WrongLedger(
                f"{to_hex(contract)} signs under another domain: another contract or version, or a fork of chain "
                f"{chain_id}",
                "use a contract of this version",
            )
        return domain

    async def disconnect(self) -> None:
        """Drop the connections to the node, and follow transactions no further."""
        await self._sender.close()
        await self._node.close()

    # What it and its node say

    async def token(self) -> TokenFacts:
        return await self._token.facts()

    async def now(self) -> int:
        """The newest block's time (seconds)."""
        block = await self._node.record("eth_getBlockByNumber", "latest", False)
        return self._node.number("eth_getBlockByNumber", (block or {}).get("timestamp"))

    async def genuine(self) -> bool:
        immutables = self.domain.token.rjust(32, b"\0") + self.domain.separator + self.domain.seed
        code = await self._node.data("eth_getCode", to_hex(self.domain.contract), "latest")
        return code == runtime(self._built()) + immutables

    async def gas_price(self) -> int:
        return await self._sender.gas_price()

    async def holdings(self, owner: Address) -> Holdings:
        wallet, balance, ether = await asyncio.gather(
            self._token.balance(owner),
            self._balance(owner),
            self._node.quantity("eth_getBalance", to_hex(owner), "latest"),
        )
        return Holdings(Amount(wallet), Amount(balance), ether)

    def _check(self, kept: Kept) -> None:
        if kept.domain != self.domain:
            raise WrongLedger(
                f"the {self.keeps} is kept by {to_hex(kept.domain.contract)} on chain {kept.domain.chain_id}, this is "
                f"{to_hex(self.domain.contract)} on chain {self.domain.chain_id}",
                f"connect to the {self.keeps}'s own ledger",
            )

    async def _read(self, name: str, *values: object, block: str = "latest") -> tuple[Any, ...]:
        data = self._contract.encode(name, *values)
        return self._contract.decode(name, await self._sender.call(self.domain.contract, data, block))

    async def _balance(self, owner: Address) -> int:
        """What `owner` has in the contract for any use (token units)."""
        return int((await self._read("account", to_hex(owner)))[0])

    # Sending

    async def withdraw(self, key: Key, amount: Amount) -> list[Mined]:
        return await self._send(key, "withdraw", amount)

    async def approve(self, key: Key, amount: int) -> list[Mined]:
        """Let the contract take so much from the wallet, where it may not yet: deposits from the wallet cost less."""
        contract = self.domain.contract
        if await self._token.allowance(key.address, contract) >= amount:
            return []
        data = self._token.interface.encode("approve", to_hex(contract), amount)
        return [(await self._sender.send(key, self.domain.token, data, "approve"))[0]]

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

    async def _send_rows(
        self, key: Key, name: str, before: tuple[object, ...], rows: list[object], room: int
    ) -> tuple[Mined, dict[bytes, str]]:
        """Send a call over many rows, with `room` gas above its estimate: the transaction, and which were skipped."""
        data = self._contract.encode(name, *before, rows)
        what = f"{name.partition('_')[0]} of {len(rows)} {self.keeps}s"
        gas = await self._sender.estimate(key, self.domain.contract, data, what) + room
        mined, receipt = await self._sender.send(key, self.domain.contract, data, what, gas)
        return mined, self._skipped(receipt)

    def _skipped(self, receipt: dict[str, Any]) -> dict[bytes, str]:
        method, found = "eth_getTransactionReceipt", {}
        logs = receipt.get("logs")
        for log in logs if isinstance(logs, list) else []:
            topics = [self._node.bytes_of(method, topic) for topic in log.get("topics", ())]
            event = self._contract.event(topics[0], self._node.bytes_of(method, log.get("data"))) if topics else None
            if event is not None and event[0] == "Skipped":
                found[topics[1]] = f"{self.keeps}: {event[1][0]}"
        return found

    async def _way_in(self, key: Key, deposit: int, authorize: Callable[[int], Awaitable[_A]]) -> Way[_A]:
        """How `key` pays a deposit: from its balance, by an allowance that is there, or by a signature, as it can.

        `authorize` signs an authorization of it that is good until a time (seconds). What has to be sent before, is.

        Raises:
            OutOfFunds: balance and wallet together do not suffice.
        """
        balance, wallet = await asyncio.gather(self._balance(key.address), self._token.balance(key.address))
        if balance >= deposit:
            return Way([], from_balance=True)
        mined = await self._to_wallet(key, wallet, balance, deposit)
        if await self._token.allowance(key.address, self.domain.contract) >= deposit:
            return Way(mined)
        until = await self.now() + _SIGNED_LIFE
        with suppress(WrongLedger):  # the token knows none
            return Way(mined, authorization=await authorize(until))
        permit = await self._token.permit(key, self.domain.contract, deposit, until)
        if permit is not None:
            return Way(mined, permit=(until, compact(permit)))
        return Way(mined + await self.approve(key, deposit))

    async def _to_wallet(self, key: Key, wallet: int, balance: int, deposit: int) -> list[Mined]:
        """Bring the balance home where only wallet and balance together suffice."""
        if wallet + balance < deposit:
            raise OutOfFunds(
                f"{to_hex(key.address)} has {wallet} token units in its wallet and {balance} in the contract, "
                f"{deposit} are needed",
                "send it tokens, or deposit less",
            )
        return await self.withdraw(key, Amount(balance)) if wallet < deposit else []

    async def _check_wallet(self, key: Key, sum_: int) -> None:
        """Pass where the wallet holds so much."""
        if (wallet := await self._token.balance(key.address)) < sum_:
            raise OutOfFunds(
                f"{to_hex(key.address)} has {wallet} token units in its wallet, {sum_} are needed",
                "send it tokens, or deposit less",
            )

    @asynccontextmanager
    async def _pressing(self, what: str, ends: Callable[[], Awaitable[int]]) -> AsyncIterator[None]:
        """What is sent in here presses: where the account cannot pay for it, the error says by when it must.

        `what` then ends at the time (seconds) that `ends` asks the ledger for; 0 where it does not.
        """
        try:
            yield
        except OutOfGas as error:
            try:
                by, now = await ends(), await self.now()
            except LedgerError:
                raise error from None
            if not by:
                raise
            words = f"{error}; {what} in {max(0, by - now)} s"
            raise OutOfGas(words, error.advice, error.account, error.has, error.needs, by=by) from error
