"""How channels open and grow, who may, and that no id opens twice."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from penstock.core.channel import APART, ChannelParams, Domain, SignedOpening, authorization_nonce
from penstock.core.identity import Address, keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, PERIOD, START, World, abi_params, abi_place, deploy, split, word

ABSENT, OPEN, CLOSING, SETTLED = range(4)
ZERO = Address(bytes(20))


def test_opening_from_balance_moves_the_deposit_into_the_channel(world: World) -> None:
    balance, params = world.balance(world.opener), world.params()
    assert world.state(params) == (ABSENT, 0, 0, 0)
    world.open_by(world.opener, "open_with_keys", params, 5 * EURO)
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert world.balance(world.opener) == balance - 5 * EURO


@pytest.mark.parametrize("two_way", [False, True])
def test_a_party_that_lost_its_records_finds_all_parameters_in_the_log(world: World, two_way: bool) -> None:
    params = world.params(two_way)
    event = world.channel.events(world.open_by(world.opener, "open_with_keys", params, 5 * EURO), "Opened")[0]
    terms = event["terms"]
    found = ChannelParams(
        Domain(world.chain.chain_id, world.channel.address, world.token.address),
        **{
            name: Address(bytes.fromhex(event[name][2:])) for name in ("opener", "partner", "opener_key", "partner_key")
        },
        period=terms >> 65,
        two_way=bool(terms >> 64 & 1),
        counter=terms & (2**64 - 1),
    )
    assert found.id == params.id == event["channel"]


def test_an_empty_channel_can_be_opened_and_filled_later(world: World) -> None:
    params = world.open(0)
    assert world.state(params) == (OPEN, 0, 0, 0)
    world.send(world.partner, "add", params, 3)
    assert world.state(params) == (OPEN, 0, 3, 0)


def test_opening_needs_the_balance(world: World) -> None:
    params = world.params()
    with pytest.raises(Reverted, match="channel: balance too low"):
        world.open_by(world.opener, "open_with_keys", params, world.balance(world.opener) + 1)
    assert world.state(params) == (ABSENT, 0, 0, 0)


def test_opening_from_the_wallet_leaves_the_balance_alone(world: World) -> None:
    balance, wallet, params = world.balance(world.opener), world.wallet(world.opener), world.params()
    world.open_by(world.opener, "open_from_token_with_keys", params, 5 * EURO)
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert (world.balance(world.opener), world.wallet(world.opener)) == (balance, wallet - 5 * EURO)


def test_opening_by_permit_needs_no_allowance_before(world: World) -> None:
    world.token.send(world.opener, "approve", world.channel.address, 0)
    params = world.params()
    world.open_by(world.opener, "open_with_permit", params, 5 * EURO, *world.permit(5 * EURO))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)


def test_a_permit_that_somebody_used_first_still_opens(world: World) -> None:
    world.token.send(world.opener, "approve", world.channel.address, 0)
    params, (deadline, (r, vs)) = world.params(), world.permit(5 * EURO)
    v, s = 27 + (vs >> 255), vs & (2**255 - 1)
    signature = (v, r.to_bytes(32, "big"), s.to_bytes(32, "big"))
    world.token.send(
        world.stranger, "permit", world.opener.address, world.channel.address, 5 * EURO, deadline, *signature
    )
    world.open_by(world.opener, "open_with_permit", params, 5 * EURO, deadline, (r, vs))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)


def test_a_bad_permit_opens_nothing(world: World) -> None:
    world.token.send(world.opener, "approve", world.channel.address, 0)
    deadline, signature = world.permit(5 * EURO)
    with pytest.raises(Reverted, match="token: allowance too low"):
        world.open_by(world.opener, "open_with_permit", world.params(), 5 * EURO + 1, deadline, signature)


def test_one_authorization_funds_and_opens_and_anybody_may_send_it(world: World) -> None:
    world.token.send(world.opener, "approve", world.channel.address, 0)
    balance, wallet, params = world.balance(world.opener), world.wallet(world.opener), world.params()
    world.send(world.stranger, "open_with_authorization", params, *world.authorization(params, 5 * EURO))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert (world.balance(world.opener), world.wallet(world.opener)) == (balance, wallet - 5 * EURO)


@pytest.mark.parametrize("change", ["partner", "partner_key", "period", "two_way", "deposit"])
def test_an_authorization_opens_no_other_channel(world: World, change: str) -> None:
    params = world.params(counter=50)
    deposit, after, before, signature = world.authorization(params, 5 * EURO)
    fixed: dict[str, Any] = {"counter": 50}
    if change in ("partner", "partner_key"):
        fixed[change] = world.stranger.address
    elif change == "period":
        fixed[change] = PERIOD + 1
    other = world.params(change == "two_way", **fixed)
    deposit -= change == "deposit"
    with pytest.raises(Reverted, match="token: bad signature"):
        world.send(world.stranger, "open_with_authorization", other, deposit, after, before, signature)


def test_an_authorization_cannot_be_taken_apart(world: World) -> None:
    """Only the channel contract can redeem it, and only by opening."""
    params = world.params()
    deposit, after, before, (r, vs) = world.authorization(params, 5 * EURO)
    v, s = 27 + (vs >> 255), vs & (2**255 - 1)
    nonce = authorization_nonce(params, 5 * EURO)
    signature = (v, r.to_bytes(32, "big"), s.to_bytes(32, "big"))
    arguments = (world.opener.address, world.channel.address, deposit, after, before, nonce, *signature)
    with pytest.raises(Reverted, match="token: caller is not the receiver"):
        world.token.send(world.stranger, "receiveWithAuthorization", *arguments)
    with pytest.raises(Reverted, match="token: bad signature"):
        world.token.send(world.stranger, "transferWithAuthorization", *arguments)


def test_an_authorization_works_once(world: World) -> None:
    params = world.params()
    arguments = world.authorization(params, EURO)
    world.send(world.stranger, "open_with_authorization", params, *arguments)
    with pytest.raises(Reverted, match="token: authorization used"):
        world.send(world.stranger, "open_with_authorization", params, *arguments)


def test_an_authorization_is_good_only_in_its_time(world: World) -> None:
    params = world.params()
    arguments = world.authorization(params, EURO, before=START)
    with pytest.raises(Reverted, match="token: authorization expired"):
        world.send(world.stranger, "open_with_authorization", params, *arguments)
    arguments = world.authorization(params, EURO, after=START)
    with pytest.raises(Reverted, match="token: authorization not yet valid"):
        world.send(world.stranger, "open_with_authorization", params, *arguments)


def test_only_the_opener_opens_with_its_own_money(world: World) -> None:
    """An allowance or a permit names no channel: whoever sends one of these is the opener, and pays."""
    world.token.send(world.stranger, "approve", world.channel.address, 0)
    before = world.balance(world.opener), world.wallet(world.opener)
    params, (deadline, signature) = world.params(), world.permit(EURO)
    world.open_by(world.stranger, "open_with_keys", params, 1)
    for name, *args in (("open_from_token_with_keys",), ("open_with_permit", deadline, signature)):
        with pytest.raises(Reverted, match="token: allowance too low"):
            world.open_by(world.stranger, str(name), world.params(), EURO, *args)
    assert world.state(params)[0] == ABSENT
    assert (world.balance(world.opener), world.wallet(world.opener)) == before


def test_no_party_is_zero(world: World) -> None:
    params = world.params(partner=ZERO)
    for name, args in (("open", abi_place(params, 1)), ("open_with_keys", world.opening(params, 1))):
        with pytest.raises(Reverted, match="channel: no address"):
            world.channel.send(world.opener, name, *args)


def test_a_key_that_is_left_out_is_the_account(world: World) -> None:
    params = world.params(**world.plain)
    assert world.opening(params, 1)[2:] == (0, 0)
    world.open_by(world.opener, "open_with_keys", params, 1)
    full = tuple(map(word, (params.opener, params.partner, params.opener_key, params.partner_key)))
    for given in (abi_params(params), (*full, params.terms), (*full[:3], 0, params.terms)):
        assert world.channel.call("channel", given)[0] & (2**96 - 1) == 1


@pytest.mark.parametrize("place", range(4))
def test_what_is_no_address_opens_nothing(world: World, place: int) -> None:
    params = world.params()
    given = list(abi_params(params))
    given[place] |= 1 << 160
    signature = world.opener.sign(SignedOpening(1, 0, 2**40).digest(params))
    with pytest.raises(Reverted):
        world.channel.send(world.stranger, "open_signed", given, 1, 2**40, signature[:64])


def test_the_two_parties_and_the_two_keys_differ(world: World) -> None:
    with pytest.raises(Reverted, match="channel: both parties are the same"):
        world.open_by(world.opener, "open_with_keys", world.params(partner=world.opener.address), 1)
    with pytest.raises(Reverted, match="channel: both keys are the same"):
        world.open_by(world.opener, "open_with_keys", world.params(partner_key=world.opener_key.address), 1)


@pytest.mark.parametrize("period", [0, 59, 365 * 86_400 + 1, 2**32 - 1])
def test_the_challenge_period_is_bounded(world: World, period: int) -> None:
    with pytest.raises(Reverted, match="channel: period out of bounds"):
        world.open_by(world.opener, "open_with_keys", world.params(period=period), 1)


@pytest.mark.parametrize("period", [60, 365 * 86_400])
def test_the_bounds_of_the_period_belong_to_it(world: World, period: int) -> None:
    world.open_by(world.opener, "open_with_keys", world.params(period=period), 1)


def test_a_counter_may_leave_gaps_but_never_repeats(world: World) -> None:
    world.open(1, counter=0)
    world.open(1, counter=9)
    assert world.channel.call("account", world.opener.address)[1] == 10
    for counter in (0, 5, 9):
        with pytest.raises(Reverted, match="channel: counter used"):
            world.open(1, counter=counter)
    world.open(1, counter=APART - 1)
    with pytest.raises(Reverted, match="channel: counter used"):
        world.open(1, counter=APART - 1)


def test_a_closed_channel_never_opens_again(world: World) -> None:
    """The slot is cleared; the counter in the opener's slot keeps the id used, in every entrance."""
    params = world.open(5 * EURO)
    world.channel.send(world.stranger, "close_together", world.consent(params, 5 * EURO, 0))
    assert world.state(params) == (SETTLED, 0, 0, 0)
    for name, *args in (
        ("open_with_keys",),
        ("open_from_token_with_keys",),
        ("open_with_permit", *world.permit(5 * EURO)),
    ):
        with pytest.raises(Reverted, match="channel: counter used"):
            world.open_by(world.opener, str(name), params, 5 * EURO, *args)
    with pytest.raises(Reverted, match="channel: counter used"):
        world.send(world.stranger, "open_with_authorization", params, *world.authorization(params, 5 * EURO))


