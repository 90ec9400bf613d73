"""Tokens in and out of the contract, and the tokens that misbehave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core.channel import APART, Domain
from penstock.ledgers.artifacts import Artifact, load
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, NO_SIGNATURE, Contract, World, abi_params, abi_place, compiled, deploy

TOKENS = Path(__file__).parent / "tokens"
UINT96 = 2**96 - 1
HONEST, RETURNS_FALSE, TAKES_A_FEE, CALLS_BACK = range(4)


@pytest.fixture(scope="session")
def odd() -> Artifact:
    return compiled(TOKENS / "OddToken.vy")


def _serve(world: World, artifact: Artifact) -> tuple[Contract, Contract]:
    """A token of this kind, owned by all parties and the token itself, and a channel contract for it."""
    token = deploy(world.chain, world.stranger, artifact)
    channel = deploy(world.chain, world.stranger, load("Channel"), token.address)
    token.send(world.stranger, "mint", [p.address for p in world.parties] + [token.address], 1_000 * EURO)
    return token, channel


def test_a_deposit_and_a_withdrawal_move_exactly_their_amount(world: World) -> None:
    wallet, balance, held = world.wallet(world.opener), world.balance(world.opener), world.wallet_of_contract()
    receipt = world.channel.send(world.opener, "deposit", 7)
    assert world.channel.events(receipt, "Deposited")[0]["amount"] == 7
    assert (world.wallet(world.opener), world.balance(world.opener)) == (wallet - 7, balance + 7)
    receipt = world.channel.send(world.opener, "withdraw", 5)
    assert world.channel.events(receipt, "Withdrawn")[0]["amount"] == 5
    assert (world.wallet(world.opener), world.balance(world.opener)) == (wallet - 2, balance + 2)
    assert world.wallet_of_contract() == held + 2


def test_nobody_withdraws_more_than_its_balance(world: World) -> None:
    balance = world.balance(world.opener)
    with pytest.raises(Reverted, match="channel: balance too low"):
        world.channel.send(world.opener, "withdraw", balance + 1)
    world.channel.send(world.opener, "withdraw", balance)
    assert world.balance(world.opener) == 0


def test_a_withdrawal_keeps_the_counter(world: World) -> None:
    params = world.open(EURO)
    world.channel.send(world.opener, "withdraw", world.balance(world.opener))
    assert world.channel.call("account", world.opener.address)[1] == params.counter + 1


def test_a_deposit_without_allowance_says_so(world: World) -> None:
    world.token.send(world.opener, "approve", world.channel.address, 4)
    with pytest.raises(Reverted, match="token: allowance too low"):
        world.channel.send(world.opener, "deposit", 5)


def test_a_token_without_code_is_refused_at_deployment(world: World) -> None:
    with pytest.raises(Reverted, match="channel: token is no contract"):
        deploy(world.chain, world.stranger, load("Channel"), world.opener.address)


def test_a_token_that_returns_nothing_is_served(world: World) -> None:
    """Mistake: tokens that return nothing, return false, take a fee or call back."""
    _, channel = _serve(world, compiled(TOKENS / "SilentToken.vy"))
    channel.send(world.opener, "deposit", 5)
    channel.send(world.opener, "withdraw", 2)
    assert channel.call("account", world.opener.address)[0] == 3


def test_a_token_that_returns_false_moves_no_balance(world: World, odd: Artifact) -> None:
    """Mistake: tokens that return nothing, return false, take a fee or call back."""
    token, channel = _serve(world, odd)
    channel.send(world.opener, "deposit", 5)
    token.send(world.stranger, "behave", RETURNS_FALSE, channel.address, b"")
    for name in ("deposit", "withdraw"):
        with pytest.raises(Reverted, match="channel: token refused"):
            channel.send(world.opener, name, 1)
    assert channel.call("account", world.opener.address)[0] == 5


def test_a_token_that_takes_a_fee_is_refused_in_every_entrance(world: World, odd: Artifact) -> None:
    """Mistake: tokens that return nothing, return false, take a fee or call back."""
    token, channel = _serve(world, odd)
    domain = Domain(world.chain.chain_id, channel.address, token.address)
    params = world.params(counter=1)
    assert params.domain != domain
    channel.send(world.opener, "deposit", 5)
    channel.send(world.opener, "open_with_keys", *world.opening(params, 5))
    fresh = world.opening(world.params(counter=2), 5)
    token.send(world.stranger, "behave", TAKES_A_FEE, channel.address, b"")
    entrances: list[tuple[Any, ...]] = [
        ("deposit", 5),
        ("open_from_token_with_keys", *fresh),
        ("open_from_token", *abi_place(world.params(counter=APART), 5)),
        ("open_with_permit", *fresh, 0, NO_SIGNATURE),
        ("add_from_token", abi_params(params), 5),
    ]
    for name, *args in entrances:
        with pytest.raises(Reverted, match="channel: token took a fee"):
            channel.send(world.opener, name, *args)
    assert channel.call("account", world.opener.address)[0] == 0


@pytest.mark.parametrize("inner", ["deposit", "withdraw"])
@pytest.mark.parametrize("outer", ["deposit", "withdraw"])
def test_a_token_that_calls_back_cannot_enter_again(world: World, odd: Artifact, outer: str, inner: str) -> None:
    """Mistake: tokens that return nothing, return false, take a fee or call back."""
    token, channel = _serve(world, odd)
    channel.send(world.opener, "deposit", 50)
    token.send(world.stranger, "enter", channel.address, channel.calldata("deposit", (50,)))
    token.send(world.stranger, "behave", CALLS_BACK, channel.address, channel.calldata(inner, (10,)))
    channel.send(world.opener, outer, 10)
    assert token.call("allowed") is False
    assert channel.call("account", token.address)[0] == 50
    assert channel.call("account", world.opener.address)[0] == (60 if outer == "deposit" else 40)
    assert token.call("balanceOf", channel.address) == 50 + (60 if outer == "deposit" else 40)


def test_a_call_back_between_is_counted_once(world: World, odd: Artifact) -> None:
    """The token is a party itself: while its transfer runs it opens a channel from its balance. No token is lost."""
    token, channel = _serve(world, odd)
    token.send(world.stranger, "enter", channel.address, channel.calldata("deposit", (50,)))
    params = world.params(opener=token.address, counter=1)
    inner = channel.calldata("open_with_keys", world.opening(params, 50))
    token.send(world.stranger, "behave", CALLS_BACK, channel.address, inner)
    token.send(world.stranger, "enter", channel.address, channel.calldata("deposit", (10,)))
    assert token.call("allowed") is True
    assert channel.call("account", token.address)[0] == 10
    assert channel.call("channel", abi_params(params))[0] & UINT96 == 50
    assert token.call("balanceOf", channel.address) == 60


def test_more_tokens_than_uint96_are_refused(world: World, odd: Artifact) -> None:
    token, channel = _serve(world, odd)
    token.send(world.stranger, "mint", [world.opener.address, world.partner.address], 2**96)
    channel.send(world.opener, "deposit", 2**96 - 1)
    with pytest.raises(Reverted, match="channel: too many tokens"):
        channel.send(world.partner, "deposit", 1)
    params = world.params(counter=1)
    channel.send(world.opener, "open_with_keys", *world.opening(params, 2**96 - 1))
    channel.send(world.opener, "close", abi_params(params))
    world.wait(10**6)
    channel.send(world.stranger, "settle", abi_params(params))
    channel.send(world.opener, "withdraw", 2**96 - 1)


def test_a_token_that_forgets_balances_cannot_push_a_balance_into_the_counter(world: World, odd: Artifact) -> None:
    token, channel = _serve(world, odd)
    token.send(world.stranger, "mint", [world.opener.address] * 2, 2**96)
    channel.send(world.opener, "deposit", 2**96 - 1)
    token.send(world.stranger, "burn", channel.address)
    channel.send(world.opener, "deposit", 2**96 - 1)
    assert channel.call("account", world.opener.address) == (2 * (2**96 - 1), 0)
