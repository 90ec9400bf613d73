"""What small changes of the contract got past all other tests: each test here fails on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.core.channel import APART, ChannelParams, Close, Domain, Release, Voucher, Withdrawal, compact
from penstock.ledgers.artifacts import load

from .world import EURO, NO_SIGNATURE, PERIOD, Chainlet, World, abi_params, abi_place, abi_voucher, compiled, deploy

ODD_TOKEN = Path(__file__).parent / "tokens/OddToken.vy"
CALLS_BACK = 3
ALL = 2**96 - 1  # as many tokens as the contract ever takes
MOST = 2**96 - 2**20  # all of them, but for some that are left over


@pytest.fixture
def odd(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world with a channel contract over a token that does as it is told. The opener has all of it there is."""
    token = deploy(world.chain, world.stranger, compiled(ODD_TOKEN))
    channel = deploy(world.chain, world.stranger, load("Channel"), token.address)
    monkeypatch.setattr(world, "token", token)
    monkeypatch.setattr(world, "channel", channel)
    monkeypatch.setattr(world, "domain", Domain(world.chain.chain_id, channel.address, token.address))
    token.send(world.stranger, "mint", [world.opener.address], ALL)
    return world


def _deposited(world: World, amount: int = ALL) -> World:
    world.channel.send(world.opener, "deposit", amount)
    return world


def test_an_odd_balance_stays_beside_its_counter(world: World) -> None:
    """The balance's lowest bit stands right above the counter."""
    world.channel.send(world.opener, "deposit", 1 + world.balance(world.opener) % 2)
    balance = world.balance(world.opener)
    assert balance % 2
    world.channel.send(world.opener, "open", *abi_place(world.params(**world.plain), 2))
    world.open_by(world.opener, "open_with_keys", world.params(), 2)
    assert world.balance(world.opener) == balance - 4


@pytest.mark.parametrize("ticks", [2**15, 2**16 - 1])
def test_a_lock_may_have_as_many_ticks_as_16_bits_count(world: World, ticks: int) -> None:
    chain, params = Chainlet(ticks, 3), world.open(EURO)
    proof = (0, 1, chain.preimage(1))
    world.file(world.partner, params, *world.filing(params, world.partner, 5, [chain.lock], [proof]), begin=True)
    assert world.filed(params, world.partner)[:2] == (8, 3 * (ticks - 1))


def test_what_the_partner_files_itself_makes_no_release_of_the_opener_worth_more(world: World) -> None:
    """The flags of both sides stand next to each other."""
    params = world.open(10 * EURO, 10 * EURO)
    world.file(world.opener, params, *world.filing(params, world.opener, 7 * EURO), begin=True)
    world.file(world.partner, params, *world.filing(params, world.partner, 2 * EURO))
    release = Release(9, 3 * EURO)
    signature = compact(world.key_of(params, False).sign(release.digest(params)))
    world.send(world.partner, "release", params, False, 9, 3 * EURO, signature, NO_SIGNATURE)
    assert world.filed(params, world.opener)[0] == 7 * EURO


@pytest.mark.parametrize(
    "entrance", ["open_from_token", "open_from_token_with_keys", "open_with_permit", "add_from_token"]
)
def test_a_token_that_calls_back_enters_nowhere(odd: World, entrance: str) -> None:
    """Mistake: tokens that call back. The call within fails, and the one around it counts what arrived."""
    _deposited(odd, 50)
    params = odd.open(50, partner_key=odd.partner.address)
    fresh = odd.params(counter=APART, **odd.plain)
    arguments: dict[str, tuple[Any, ...]] = {
        "open_from_token": abi_place(fresh, 20),
        "open_from_token_with_keys": odd.opening(fresh, 20),
        "open_with_permit": (*odd.opening(fresh, 20), 0, NO_SIGNATURE),
        "add_from_token": (abi_params(params), 20),
    }
    odd.token.send(odd.stranger, "behave", CALLS_BACK, odd.channel.address, odd.channel.calldata("deposit", (0,)))
    odd.channel.send(odd.opener, entrance, *arguments[entrance])
    assert odd.token.call("allowed") is False
    assert odd.wallet_of_contract() == 70


def test_a_close_keeps_every_bit_of_its_balances(odd: World) -> None:
    params = _deposited(odd).open(ALL)
    odd.channel.send(odd.stranger, "close_together", odd.consent(params, ALL - MOST, MOST))
    assert odd.balances() == (ALL - MOST, MOST)


def test_a_withdrawal_keeps_every_bit_of_its_totals(odd: World) -> None:
    params = _deposited(odd).open(ALL)
    odd.channel.send(odd.stranger, "withdraw_together", odd.consent(params, 5, MOST, kind=Withdrawal))
    assert odd.drawn(params) == (5, MOST)
    odd.channel.send(odd.stranger, "withdraw_together", odd.consent(params, 7, MOST + 3, kind=Withdrawal))
    assert odd.balances() == (7, MOST + 3)


def _one_way(odd: World, count: int = 1) -> list[ChannelParams]:
    """One-way channels of equal parts of all tokens, whose voucher keys are the accounts."""
    return [odd.open(ALL // count, two_way=False, **odd.plain) for _ in range(count)]


def test_batches_keep_every_bit_of_their_sums(odd: World) -> None:
    (params,) = _one_way(_deposited(odd))
    odd.channel.send(odd.partner, "claim_many", 0, odd.rows([(params, Voucher.over(2**63 + 1, MOST - 9))]))
    assert odd.balances() == (0, MOST - 9)
    odd.channel.send(odd.partner, "close_mine", 0, odd.rows([(params, Close(ALL - MOST, MOST, 2**64 - 1))]))
    assert odd.balances() == (ALL - MOST, MOST)


def test_a_dispute_keeps_every_bit_of_what_was_filed(odd: World) -> None:
    params = _deposited(odd).open(MOST)
    voucher = Voucher.over(2**64 - 1, MOST - 5)
    signature = compact(odd.key_of(params, False).sign(voucher.digest(params)))
    odd.file(odd.partner, params, abi_voucher(voucher), signature, [], begin=True)
    assert odd.filed(params, odd.partner)[0] == MOST - 5
    odd.wait(PERIOD)
    odd.send(odd.stranger, "settle", params)
    assert odd.balances() == (ALL - MOST + 5, MOST - 5)
