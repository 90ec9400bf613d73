"""A chain in this process, reached as any other is: over JSON-RPC, with the contracts as they are shipped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from eth.vm.forks.prague.computation import PragueComputation

from penstock.core.identity import keccak, parse_address, to_hex
from penstock.core.units import Instant
from penstock.ledgers.devnet.genesis import found
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.devnet.server import Server
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.jsonrpc import Node

ECRECOVER = bytes(19) + b"\x01"
CONSUMER, SUPPLIER, STRANGER = dev_key(0), dev_key(1), dev_key(2)


class Ground:
    """The chain, its two ledgers, and what its contracts have asked of the signature check."""

    def __init__(
        self,
        node: Node,
        channels: EvmLedger,
        escrows: EvmEscrows,
        recovered: list[bytes],
        stop: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.channels, self.escrows, self.stop = channels, escrows, stop
        self._node, self._recovered = node, recovered

    async def now(self) -> Instant:
        """The newest block's time (ms)."""
        return Instant(1000 * await self.channels.now())

    async def wait(self, seconds: int) -> None:
        """Let chain time run ahead."""
        await self._node.ask("evm_increaseTime", seconds)
        await self._node.ask("evm_mine")

    async def token_separator(self) -> bytes:
        """The EIP-712 domain under which the token takes authorizations. 32 bytes."""
        call = {"to": to_hex(self.channels.domain.token), "data": "0x" + keccak(b"DOMAIN_SEPARATOR()")[:4].hex()}
        return await self._node.data("eth_call", call, "latest")

    def checked(self) -> list[bytes]:
        """The digests that contracts have recovered a signer of since the last call."""
        digests = list(self._recovered)
        self._recovered.clear()
        return digests


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """Begin a chain with six funded accounts that have balances in both contracts, and end it."""
    founded = found(accounts=6)
    server = Server(founded.chain)
    url = await server.start(0)
    up = True

    async def stop() -> None:
        nonlocal up
        if up:
            up = False
            await server.stop()

    try:
        with _listening() as recovered:
            async with ground_at(url, founded.contracts, founded.chain.chain_id, stop, recovered) as made:
                yield made
    finally:
        await stop()


@asynccontextmanager
async def ground_at(
    url: str,
    contracts: Mapping[str, str],
    chain_id: int,
    stop: Callable[[], Coroutine[Any, Any, None]],
    recovered: list[bytes],
) -> AsyncIterator[Ground]:
    """Stand on a chain that runs: its contracts' addresses (hex) by name, and what ends it."""
    node = Node(url)
    channels = await EvmLedger.connect(url, parse_address(contracts["CryptoEuroChannel"]), chain_id)
    escrows = await EvmEscrows.connect(url, parse_address(contracts["CryptoEuroEscrow"]), chain_id)
    try:
        yield Ground(node, channels, escrows, recovered, stop)
    finally:
        for each in (channels, escrows):
            await each.disconnect()
        await node.close()


class _listening:  # noqa: N801 - a context manager
    """Notes each digest that the chain's signature check is asked about; it answers as ever."""

    def __enter__(self) -> list[bytes]:
        heard: list[bytes] = []
        self._before: dict[bytes, Callable[[Any], Any]] = PragueComputation._precompiles
        recover = self._before[ECRECOVER]

        def note(computation: Any) -> Any:
            heard.append(bytes(computation.msg.data_as_bytes[:32]))
            return recover(computation)

        PragueComputation._precompiles = {**self._before, ECRECOVER: note}
        return heard

    def __exit__(self, *_: object) -> None:
        PragueComputation._precompiles = self._before
