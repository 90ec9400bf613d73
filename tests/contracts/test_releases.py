"""Answers that others send for a sleeping party, and releases that void old vouchers."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.channel import Answer, ChannelParams, Release, Voucher, compact
from penstock.core.identity import Key
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, NO_SIGNATURE, PERIOD, START, Chainlet, World, abi_voucher

LATE = START + 10 * PERIOD


def _answer(
    world: World, params: ChannelParams, voucher: Voucher, sequence: int, partner: bool = True, by: Key | None = None
) -> tuple[Any, ...]:
    """What a watcher sends for a payee."""
    consent = Answer(voucher.content(params), sequence).digest(params)
    return (
        partner,
        abi_voucher(voucher),
        compact(world.key_of(params, not partner).sign(voucher.digest(params))),
        sequence,
        compact((by or world.key_of(params, partner)).sign(consent)),
    )


def _release(
    world: World, params: ChannelParams, nonce: int, amount: int, partner: bool = True, answered: bool = False
) -> tuple[Any, ...]:
    """What a payer sends to hold the payee to its release, or somebody else with the payer's answer."""
    release = Release(nonce, amount)
    consent = NO_SIGNATURE
    if answered:
        asked = Answer(release.content(params), 0).digest(params)
        consent = compact(world.key_of(params, not partner).sign(asked))
    signature = compact(world.key_of(params, partner).sign(release.digest(params)))
    return (partner, nonce, amount, signature, consent)


def _settle(world: World, params: ChannelParams) -> None:
    world.wait(world.state(params)[3] - world.chain.now())
    world.send(world.stranger, "settle", params)


@pytest.mark.parametrize("two_way", [False, True])
def test_rule_3_a_watcher_answers_a_stale_close_with_the_sleepers_consent(world: World, two_way: bool) -> None:
    before, params = world.balances(), world.open(10 * EURO, two_way=two_way)
    world.send(world.opener, "close", params)
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(4, 7 * EURO), 0))
    _settle(world, params)
    assert world.gains(before) == (-7 * EURO, 7 * EURO)


def test_an_answer_is_given_for_the_opener_too(world: World) -> None:
    before, params = world.balances(), world.open(10, 10)
    world.send(world.partner, "close", params)
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, 4), 0, partner=False))
    _settle(world, params)
    assert world.gains(before) == (4, -4)


def test_rule_3_the_payees_order_decides_among_answers(world: World) -> None:
    """Rule 3: only the payee, or somebody with its signed answer, files its vouchers; its order decides."""
    params = world.open(10 * EURO)
    world.send(world.opener, "close", params)
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(9, 9 * EURO), 3))
    for sequence in (0, 2, 3):
        with pytest.raises(Reverted, match="channel: a later answer was taken"):
            world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, EURO), sequence))
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, EURO), 4))
    assert world.filed(params, world.partner)[0] == EURO


def test_rule_3_no_answer_replaces_what_the_payee_filed_itself(world: World) -> None:
    """Rule 3: only the payee, or somebody with its signed answer, files its vouchers; its order decides."""
    params = world.open(10 * EURO)
    world.send(world.opener, "close", params)
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, EURO), 0))
    world.file(world.partner, params, *world.filing(params, world.partner, 8 * EURO))
    with pytest.raises(Reverted, match="channel: the payee has filed itself"):
        world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(2, 2 * EURO), 9))
    assert world.filed(params, world.partner)[0] == 8 * EURO


def test_rule_3_a_payer_cannot_answer_for_the_payee(world: World) -> None:
    """Rule 3: only the payee, or somebody with its signed answer, files its vouchers; its order decides."""
    params = world.open(10 * EURO)
    world.send(world.opener, "close", params)
    worse = _answer(world, params, Voucher.over(1, 1), 0, by=world.opener_key)
    other = _answer(world, world.open(1), Voucher.over(1, 1), 0)
    swapped = (*_answer(world, params, Voucher.over(1, 1), 0)[:4], _answer(world, params, Voucher.over(2, 2), 0)[4])
    for forged in (worse, other, swapped):
        with pytest.raises(Reverted, match="channel: no such answer signed"):
            world.send(world.opener, "answer", params, *forged)
    assert world.filed(params, world.partner)[0] == 0


def test_an_answer_is_good_only_within_the_challenge(world: World) -> None:
    params = world.open(10)
    answer = _answer(world, params, Voucher.over(1, 1), 0)
    with pytest.raises(Reverted, match="channel: not closing"):
        world.send(world.stranger, "answer", params, *answer)
    world.send(world.opener, "close", params)
    world.wait(PERIOD)
    with pytest.raises(Reverted, match="channel: challenge over"):
        world.send(world.stranger, "answer", params, *answer)


def test_ticks_follow_an_answer(world: World) -> None:
    before, chain, params = world.balances(), Chainlet(10, 100), world.open(10 * EURO, two_way=False)
    world.send(world.opener, "close", params)
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, 5, [chain.lock]), 0))
    world.send(world.stranger, "prove", params, True, world.claims([chain.lock], [(0, 4, chain.preimage(4))]))
    _settle(world, params)
    assert world.gains(before) == (-405, 405)