def test_a_plain_opening_uses_its_counter_too(world: World) -> None:
    params = world.params(**world.plain)
    receipt = world.channel.send(world.opener, "open", *abi_place(params, 5 * EURO))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert [log["topics"] for log in receipt.logs] == [[]]
    with pytest.raises(Reverted, match="channel: counter used"):
        world.channel.send(world.opener, "open", *abi_place(params, 0))
    for counter in (APART, APART + 7, 2**64 - 1):
        with pytest.raises(Reverted, match="channel: counter used"):
            world.channel.send(world.opener, "open", *abi_place(world.params(counter=counter, **world.plain), 0))
    with pytest.raises(Reverted, match="channel: balance too low"):
        world.channel.send(world.opener, "open", *abi_place(world.params(), world.balance(world.opener) + 1))


def test_a_plain_opening_from_the_wallet_takes_a_counter_apart_once(world: World) -> None:
    params = world.params(counter=APART + 1, **world.plain)
    wallet = world.wallet(world.opener)
    world.channel.send(world.opener, "open_from_token", *abi_place(params, 5 * EURO))
    assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
    assert world.wallet(world.opener) == wallet - 5 * EURO
    world.channel.send(world.opener, "close_together", world.consent(params, 5 * EURO, 0))
    for used in (params, world.params(**world.plain)):
        with pytest.raises(Reverted, match="channel: counter used"):
            world.channel.send(world.opener, "open_from_token", *abi_place(used, 1))
    for params, reason in (
        (world.params(counter=APART, partner=ZERO), "no address"),
        (world.params(counter=APART, partner=world.opener.address), "both parties are the same"),
        (world.params(counter=APART, period=59), "period out of bounds"),
    ):
        with pytest.raises(Reverted, match=f"channel: {reason}"):
            world.channel.send(world.opener, "open_from_token", *abi_place(params, 1))


