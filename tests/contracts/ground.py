"""The real contract on the devnet's chain, once for a euro token and once for a token that returns nothing.

Everything is deployed and funded by mined transactions, once. A `Life` then runs calls in the block to come, as py-evm
does with a block's transactions, and is thrown away: no life has to be undone, and no block has to be sealed.

Sums are read from storage, which is fifty times quicker than asking views; `Life.check_views` compares the two.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth.vm.execution_context import ExecutionContext
from eth.vm.spoof import SpoofTransaction
from eth.vm.state import BaseState

from penstock.core.channel import APART, ChannelParams, Domain
from penstock.core.identity import Address, Key, keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet import execute
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import revert_reason
from penstock.sim.model import Channel

from .law import ENDLESS, Accounts, Law
from .seals import Seals
from .world import ETHER, GAS, START, Contract, abi_params, compiled, deploy, key

WALLET, BALANCE = 200, 100  # what the three who trade begin with, in token units
UINT96, UINT40 = 2**96 - 1, 2**40 - 1
# Where the contract keeps what, in the order in which it declares it.
ACCOUNTS, CHANNELS, FILINGS, HELD, PAID = 0, 1, 2, 3, 6
SKIPPED = keccak(b"Skipped(bytes32,string)")


@dataclass(frozen=True)
class Deployment:
    """One channel contract and its token; `wallets` is the storage slot of the token's balances."""

    domain: Domain
    contract: Contract
    token: Contract
    wallets: int
    token_separator: bytes | None


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: whether it went through, the reason where not, and the rows that it skipped."""

    allowed: bool
    reason: str
    skipped: list[bytes]


@dataclass(frozen=True)
class Seen:
    """A channel as the contract has it; pairs are the opener's and the partner's."""

    deposits: tuple[int, int]
    paid: tuple[int, int]
    closes_at: int
    filed: tuple[int, int]
    locked: tuple[int, int]

    @classmethod
    def of(cls, channel: Channel) -> Seen:
        """As the model has it."""
        filed = [side.filed for side in channel.sides]
        return cls(
            channel.deposits,
            channel.paid,
            channel.closes_at,
            (filed[0].least() if filed[0] else 0, filed[1].least() if filed[1] else 0),
            (filed[0].rest if filed[0] else 0, filed[1].rest if filed[1] else 0),
        )


class Ground:
    """Three who trade, a stranger, and the keys that they sign vouchers with where these are not their accounts."""

    def __init__(self) -> None:
        self.traders = (key("consumer"), key("hub"), key("supplier"))
        self.stranger = key("stranger")
        self.people = (*self.traders, self.stranger)
        self.voucher_keys = {trader.address: key(f"vouchers {at}") for at, trader in enumerate(self.traders)}
        # As on any old chain, the precompiles own something: py-evm cannot take back that an empty account was cleared.
        wei = {bytes(19) + bytes([number]): 1 for number in range(3)}
        wei |= {person.address: 10**6 * ETHER for person in self.people}
        self.chain = Chain(wei, clock=lambda: START)
        silent = compiled(Path(__file__).parent / "tokens" / "SilentToken.vy")
        tokens = [deploy(self.chain, self.stranger, artifact) for artifact in (load("CryptoEuro"), silent)]
        separators = [tokens[0].call("DOMAIN_SEPARATOR"), None]
        self.deployments = tuple(map(self._deploy, tokens, (1, 0), separators))

    def _deploy(self, token: Contract, wallets: int, separator: bytes | None) -> Deployment:
        contract = deploy(self.chain, self.stranger, load("Channel"), token.address)
        token.send(self.stranger, "mint", [trader.address for trader in self.traders], WALLET + BALANCE)
        for trader in self.traders:
            if separator is not None:
                token.send(trader, "approve", contract.address, ENDLESS)
            contract.send(trader, "deposit", BALANCE)
        domain = Domain(self.chain.chain_id, contract.address, token.address)
        return Deployment(domain, contract, token, wallets, separator)

    def laws(self) -> tuple[tuple[Law, ...], Seals]:
        """The law of each deployment as it stands now, and the signatures that they share: none yet."""
        seals = Seals()
        laws = []
        for deployment in self.deployments:
            every = {trader.address: 1 for trader in self.traders}
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


class Life:
    """The chain from the common beginning on; `now` is its time in seconds."""

    def __init__(self) -> None:
        self._chain = ground().chain
        self._vm = execute.machine(self._chain._evm, self._chain.next_header())
        self.now: int = self._vm.state.execution_context.timestamp

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.set_time(self.now + seconds)

    def set_time(self, now: int) -> None:
        """Let it be `now`."""
        self.now, old = now, self._vm.state.execution_context
        self._vm.state.execution_context = ExecutionContext(
            old.coinbase,
            now,
            old.block_number,
            old.difficulty,
            old.mix_hash,
            old.gas_limit,
            (),
            self._chain.chain_id,
            old.base_fee_per_gas,
            old.excess_blob_gas,
        )

    def snapshot(self) -> Any:
        """A point to come back to, once."""
        return self.now, BaseState.snapshot(self._vm.state)

    def revert(self, point: Any) -> None:
        """Be there again."""
        now, state = point
        # Not the fork's own, which wants transient storage back: a transaction clears that, and there is none between.
        BaseState.revert(self._vm.state, state)
        self.set_time(now)

    def send(self, sender: Key, to: Contract, name: str, args: tuple[Any, ...]) -> Outcome:
        """Run a transaction."""
        return self.run(sender.address, to, to.calldata(name, args))

    def run(self, sender: Address, to: Contract, data: bytes) -> Outcome:
        """Run a transaction of raw calldata."""
        state = self._vm.state
        unsigned = self._vm.create_unsigned_transaction(
            nonce=state.get_nonce(sender), gas_price=0, gas=GAS, to=to.address, value=0, data=data
        )
        done = state.apply_transaction(SpoofTransaction(unsigned, from_=sender))
        if done.is_error:
            return Outcome(False, revert_reason(bytes(done.output)) or type(done.error).__name__, [])
        skips = [topics[1] for _, topics, _ in done.get_log_entries() if topics and topics[0] == _SKIPPED_TOPIC]
        return Outcome(True, "", [topic.to_bytes(32, "big") for topic in skips])

    def call(self, to: Contract, name: str, *args: Any) -> bytes:
        """What a view answers, undecoded."""
        point = self.snapshot()
        unsigned = self._vm.create_unsigned_transaction(
            nonce=0, gas_price=0, gas=GAS, to=to.address, value=0, data=to.calldata(name, args)
        )
        done = self._vm.state.apply_transaction(SpoofTransaction(unsigned, from_=bytes(20)))
        self.revert(point)
        assert done.is_success
        return bytes(done.output)

    # What the contract has

    def wallet(self, at: Deployment, owner: Address) -> int:
        """Tokens in a wallet."""
        return self._read(at.token, _slot(at.wallets, owner.rjust(32, b"\0")))

    def account(self, at: Deployment, owner: Address) -> tuple[int, int]:
        """An account's balance in the contract, and its lowest ordinary counter."""
        word = self._read(at.contract, _slot(ACCOUNTS, owner.rjust(32, b"\0")))
        return word >> 64, word & (2**64 - 1)

    def word(self, at: Deployment, id: bytes) -> int:
        """A channel's word."""
        return self._read(at.contract, _slot(CHANNELS, id))

    def channel(self, at: Deployment, id: bytes, two_way: bool) -> Seen | None:
        """A channel; None where there is none (any more)."""
        word = self.word(at, id)
        if not word >> 232 & 1:
            return None
        first, second, closes_at = word & UINT96, word >> 96 & UINT96, word >> 192 & UINT40
        paid = self._read(at.contract, _slot(PAID, id)) if word >> 233 & 1 else 0
        filed = (0, second if closes_at else 0)
        if two_way:
            filings = self._read(at.contract, _slot(FILINGS, id))
            filed = (filings & UINT96, filings >> 96)
        elif not closes_at:
            paid += second << 96
        locked = [
            self._read(at.contract, _inner(_slot(HELD, id), party)) & UINT96 if word >> (240 + party) & 1 else 0
            for party in (0, 1)
        ]
        return Seen(
            (first, second if two_way else 0), (paid & UINT96, paid >> 96), closes_at, filed, (locked[0], locked[1])
        )

    def check_views(self, at: Deployment, params: ChannelParams) -> None:
        """The public views say what the storage says."""
        answer = self.call(at.contract, "channel", abi_params(params))
        word, drawn, counter = (int.from_bytes(answer[i : i + 32], "big") for i in (0, 32, 64))
        assert (word, counter) == (self.word(at, params.id), self.account(at, params.opener)[1])
        seen = self.channel(at, params.id, params.two_way)
        if seen is None:
            assert word == (1 if params.counter >= APART else 0)
            return
        assert (drawn & UINT96, drawn >> 96) == seen.paid
        for party in (0, 1):
            answer = self.call(at.contract, "filing", abi_params(params), bool(party))
            assert int.from_bytes(answer[:32], "big") == seen.filed[party]
            assert int.from_bytes(answer[32:64], "big") == seen.locked[party]

    def _read(self, contract: Contract, slot: int) -> int:
        return int(self._vm.state.get_storage(contract.address, slot))


_SKIPPED_TOPIC = int.from_bytes(SKIPPED, "big")


def _slot(number: int, key: bytes) -> int:
    return int.from_bytes(keccak(number.to_bytes(32, "big") + key), "big")


def _inner(slot: int, party: int) -> int:
    return int.from_bytes(keccak(slot.to_bytes(32, "big") + party.to_bytes(32, "big")), "big")
