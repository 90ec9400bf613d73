"""Rules and mistakes that the contract alone can hold, where no test of one function shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_abi.abi import decode

from penstock.core.channel import (
    APART,
    ChannelParams,
    Domain,
    SignedOpening,
    Voucher,
    Withdrawal,
    compact,
)
from penstock.core.errors import BadSignature
from penstock.core.identity import GROUP_ORDER, Address, check_signed, keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.execute import Reverted

from ..contracts.world import (
    EURO,
    NO_SIGNATURE,
    PERIOD,
    START,
    Chainlet,
    World,
    abi_params,
    abi_place,
    abi_voucher,
    deploy,
)

OPEN, SETTLED = 1, 3
LATE = START + 10 * PERIOD
FOREVER = START + 10**6


def _settle(world: World, params: ChannelParams) -> None:
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)


# ---- rules


def test_rule_12_a_branch_deeper_than_the_bound_is_refused(world: World) -> None:
    """Rule 12: the depth of a tree is bounded. A tree of 2,048 locks, one more level than 1,024, proves nothing."""
    chain = Chainlet(3, 1)
    siblings = [keccak(b"sibling %d" % level) for level in range(11)]
    for depth, taken in ((10, True), (11, False)):
        root = chain.lock.leaf(0)
        for sibling in siblings[:depth]:
            root = keccak(b"\x01" + root + sibling)
        params, voucher = world.open(10 * EURO), Voucher(1, 0, 3, 0, root)
        head = chain.lock.ticks << 16 | 2 << 32 | depth << 48 | chain.lock.tick_value << 120
        proof = [head.to_bytes(32, "big"), chain.lock.root, chain.preimage(2), *siblings[:depth]]
        filing = (abi_voucher(voucher), compact(world.opener_key.sign(voucher.digest(params))), proof)
        if taken:
            world.file(world.partner, params, *filing, begin=True)
            assert world.filed(params, world.partner)[0] == 2
        else:
            with pytest.raises(Reverted):
                world.file(world.partner, params, *filing, begin=True)


# ---- mistakes


@pytest.fixture
def twin() -> World:
    """The same deployments by the same accounts on another chain: every address is that of `world`."""

    def found(balances: Any) -> Chain:
        return Chain(balances, chain_id=424_242, clock=lambda: START)

    return World(found)


def test_a_voucher_is_worthless_on_another_chain(world: World, twin: World) -> None:
    """Mistake: signed messages without the contract address or the chain id.

    The same channel, with the same addresses, on a second chain.
    """
    assert twin.channel.address == world.channel.address
    ours, theirs = world.open(10 * EURO), twin.open(10 * EURO)
    assert (theirs.opener, theirs.partner, theirs.terms) == (ours.opener, ours.partner, ours.terms)
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        twin.file(twin.partner, theirs, *world.filing(ours, world.partner, 9 * EURO), begin=True)
    twin.file(twin.partner, theirs, *twin.filing(theirs, twin.partner, 9 * EURO), begin=True)


def test_a_voucher_is_worthless_in_another_contract(world: World) -> None:
    """Mistake: signed messages without the contract address or the chain id.

    The same channel in a second contract over the same token.
    """
    other = deploy(world.chain, world.stranger, load("Channel"), world.token.address)
    ours = world.open(10 * EURO)
    theirs = ChannelParams(
        Domain(world.chain.chain_id, other.address, world.token.address),
        *(ours.opener, ours.partner, ours.opener_key, ours.partner_key, ours.period, ours.two_way, ours.counter),
    )
    world.token.send(world.opener, "approve", other.address, 10 * EURO)
    other.send(world.opener, "open_from_token_with_keys", *world.opening(theirs, 10 * EURO))
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        other.send(world.partner, "file", abi_params(theirs), *world.filing(ours, world.partner, 9 * EURO), True)
    other.send(world.partner, "file", abi_params(theirs), *world.filing(theirs, world.partner, 9 * EURO), True)


@pytest.mark.parametrize("counter", [7, APART + 7])
def test_a_channel_closed_and_opened_again_at_once_is_another_one(world: World, counter: int) -> None:
    """Mistake: channel key = parties + block number. Chain time stands still; only the counter tells them apart."""
    first, now = world.open(10 * EURO, counter=counter), world.chain.now()
    filing = world.filing(first, world.partner, 9 * EURO)
    world.channel.send(world.stranger, "close_together", world.consent(first, 10 * EURO, 0))
    with pytest.raises(Reverted, match="channel: counter used"):
        world.open(10 * EURO, counter=counter)
    second = world.open(10 * EURO, counter=counter + 1)
    assert second.id != first.id
    assert world.chain.now() == now
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, second, *filing, begin=True)


@pytest.mark.parametrize("locked", [10, 2**96 - 1])
def test_an_old_voucher_with_a_high_locked_amount_takes_nothing_from_the_other_side(world: World, locked: int) -> None:
    """Mistake: arithmetic overflow in settlement, by which an old proof with a high locked amount steals.

    The partner earned 4 and the opener 6. The partner files an old voucher whose locks are worth more than the pot; no
    tick of them was ever revealed.
    """
    before, params = world.balances(), world.open(10, 5)
    old = Voucher(1, 0, locked, LATE, b"\1" * 32)
    signature = compact(world.opener_key.sign(old.digest(params)))
    world.file(world.partner, params, abi_voucher(old), signature, [], begin=True)
    world.file(world.opener, params, *world.filing(params, world.opener, 6))
    _settle(world, params)
    assert world.gains(before) == (max(0, 16 - locked) - 10, -5)  # what the locks claim waits for their expiry
    world.wait(LATE)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (5, -5)  # the opener has all: 10 + 6, clamped to the pot of 15


@pytest.mark.parametrize("form", ["good", "high s", "other v", "zero r", "zero s", "s is the order", "r is the order"])
def test_we_take_exactly_the_signatures_that_the_contract_takes(world: World, form: str) -> None:
    """Mistake: the client accepted signature forms that the contract rejects. Each form, put to both."""
    params, voucher = world.open(10 * EURO), Voucher.over(1, 5)
    digest = voucher.digest(params)
    signature = world.opener_key.sign(digest)
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64] - 27
    r, s, v = {
        "good": (r, s, v),
        "high s": (r, GROUP_ORDER - s, 1 - v),
        "other v": (r, s, 1 - v),
        "zero r": (0, s, v),
        "zero s": (r, 0, v),
        "s is the order": (r, GROUP_ORDER, v),
        "r is the order": (GROUP_ORDER, s, v),
    }[form]
    ours = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((27 + v,))
    theirs = (r, s | v << 255)
    if form == "good":
        check_signed(digest, ours, params.opener_key, "the voucher")
        world.file(world.partner, params, abi_voucher(voucher), theirs, [], begin=True)
        return
    with pytest.raises(BadSignature):
        check_signed(digest, ours, params.opener_key, "the voucher")
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, params, abi_voucher(voucher), theirs, [], begin=True)


def _opened_by(world: World, way: str) -> ChannelParams:
    """A channel of 10 euros, opened in one of the ways in, whose parameters nobody keeps."""
    apart = APART + 3
    if way == "open":
        params = world.params(**world.plain)
        world.channel.send(world.opener, way, *abi_place(params, 10 * EURO))
    elif way == "open_from_token":
        params = world.params(counter=apart, **world.plain)
        world.channel.send(world.opener, way, *abi_place(params, 10 * EURO))
    elif way == "open_with_authorization":
        params = world.params(counter=apart)
        world.send(world.stranger, way, params, *world.authorization(params, 10 * EURO))
    else:
        params = world.params()
        world.open_by(world.opener, way, params, 10 * EURO)
    return params


def _found_on_chain(world: World) -> ChannelParams:
    """The parameters of the channel that the newest block opened, from its events and its calldata alone."""
    assert isinstance(world.chain, Chain)
    newest = world.chain.next_header().block_number - 1
    transaction, receipt = (
        json.loads(one[0])
        for one in (
            world.chain.store.transactions(newest),
            world.chain.store.receipts(newest),
        )
    )
    domain = Domain(world.chain.chain_id, world.channel.address, world.token.address)
    ours = "0x" + world.channel.address.hex()
    opened = [log for log in receipt["logs"] if len(log["topics"]) == 4 and log["address"] == ours]
    if opened:
        opener, partner = (Address(bytes.fromhex(topic[-40:])) for topic in opened[0]["topics"][2:])
        data = bytes.fromhex(opened[0]["data"][2:])
        one, other, terms = decode(["address", "address", "uint256"], data)
        opener_key, partner_key = (Address(bytes.fromhex(key[2:])) for key in (one, other))
    else:  # the two cheap openings: the accounts are the keys, and the calldata has the rest
        place, terms = decode(["uint256", "uint256"], bytes.fromhex(transaction["input"][10:]))
        opener = opener_key = Address(bytes.fromhex(transaction["from"][2:]))
        partner = partner_key = Address((place & (2**160 - 1)).to_bytes(20, "big"))
    return ChannelParams(
        domain,
        *(opener, partner, opener_key, partner_key),
        period=terms >> 65,
        two_way=bool(terms >> 64 & 1),
        counter=terms & (2**64 - 1),
    )


@pytest.mark.parametrize(
    "way",
    ["open", "open_from_token", "open_with_keys", "open_from_token_with_keys", "open_with_authorization"],
)
def test_both_sides_may_lose_their_records_and_still_get_out(world: World, way: str) -> None:
    """Mistake: only hashes on chain and no backup. What opened the channel tells all that ends it."""
    before, lost = world.balances(), _opened_by(world, way)
    found = _found_on_chain(world)
    assert found == lost
    world.send(world.opener, "close", found)
    _settle(world, found)
    assert world.state(found)[0] == SETTLED
    from_wallet = way not in ("open", "open_with_keys")
    assert world.gains(before) == (10 * EURO if from_wallet else 0, 0)


@pytest.mark.parametrize("fee", [-1, -5 * EURO])
def test_no_fee_is_negative(world: World, fee: int) -> None:
    """Mistake: fees that can go negative allow draining. In two's complement a negative fee is more than anybody has.

    The core has no form for one; what is signed here is made by hand.
    """
    params = world.params()
    with pytest.raises(OverflowError):
        SignedOpening(5 * EURO, fee, FOREVER).digest(params)
    for bits in (96, 160):
        sums = 5 * EURO | (fee % 2**bits) << 96
        balances = world.balances(), world.balance(world.stranger)
        kind = keccak(b"Open(bytes32 channel,uint96 deposit,uint96 fee,uint64 expiry)")
        words = (5 * EURO, sums >> 96, FOREVER)
        digest = params.digest(keccak(kind + params.id + b"".join(word.to_bytes(32, "big") for word in words)))
        r, s = compact(world.opener.sign(digest))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        with pytest.raises(Reverted, match="channel: balance too low"):
            world.send(world.stranger, "open_signed", params, sums, FOREVER, signature)
        assert (world.balances(), world.balance(world.stranger)) == balances


def test_a_voucher_keeps_its_value_while_its_payee_is_away(world: World) -> None:
    """Mistake: unclaimed vouchers reserve nothing while the seller is down.

    The opener tries every way to its deposit; a payee that is back within the challenge period has all it is owed.
    """
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    filing = world.filing(params, world.partner, 7 * EURO)
    away = list(world.consent(params, 10 * EURO, 0, kind=Withdrawal))
    away[3] = NO_SIGNATURE
    with pytest.raises(Reverted, match="channel: partner has not signed"):
        world.channel.send(world.opener, "withdraw_together", tuple(away))
    with pytest.raises(Reverted, match="channel: partner has not signed"):
        world.channel.send(world.opener, "close_together", (*world.consent(params, 10 * EURO, 0)[:3], NO_SIGNATURE))
    world.send(world.opener, "close", params)
    world.wait(PERIOD - 1)
    with pytest.raises(Reverted, match="channel: challenge not over"):
        world.send(world.opener, "settle", params)
    world.file(world.partner, params, *filing)
    world.wait(1)
    world.send(world.opener, "settle", params)
    assert world.gains(before) == (-7 * EURO, 7 * EURO)
