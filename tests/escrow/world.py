"""The escrow contract on a real chain: a payer, a payee with its meter, and a stranger, who own tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from eth_abi.abi import encode

from penstock.core.channel import compact
from penstock.core.escrow import (
    EscrowDomain,
    EscrowParams,
    MeterReading,
    authorization_nonce,
    deposit_digest,
    end_digest,
    tariff_hash,
)
from penstock.core.identity import Address, Digest, Key, keccak
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.ledgers.artifacts import load

from ..contracts.law import AUTHORIZATION, PERMIT
from ..contracts.world import ETHER, EURO, START, AnyChain, Contract, Receipt, deploy, devnet, key
from .words import CONTESTED, ENDED, EXISTS, LAST, UINT40, UINT96, abi_params, abi_reading, abi_tariff

HOUR, DAY = 3_600, 86_400
FOREVER = START + 10**6
NIGHT = Instant(START * 1_000 + 60_000)
CHEAP, DEAR = 400_000, 500_000  # token units a kWh, until night and from then on
TARIFF = Tariff(1_000, (Step(Instant(0), CHEAP), Step(NIGHT, DEAR)))


class Standing(NamedTuple):
    """An escrow's word, read."""

    claimed: int
    drawn: int
    since: int
    exists: bool
    last: bool
    contested: bool
    ended: bool

    @classmethod
    def of(cls, word: int) -> Standing:
        flags = [bool(word >> 232 & flag) for flag in (EXISTS, LAST, CONTESTED, ENDED)]
        return cls(word & UINT96, word >> 96 & UINT96, word >> 192 & UINT40, *flags)


def reading(
    total: int, sequence: int = 1, at: int = START * 1_000, turns: tuple[int, ...] = (), last: bool = False
) -> MeterReading:
    """What a meter says (Wh, ms)."""
    return MeterReading(sequence, Instant(at), Quantity(total), tuple(map(Quantity, turns)), last)


