"""Openings and deposits that an account signs and anybody sends: a payer without ether, and contract wallets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core.channel import APART, ChannelParams, SignedAddition, SignedOpening
from penstock.core.identity import GROUP_ORDER, Key, keccak
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, START, Contract, World, abi_params, compiled, deploy, word

FOREVER = START + 10**6
ABSENT, OPEN = 0, 1


def _short(signature: bytes) -> bytes:
    """64 bytes: r, and s with the recovery bit on top."""
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + s.to_bytes(32, "big")


def _opening(params: ChannelParams, key: Key, deposit: int, fee: int, expiry: int = FOREVER) -> tuple[Any, ...]:
    signature = _short(key.sign(SignedOpening(deposit, fee, expiry).digest(params)))
    return deposit | fee << 96, expiry, signature


def test_a_payer_without_ether_opens_and_pays_the_sender_in_the_token(world: World) -> None:
    poor = Key(keccak(b"a payer without ether"))
    assert world.chain.balance(poor.address) == 0
    world.token.send(world.stranger, "mint", [poor.address], 20 * EURO)
    params = world.params(opener=poor.address, opener_key=poor.address, counter=APART + 1)
    usual, world.opener = world.opener, poor
    arguments = world.authorization(params, 15 * EURO, fee=EURO)
    world.opener = usual
    before = world.balance(world.stranger)
    world.send(world.stranger, "open_with_authorization", params, *arguments)
    assert world.state(params) == (OPEN, 15 * EURO, 0, 0)
    assert (world.balance(world.stranger), world.wallet(poor)) == (before + EURO, 4 * EURO)


def test_the_fee_of_an_authorization_is_signed(world: World) -> None:
    params = world.params()
    sums, after, before, signature = world.authorization(params, 5 * EURO, fee=EURO)
    for changed in (6 * EURO, 4 * EURO | 2 * EURO << 96, 5 * EURO | 2 * EURO << 96):
        with pytest.raises(Reverted, match="token: bad signature"):
            world.send(world.stranger, "open_with_authorization", params, changed, after, before, signature)
    world.send(world.stranger, "open_with_authorization", params, sums, after, before, signature)


def test_an_opening_from_the_balance_is_signed_and_sent_by_anybody_once(world: World) -> None:
    balance, fees = world.balance(world.opener), world.balance(world.stranger)
    params = world.params()
    arguments = _opening(params, world.opener, 5 * EURO, 7)
    world.send(world.stranger, "open_signed", params, *arguments)
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert (world.balance(world.opener), world.balance(world.stranger)) == (balance - 5 * EURO - 7, fees + 7)
    with pytest.raises(Reverted, match="channel: counter used"):
        world.send(world.stranger, "open_signed", params, *arguments)


@pytest.mark.parametrize("change", ["deposit", "fee", "expiry", "channel", "signer", "length", "high s"])
def test_an_opening_is_sent_exactly_as_it_was_signed(world: World, change: str) -> None:
    params = world.params()
    sums, expiry, signature = _opening(params, world.opener, 5 * EURO, 7)
    other = world.params() if change == "channel" else params
    sums += {"deposit": 1, "fee": 1 << 96}.get(change, 0)
    expiry += change == "expiry"
    if change == "signer":
        signature = _opening(params, world.opener_key, 5 * EURO, 7)[2]
    elif change == "length":
        signature = world.opener.sign(SignedOpening(5 * EURO, 7, expiry).digest(params))
    elif change == "high s":
        s = int.from_bytes(signature[32:], "big")
        high = (s & 1 << 255 ^ 1 << 255) | (GROUP_ORDER - (s & (2**255 - 1)))
        signature = signature[:32] + (high & (2**256 - 1)).to_bytes(32, "big")
    with pytest.raises(Reverted, match="channel: account has not signed"):
        world.send(world.stranger, "open_signed", other, sums, expiry, signature)
    assert world.state(params)[0] == ABSENT


def test_a_signed_opening_expires_and_needs_the_balance(world: World) -> None:
    params = world.params()
    much = _opening(params, world.opener, world.balance(world.opener), 1)
    with pytest.raises(Reverted, match="channel: balance too low"):
        world.send(world.stranger, "open_signed", params, *much)
    arguments = _opening(params, world.opener, 5, 0, START + 5)
    world.wait(6)
    with pytest.raises(Reverted, match="channel: signature expired"):
        world.send(world.stranger, "open_signed", params, *arguments)


def test_a_signed_addition_raises_a_deposit_to_its_total_once(world: World) -> None:
    params = world.open(10, 5)
    for owner, total, state in ((world.opener, 12, (12, 5)), (world.partner, 9, (12, 9))):
        signature = _short(owner.sign(SignedAddition(total, 3, FOREVER).digest(params)))
        arguments = (word(owner.address), total | 3 << 96, FOREVER, signature)
        before = world.balance(owner), world.balance(world.stranger)
        added = total - (10 if owner is world.opener else 5)
        world.send(world.stranger, "add_signed", params, *arguments)
        assert world.state(params)[1:3] == state
        assert (world.balance(owner), world.balance(world.stranger)) == (before[0] - added - 3, before[1] + 3)
        with pytest.raises(Reverted, match="channel: total reached"):
            world.send(world.stranger, "add_signed", params, *arguments)


def test_nobody_adds_for_a_stranger_or_to_the_partners_side_of_a_one_way_channel(world: World) -> None:
    params = world.open(10, two_way=False)
    for owner, reason in ((world.stranger, "not a party"), (world.partner, "one-way")):
        signature = _short(owner.sign(SignedAddition(50, 0, FOREVER).digest(params)))
        with pytest.raises(Reverted, match=f"channel: {reason}"):
            world.send(world.opener, "add_signed", params, word(owner.address), 50, FOREVER, signature)


@pytest.fixture
def wallet(world: World) -> Contract:
    """A contract wallet of the opener's, with 100 euros in its balance."""
    made = deploy(
        world.chain,
        world.stranger,
        compiled(Path(__file__).parent / "wallets" / "Wallet.vy"),
        world.opener.address,
    )
    world.token.send(world.stranger, "mint", [made.address], 100 * EURO)
    for contract, name, args in (
        (world.token, "approve", (world.channel.address, 2**256 - 1)),
        (world.channel, "deposit", (100 * EURO,)),
    ):
        made.send(world.stranger, "run", contract.address, contract.calldata(name, args))
    return made


