"""The ledger over a node that restarts, holds transactions back, and gathers them into few blocks."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.core.errors import LedgerUnreachable, OutOfGas
from penstock.core.ports import ChannelState
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.fees import GWEI, Fees

from .anvil import DEADLINE, Anvil
from .parties import OPENER, SUPPLIER, channel_of, ledger_on

pytestmark = pytest.mark.asyncio


async def pool_of(anvil: Anvil, least: int) -> int:
    """How many transactions wait, once there are so many."""
    end = time.monotonic() + DEADLINE
    while (found := len(anvil.waiting())) < least:
        assert time.monotonic() < end, f"{found} transactions wait, not {least}"
        await asyncio.sleep(0.01)
    return found


async def test_the_ledger_goes_on_after_a_restart_and_says_meanwhile_that_nobody_answers(
    anvil: Anvil, manifest: Manifest
) -> None:
    async with ledger_on(manifest, confirmations=2) as ledger:
        params = channel_of(ledger)
        await ledger.open(OPENER, params, Amount(1_000))
        anvil.stop()
        with pytest.raises(LedgerUnreachable) as gone:
            await ledger.channel(params)
        assert gone.value.advice
        anvil.start()
        assert (await ledger.channel(params)).status == "absent"  # the past is there, too
        anvil.mine(2)
        assert await ledger.channel(params) == ChannelState("open", Amount(1_000))
        await ledger.add(SUPPLIER, params, Amount(500))
        anvil.mine(2)
        assert (await ledger.channel(params)).partner_deposit == 500


async def test_a_transaction_that_a_restart_lost_is_sent_again(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        params = channel_of(ledger)
        anvil.set_automine(False)
        opening = asyncio.create_task(ledger.open(OPENER, params, Amount(1_000)))
        await pool_of(anvil, 1)
        anvil.restart()
        assert anvil.waiting() == []
        [mined] = await asyncio.wait_for(opening, 3 * DEADLINE)
        assert anvil.receipt(mined.hash) is not None
        assert (await ledger.channel(params)).status == "open"


async def test_a_transaction_that_the_node_forgot_is_sent_again(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        params = channel_of(ledger)
        anvil.set_automine(False)
        opening = asyncio.create_task(ledger.open(OPENER, params, Amount(1_000)))
        await pool_of(anvil, 1)
        [forgotten] = anvil.waiting()
        anvil.drop(forgotten)
        anvil.set_automine(True)
        await asyncio.wait_for(opening, 3 * DEADLINE)
        assert (await ledger.channel(params)).status == "open"


async def test_many_transactions_of_one_key_share_a_block(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        await ledger.deposit(SUPPLIER, Amount(1_000))
        before = anvil.height()
        anvil.set_automine(False)
        sending = [asyncio.create_task(ledger.withdraw(SUPPLIER, Amount(1 + index))) for index in range(8)]
        await pool_of(anvil, len(sending))
        anvil.mine()
        await asyncio.gather(*sending)
        assert anvil.height() == before + 1
        assert (await ledger.holdings(SUPPLIER.address)).balance == 1_000 - sum(range(1, 9))


async def test_transactions_carry_the_fee_fields_of_today(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        anvil.set_base_fee(7 * 10**9)
        anvil.mine()
        [mined] = await ledger.open(OPENER, channel_of(ledger), Amount(1_000))
        sent = anvil.ask("eth_getTransactionByHash", "0x" + mined.hash.hex())
        base = int(anvil.block(mined.block)["baseFeePerGas"], 16)
        assert sent["type"] == "0x2"
        assert base < int(sent["maxFeePerGas"], 16) <= 20 * 10**9
        receipt = anvil.receipt(mined.hash)
        assert receipt is not None
        tip = int(sent["maxPriorityFeePerGas"], 16)
        assert int(receipt["effectiveGasPrice"], 16) == base + tip
        assert int(receipt["gasUsed"], 16) == mined.gas < int(sent["gas"], 16) <= 2 * mined.gas


async def test_a_base_fee_that_rises_past_an_offer_is_outbid_and_only_one_version_is_mined(
    anvil: Anvil, manifest: Manifest
) -> None:
    async with ledger_on(manifest, fees=Fees(patience=0.5)) as ledger:
        params = channel_of(ledger)
        anvil.set_automine(False)
        opening = asyncio.create_task(ledger.open(OPENER, params, Amount(1_000)))
        await pool_of(anvil, 1)
        [cheap] = anvil.waiting()
        anvil.set_base_fee(40 * GWEI)
        anvil.mine()
        assert anvil.receipt(bytes.fromhex(cheap[2:])) is None
        end = time.monotonic() + DEADLINE
        while not opening.done():
            assert time.monotonic() < end, "no offer is high enough"
            anvil.set_base_fee(40 * GWEI)  # an empty block lets it sink
            anvil.mine()
            await asyncio.sleep(0.1)
        [mined] = await opening
        sent = anvil.ask("eth_getTransactionByHash", "0x" + mined.hash.hex())
        assert sent["hash"] != cheap
        assert int(sent["maxFeePerGas"], 16) >= int(anvil.block(mined.block)["baseFeePerGas"], 16) == 40 * GWEI
        assert anvil.nonce(OPENER.address) == 1
        assert anvil.waiting() == []
        assert await ledger.channel(params) == ChannelState("open", Amount(1_000))


async def test_an_account_that_cannot_pay_a_risen_fee_is_told_what_it_needs(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest, fees=Fees(patience=0.5)) as ledger:
        anvil.set_balance(OPENER.address, 10**14)
        anvil.set_base_fee(40 * GWEI)
        anvil.mine()
        with pytest.raises(OutOfGas) as poor:
            await ledger.open(OPENER, channel_of(ledger), Amount(1_000))
        assert (poor.value.account, poor.value.has) == (OPENER.address, 10**14)
        assert poor.value.needs > 10**14
