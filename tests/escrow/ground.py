"""The real escrow contract on the devnet's chain, once for a euro token and once for a token that returns nothing.

Everything is deployed and funded by mined transactions, once; a `Life` runs on from there and is thrown away, as
`tests.contracts.ground` does it for channels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from penstock.core.channel import compact
from penstock.core.escrow import EscrowDomain, EscrowParams, end_digest, tariff_hash
from penstock.core.identity import Address, Key
from penstock.core.tariff import Tariff
from penstock.ledgers.artifacts import Artifact, load, runtime
from penstock.ledgers.devnet import execute
from penstock.ledgers.devnet.chain import Chain

from ..contracts import ground as channels
from ..contracts.law import ENDLESS
from ..contracts.seals import Seals
from ..contracts.world import ETHER, START, Contract, compiled, deploy, key
from .law import Accounts, Law
from .words import abi_params

WALLET, BALANCE = 200, 100  # what the three who trade begin with, in token units
ACCOUNTS, ESCROWS = 0, 1  # where the contract keeps what, in the order in which it declares it
SILENT = Path(channels.__file__).parent / "tokens" / "SilentToken.vy"
FLAT = Tariff.flat(5, 10)


@dataclass(frozen=True)
class Deployment:
    """One escrow contract and its token; `wallets` is the storage slot of the token's balances."""

    domain: EscrowDomain
    contract: Contract
    token: Contract
    wallets: int
    token_separator: bytes | None


class Ground:
    """Three who trade, a stranger, the keys with which they agree on ends, and their meters'."""

    def __init__(self) -> None:
        self.traders = (key("consumer"), key("hub"), key("supplier"))
        self.stranger = key("stranger")
        self.people = (*self.traders, self.stranger)
        self.end_keys = {trader.address: key(f"ends {at}") for at, trader in enumerate(self.traders)}
        self.meters = {trader.address: key(f"meter {at}") for at, trader in enumerate(self.traders)}
        # As on any old chain, the precompiles own something: py-evm cannot take back that an empty account was cleared.
        wei = {bytes(19) + bytes([number]): 1 for number in range(3)}
        wei |= {person.address: 10**6 * ETHER for person in self.people}
        self.chain = Chain(wei, clock=lambda: START)
        tokens = [deploy(self.chain, self.stranger, artifact) for artifact in (load("CryptoEuro"), compiled(SILENT))]
        separators = [tokens[0].call("DOMAIN_SEPARATOR"), None]
        self.deployments = tuple(map(self._deploy, tokens, (1, 0), separators))

    def _deploy(self, token: Contract, wallets: int, separator: bytes | None) -> Deployment:
        contract = deploy(self.chain, self.stranger, load("Escrow"), token.address)
        token.send(self.stranger, "mint", [trader.address for trader in self.traders], WALLET + BALANCE)
        domain = EscrowDomain(self.chain.chain_id, contract.address, token.address)
        for payer, payee in zip(self.traders, (*self.traders[1:], self.traders[0]), strict=True):
            if separator is not None:
                token.send(payer, "approve", contract.address, ENDLESS)
            self._pay(contract, domain, payer, payee)
        return Deployment(domain, contract, token, wallets, separator)

    def _pay(self, contract: Contract, domain: EscrowDomain, payer: Key, payee: Key) -> None:
        """Give the payee its balance: an escrow that both end at once."""
        people = (payer.address, payee.address, payer.address, payee.address, self.meters[payee.address].address)
        params = EscrowParams(domain, *people, tariff_hash(FLAT), BALANCE, START + 3_600, 0, 0)
        contract.send(payer, "deposit", abi_params(params))
        digest = end_digest(params, BALANCE)
        contract.send(
            self.stranger,
            "end",
            (abi_params(params), BALANCE, compact(payer.sign(digest)), compact(payee.sign(digest))),
        )

    def laws(self) -> tuple[tuple[Law, ...], Seals]:
        """The law of each deployment as it stands now, and the signatures that they share: none yet."""
        seals = Seals()
        laws = []
        for deployment in self.deployments:
            every = [trader.address for trader in self.traders]
            accounts = Accounts(
                wallets=Counter(dict.fromkeys(every, WALLET)),
                balances=Counter(dict.fromkeys(every, BALANCE)),
                allowances=Counter(dict.fromkeys(every, ENDLESS)),
            )
            laws.append(Law(deployment.domain, deployment.token_separator, accounts, seals))
        return tuple(laws), seals


@cache
def ground() -> Ground:
    """The one ground on which all lives begin."""
    return Ground()


class Life(channels.Life):
    """The chain from the common beginning on; `now` is its time in seconds."""

    def __init__(self, artifact: Artifact | None = None) -> None:
        """Begin; with the code of another contract, where the tests have made one."""
        self._chain = ground().chain
        self._vm = execute.machine(self._chain._evm, self._chain.next_header())
        self.now = self._vm.state.execution_context.timestamp
        if artifact is None:
            return
        for deployment in ground().deployments:
            deployed = self._chain.code(deployment.contract.address)
            immutables = deployed[len(runtime(load("Escrow"))) :]
            self._vm.state.set_code(deployment.contract.address, runtime(artifact) + immutables)

    def tokens(self, at: Deployment, owner: Address) -> int:
        """Tokens in a wallet."""
        return self._read(at.token, channels._slot(at.wallets, owner.rjust(32, b"\0")))

    def balance(self, at: Deployment, owner: Address) -> int:
        """An account's balance in the contract."""
        return self._read(at.contract, channels._slot(ACCOUNTS, owner.rjust(32, b"\0")))

    def escrow(self, at: Deployment, id: bytes) -> int:
        """An escrow's word."""
        return self._read(at.contract, channels._slot(ESCROWS, id))

    def check_view(self, at: Deployment, params: EscrowParams) -> None:
        """The public view says what the storage says."""
        answer = self.call(at.contract, "escrow", abi_params(params))
        assert int.from_bytes(answer, "big") == self.escrow(at, params.id)