def test_a_contract_wallet_signs_openings_and_additions(world: World, wallet: Contract) -> None:
    """EIP-1271. Its vouchers are signed by a plain key that it names in the channel (rule 4)."""
    params = world.params(True, opener=wallet.address, opener_key=world.opener_key.address)
    digest = SignedOpening(5 * EURO, 7, FOREVER).digest(params)
    for bad in (world.partner.sign(digest), world.opener.sign(digest)[:64], b"", bytes(1_024)):
        with pytest.raises(Reverted, match="channel: account has not signed"):
            world.send(world.stranger, "open_signed", params, 5 * EURO | 7 << 96, FOREVER, bad)
    world.send(world.stranger, "open_signed", params, 5 * EURO | 7 << 96, FOREVER, world.opener.sign(digest))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    signature = world.opener.sign(SignedAddition(6 * EURO, 0, FOREVER).digest(params))
    world.send(world.stranger, "add_signed", params, word(wallet.address), 6 * EURO, FOREVER, signature)
    assert world.state(params) == (OPEN, 6 * EURO, 0, 0)
    assert world.channel.call("account", wallet.address)[0] == 94 * EURO - 7


def test_rule_4_a_wallet_that_changes_its_mind_changes_no_voucher(world: World, wallet: Contract) -> None:
    params = world.params(opener=wallet.address, opener_key=world.opener_key.address)
    signature = world.opener.sign(SignedOpening(5 * EURO, 0, FOREVER).digest(params))
    world.send(world.stranger, "open_signed", params, 5 * EURO, FOREVER, signature)
    wallet.send(world.stranger, "be", True)
    world.send(world.partner, "finish", params, *world.filing(params, world.partner, 2 * EURO))
    assert world.channel.call("account", wallet.address)[0] == 98 * EURO


def test_a_wallet_opens_by_itself(world: World, wallet: Contract) -> None:
    params = world.params(True, opener=wallet.address, opener_key=world.opener_key.address)
    call = world.channel.calldata("open_with_keys", world.opening(params, 3 * EURO))
    wallet.send(world.stranger, "run", world.channel.address, call)
    assert world.channel.call("channel", abi_params(params))[0] & (2**96 - 1) == 3 * EURO
