"""The channel contract: how a channel stands, and why the contract would refuse a call."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from penstock.core.channel import ChannelParams
from penstock.core.errors import TransactionFailed
from penstock.core.identity import Key
from penstock.core.ports import ChannelState
from penstock.ledgers import forms
from penstock.ledgers.contract import Contract


class ChannelContract(Contract):
    """What openings, batches and disputes share."""

    artifact = "Channel"
    keeps = "channel"

    async def _state(self, params: ChannelParams, block: str = "latest") -> tuple[ChannelState, int]:
        """The channel after a block, and its word."""
        self._check(params)
        word, drawn, lowest = await self._read("channel", forms.params_words(params), block=block)
        return forms.state_of(params, word, drawn, lowest), word

    async def _refusal(self, key: Key, name: str, *values: object) -> str | None:
        """Why the contract would refuse a call now, in its own words; None where it would take it."""
        try:
            await self._sender.estimate(key, self.domain.contract, self._contract.encode(name, *values), name)
        except TransactionFailed as error:
            if not error.reason:
                raise
            return error.reason
        return None

    def _challenged(self, params: ChannelParams) -> AbstractAsyncContextManager[None]:
        """What is sent in here must be in a block before the challenge ends."""

        async def closes_at() -> int:
            return (await self._state(params))[0].closes_at

        return self._pressing("the challenge ends", closes_at)
