"""Hubs that take fees: each gains its fee of every tick, to the unit, and nobody else loses or gains by that."""

from __future__ import annotations

import asyncio

import pytest

from penstock.core.session import Role
from penstock.testing.rail.plays import begin

from .ground import CONSUMER, SUPPLIER, ground
from .hops import HUBS, HopFunds, HopSetup

FEE = 7


@pytest.mark.parametrize("over", ["square", "alone"])
@pytest.mark.parametrize("hubs", [1, 2, 3])
def test_hubs_gain_exactly_their_fees(hubs: int, over: str) -> None:
    """Where both sides have ended the session, and where the supplier leaves with what it can prove."""

    async def check() -> None:
        async with ground() as chain:
            setup = type("Paid", (HopSetup,), {"hubs": hubs, "fee": FEE})(chain)
            parties = [CONSUMER, *HUBS[:hubs], SUPPLIER]

            async def tokens() -> list[int]:
                return [(await chain.channels.holdings(party.address)).tokens for party in parties]

            before = await tokens()
            play = await begin(setup, "pay-after", turning=False)
            assert isinstance(play.funds, HopFunds)
            if over == "square":
                play.pair.play()
            else:
                for _ in range(30):
                    play.pair.step()
            books = play.pair.supplier.journal
            payee = play.funds.payee(books)
            assert payee.ticks > 3
            await play.funds.leave(Role.SUPPLIER, books)
            await setup.wait(setup.deadline)
            await play.funds.collect(Role.SUPPLIER)
            gained = [now - had for now, had in zip(await tokens(), before, strict=True)]
            fee = FEE * payee.ticks
            assert gained == [-payee.secured - hubs * fee, *[fee] * hubs, payee.secured]

    asyncio.run(check())
