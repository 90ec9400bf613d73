"""Ending a channel alone: the challenge, filings, netting."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Voucher, compact
from penstock.core.identity import GROUP_ORDER
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, PERIOD, START, World, abi_voucher

OPEN, CLOSING, SETTLED = 1, 2, 3
ODD = 1 << 255  # the recovery bit


def _settle(world: World, params: ChannelParams) -> None:
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)


def test_either_side_gets_out_alone_without_any_voucher(world: World) -> None:
    for closer in (world.opener, world.partner):
        before, params = world.balances(), world.open(10 * EURO, 5 * EURO)
        receipt = world.send(closer, "close", params)
        assert world.channel.events(receipt, "Closing")[0]["closes_at"] == world.chain.now() + PERIOD
        assert world.state(params) == (CLOSING, 10 * EURO, 5 * EURO, world.chain.now() + PERIOD)
        _settle(world, params)
        assert world.gains(before) == (0, 0)
        assert world.state(params) == (SETTLED, 0, 0, 0)


def test_a_stale_close_is_answered(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO)
    world.send(world.opener, "close", params)
    receipt = world.file(world.partner, params, *world.filing(params, world.partner, 7 * EURO, nonce=3))
    event = world.channel.events(receipt, "Filed")[0]
    assert event["filing"] == 7 * EURO | 3 << 96 | 1 << 160 | (world.chain.now() + PERIOD) << 161
    _settle(world, params)
    assert world.gains(before) == (-7 * EURO, 7 * EURO)


def test_a_stranger_neither_closes_nor_files_nor_finishes(world: World) -> None:
    """Mistake: a stranger settles an open channel without signatures."""
    for deposit in (0, 5 * EURO):
        params = world.open(deposit)
        filing = world.filing(params, world.partner, 0)
        for name, *args in (("close",), ("file", *filing, True)):
            with pytest.raises(Reverted, match="channel: not a party"):
                world.send(world.stranger, str(name), params, *args)
        with pytest.raises(Reverted, match="channel: not closing"):
            world.send(world.stranger, "settle", params)
        world.send(world.partner, "close", params)
        with pytest.raises(Reverted, match="channel: not a party"):
            world.file(world.stranger, params, *filing)
        with pytest.raises(Reverted, match="channel: not the partner"):
            world.send(world.stranger, "finish", params, *filing)
        with pytest.raises(Reverted, match="channel: nothing filed"):
            world.send(world.stranger, "prove", params, True, [])


def test_no_challenge_begins_twice(world: World) -> None:
    params = world.open(5)
    world.send(world.opener, "close", params)
    for closer in (world.opener, world.partner):
        with pytest.raises(Reverted, match="channel: closing"):
            world.send(closer, "close", params)


def test_an_absent_channel_can_do_nothing(world: World) -> None:
    params = world.params()
    filing = world.filing(params, world.partner, 0)
    for name, *args in (("close",), ("file", *filing, True), ("file", *filing, False), ("finish", *filing)):
        with pytest.raises(Reverted, match="channel: no such channel"):
            world.send(world.partner, str(name), params, *args)


def test_settling_waits_for_the_last_second_of_the_challenge(world: World) -> None:
    params = world.open(5)
    world.send(world.opener, "close", params)
    world.wait(PERIOD - 1)
    with pytest.raises(Reverted, match="channel: challenge not over"):
        world.send(world.opener, "settle", params)
    world.file(world.partner, params, *world.filing(params, world.partner, 1))
    world.wait(1)
    world.send(world.opener, "settle", params)


def test_nothing_is_filed_after_the_challenge(world: World) -> None:
    """Mistake: the watcher's transaction mined too late.

    A watcher's late transaction once still changed a settled outcome elsewhere.
    """
    params = world.open(5, two_way=False)
    world.send(world.opener, "close", params)
    world.wait(PERIOD)
    filing = world.filing(params, world.partner, 1)
    for name, *args in (("file", *filing, False), ("finish", *filing)):
        with pytest.raises(Reverted, match="channel: challenge over"):
            world.send(world.partner, str(name), params, *args)


def test_nothing_is_filed_before_a_close(world: World) -> None:
    params = world.open(5)
    with pytest.raises(Reverted, match="channel: not closing"):
        world.file(world.partner, params, *world.filing(params, world.partner, 1))


@pytest.mark.parametrize(
    ("deposits", "to_opener", "to_partner", "final"),
    [
        ((10, 5), 0, 4, (6, 9)),
        ((10, 5), 4, 0, (14, 1)),
        ((10, 5), 7, 12, (5, 10)),  # 12 is above the opener's deposit: earned back from the other direction
        ((10, 0), 100, 104, (6, 4)),  # netted first: gross sums far above the pot are fine
        ((10, 5), 0, 99, (0, 15)),  # clamped to the pot
        ((10, 5), 99, 0, (15, 0)),
        ((0, 0), 0, 0, (0, 0)),
        ((3, 4), 2**96 - 1, 2**96 - 1, (3, 4)),
        ((3, 4), 0, 2**96 - 1, (0, 7)),
    ],
)
def test_rule_1_netted_first_and_clamped_once(
    world: World, deposits: tuple[int, int], to_opener: int, to_partner: int, final: tuple[int, int]
) -> None:
    """Rule 1: balances are netted first and clamped once, open locks taken at their worst."""
    before, params = world.balances(), world.open(*deposits)
    world.file(world.opener, params, *world.filing(params, world.opener, to_opener), begin=True)
    world.file(world.partner, params, *world.filing(params, world.partner, to_partner))
    _settle(world, params)
    assert world.gains(before) == (final[0] - deposits[0], final[1] - deposits[1])


def test_rule_2_a_later_filing_replaces_and_never_adds(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO)
    world.file(world.partner, params, *world.filing(params, world.partner, 3 * EURO, nonce=1), begin=True)
    world.file(world.partner, params, *world.filing(params, world.partner, 4 * EURO, nonce=2))
    assert world.filed(params, world.partner)[0] == 4 * EURO
    _settle(world, params)
    assert world.gains(before) == (-4 * EURO, 4 * EURO)


def test_rule_3_the_payees_order_decides(world: World) -> None:
    """Not the nonce and not the size: the payee may go back to an older or smaller voucher, the payer may file none."""
    before, params = world.balances(), world.open(10 * EURO)
    world.file(world.partner, params, *world.filing(params, world.partner, 9 * EURO, nonce=9), begin=True)
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.opener, params, *world.filing(params, world.partner, 1 * EURO, nonce=10))
    world.file(world.partner, params, *world.filing(params, world.partner, 2 * EURO, nonce=1))
    _settle(world, params)
    assert world.gains(before) == (-2 * EURO, 2 * EURO)


def test_a_payer_cannot_file_its_own_promise_as_its_income(world: World) -> None:
    params = world.open(10 * EURO, 10 * EURO)
    world.send(world.opener, "close", params)
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, params, *world.filing(params, world.opener, EURO))


def test_the_opener_of_a_one_way_channel_files_nothing(world: World) -> None:
    params = world.open(10 * EURO, two_way=False)
    with pytest.raises(Reverted, match="channel: one-way"):
        world.file(world.opener, params, *world.filing(params, world.opener, 1), begin=True)
    world.send(world.opener, "close", params)
    with pytest.raises(Reverted, match="channel: one-way"):
        world.file(world.opener, params, *world.filing(params, world.opener, 1))


def test_a_voucher_of_another_channel_is_refused(world: World) -> None:
    first, second = world.open(10 * EURO), world.open(10 * EURO)
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, second, *world.filing(first, world.partner, 5 * EURO), begin=True)


def test_an_old_voucher_is_worthless_in_the_next_channel_of_the_same_pair(world: World) -> None:
    """Mistake: old balance proofs valid on a reopened channel."""
    old = world.open(10 * EURO)
    filing = world.filing(old, world.partner, 9 * EURO)
    world.channel.send(world.opener, "close_together", world.consent(old, 10 * EURO, 0))
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, world.open(10 * EURO), *filing, begin=True)


def test_every_field_of_a_voucher_is_signed(world: World) -> None:
    params = world.open(10 * EURO)
    voucher, signature, claims = world.filing(params, world.partner, 5)
    for place, value in enumerate((2, 6, 1, 1, b"\1" * 32)):
        changed = (*voucher[:place], value, *voucher[place + 1 :])
        with pytest.raises(Reverted, match="channel: payer has not signed"):
            world.file(world.partner, params, changed, signature, claims, begin=True)


def test_only_the_one_form_of_a_vouchers_signature_is_taken(world: World) -> None:
    params = world.open(10 * EURO)
    voucher, (r, vs), claims = world.filing(params, world.partner, 5)
    odd, s = vs & ODD, vs & ~ODD
    for bad in ((r, (ODD ^ odd) | (GROUP_ORDER - s)), (r, vs ^ ODD), (0, vs), (r, odd), (r, GROUP_ORDER)):
        with pytest.raises(Reverted, match="channel: payer has not signed"):
            world.file(world.partner, params, voucher, bad, claims, begin=True)


def test_rule_4_the_account_does_not_sign_vouchers(world: World) -> None:
    """Rule 4: vouchers are signed by the plain keys that were fixed at opening."""
    params = world.open(10 * EURO)
    voucher = Voucher.over(1, 5)
    by_account = compact(world.opener.sign(voucher.digest(params)))
    with pytest.raises(Reverted, match="channel: payer has not signed"):
        world.file(world.partner, params, abi_voucher(voucher), by_account, [], begin=True)


def test_a_voucher_that_no_sum_could_hold_is_refused(world: World) -> None:
    params = world.open(10)
    voucher = Voucher(1, 2**96 - 1, 1, 0, b"\1" * 32)
    signature = compact(world.opener_key.sign(voucher.digest(params)))
    with pytest.raises(Reverted, match="channel: voucher too large"):
        world.file(world.partner, params, abi_voucher(voucher), signature, [], begin=True)


def test_a_voucher_that_locks_for_more_than_a_year_is_refused(world: World) -> None:
    """Rule 12: what is secured is final, was seen lately, and is bounded in ticks, depth and time."""
    params = world.open(10)
    world.send(world.partner, "close", params)
    for until, fits in ((START + 365 * 86_400 + 1, False), (2**64 - 1, False), (START + 365 * 86_400, True)):
        voucher = Voucher(1, 1, 1, until, b"\1" * 32)
        arguments: tuple[Any, ...] = (abi_voucher(voucher), compact(world.opener_key.sign(voucher.digest(params))), [])
        if fits:
            world.file(world.partner, params, *arguments)
        else:
            with pytest.raises(Reverted, match="channel: locked for too long"):
                world.file(world.partner, params, *arguments)


def test_the_payee_of_a_one_way_channel_finishes_it_at_once(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    world.send(world.partner, "finish", params, *world.filing(params, world.partner, 7 * EURO))
    assert world.gains(before) == (-7 * EURO, 7 * EURO)
    assert world.state(params) == (SETTLED, 0, 0, 0)


def test_finishing_pays_no_more_than_the_deposit(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    world.send(world.partner, "finish", params, *world.filing(params, world.partner, 11 * EURO))
    assert world.gains(before) == (-10 * EURO, 10 * EURO)


def test_finishing_answers_a_close_and_replaces_what_was_filed(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=False)
    world.send(world.opener, "close", params)
    world.file(world.partner, params, *world.filing(params, world.partner, 2 * EURO))
    world.send(world.partner, "finish", params, *world.filing(params, world.partner, 5 * EURO, nonce=2))
    assert world.gains(before) == (-5 * EURO, 5 * EURO)
    assert world.filed(params, world.partner) == (0, 0, 0, bytes(32))


def test_rule_5_a_two_way_channel_is_never_finished_by_one_side(world: World) -> None:
    """Rule 5: claims without an end pay out in one-way channels alone."""
    params = world.open(10 * EURO)
    with pytest.raises(Reverted, match="channel: two-way"):
        world.send(world.partner, "finish", params, *world.filing(params, world.partner, EURO))


def test_the_opener_does_not_finish(world: World) -> None:
    params = world.open(10 * EURO, two_way=False)
    with pytest.raises(Reverted, match="channel: not the partner"):
        world.send(world.opener, "finish", params, *world.filing(params, world.partner, EURO))
