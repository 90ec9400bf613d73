"""A chain that keeps channels by the rules of `model`: blocks, a pool, reorganisations, censorship; signatures checked.

A block's state is what its transactions made of the state before; what the rules forbid fails and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from penstock.core.channel import APART, ChannelParams
from penstock.core.errors import OutOfRange, PenstockError
from penstock.core.identity import Address
from penstock.sim.model import Channel, Forbidden, require
from penstock.sim.virtual import VirtualLoop

Act = Callable[["Accounts", int], None]
"""What a transaction does to the accounts at a block's time (s). Raises Forbidden where the contract would revert."""


@dataclass
class Accounts:
    """What the token and the contract know of accounts, and all channels that there ever were."""

    wallets: Counter[Address] = field(default_factory=Counter)
    balances: Counter[Address] = field(default_factory=Counter)
    counters: Counter[Address] = field(default_factory=Counter)
    channels: dict[bytes, Channel] = field(default_factory=dict)
    params: dict[bytes, ChannelParams] = field(default_factory=dict)
    used: frozenset[bytes] = frozenset()  # authorizations

    def copy(self) -> Accounts:
        """Accounts that can be changed apart."""
        return Accounts(
            self.wallets.copy(),
            self.balances.copy(),
            self.counters.copy(),
            {id_: channel.copy() for id_, channel in self.channels.items()},
            dict(self.params),
            self.used,
        )

    @property
    def tokens(self) -> int:
        """All token units that there are, wherever they are."""
        held = sum(channel.held for channel in self.channels.values())
        return sum(self.wallets.values()) + sum(self.balances.values()) + held

    def take(self, purse: Counter[Address], owner: Address, amount: int) -> None:
        """Take from somebody's purse what is in it."""
        require(0 <= amount <= purse[owner])
        purse[owner] -= amount

    def open(self, params: ChannelParams, deposit: int) -> None:
        """Open a channel with money that was taken from its opener."""
        try:
            params.check()
        except OutOfRange:
            raise Forbidden from None
        if params.counter < APART:
            require(params.counter >= self.counters[params.opener])
            self.counters[params.opener] = params.counter + 1
        require(params.id not in self.channels)
        self.channels[params.id] = Channel(params.two_way, params.period, (deposit, 0))
        self.params[params.id] = params

    def channel(self, params: ChannelParams) -> Channel:
        """A channel that was opened."""
        require(params.id in self.channels)
        return self.channels[params.id]

    def pay(self, params: ChannelParams, act: Callable[[Channel], None]) -> None:
        """Let something happen to a channel, and credit what it pays out."""
        channel = self.channel(params)
        before = channel.paid
        act(channel)
        for owner, had, has in zip((params.opener, params.partner), before, channel.paid, strict=True):
            self.balances[owner] += has - had


@dataclass
class Transaction:
    """What somebody wants the chain to do, and the block that did it; None while it is in none."""

    what: str
    sender: Address
    act: Act
    hash: bytes
    block: int | None = None
    failed: bool = False


@dataclass
class Block:
    """A block, and the accounts after it."""

    number: int
    time: int
    accounts: Accounts
    transactions: list[Transaction]


class Chain:
    """The chain as every node sees it. `depth` blocks above a block make it final: no reorganisation goes deeper."""

    def __init__(self, loop: VirtualLoop, rng: Random, interval: float = 5.0, depth: int = 3) -> None:
        self.depth = depth
        self.interval = interval
        self.censored: set[Address] = set()
        self.stalled = False
        self.on_block: Callable[[Block], None] = _nothing
        self._loop, self._rng = loop, rng
        self._sent = 0
        self._pool: list[Transaction] = []
        self._blocks = [Block(0, loop.seconds(), Accounts(), [])]

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[-1]

    @property
    def final(self) -> Block:
        """The newest block that stays."""
        return self._blocks[max(0, len(self._blocks) - 1 - self.depth)]

    def fund(self, owner: Address, wallet: int, balance: int = 0) -> None:
        """Give tokens, in the block before all others."""
        self._blocks[0].accounts.wallets[owner] += wallet
        self._blocks[0].accounts.balances[owner] += balance

    def submit(self, what: str, sender: Address, act: Act) -> Transaction:
        """Take a transaction into the pool."""
        self._sent += 1
        made = Transaction(what, sender, act, sha256(f"{self._sent}/{what}".encode()).digest())
        self._pool.append(made)
        return made

    async def run(self) -> None:
        """Make blocks for ever."""
        while True:
            await asyncio.sleep(self.interval * self._rng.uniform(0.5, 1.5))
            if not self.stalled:
                self.mine()

    def mine(self) -> None:
        """Make a block of what is in the pool; what one account sent stays in its order."""
        taken = [made for made in self._pool if made.sender not in self.censored]
        self._pool = [made for made in self._pool if made.sender in self.censored]
        if len(taken) > 1:
            order = {sender: self._rng.random() for sender in dict.fromkeys(made.sender for made in taken)}
            taken.sort(key=lambda made: order[made.sender])
        number, time = self.head.number + 1, max(self.head.time + 1, self._loop.seconds())
        accounts = self.head.accounts
        for made in taken:
            trial = accounts.copy()
            try:
                made.act(trial, time)
            except (Forbidden, PenstockError):
                made.failed = True
            else:
                made.failed, accounts = False, trial
            made.block = number
        self._blocks.append(Block(number, time, accounts, taken))
        del self._blocks[: -self.depth - 2]
        self.on_block(self.head)

    def reorganise(self, blocks: int, lose: float = 0.0) -> None:
        """The newest blocks were not the longest chain's: their transactions are in the pool again, or (so often as
        `lose` says) are lost for good."""
        blocks = min(blocks, self.depth, len(self._blocks) - 1)
        dropped = self._blocks[len(self._blocks) - blocks :]
        del self._blocks[len(self._blocks) - blocks :]
        again = [made for block in dropped for made in block.transactions]
        for made in again:
            made.block, made.failed = None, False
        self._pool = [made for made in again if not lose or self._rng.random() >= lose] + self._pool


def _nothing(_block: Block) -> None:
    pass
