"""A node's view of the simulated chain: what it asks, what it may spend, and how long it waits for a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.channel import APART, ChannelParams, Domain, locks_root
from penstock.core.errors import (
    LedgerUnreachable,
    OutOfGas,
    PenstockError,
    TransactionFailed,
    WrongLedger,
)
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import ChannelState, Filed, Holdings, Mined, ProvenTicks, TokenFacts
from penstock.core.units import Amount
from penstock.sim.chain import Accounts, Act, Block, Chain, Transaction
from penstock.sim.life import Life
from penstock.sim.model import Channel, Forbidden

DEADLINE = 180.0  # seconds until a transaction that is in no block is given up, as with a real node
ETHER = 10**18
GAS_PRICE = 10**9
GAS = 21_000


class View:
    """One party's way to the chain: slow, out of reach for a while, or in order. `dry` is an account without ether."""

    def __init__(self, chain: Chain, domain: Domain, life: Life, delay: Callable[[], float]) -> None:
        self.domain = domain
        self.out_of_reach = False
        self.dry = False
        self._chain, self._life, self._delay = chain, life, delay

    async def now(self) -> int:
        return (await self._head()).time

    async def token(self) -> TokenFacts:
        return TokenFacts("SIM", 6)

    async def genuine(self) -> bool:
        return True

    async def channel(self, params: ChannelParams) -> ChannelState:
        await self._head()
        self._check(params)
        state = _state(self._chain.head.accounts, params)
        if state.status != "open":
            return state
        deep = _state(self._chain.final.accounts, params)
        if deep.status != "open":
            return deep
        return ChannelState(
            "open",
            min(state.opener_deposit, deep.opener_deposit),
            min(state.partner_deposit, deep.partner_deposit),
            0,
            max(state.opener_drawn, deep.opener_drawn),
            max(state.partner_drawn, deep.partner_drawn),
        )

    async def final(self, params: ChannelParams) -> bool:
        await self._head()
        return all(
            _state(block.accounts, params).status == "settled" for block in (self._chain.head, self._chain.final)
        )

    async def filed(self, params: ChannelParams, partner: bool) -> Filed:
        accounts = (await self._head()).accounts
        self._check(params)
        state, channel = _state(accounts, params), accounts.channels.get(params.id)
        filed = channel.sides[int(partner)].filed if channel else None
        if channel is None or filed is None:
            return Filed(state)
        return Filed(
            state,
            True,
            channel.sides[int(partner)].itself,
            Amount(filed.least()),
            Amount(filed.rest),
            filed.until,
            locks_root(filed.locks),
        )

    async def proven(self, params: ChannelParams, since: int | None = None) -> list[ProvenTicks]:
        accounts = (await self._head()).accounts
        self._check(params)
        channel = accounts.channels.get(params.id)
        return [proven for proven in channel.shown if proven.count] if channel else []

    async def holdings(self, owner: Address) -> Holdings:
        accounts = (await self._head()).accounts
        return Holdings(Amount(accounts.wallets[owner]), Amount(accounts.balances[owner]), 0 if self.dry else ETHER)

    async def next_counter(self, opener: Address) -> int:
        head = await self._head()
        if head.accounts.balances[opener]:
            return head.accounts.counters[opener]
        return self.fresh_counter()

    def fresh_counter(self) -> int:
        return APART + int(asyncio.get_running_loop().time() * 1000)

    async def gas_price(self) -> int:
        return GAS_PRICE

    # The way to the chain

    async def _head(self) -> Block:
        await asyncio.sleep(self._delay())
        if self.out_of_reach or not self._life.alive:
            await asyncio.sleep(5.0)
            raise LedgerUnreachable("the ledger's node does not answer", "start it, or name another")
        return self._chain.head

    def _check(self, params: ChannelParams) -> None:
        if params.domain != self.domain:
            raise WrongLedger("the channel is on another ledger")

    async def _send(self, key: Key, params: ChannelParams | None, what: str, act: Act) -> list[Mined]:
        """Send a transaction that would be taken now, and wait until it is in the chain."""
        if params is not None:
            self._check(params)
        head = await self._head()
        if self.dry:
            account, needs = key.address, GAS * GAS_PRICE
            raise OutOfGas(f"{to_hex(account)} has no ether for {what}", "send it some", account, 0, needs)
        try:
            act(head.accounts.copy(), head.time + 1)
        except (Forbidden, PenstockError) as error:
            raise TransactionFailed(f"{what} is refused by the contract: {error}", reason="forbidden") from None
        if not self._life.boundary():
            raise LedgerUnreachable("the process is gone")
        sent = self._chain.submit(what, key.address, act)
        self._life.boundary()
        return [await self._mined(sent)]

    async def _mined(self, sent: Transaction) -> Mined:
        for _ in range(int(DEADLINE)):
            await asyncio.sleep(1.0)
            if sent.block is None or self.out_of_reach:
                continue
            if sent.failed:
                raise TransactionFailed(f"{sent.what} was reverted in its block", "the state changed; try again")
            return Mined(sent.what, sent.hash, GAS, sent.block)
        raise LedgerUnreachable(f"{sent.what} is not mined after {DEADLINE:.0f} s", "it may still be")


def _state(accounts: Accounts, params: ChannelParams) -> ChannelState:
    channel: Channel | None = accounts.channels.get(params.id)
    if channel is None:
        return ChannelState("absent")
    opener, partner = channel.deposits
    if channel.status == "ended":
        return ChannelState("settled")
    drawn = Amount(channel.paid[0]), Amount(channel.paid[1])
    if channel.status == "open":
        return ChannelState("open", Amount(opener), Amount(partner), 0, *drawn)
    return ChannelState("closing", Amount(opener), Amount(partner), channel.closes_at, *drawn)