@pytest.mark.parametrize("two_way", [False, True])
def test_a_released_voucher_falls_and_its_ticks_with_it(world: World, two_way: bool) -> None:
    """The payee gave up the lock at nonce 2 for an amount of 300; a third party then sells it the preimages."""
    before, hop = world.balances(), Chainlet(10, 100, expiry=LATE)
    params = world.open(10_000, two_way=two_way)
    filing = world.filing(params, world.partner, 0, [hop.lock], [(0, 10, hop.preimage(10))], nonce=1)
    world.file(world.partner, params, *filing, begin=True)
    assert world.filed(params, world.partner)[:2] == (1_000, 0)
    world.send(world.opener, "release", params, *_release(world, params, 2, 300))
    assert world.filed(params, world.partner) == (300, 0, 0, bytes(32))
    with pytest.raises(Reverted, match="channel: voucher was released"):
        world.file(world.partner, params, *filing)
    with pytest.raises(Reverted, match="channel: lock not in the voucher"):
        world.send(world.partner, "prove", params, True, filing[2])
    _settle(world, params)
    assert world.gains(before) == (-300, 300)


def test_rule_9_a_release_restarts_the_challenge_once_so_that_the_payee_can_file_what_is_newer(world: World) -> None:
    """Rule 9: a release leaves each side its time to answer."""
    before, hop = world.balances(), Chainlet(10, 100, expiry=LATE)
    params = world.open(10_000)
    world.file(world.partner, params, *world.filing(params, world.partner, 0, [hop.lock], nonce=1), begin=True)
    world.wait(PERIOD - 1)
    world.send(world.opener, "release", params, *_release(world, params, 2, 300))
    assert world.state(params)[3] == world.chain.now() + PERIOD
    world.wait(PERIOD - 1)
    fresh = Chainlet(10, 50, expiry=LATE, seed=b"fresh")
    world.file(world.partner, params, *world.filing(params, world.partner, 400, [fresh.lock], nonce=2))
    deadline = world.state(params)[3]
    world.wait(1)
    world.send(world.opener, "release", params, *_release(world, params, 3, 450))
    assert world.state(params)[3] == deadline
    assert world.filed(params, world.partner)[0] == 450
    _settle(world, params)
    assert world.gains(before) == (-450, 450)


def test_rule_9_locks_filed_late_leave_the_payer_time_for_its_release(world: World) -> None:
    """Rule 9: a release leaves each side its time to answer."""
    before, hop = world.balances(), Chainlet(10, 100, expiry=LATE)
    params = world.open(10_000)
    world.send(world.opener, "close", params)
    world.wait(PERIOD - 1)
    filing = world.filing(params, world.partner, 0, [hop.lock], nonce=1)
    world.file(world.partner, params, *filing)
    assert world.state(params)[3] == world.chain.now() + PERIOD
    world.wait(PERIOD - 1)
    with pytest.raises(Reverted, match="channel: too late for locks"):
        world.file(world.partner, params, *filing)
    world.send(world.opener, "release", params, *_release(world, params, 2, 300))
    _settle(world, params)
    assert world.gains(before) == (-300, 300)


@pytest.mark.parametrize("by", ["watcher", "payee"])
def test_rule_3_an_old_answer_that_comes_late_leaves_the_payee_time_for_its_newest(world: World, by: str) -> None:
    """Rule 3: the payer sends what an earlier watcher had been given; the payee's order decides, not the payer's."""
    before, params = world.balances(), world.open(100 * EURO)
    old, new = Chainlet(10, EURO, seed=b"old"), Chainlet(10, EURO, seed=b"new")
    stale = _answer(world, params, Voucher.over(5, 10 * EURO, [old.lock]), 5)
    world.send(world.opener, "close", params)
    world.wait(PERIOD // 2 + 1)
    world.send(world.opener, "answer", params, *stale)
    if by == "watcher":
        world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(6, 80 * EURO, [new.lock]), 6))
    else:
        world.file(world.partner, params, *world.filing(params, world.partner, 80 * EURO, [new.lock], nonce=6))
    _settle(world, params)
    assert world.gains(before)[1] == 80 * EURO


def test_rule_9_an_old_release_does_not_cost_the_payer_its_time_for_the_newest(world: World) -> None:
    """Rule 9: somebody who has an old release of the payee's sends it to help the payee."""
    params = world.open(100 * EURO)
    one, five = (Chainlet(10, EURO, expiry=LATE, seed=seed) for seed in (b"1", b"5"))
    world.send(world.opener, "close", params)
    world.wait(PERIOD - 1)
    world.file(world.partner, params, *world.filing(params, world.partner, 0, [one.lock], nonce=1))
    world.send(world.stranger, "release", params, *_release(world, params, 3, 0, answered=True))
    world.wait(PERIOD - 1)
    with pytest.raises(Reverted, match="channel: too late for locks"):
        world.file(world.partner, params, *world.filing(params, world.partner, 0, [five.lock], nonce=5))


