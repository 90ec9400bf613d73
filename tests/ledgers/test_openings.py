"""Openings and deposits by a signature, sent and paid for by somebody else, against a real node."""

from __future__ import annotations

import msgspec
import pytest

from penstock.core.channel import APART, SignedAddition, SignedOpening
from penstock.core.errors import OutOfFunds, TransactionFailed, UsageError, WrongLedger
from penstock.core.identity import Key, keccak
from penstock.core.ports import Authorization
from penstock.core.units import Amount
from penstock.ledgers.devnet.genesis import ACCOUNT_EUROS
from penstock.ledgers.devnet.manifest import Manifest, dev_key

from .world import FOREVER, SUPPLIER, channel_of, ledger_of, plain_channel

pytestmark = pytest.mark.asyncio
SENDER = dev_key(38)


async def test_an_authorization_that_travelled_as_json_funds_and_opens_and_pays_its_sender(devnet: Manifest) -> None:
    opener = dev_key(0)
    async with ledger_of(devnet) as ledger:
        params = plain_channel(ledger, opener, APART)
        ether = (await ledger.holdings(opener.address)).ether
        signed = await ledger.authorize(opener, params, Amount(5_000), Amount(30), FOREVER)
        signed = msgspec.json.decode(msgspec.json.encode(signed), type=Authorization)
        before = (await ledger.holdings(SENDER.address)).balance
        [mined] = await ledger.open_authorized(SENDER, params, signed)
        assert mined.what == "open with authorization"
        state = await ledger.channel(params)
        assert (state.status, state.opener_deposit) == ("open", 5_000)
        assert (await ledger.holdings(SENDER.address)).balance == before + 30
        holdings = await ledger.holdings(opener.address)
        assert (holdings.wallet, holdings.ether) == (ACCOUNT_EUROS - 5_030, ether)
        with pytest.raises(TransactionFailed) as twice:
            await ledger.open_authorized(SENDER, params, signed)
        assert twice.value.reason == "token: authorization used"


async def test_two_openings_that_one_payer_signed_can_both_be_sent_whatever_it_has_in_the_contract(
    devnet: Manifest,
) -> None:
    opener = dev_key(34)
    async with ledger_of(devnet) as ledger:
        await ledger.deposit(opener, Amount(1))
        made = []
        for partner in (SENDER.address, dev_key(35).address):
            params = msgspec.structs.replace(
                plain_channel(ledger, opener, ledger.fresh_counter()), partner=partner, partner_key=partner
            )
            made.append((params, await ledger.authorize(opener, params, Amount(5), Amount(1), FOREVER)))
        for params, signed in reversed(made):
            await ledger.open_authorized(SENDER, params, signed)
            assert (await ledger.channel(params)).status == "open"


async def test_an_authorization_opens_no_other_channel_and_for_no_other_sum(devnet: Manifest) -> None:
    opener = dev_key(1)
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, opener)
        signed = await ledger.authorize(opener, params, Amount(5_000), Amount(30), FOREVER)
        for channel, authorization in [
            (channel_of(ledger, opener, 1), signed),
            (params, msgspec.structs.replace(signed, deposit=Amount(5_030), fee=Amount(0))),
            (params, msgspec.structs.replace(signed, valid_before=FOREVER + 1)),
        ]:
            with pytest.raises(TransactionFailed) as refused:
                await ledger.open_authorized(SENDER, channel, authorization)
            assert refused.value.reason == "token: bad signature"


async def test_an_authorization_that_could_not_be_honoured_is_not_signed(devnet: Manifest) -> None:
    opener = dev_key(2)
    async with ledger_of(devnet) as ledger, ledger_of(devnet, "WrappedEtherChannel") as ether:
        params = channel_of(ledger, opener)
        with pytest.raises(OutOfFunds):
            await ledger.authorize(opener, params, Amount(ACCOUNT_EUROS), Amount(1), FOREVER)
        with pytest.raises(UsageError, match="opens no channel"):
            await ledger.authorize(opener, params, Amount(0), Amount(1), FOREVER)
        with pytest.raises(UsageError, match="not the opener"):
            await ledger.authorize(SENDER, params, Amount(1), Amount(1), FOREVER)
        with pytest.raises((WrongLedger, OutOfFunds)):
            await ether.authorize(opener, channel_of(ether, opener), Amount(1), Amount(0), FOREVER)
        with pytest.raises(WrongLedger) as unknown:  # wrapped ether takes any call for granted, and knows none
            await ether._token.authorization(opener, ether.domain.contract, 1, 0, FOREVER, bytes(32))
        assert unknown.value.advice


async def test_a_signed_opening_and_addition_are_paid_from_the_balance_and_pay_their_sender(devnet: Manifest) -> None:
    opener = dev_key(3)
    async with ledger_of(devnet) as ledger:
        [approved, deposited] = await ledger.deposit(opener, Amount(1_000))
        assert (approved.what, deposited.what) == ("approve", "deposit")
        params = channel_of(ledger, opener)
        before = (await ledger.holdings(SENDER.address)).balance
        opening = SignedOpening(600, 20, FOREVER)
        await ledger.open_signed(SENDER, params, opening, opener.sign(opening.digest(params)))
        assert (await ledger.channel(params)).opener_deposit == 600
        addition = SignedAddition(800, 10, FOREVER)
        signature = opener.sign(addition.digest(params))
        await ledger.add_signed(SENDER, params, opener.address, addition, signature)
        assert (await ledger.channel(params)).opener_deposit == 800
        assert (await ledger.holdings(SENDER.address)).balance == before + 30
        assert (await ledger.holdings(opener.address)).balance == 1_000 - 830
        with pytest.raises(TransactionFailed) as twice:
            await ledger.add_signed(SENDER, params, opener.address, addition, signature)
        assert twice.value.reason == "channel: total reached"


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(65), b"\xff" * 65, b"x" * 1_000])
async def test_a_signature_that_is_none_opens_nothing(devnet: Manifest, signature: bytes) -> None:
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, dev_key(4))
        with pytest.raises(TransactionFailed) as refused:
            await ledger.open_signed(SENDER, params, SignedOpening(0, 0, FOREVER), signature)
        assert refused.value.reason == "channel: account has not signed"


async def test_somebody_elses_signature_opens_nothing(devnet: Manifest) -> None:
    stranger = Key(keccak(b"a stranger"))
    async with ledger_of(devnet) as ledger:
        params = channel_of(ledger, dev_key(5))
        opening = SignedOpening(0, 0, FOREVER)
        with pytest.raises(TransactionFailed) as refused:
            await ledger.open_signed(SENDER, params, opening, stranger.sign(opening.digest(params)))
        assert refused.value.reason == "channel: account has not signed"
        assert (await ledger.channel(params)).status == "absent"


async def test_what_was_deposited_can_be_withdrawn(devnet: Manifest) -> None:
    async with ledger_of(devnet) as ledger:
        before = await ledger.holdings(SUPPLIER.address)
        await ledger.deposit(SUPPLIER, Amount(70))
        assert (await ledger.holdings(SUPPLIER.address)).balance == before.balance + 70
        await ledger.withdraw(SUPPLIER, Amount(70))
        assert (await ledger.holdings(SUPPLIER.address)).tokens == before.tokens
