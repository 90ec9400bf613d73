"""The ERC-20 token of a ledger: what it holds, and whether an owner's signature can stand for an approval.

Sources: ERC-20; EIP-2612 (permit); EIP-3009 (transfer by authorization); EIP-712 (domain separator).
"""

from __future__ import annotations

from typing import Any

from penstock.core.channel import DOMAIN_TYPE
from penstock.core.errors import TransactionFailed, WrongLedger
from penstock.core.identity import Address, Digest, Key, keccak, to_hex
from penstock.core.ports import TokenFacts
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.sender import Sender

PERMIT_TYPE = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
RECEIVE_TYPE = (
    "ReceiveWithAuthorization(address from,address to,uint256 value,"
    "uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_DOMAIN_HASH = keccak(DOMAIN_TYPE.encode())
_PERMIT_HASH = keccak(PERMIT_TYPE.encode())
_RECEIVE_HASH = keccak(RECEIVE_TYPE.encode())


class Token:
    """A token on a chain. Its permit is used only where its domain is one that we can rebuild."""

    def __init__(self, sender: Sender, address: Address, chain_id: int) -> None:
        self._sender = sender
        self._chain_id = chain_id
        self._separator: bytes | None = None  # b"" where it takes no signatures that we could make
        self.address = address
        self.interface = Interface(load("CryptoEuro")["abi"])  # the standards' functions, under their names

    async def facts(self) -> TokenFacts:
        """Symbol and decimals, as the token states them.

        Raises:
            WrongLedger: it states none, or absurd ones.
        """
        symbol, decimals = str(await self._read("symbol")), int(await self._read("decimals"))
        if not 0 <= decimals <= 36 or not 1 <= len(symbol) <= 16 or not symbol.isprintable():
            raise WrongLedger("the contract's token has no usable symbol and decimals", "use another contract")
        return TokenFacts(symbol, decimals)

    async def balance(self, owner: Address) -> int:
        """The token units in `owner`'s wallet."""
        return int(await self._read("balanceOf", owner))

    async def allowance(self, owner: Address, spender: Address) -> int:
        """The token units that `spender` may take from `owner`."""
        return int(await self._read("allowance", owner, spender))

    async def permit(self, key: Key, spender: Address, amount: int, deadline: int) -> bytes | None:
        """The owner's signature (65 bytes) that lets `spender` take `amount`; None where the token has no permits."""
        if not await self._domain():
            return None
        nonce = int(await self._read("nonces", key.address))
        return self._sign(key, _PERMIT_HASH, key.address, spender, amount, nonce, deadline)

    async def authorization(
        self, key: Key, receiver: Address, amount: int, valid_after: int, valid_before: int, nonce: bytes
    ) -> bytes:
        """The owner's signature (65 bytes) by which `receiver` takes `amount`, once, in between (seconds).

        Raises:
            WrongLedger: the token knows no authorizations.
        """
        try:
            known = await self._domain() and await self._read("authorizationState", to_hex(key.address), nonce) is False
        except (TransactionFailed, WrongLedger):
            known = False
        if not known:
            raise WrongLedger(
                "the token takes no authorization of this deposit (EIP-3009), or has taken it already",
                "deposit by a transaction of your own, or with another counter",
            )
        return self._sign(key, _RECEIVE_HASH, key.address, receiver, amount, valid_after, valid_before, nonce)

    def _sign(self, key: Key, kind: bytes, *values: bytes | int) -> bytes:
        """Sign an EIP-712 struct of one-word members under the token's domain."""
        words = (value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0") for value in values)
        assert self._separator, "its callers have read the domain"
        return key.sign(Digest(keccak(b"\x19\x01" + self._separator + keccak(kind + b"".join(words)))))

    async def _domain(self) -> bytes:
        """The domain under which the token takes signatures; empty where it takes none."""
        if self._separator is None:
            self._separator = await self._read_domain()
        return self._separator

    async def _read_domain(self) -> bytes:
        """The domain separator, where it is the one of the token's name and version; else b""."""
        try:
            stated = bytes(await self._read("DOMAIN_SEPARATOR"))
            name = str(await self._read("name"))
            try:
                version = str(await self._read("version"))
            except (TransactionFailed, WrongLedger):
                version = "1"  # what OpenZeppelin's permit tokens use without saying so
        except (TransactionFailed, WrongLedger):
            return b""
        rebuilt = keccak(
            _DOMAIN_HASH
            + keccak(name.encode())
            + keccak(version.encode())
            + self._chain_id.to_bytes(32, "big")
            + self.address.rjust(32, b"\0")
        )
        return stated if stated == rebuilt else b""

    async def _read(self, name: str, *values: object) -> Any:
        return self.interface.decode(name, await self._sender.call(self.address, self.interface.encode(name, *values)))[
            0
        ]
