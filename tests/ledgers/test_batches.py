"""Claims and withdrawals from open channels, alone and many together, against a real node."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from penstock.core.channel import APART, ChannelParams, Close, Lock, Voucher, Withdrawal
from penstock.core.errors import TransactionFailed, WrongLedger
from penstock.core.identity import Key, keccak
from penstock.core.ports import Batch, Filing, SignedClose
from penstock.core.units import Amount
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.evm import EvmLedger, Opening
from penstock.ledgers.fees import Fees

from .world import (
    FOREVER,
    SUPPLIER,
    SUPPLIER_KEY,
    channel_of,
    gate_before,
    ledger_of,
    pay_ether,
    plain_channel,
    signed_close,
    signed_voucher,
    until,
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


@pytest.mark.parametrize("kind", ["close", "close two-way", "claim"])
async def test_openers_that_make_their_rows_dear_after_the_estimate_let_nothing_fail(
    devnet: Manifest, kind: str
) -> None:
    first = 12 + 8 * ["close", "close two-way", "claim"].index(kind)
    openers = [dev_key(index) for index in range(first, first + 8)]
    payee = Key(keccak(b"payee of " + kind.encode()))
    async with gate_before(devnet) as (gate, url), ledger_of(devnet, url=url, fees=Fees(patience=0.2)) as ledger:
        async with ledger_of(devnet) as theirs:
            await pay_ether(theirs, dev_key(38), payee.address, 10**18)
            made = [
                msgspec.structs.replace(  # counters apart: the account's slot is free once all is withdrawn
                    plain_channel(theirs, key, APART),
                    partner=payee.address,
                    partner_key=payee.address,
                    two_way="two" in kind,
                )
                for key in openers
            ]
            for key, params in zip(openers, made, strict=True):
                await theirs.deposit(key, Amount(3_000))
                await theirs.open(key, params, Amount(1_000))
            gate.withhold = lambda raw: True
            sending = asyncio.create_task(_paid(ledger, payee, kind, list(zip(openers, made, strict=True))))
            await until(lambda: len(gate.seen) > 0, "nothing is sent")
            for key, params in zip(openers, made, strict=True):
                await theirs.close(key, params, _received(payee, params) if params.two_way else None)
                await theirs.withdraw(key, Amount(2_000))
        gate.withhold = lambda raw: False
        batch = await sending
        states = {(await ledger.channel(params)).status for params in made}
        assert states == ({"closing"} if kind == "claim" else {"settled"})
        assert len(batch.skipped) == (8 if kind == "claim" else 0)


async def _paid(ledger: EvmLedger, payee: Key, kind: str, made: list[tuple[Key, ChannelParams]]) -> Batch:
    if kind == "claim":
        return await ledger.claim_many(payee, [signed_voucher(key, params, 300) for key, params in made])
    rows = []
    for key, params in made:
        close = Close(700, 300, FOREVER)
        digest = close.digest(params)
        rows.append(SignedClose(params, close, key.sign(digest), payee.sign(digest)))
    return await ledger.close_many(payee, rows)


def _received(payee: Key, params: ChannelParams) -> Filing:
    """What the opener of a two-way channel can file: a voucher of its partner's, with a lock."""
    lock = Lock(keccak(b"a root"), 1, 10)
    voucher = Voucher.over(1, 0, (lock,))
    return Filing(voucher, payee.sign(voucher.digest(params)), (lock,), ((0, b""),))
