"""Claims from open channels, alone and in a batch, and withdrawals that both sides signed."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from penstock.core.channel import ChannelParams, Close, Voucher, Withdrawal, compact
from penstock.core.identity import Digest, keccak
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, NO_SIGNATURE, START, Chainlet, World, abi_params, abi_voucher

OPEN, CLOSING, SETTLED = 1, 2, 3
FOREVER = START + 10**6


def _claim(world: World, params: ChannelParams, amount: int, nonce: int = 1) -> tuple[Any, ...]:
    return world.filing(params, world.partner, amount, nonce=nonce)[:2]


def test_the_payee_is_paid_and_the_channel_stays_open(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    world.send(world.partner, "claim", params, *_claim(world, params, 3 * EURO))
    assert world.gains(before) == (-10 * EURO, 3 * EURO)
    assert (world.state(params), world.drawn(params)) == ((OPEN, 10 * EURO, 0, 0), (0, 3 * EURO))
    world.send(world.partner, "claim", params, *_claim(world, params, 7 * EURO, 2))
    assert world.gains(before) == (-10 * EURO, 7 * EURO)
    world.send(world.opener, "add", params, EURO)
    world.channel.send(world.stranger, "close_together", world.consent(params, 3 * EURO, 8 * EURO))
    assert world.gains(before) == (-8 * EURO, 8 * EURO)


def test_a_claim_is_cumulative_and_works_once(world: World) -> None:
    params = world.open(10 * EURO, two_way=False)
    world.send(world.partner, "claim", params, *_claim(world, params, 3 * EURO))
    for amount in (0, 2 * EURO, 3 * EURO):
        with pytest.raises(Reverted, match="channel: nothing more to claim"):
            world.send(world.partner, "claim", params, *_claim(world, params, amount))


def test_a_claim_takes_no_more_than_the_deposit_and_what_is_added_later_is_claimable(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    claim = _claim(world, params, 12 * EURO)
    world.send(world.partner, "claim", params, *claim)
    assert world.gains(before) == (-10 * EURO, 10 * EURO)
    world.send(world.opener, "add", params, EURO)
    world.send(world.partner, "claim", params, *claim)
    assert world.gains(before) == (-11 * EURO, 11 * EURO)


def test_a_claim_pays_no_ticks(world: World) -> None:
    before, chain, params = world.balances(), Chainlet(10, 100), world.open(10 * EURO, two_way=False)
    world.send(world.partner, "claim", params, *world.filing(params, world.partner, 5, [chain.lock])[:2])
    assert world.gains(before) == (-10 * EURO, 5)


def test_rule_5_only_the_partner_of_a_one_way_channel_claims(world: World) -> None:
    """Rule 5: claims without an end pay out in one-way channels alone."""
    one, two = world.open(EURO, two_way=False), world.open(EURO, EURO)
    for sender in (world.opener, world.stranger):
        with pytest.raises(Reverted, match="channel: not the partner"):
            world.send(sender, "claim", one, *_claim(world, one, 5))
    with pytest.raises(Reverted, match="channel: two-way"):
        world.send(world.partner, "claim", two, *_claim(world, two, 5))
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.send(world.partner, "claim", one, *_claim(world, world.open(EURO, two_way=False), 5))


def test_nothing_is_claimed_once_the_channel_closes(world: World) -> None:
    params = world.open(EURO, two_way=False)
    with pytest.raises(Reverted, match="channel: no such channel"):
        world.send(world.partner, "claim", world.params(), *_claim(world, params, 5))
    world.send(world.opener, "close", params)
    with pytest.raises(Reverted, match="channel: closing"):
        world.send(world.partner, "claim", params, *_claim(world, params, 5))


@pytest.mark.parametrize("filed", [None, 0, 2, 5, 99])
def test_closing_with_less_than_was_claimed_strands_nothing(world: World, filed: int | None) -> None:
    """Mistake: closing with less than was already withdrawn.

    A settlement once reverted for ever where the last balance was below what had been withdrawn.
    """
    before, params = world.balances(), world.open(10, two_way=False)
    world.send(world.partner, "claim", params, *_claim(world, params, 4))
    world.send(world.opener, "close", params)
    if filed is not None:
        world.file(world.partner, params, *world.filing(params, world.partner, filed))
    world.wait(params.period)
    world.send(world.stranger, "settle", params)
    paid = min(max(4, filed or 0), 10)
    assert world.gains(before) == (-paid, paid)
    assert world.state(params)[0] == SETTLED


@pytest.mark.parametrize("amount", [0, 4, 6, 99])
def test_finishing_counts_what_was_claimed(world: World, amount: int) -> None:
    for closing in (False, True):
        before, params = world.balances(), world.open(10, two_way=False)
        world.send(world.partner, "claim", params, *_claim(world, params, 4))
        if closing:
            world.send(world.opener, "close", params)
        world.send(world.partner, "finish", params, *world.filing(params, world.partner, amount))
        paid = min(max(4, amount), 10)
        assert world.gains(before) == (-paid, paid)


def test_a_close_that_forgets_a_claim_is_refused(world: World) -> None:
    params = world.open(10, two_way=False, **world.plain)
    world.send(world.partner, "claim", params, *_claim(world, params, 4))
    with pytest.raises(Reverted, match="channel: more was drawn"):
        world.channel.send(world.stranger, "close_together", world.consent(params, 7, 3))
    rows = world.rows([(params, Close(7, 3, FOREVER))])
    receipt = world.channel.send(world.partner, "close_mine", 0, rows)
    assert [event["reason"] for event in world.channel.events(receipt, "Skipped")] == ["more was drawn"]


def test_a_batch_of_claims_skips_bad_rows(world: World) -> None:
    """Mistake: one unconfirmed deposit blocked a whole batch of claims."""
    before = world.balance(world.partner)
    plain = {"two_way": False, **world.plain}
    first, second, spent, closing = (world.open(10 * EURO, **plain) for _ in range(4))
    two_way, foreign, absent = world.open(EURO, **world.plain), world.open(EURO, **plain), world.params(**world.plain)
    world.send(world.opener, "close", closing)
    world.send(world.partner, "claim", spent, *_claim(world, spent, 5))
    signed: list[tuple[tuple[ChannelParams, Voucher], str]] = [
        ((first, Voucher.over(1, EURO)), ""),
        ((spent, Voucher.over(1, 5)), "nothing more to claim"),
        ((closing, Voucher.over(1, 5)), "closing"),
        ((two_way, Voucher.over(1, 5)), "two-way"),
        ((absent, Voucher.over(1, 5)), "no such channel"),
        ((foreign, Voucher.over(1, 5)), "payer has not signed"),
        ((second, Voucher.over(1, 11 * EURO)), ""),  # more than the deposit: all of it
        ((first, Voucher.over(2, 2 * EURO)), ""),
    ]
    rows = world.rows([(params, voucher) for (params, voucher), _ in signed])
    rows[5][2] ^= 1
    receipt = world.channel.send(world.partner, "claim_many", 0, rows)
    skipped = {event["channel"]: event["reason"] for event in world.channel.events(receipt, "Skipped")}
    assert skipped == {params.id: reason for (params, _), reason in signed if reason}
    assert world.balance(world.partner) == before + 5 + 12 * EURO
    assert [world.drawn(params)[1] for params in (first, second, spent)] == [2 * EURO, 10 * EURO, 5]


def test_a_batch_needs_the_callers_own_voucher_key(world: World) -> None:
    keys = {"opener_key": world.opener.address, "partner_key": world.partner_key.address}
    params = world.open(10 * EURO, two_way=False, **keys)
    rows = world.rows([(params, Voucher.over(1, EURO))])
    missed = world.channel.send(world.partner, "claim_many", 0, rows)
    assert len(world.channel.events(missed, "Skipped")) == 1
    stolen = world.channel.send(world.stranger, "claim_many", int.from_bytes(params.partner_key, "big"), rows)
    assert len(world.channel.events(stolen, "Skipped")) == 1
    assert world.drawn(params) == (0, 0)
    world.channel.send(world.partner, "claim_many", int.from_bytes(params.partner_key, "big"), rows)
    assert world.drawn(params) == (0, EURO)


def test_a_batch_of_closes_by_the_partner_skips_bad_rows(world: World) -> None:
    """Mistake: one unconfirmed deposit blocked a whole batch of claims."""
    before = world.balances()
    good, two_way = world.open(10 * EURO, two_way=False, **world.plain), world.open(EURO, EURO, **world.plain)
    claimed = world.open(10 * EURO, two_way=False, **world.plain)
    world.send(world.partner, "claim", claimed, *_claim(world, claimed, EURO))
    late, uneven, forged = (world.open(EURO, **world.plain) for _ in range(3))
    signed: list[tuple[ChannelParams, Close | Voucher]] = [
        (good, Close(4 * EURO, 6 * EURO, FOREVER)),
        (late, Close(0, EURO, START - 1)),
        (uneven, Close(0, EURO + 1, FOREVER)),
        (two_way, Close(2 * EURO, 0, FOREVER)),
        (forged, Close(0, EURO, FOREVER)),
        (claimed, Close(7 * EURO, 3 * EURO, FOREVER)),
        (good, Close(4 * EURO, 6 * EURO, FOREVER)),
    ]
    rows = world.rows(signed)
    rows[4][3] ^= 1 << 255
    receipt = world.channel.send(world.partner, "close_mine", 0, rows)
    skipped = [(event["channel"], event["reason"]) for event in world.channel.events(receipt, "Skipped")]
    assert skipped == [
        (late.id, "close expired"),
        (uneven.id, "balances are not the pot"),
        (forged.id, "opener has not signed"),
        (good.id, "no such channel"),
    ]
    assert [world.state(params)[0] for params, _ in signed] == [SETTLED, OPEN, OPEN, SETTLED, OPEN, SETTLED, SETTLED]
    assert world.gains(before) == (-9 * EURO + EURO - 3 * EURO, 9 * EURO - EURO)


def test_a_batch_of_closes_refuses_what_a_single_close_refuses(world: World) -> None:
    """Each row passes but for one thing that the plain case must notice."""
    kind = keccak(b"Close(bytes32 channel,uint96 openerBalance,uint96 partnerBalance,uint64 expiry)")
    overdrawn, drawn = (world.open(10, two_way=False, **world.plain) for _ in range(2))
    funded = world.open(10, 5, **world.plain)
    world.channel.send(world.stranger, "withdraw_together", world.consent(drawn, 4, 0, kind=Withdrawal))
    rows = world.rows([(params, Close(4, 6, FOREVER)) for params in (overdrawn, funded)])
    rows += world.rows([(drawn, Close(3, 7, FOREVER))])
    # 11 of 10 for the partner: the opener signed that it owes one.
    rows[0][0] += 5 << 160
    body = encode(["bytes32", "bytes32", "int256", "uint256", "uint256"], [kind, overdrawn.id, -1, 11, FOREVER])
    digest = Digest(keccak(b"\x19\x01" + world.channel.call("domain_separator") + keccak(body)))
    rows[0][2:] = compact(world.opener.sign(digest))
    receipt = world.channel.send(world.partner, "close_mine", 0, rows)
    skipped = {event["channel"]: event["reason"] for event in world.channel.events(receipt, "Skipped")}
    assert skipped == {
        overdrawn.id: "balances are not the pot",
        funded.id: "opener has not signed",
        drawn.id: "more was drawn",
    }


def test_withdrawals_are_totals_and_work_in_open_channels(world: World) -> None:
    """Mistake: withdrawals replayable."""
    before, params = world.balances(), world.open(10, 5)
    consent = world.consent(params, 2, 6, kind=Withdrawal)
    world.channel.send(world.stranger, "withdraw_together", consent)
    assert (world.gains(before), world.drawn(params)) == ((-8, 1), (2, 6))
    world.channel.send(world.stranger, "withdraw_together", consent)
    assert world.gains(before) == (-8, 1)
    world.channel.send(world.stranger, "withdraw_together", world.consent(params, 2, 9, kind=Withdrawal))
    assert world.gains(before) == (-8, 4)
    for split, reason in (
        ((1, 9), "more was drawn"),
        ((3, 8), "more was drawn"),
        ((3, 13), "balances are not the pot"),
    ):
        with pytest.raises(Reverted, match=f"channel: {reason}"):
            world.channel.send(world.stranger, "withdraw_together", world.consent(params, *split, kind=Withdrawal))
    world.channel.send(world.stranger, "close_together", world.consent(params, 4, 11))
    assert world.gains(before) == (-6, 6)


@pytest.mark.parametrize(("to_opener", "to_partner", "final"), [(0, 0, 10), (0, 10, 6), (0, 2, 8), (9, 0, 12)])
def test_what_was_withdrawn_is_kept_in_a_dispute(world: World, to_opener: int, to_partner: int, final: int) -> None:
    """Rule 1. The totals of 6 and 3 out of 10 and 5 are gone; the rest follows the filings."""
    before, params = world.balances(), world.open(10, 5)
    world.channel.send(world.stranger, "withdraw_together", world.consent(params, 6, 3, kind=Withdrawal))
    world.file(world.partner, params, *world.filing(params, world.partner, to_partner), begin=True)
    world.file(world.opener, params, *world.filing(params, world.opener, to_opener))
    world.wait(params.period)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (final - 10, 15 - final - 5)


def test_the_opener_of_a_one_way_channel_withdraws_with_consent_and_claims_go_on(world: World) -> None:
    before, params = world.balances(), world.open(10, two_way=False)
    world.send(world.partner, "claim", params, *_claim(world, params, 2))
    world.channel.send(world.opener, "withdraw_together", world.consent(params, 5, 3, kind=Withdrawal))
    assert (world.gains(before), world.drawn(params)) == ((-5, 3), (5, 3))
    world.send(world.partner, "claim", params, *_claim(world, params, 9))
    assert (world.gains(before), world.drawn(params)) == ((-5, 5), (5, 5))
    world.send(world.opener, "close", params)
    world.wait(params.period)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-5, 5)


def test_rule_6_a_withdrawal_expires_and_needs_both_and_an_open_channel(world: World) -> None:
    """Mistake: withdraw signatures valid for ever."""
    params = world.open(10, 5)
    row = world.consent(params, 1, 0, expiry=START + 5, kind=Withdrawal)
    for place, who in ((2, "opener"), (3, "partner")):
        unsigned = [*row]
        unsigned[place] = NO_SIGNATURE
        with pytest.raises(Reverted, match=f"channel: {who} has not signed"):
            world.channel.send(world.stranger, "withdraw_together", tuple(unsigned))
    with pytest.raises(Reverted, match="channel: opener has not signed"):  # a close is no withdrawal
        world.channel.send(world.stranger, "withdraw_together", world.consent(params, 1, 0))
    with pytest.raises(Reverted, match="channel: opener has not signed"):  # nor the other way round
        world.channel.send(world.stranger, "close_together", world.consent(params, 15, 0, kind=Withdrawal))
    world.wait(6)
    with pytest.raises(Reverted, match="channel: close expired"):
        world.channel.send(world.stranger, "withdraw_together", row)
    world.send(world.opener, "close", params)
    with pytest.raises(Reverted, match="channel: closing"):
        world.channel.send(world.stranger, "withdraw_together", world.consent(params, 1, 0, kind=Withdrawal))


def test_a_voucher_signed_by_the_account_claims_nothing_where_another_key_is_set(world: World) -> None:
    params, voucher = world.open(10, two_way=False), Voucher.over(1, 5)
    by_account = compact(world.opener.sign(voucher.digest(params)))
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.channel.send(world.partner, "claim", abi_params(params), abi_voucher(voucher), by_account)