@pytest.mark.parametrize("counter", [APART, 2**64 - 1])
def test_a_counter_apart_works_once_and_leaves_the_account_alone(world: World, counter: int) -> None:
    lowest = world.channel.call("account", world.opener.address)[1]
    params = world.params(counter=counter)
    for _ in range(2):
        assert world.state(params) == (ABSENT, 0, 0, 0)
        world.open_by(world.opener, "open_from_token_with_keys", params, 5 * EURO)
        assert world.state(params) == (OPEN, 5 * EURO, 0, 0)
        with pytest.raises(Reverted, match="channel: counter used"):
            world.open_by(world.opener, "open_with_keys", params, EURO)
        world.channel.send(world.stranger, "close_together", world.consent(params, 5 * EURO, 0))
        assert world.state(params)[0] == SETTLED
        for name in ("open_from_token_with_keys", "open_with_keys"):
            with pytest.raises(Reverted, match="channel: counter used"):
                world.open_by(world.opener, name, params, EURO)
        params = world.params(counter=counter, period=PERIOD + 1)  # another channel
    assert world.channel.call("account", world.opener.address)[1] == lowest


def test_each_side_of_a_two_way_channel_adds_to_its_own(world: World) -> None:
    params = world.open(5)
    world.send(world.opener, "add", params, 2)
    world.send(world.opener, "add_from_token", params, 4)
    world.send(world.partner, "add", params, 3)
    receipt = world.send(world.partner, "add_from_token", params, 6)
    assert world.state(params) == (OPEN, 11, 9, 0)
    assert world.channel.events(receipt, "Added")[0]["channel"] == params.id


