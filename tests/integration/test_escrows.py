"""Escrows on a real node: what its blocks held and no longer hold is believed for no longer than it is true."""

from __future__ import annotations

import pytest

from penstock.core.ports import EscrowState
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import Manifest, dev_key

from ..ledgers.escrows import TARIFF, WINDOW, escrow_of, escrows_of, reading, signed_end
from .anvil import Anvil
from .test_reorgs import DEEP, raw_of, until

pytestmark = pytest.mark.asyncio
PAYER, PAYEE = dev_key(0), dev_key(1)


async def test_a_deposit_that_is_reorganised_away_never_counted(anvil: Anvil, manifest: Manifest) -> None:
    async with escrows_of(manifest) as hasty, escrows_of(manifest, confirmations=DEEP) as careful:
        params = await escrow_of(hasty, PAYER, payee=PAYEE.address)
        [mined] = await hasty.fund(PAYER, params)
        deposit = raw_of(anvil, mined.hash)
        anvil.mine(DEEP - 1)
        assert (await careful.escrow(params)).status == "absent"
        assert (await hasty.escrow(params)).status == "open"  # what a ledger without confirmations risks
        anvil.reorg(DEEP)
        anvil.mine(2 * DEEP)
        assert (await careful.escrow(params)).status == "absent"
        assert (await hasty.escrow(params)).status == "absent"
        anvil.send_raw(deposit)  # its account has not moved on: it is as good as ever
        assert (await careful.escrow(params)).status == "absent"
        anvil.mine(DEEP)
        assert await careful.escrow(params) == EscrowState("open")


async def test_a_claim_that_is_reorganised_away_is_missed_and_filed_again(anvil: Anvil, manifest: Manifest) -> None:
    async with escrows_of(manifest) as escrows:
        params = await escrow_of(escrows, PAYER, payee=PAYEE.address)
        await escrows.fund(PAYER, params)
        signed = reading(params, 1, 5_000)
        await escrows.release(PAYEE, params, TARIFF, signed)
        assert (await escrows.escrow(params)).claimed == 2_000
        anvil.reorg(1)
        assert await escrows.escrow(params) == EscrowState("open")
        await escrows.release(PAYEE, params, TARIFF, signed)
        anvil.increase_time(WINDOW)
        anvil.mine()
        await escrows.settle(PAYEE, params)
        assert (await escrows.holdings(PAYEE.address)).balance == 2_000


async def test_an_end_that_is_reorganised_away_is_not_final_and_comes_back_by_itself(
    anvil: Anvil, manifest: Manifest
) -> None:
    async with escrows_of(manifest) as sender, escrows_of(manifest, confirmations=DEEP) as escrows:
        params = await escrow_of(escrows, PAYER, payee=PAYEE.address)
        await sender.fund(PAYER, params)
        anvil.mine(DEEP)
        before = anvil.height()
        await escrows.end(PAYEE, [signed_end(PAYER, params, 700)])
        anvil.mine(DEEP - 1)
        assert (await escrows.escrow(params)).status == "ended"
        assert not await escrows.final(params)
        anvil.reorg(anvil.height() - before)

        async def ended() -> bool:
            return (await escrows.escrow(params)).status == "ended"

        await until(ended)
        assert not await escrows.final(params)
        anvil.mine(DEEP)
        assert await escrows.final(params)
        assert await escrows.escrow(params) == EscrowState("ended", Amount(700), Amount(700))