def test_a_filing_without_locks_never_moves_the_deadline(world: World) -> None:
    params = world.open(10_000)
    world.send(world.opener, "close", params)
    deadline = world.state(params)[3]
    world.wait(PERIOD - 1)
    world.file(world.partner, params, *world.filing(params, world.partner, 5))
    assert world.state(params)[3] == deadline


def test_a_release_gives_the_payee_its_amount_at_least(world: World) -> None:
    for filed, final in ((None, 300), (200, 300), (400, 400)):
        before, params = world.balances(), world.open(10_000)
        world.send(world.opener, "close", params)
        if filed is not None:
            world.file(world.partner, params, *world.filing(params, world.partner, filed, nonce=5))
        world.send(world.opener, "release", params, *_release(world, params, 2, 300))
        _settle(world, params)
        assert world.gains(before) == (-final, final)


def test_a_voucher_at_or_above_the_release_stands(world: World) -> None:
    hop, params = Chainlet(10, 100, expiry=LATE), world.open(10_000)
    world.file(world.partner, params, *world.filing(params, world.partner, 400, [hop.lock], nonce=2), begin=True)
    world.send(world.opener, "release", params, *_release(world, params, 2, 300))
    assert world.filed(params, world.partner)[:2] == (400, 1_000)


def test_a_fallen_filing_lets_the_watcher_answer_again(world: World) -> None:
    hop, params = Chainlet(10, 100, expiry=LATE), world.open(10_000)
    world.file(world.partner, params, *world.filing(params, world.partner, 0, [hop.lock], nonce=1), begin=True)
    world.send(world.opener, "release", params, *_release(world, params, 2, 300))
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(2, 350), 0))
    assert world.filed(params, world.partner)[0] == 350


def test_a_partys_answers_about_releases_leave_its_other_answers_alone(world: World) -> None:
    params = world.open(1_000, 1_000)
    world.send(world.opener, "close", params)
    world.send(world.stranger, "release", params, *_release(world, params, 9, 300, answered=True))
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(1, 70), 0, partner=False))
    world.send(world.stranger, "answer", params, *_answer(world, params, Voucher.over(9, 310), 0))
    assert [world.filed(params, side)[0] for side in (world.opener, world.partner)] == [70, 310]


@pytest.mark.parametrize("two_way", [False, True])
def test_a_release_and_locks_together_never_pass_the_slot(world: World, two_way: bool) -> None:
    """Both keys sign nonsense; the channel's word stays whole, and its pot is all that is paid."""
    before, params = world.balances(), world.open(10_000, two_way=two_way)
    hop = Chainlet(3, (2**96 - 1) // 3, expiry=LATE)
    world.file(world.partner, params, *world.filing(params, world.partner, 0, [hop.lock], nonce=5), begin=True)
    world.send(world.opener, "release", params, *_release(world, params, 5, 2**96 - 1))
    state = world.state(params)
    world.send(world.partner, "prove", params, True, world.claims([hop.lock], [(0, 3, hop.preimage(3))]))
    assert world.state(params) == state
    _settle(world, params)
    assert world.gains(before) == (-10_000, 10_000)


def test_only_the_payer_or_its_answer_files_a_release(world: World) -> None:
    """The payee alone could sign itself any amount."""
    params = world.open(10_000)
    world.send(world.opener, "close", params)
    for sender in (world.partner, world.stranger):
        with pytest.raises(Reverted, match="channel: no such answer signed"):
            world.send(sender, "release", params, *_release(world, params, 2, 10_000))
    world.send(world.stranger, "release", params, *_release(world, params, 2, 300, answered=True))
    assert world.filed(params, world.partner)[0] == 300
    with pytest.raises(Reverted, match="channel: released further"):
        world.send(world.opener, "release", params, *_release(world, params, 2, 200))
    unsigned = [*_release(world, params, 3, 200)]
    unsigned[3] = _release(world, params, 4, 200)[3]
    with pytest.raises(Reverted, match="channel: payee has not signed"):
        world.send(world.opener, "release", params, *unsigned)


def test_the_opener_of_a_two_way_channel_releases_and_of_a_one_way_channel_cannot(world: World) -> None:
    up, params = Chainlet(10, 100, expiry=LATE), world.open(1_000, 5_000)
    world.file(world.opener, params, *world.filing(params, world.opener, 0, [up.lock]), begin=True)
    world.send(world.partner, "release", params, *_release(world, params, 2, 30, partner=False))
    assert world.filed(params, world.opener)[:2] == (30, 0)
    one = world.open(1_000, two_way=False)
    world.send(world.opener, "close", one)
    with pytest.raises(Reverted, match="channel: one-way"):
        world.send(world.partner, "release", one, *_release(world, one, 2, 30, partner=False))