def test_only_the_opener_adds_to_a_one_way_channel(world: World) -> None:
    params = world.open(5, two_way=False)
    world.send(world.opener, "add", params, 2)
    for name in ("add", "add_from_token"):
        with pytest.raises(Reverted, match="channel: one-way"):
            world.send(world.partner, name, params, 1)
    assert world.state(params) == (OPEN, 7, 0, 0)


def test_a_stranger_adds_nothing(world: World) -> None:
    params = world.open(5)
    with pytest.raises(Reverted, match="channel: not a party"):
        world.send(world.stranger, "add", params, 1)


def test_nothing_is_added_to_a_channel_that_is_closing_or_absent(world: World) -> None:
    params = world.open(5)
    world.send(world.partner, "close", params)
    for name in ("add", "add_from_token"):
        with pytest.raises(Reverted, match="channel: closing"):
            world.send(world.opener, name, params, 1)
        with pytest.raises(Reverted, match="channel: no such channel"):
            world.send(world.opener, name, world.params(), 1)


def test_adding_needs_the_balance(world: World) -> None:
    params = world.open(5)
    with pytest.raises(Reverted, match="channel: balance too low"):
        world.send(world.opener, "add", params, world.balance(world.opener) + 1)


def test_an_authorization_with_a_nonce_that_is_no_id_opens_nothing(world: World) -> None:
    params = world.params()
    arguments = world.authorization(params, EURO, nonce=keccak(b"free"))
    with pytest.raises(Reverted, match="token: bad signature"):
        world.send(world.stranger, "open_with_authorization", params, *arguments)


def test_a_stranger_cannot_use_up_counters_where_the_token_checks_no_authorization(world: World) -> None:
    """Wrapped ether answers a call that it does not know as if it had done it."""
    token = deploy(world.chain, world.stranger, load("WrappedEther"))
    channel = deploy(world.chain, world.stranger, load("Channel"), token.address)
    params, unsigned = abi_params(world.params(counter=APART - 1)), (0, 0)
    for deposit, reason in ((0, "nothing authorized"), (1, "token took a fee")):
        with pytest.raises(Reverted, match=f"channel: {reason}"):
            channel.send(world.stranger, "open_with_authorization", params, deposit, 0, 2**63, unsigned)
    assert channel.call("account", world.opener.address)[1] == 0


def test_a_cancelled_authorization_opens_nothing(world: World) -> None:
    params = world.params()
    kind = keccak(b"CancelAuthorization(address authorizer,bytes32 nonce)")
    nonce = authorization_nonce(params, EURO)
    body = encode(["bytes32", "address", "bytes32"], [kind, world.opener.address, nonce])
    v, r, s = split(world.opener.sign(world.token_digest(keccak(body))))
    world.token.send(world.stranger, "cancelAuthorization", world.opener.address, nonce, v, r, s)
    with pytest.raises(Reverted, match="token: authorization used"):
        world.send(world.stranger, "open_with_authorization", params, *world.authorization(params, EURO))
    assert world.state(params)[0] == ABSENT
