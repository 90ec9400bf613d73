"""Claims and withdrawals from open channels, alone and many together, against a real node."""

from __future__ import annotations

import msgspec
import pytest

from penstock.core.channel import Lock, Withdrawal
from penstock.core.errors import TransactionFailed, WrongLedger
from penstock.core.identity import keccak
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import Opening

from .world import (
    FOREVER,
    SUPPLIER,
    SUPPLIER_KEY,
    channel_of,
    ledger_of,
    plain_channel,
    signed_close,
    signed_voucher,
    voucher_key,
)

pytestmark = pytest.mark.asyncio


async def test_a_claim_pays_what_is_new_and_the_channel_stays_open(devnet: Manifest) -> None:
    opener = dev_key(0)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener)
        await ledger.open(opener, params, Amount(5_000))
        before = (await ledger.holdings(SUPPLIER.address)).balance
        for total in (1_000, 1_700):
            await ledger.claim(SUPPLIER, signed_voucher(voucher_key(opener), params, total))
            state = await ledger.channel(params)
            assert (state.status, state.opener_deposit, state.opener_drawn, state.partner_drawn) == (
                "open",
                5_000,
                0,
                total,
            )
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + 1_700
        with pytest.raises(TransactionFailed) as stale:
            await ledger.claim(SUPPLIER, signed_voucher(voucher_key(opener), params, 1_200))
        assert stale.value.reason == "channel: nothing more to claim"


async def test_many_claims_share_a_transaction_and_bad_rows_are_skipped_with_a_reason(devnet: Manifest) -> None:
    openers = [dev_key(index) for index in range(1, 7)]
    async with ledger_of(devnet) as ledger:
        plain = {key: plain_channel(ledger, key) for key in openers[:4]}
        keyed = {key: channel_of(ledger, key) for key in openers[4:]}
        every = {**plain, **keyed}
        await ledger.open_many([Opening(key, params, Amount(1_000)) for key, params in every.items()])
        lock = Lock(keccak(b"a root"), 10, 10)
        rows = [
            signed_voucher(openers[0], plain[openers[0]], 100),
            signed_voucher(openers[2], plain[openers[1]], 100),  # somebody else's signature
            signed_voucher(openers[2], plain[openers[2]], 100, (lock,)),  # goes alone for its lock
            signed_voucher(openers[3], plain_channel(ledger, openers[3], 1), 100),  # was never opened
            signed_voucher(voucher_key(openers[4]), keyed[openers[4]], 100),  # goes alone for its key
            signed_voucher(openers[5], keyed[openers[5]], 100),  # the wrong key
        ]
        before = (await ledger.holdings(SUPPLIER.address)).balance
        claimed = await ledger.claim_many(SUPPLIER, rows)
        assert claimed.skipped == {
            rows[1].params.id: "channel: payer has not signed",
            rows[3].params.id: "channel: no such channel",
            rows[5].params.id: "channel: payer has not signed",
        }
        assert [mined.what for mined in claimed.mined] == ["claim of 3 channels", "claim", "claim"]
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + 300
        drawn = [(await ledger.channel(params)).partner_drawn for params in every.values()]
        assert drawn == [100, 0, 100, 0, 100, 0]


async def test_both_sides_draw_what_both_signed_once(devnet: Manifest) -> None:
    opener = dev_key(7)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener, two_way=True)
        await ledger.open(opener, params, Amount(3_000))
        await ledger.add(SUPPLIER, params, Amount(500))
        withdrawal = Withdrawal(400, 900, FOREVER)
        digest = withdrawal.digest(params)
        signatures = (voucher_key(opener).sign(digest), SUPPLIER_KEY.sign(digest))
        before = (await ledger.holdings(SUPPLIER.address)).balance
        for _ in range(2):  # totals: the second changes nothing
            await ledger.withdraw_together(dev_key(38), params, withdrawal, *signatures)
        state = await ledger.channel(params)
        assert (state.status, state.opener_deposit, state.partner_deposit) == ("open", 3_000, 500)
        assert (state.opener_drawn, state.partner_drawn) == (400, 900)
        assert (await ledger.holdings(SUPPLIER.address)).balance == before + 900
        assert (await ledger.holdings(opener.address)).balance == 400
        with pytest.raises(TransactionFailed) as swapped:
            await ledger.withdraw_together(dev_key(38), params, withdrawal, *signatures[::-1])
        assert swapped.value.reason == "channel: opener has not signed"
        with pytest.raises(TransactionFailed) as less:
            await ledger.close_together(SUPPLIER, [signed_close(opener, params, 3_000, 500)])
        assert less.value.reason == "channel: more was drawn"
        await ledger.close_together(SUPPLIER, [signed_close(opener, params, 2_000, 1_500)])
        assert (await ledger.channel(params)).status == "settled"


async def test_nothing_is_sent_where_one_row_is_of_another_ledger(devnet: Manifest) -> None:
    opener = dev_key(8)
    async with ledger_of(devnet) as ledger, ledger_of(devnet, "WrappedEtherChannel") as other:
        rows = [signed_voucher(opener, plain_channel(which, opener), 1) for which in (ledger, other)]
        ether = (await ledger.holdings(SUPPLIER.address)).ether
        with pytest.raises(WrongLedger):
            await ledger.claim_many(SUPPLIER, rows)
        with pytest.raises(WrongLedger):
            await ledger.claim(SUPPLIER, rows[1])
        assert (await ledger.holdings(SUPPLIER.address)).ether == ether
        assert msgspec.structs.asdict(await ledger.claim_many(SUPPLIER, [])) == {"mined": [], "skipped": {}}