class World:
    """A chain with the euro token and its escrow contract. Nobody has a balance in the contract yet."""

    def __init__(self, found: Callable[[Mapping[bytes, int]], AnyChain] = devnet) -> None:
        """Build it on the chain that `found` begins with those balances (wei)."""
        self.payer, self.payee, self.stranger = key("opener"), key("partner"), key("stranger")
        self.payer_key, self.payee_key, self.meter = key("payer's ends"), key("payee's ends"), key("meter")
        self.parties = (self.payer, self.payee, self.stranger)
        self.chain = found({party.address: 1_000 * ETHER for party in self.parties})
        token = deploy(self.chain, self.stranger, load("CryptoEuro"))
        token.send(self.stranger, "mint", [party.address for party in self.parties], 10_000 * EURO)
        self.serve(token, deploy(self.chain, self.stranger, load("Escrow"), token.address))
        for party in self.parties:
            token.send(party, "approve", self.contract.address, 2**256 - 1)
        self._counter = 0

    def serve(self, token: Contract, contract: Contract) -> None:
        """Go on with this token and its contract."""
        self.token, self.contract = token, contract
        self.domain = EscrowDomain(self.chain.chain_id, contract.address, token.address)

    def params(self, tariff: Tariff = TARIFF, **fixed: Any) -> EscrowParams:
        """Parameters of an escrow that has not been made: 10 euros, a day, a window of an hour."""
        self._counter += 1
        given = {
            "payer": self.payer.address,
            "payee": self.payee.address,
            "payer_key": self.payer_key.address,
            "payee_key": self.payee_key.address,
            "meter": self.meter.address,
            "deposit": 10 * EURO,
            "deadline": START + DAY,
            "window": HOUR,
            "counter": self._counter,
            **fixed,
        }
        return EscrowParams(self.domain, tariff=tariff_hash(tariff), **given)

    def make(self, **fixed: Any) -> EscrowParams:
        """An escrow with its deposit, from the payer's wallet."""
        params = self.params(**fixed)
        self.send(self.payer, "deposit", params)
        return params

    def send(self, sender: Key, name: str, params: EscrowParams, *args: Any) -> Receipt:
        """A transaction about one escrow."""
        return self.contract.send(sender, name, abi_params(params), *args)

    def seal(self, params: EscrowParams, made: MeterReading, signer: Key | None = None) -> tuple[Any, ...]:
        """A reading and its signature, as the contract takes them."""
        return abi_reading(made), compact((signer or self.meter).sign(made.digest(params)))

    def file(
        self, params: EscrowParams, made: MeterReading, sender: Key | None = None, tariff: Tariff = TARIFF
    ) -> Receipt:
        """File a reading: the payee does, unless somebody else is named."""
        return self.send(sender or self.payee, "release", params, abi_tariff(tariff), *self.seal(params, made))

    def contest(
        self, params: EscrowParams, first: MeterReading, second: MeterReading, sender: Key | None = None
    ) -> Receipt:
        """Show two readings: the payer does, unless somebody else is named."""
        shown = (*self.seal(params, first), *self.seal(params, second))
        return self.send(sender or self.payer, "contest", params, abi_tariff(TARIFF), *shown)

    def row(self, params: EscrowParams, amount: int) -> tuple[Any, ...]:
        """An end that both keys have signed, as the contract takes it."""
        digest = end_digest(params, amount)
        return abi_params(params), amount, *(compact(key.sign(digest)) for key in (self.payer_key, self.payee_key))

    def end(self, params: EscrowParams, amount: int) -> Receipt:
        """End an escrow by both keys; a stranger sends it."""
        return self.contract.send(self.stranger, "end", self.row(params, amount))

    def fund(self, party: Key, amount: int) -> None:
        """Give a party a balance in the contract."""
        other = self.payee if party is self.payer else self.payer
        params = self.params(payer=other.address, payee=party.address, deposit=amount)
        self.send(other, "deposit", params)
        self.end(params, amount)

    # Signatures that fund

    def authorization(
        self, params: EscrowParams, fee: int = 0, after: int = 0, before: int = 2**63, payer: Key | None = None
    ) -> tuple[Any, ...]:
        """The arguments after `params` that make its deposit by the payer's EIP-3009 signature."""
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256", "bytes32"]
        nonce = authorization_nonce(params, fee)
        to, total = self.contract.address, params.deposit + fee
        body = encode(kinds, [keccak(AUTHORIZATION), params.payer, to, total, after, before, nonce])
        return fee, after, before, compact((payer or self.payer).sign(self._token_digest(body)))

    def permit(self, amount: int, expiry: int = FOREVER) -> tuple[Any, ...]:
        """The arguments after `params` that make its deposit by the payer's EIP-2612 permit of so much."""
        kinds = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
        nonce = self.token.call("nonces", self.payer.address)
        body = encode(kinds, [keccak(PERMIT), self.payer.address, self.contract.address, amount, nonce, expiry])
        return expiry, compact(self.payer.sign(self._token_digest(body)))

    def consent(
        self, params: EscrowParams, fee: int = 0, expiry: int = FOREVER, signer: Key | None = None
    ) -> tuple[Any, ...]:
        """The arguments after `params` that make its deposit from the payer's balance, as its account signs it."""
        r, vs = compact((signer or self.payer).sign(deposit_digest(params, fee, expiry)))
        return fee, expiry, r.to_bytes(32, "big") + vs.to_bytes(32, "big")

    def _token_digest(self, body: bytes) -> Digest:
        return Digest(keccak(b"\x19\x01" + self.token.call("DOMAIN_SEPARATOR") + keccak(body)))

    # What there is

    def standing(self, params: EscrowParams) -> Standing:
        """Where an escrow stands."""
        return Standing.of(self.contract.call("escrow", abi_params(params)))

    def balance(self, owner: Key | Address) -> int:
        """What somebody has in the contract, outside escrows."""
        return int(self.contract.call("account", owner.address if isinstance(owner, Key) else owner))

    def balances(self) -> tuple[int, int]:
        """The balances of payer and payee."""
        return self.balance(self.payer), self.balance(self.payee)

    def wallet(self, owner: Key | Address) -> int:
        """What somebody has in its wallet."""
        return int(self.token.call("balanceOf", owner.address if isinstance(owner, Key) else owner))

    def wait(self, seconds: int) -> None:
        """Let chain time run ahead."""
        self.chain.increase_time(seconds)
