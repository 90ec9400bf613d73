"""What a node's blocks held and no longer hold, as the ledger shows it: nothing is believed for longer than it is true.

(Rules 6 and 12 of the design: a view of the chain counts once it is final.) A ledger without confirmations sends, so
that nothing comes back by itself, but for the last tests; one with confirmations looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from penstock.core.errors import TransactionFailed
from penstock.core.ports import ChannelState
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import Manifest

from .anvil import DEADLINE, Anvil
from .parties import OPENER, PERIOD, SUPPLIER, channel_of, filing, ledger_on, signed_close

pytestmark = pytest.mark.asyncio
DEEP = 3  # confirmations


def raw_of(anvil: Anvil, tx_hash: bytes) -> bytes:
    """A transaction that the node has seen, as it was signed."""
    return bytes.fromhex(anvil.ask("eth_getRawTransactionByHash", "0x" + tx_hash.hex())[2:])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that is done in the background."""
    end = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.05)


async def test_an_opening_that_is_reorganised_away_never_counted_as_open(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as hasty, ledger_on(manifest, DEEP) as careful:
        params = channel_of(hasty)
        [mined] = await hasty.open(OPENER, params, Amount(1_000))
        opening = raw_of(anvil, mined.hash)
        anvil.mine(DEEP - 1)
        assert (await careful.channel(params)).status == "absent"
        assert (await hasty.channel(params)).status == "open"  # what a ledger without confirmations risks
        anvil.reorg(DEEP)
        anvil.mine(2 * DEEP)
        assert (await careful.channel(params)).status == "absent"
        assert (await hasty.channel(params)).status == "absent"
        anvil.send_raw(opening)  # its account has not moved on: it is as good as ever
        assert (await careful.channel(params)).status == "absent"
        anvil.mine(DEEP)
        assert await careful.channel(params) == ChannelState("open", Amount(1_000))


async def test_an_opening_in_another_block_counts_from_that_block(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as sender, ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        [mined] = await sender.open(OPENER, params, Amount(1_000))
        anvil.mine(DEEP - 1)
        anvil.reorg(DEEP, [(raw_of(anvil, mined.hash), DEEP - 1)])  # the lowest of them held it, now the highest does
        anvil.mine(DEEP - 1)
        assert (await ledger.channel(params)).status == "absent"
        anvil.mine()
        assert (await ledger.channel(params)).status == "open"


async def test_a_deposit_that_is_reorganised_away_backs_nothing(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as sender, ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        await sender.open(OPENER, params, Amount(1_000))
        anvil.mine(DEEP)
        before = anvil.height()
        await sender.add(SUPPLIER, params, Amount(500))
        anvil.mine(DEEP - 1)
        assert (await ledger.channel(params)).partner_deposit == 0
        anvil.reorg(anvil.height() - before)
        anvil.mine(DEEP)
        assert await ledger.channel(params) == ChannelState("open", Amount(1_000))


async def test_a_close_that_is_reorganised_away_leaves_the_channel_open(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as sender, ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        await sender.open(OPENER, params, Amount(1_000))
        anvil.mine(DEEP)
        await sender.close(OPENER, params, None)
        assert (await ledger.channel(params)).status == "closing"  # bad news counts at once
        anvil.reorg(1)
        assert await ledger.channel(params) == ChannelState("open", Amount(1_000))
        with pytest.raises(TransactionFailed) as nothing:
            await sender.file(SUPPLIER, params, filing(params, 700))
        assert nothing.value.reason.startswith("channel: ")


async def test_a_filing_that_is_reorganised_away_is_missed_and_filed_again(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        params = channel_of(ledger)
        await ledger.open(OPENER, params, Amount(1_000))
        await ledger.close(OPENER, params, None)  # stale: as if nothing had been paid
        assert not (await ledger.filed(params, partner=True)).present
        best = filing(params, 700)
        await ledger.file(SUPPLIER, params, best)
        filed = await ledger.filed(params, partner=True)
        assert (filed.present, filed.by_payee, filed.amount) == (True, True, 700)
        anvil.reorg(1)
        filed = await ledger.filed(params, partner=True)
        assert (filed.present, filed.by_payee, filed.amount, filed.channel.status) == (False, False, 0, "closing")
        await ledger.file(SUPPLIER, params, best)
        assert (await ledger.filed(params, partner=True)).amount == 700
        anvil.increase_time(PERIOD)
        anvil.mine()
        await ledger.settle(SUPPLIER, params)
        assert (await ledger.holdings(SUPPLIER.address)).balance == 700


async def test_a_settled_channel_that_reappears_is_settled_again(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as sender, ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        await sender.open(OPENER, params, Amount(1_000))
        await sender.close(SUPPLIER, params, filing(params, 700))
        anvil.increase_time(PERIOD)
        anvil.mine()
        before = anvil.height()
        await sender.settle(SUPPLIER, params)
        anvil.mine(DEEP - 1)
        assert (await ledger.channel(params)).status == "settled"
        assert not await ledger.final(params)
        anvil.reorg(anvil.height() - before)
        assert (await ledger.channel(params)).status == "closing"
        assert not await ledger.final(params)
        assert (await ledger.holdings(SUPPLIER.address)).balance == 0
        await sender.settle(SUPPLIER, params)
        anvil.mine(DEEP)
        assert await ledger.final(params)
        assert (await ledger.holdings(SUPPLIER.address)).balance == 700


async def test_a_stale_close_may_take_the_place_of_a_signed_one(anvil: Anvil, manifest: Manifest) -> None:
    """The other side can do so in a reorg; a signed close is therefore no end before it is final (rule 6)."""
    async with ledger_on(manifest) as sender, ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        await sender.open(OPENER, params, Amount(1_000))
        anvil.mine(DEEP)
        point = anvil.snapshot()
        [stale] = await sender.close(OPENER, params, None)
        cheat = raw_of(anvil, stale.hash)
        anvil.revert(point)
        [signed] = await sender.close_together(SUPPLIER, [signed_close(params, 300, 700)])
        late = raw_of(anvil, signed.hash)
        assert (await ledger.channel(params)).status == "settled"
        assert not await ledger.final(params)
        anvil.reorg(1, [(cheat, 0)])
        assert (await ledger.channel(params)).status == "closing"
        anvil.send_raw(late)  # both have signed, and it has not expired
        assert (await ledger.channel(params)).status == "settled"
        assert (await ledger.holdings(SUPPLIER.address)).balance == 700
        anvil.mine(DEEP)
        assert await ledger.final(params)


async def test_a_node_that_goes_back_altogether_is_followed(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest) as ledger:
        params = channel_of(ledger)
        point = anvil.snapshot()
        await ledger.open(OPENER, params, Amount(1_000))
        await ledger.close(OPENER, params, None)
        anvil.revert(point)
        assert (await ledger.channel(params)).status == "absent"
        await ledger.open(OPENER, params, Amount(2_000))  # the nonces begin again, too
        assert (await ledger.channel(params)).opener_deposit == 2_000


async def test_what_a_ledger_with_confirmations_has_sent_comes_back_by_itself(anvil: Anvil, manifest: Manifest) -> None:
    async with ledger_on(manifest, DEEP) as ledger:
        params = channel_of(ledger)
        await ledger.open(OPENER, params, Amount(1_000))
        anvil.mine(DEEP)
        await ledger.close(OPENER, params, None)
        before = anvil.height()
        await ledger.file(SUPPLIER, params, filing(params, 700))

        async def filed() -> bool:
            return (await ledger.filed(params, partner=True)).amount == 700

        for depth in (1, 2):  # and again, the blocks above it included
            anvil.mine(depth - 1)
            anvil.reorg(anvil.height() - before)
            await until(filed)
        anvil.mine(DEEP)
        assert await filed()
