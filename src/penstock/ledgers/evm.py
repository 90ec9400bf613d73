"""Channels on an EVM chain: `core.ports.Ledger` over any JSON-RPC node, against the contract `contracts/Channel.vy`.

Importing this module costs a second or two (eth-account): only what touches a ledger may.
"""

from __future__ import annotations

import asyncio
import time

from penstock.core.channel import APART, ChannelParams
from penstock.core.errors import WrongLedger
from penstock.core.identity import Address, to_hex
from penstock.core.ports import ChannelState, Filed, ProvenTicks
from penstock.ledgers import forms
from penstock.ledgers.batches import Batches
from penstock.ledgers.disputes import Disputes
from penstock.ledgers.openings import Opening, Openings
from penstock.ledgers.proofs import proven_since

__all__ = ["EvmLedger", "Opening"]

LOOK_BACK = 30 * 86_400  # seconds, in a channel that is settled; on a chain of 12 s 108 searches of LOG_BLOCKS


class EvmLedger(Openings, Batches, Disputes):
    """A channel contract behind a JSON-RPC node. Made by `connect`; close it when done."""

    async def channel(self, params: ChannelParams) -> ChannelState:
        state, _ = await self._state(params)
        if state.status != "open" or not self._depth:
            return state
        deep = await self._deep(params)
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
        state, _ = await self._state(params)
        return state.status == "settled" and (await self._deep(params)).status == "settled"

    async def filed(self, params: ChannelParams, partner: bool) -> Filed:
        block = await self._sender.block_below(0)
        (state, word), values = await asyncio.gather(
            self._state(params, block), self._read("filing", forms.params_words(params), partner, block=block)
        )
        return forms.filed_of(state, word, partner, values)

    async def proven(self, params: ChannelParams, since: int | None = None) -> list[ProvenTicks]:
        state, word = await self._state(params)
        if state.status in ("absent", "open"):
            return []
        if state.status == "closing":
            since = forms.began_at(params, word)
        elif since is None:
            since = await self.now() - LOOK_BACK
        return await proven_since(self._node, self._contract, params, since)

    async def _deep(self, params: ChannelParams) -> ChannelState:
        """The channel as it was when the newest final block was the newest."""
        try:
            state, _ = await self._state(params, await self._sender.block_below(self._depth))
        except WrongLedger:  # the contract itself is younger than that
            self._check(params)
            return ChannelState("absent")
        return state

    async def next_counter(self, opener: Address) -> int:
        """A counter with which `opener` can still open a channel.

        Where it has nothing in the contract, so that it will open from its wallet, that is one apart: the milliseconds
        now. It spares the opening a slot.
        """
        balance, lowest = await self._read("account", to_hex(opener))
        return int(lowest) if balance else self.fresh_counter()

    def fresh_counter(self) -> int:
        return APART + time.time_ns() // 10**6
