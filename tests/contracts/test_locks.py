"""Stream locks: ticks proven by preimages, what open locks hold back, and for how long."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Lock, Voucher, compact
from penstock.core.identity import keccak
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, PERIOD, START, Chainlet, World, abi_voucher

CLOSING, SETTLED = 2, 3
LATE = START + 10 * PERIOD  # a lock's expiry long after the challenge


def _filed(world: World, params: ChannelParams, payee: Any = None) -> tuple[int, int]:
    amount, locked, *_ = world.filed(params, payee or world.partner)
    return amount, locked


def _closed(world: World, amount: int, locks: list[Lock], *claims: tuple[int, int, bytes]) -> ChannelParams:
    """A two-way channel of 10 and 5 euros that the partner closes with a voucher."""
    params = world.open(10 * EURO, 5 * EURO)
    world.file(world.partner, params, *world.filing(params, world.partner, amount, locks, [*claims]), begin=True)
    return params


def test_ticks_are_paid_by_one_preimage(world: World) -> None:
    before, chain = world.balances(), Chainlet(100, 1_000)
    params = _closed(world, EURO, [chain.lock], (0, 37, chain.preimage(37)))
    assert _filed(world, params) == (EURO + 37_000, 63_000)
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-EURO - 37_000, EURO + 37_000)


def test_the_event_of_a_proof_shows_the_preimage(world: World) -> None:
    """Rule 11: a hub lifts preimages from claims made against it."""
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock])
    receipt = world.send(world.partner, "prove", params, True, world.claims([chain.lock], [(0, 5, chain.preimage(5))]))
    event = world.channel.events(receipt, "Proven")[0]
    assert (event["root"], event["count"], event["preimage"]) == (chain.lock.root, 5, chain.preimage(5))


@pytest.mark.parametrize("count", [1, 99, 100])
def test_each_lock_of_a_tree_is_claimed_alone(world: World, count: int) -> None:
    chains = [Chainlet(100, 10 + n, seed=b"%d" % n) for n in range(5)]
    locks = [chain.lock for chain in chains]
    params = _closed(world, 7, locks)
    earned = 7
    for index in (4, 0, 2):
        chain = chains[index]
        world.send(world.partner, "prove", params, True, world.claims(locks, [(index, count, chain.preimage(count))]))
        earned += count * chain.tick_value
        assert _filed(world, params)[0] == earned


def test_a_tree_of_1024_locks_is_claimed_at_both_ends(world: World) -> None:
    chain = Chainlet(3, 1)
    locks = [chain.lock] * 1024
    params = _closed(world, 0, locks, (0, 1, chain.preimage(1)), (1023, 2, chain.preimage(2)))
    assert _filed(world, params) == (3, 3 * 1024 - 3)


def test_a_higher_count_replaces_a_lower_one(world: World) -> None:
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock], (0, 10, chain.preimage(10)))
    for count in (40, 100):
        world.send(
            world.partner, "prove", params, True, world.claims([chain.lock], [(0, count, chain.preimage(count))])
        )
        assert _filed(world, params) == (count * 1_000, (100 - count) * 1_000)


@pytest.mark.parametrize("count", [40, 39, 1])
def test_no_tick_is_paid_twice(world: World, count: int) -> None:
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock], (0, 40, chain.preimage(40)))
    claims = world.claims([chain.lock], [(0, count, chain.preimage(count))])
    with pytest.raises(Reverted, match="channel: ticks already proven"):
        world.send(world.partner, "prove", params, True, claims)
    claims = world.claims([chain.lock], [(0, 50, chain.preimage(50))])
    world.send(world.partner, "prove", params, True, claims * 2)
    assert _filed(world, params) == (50_000, 50_000)


def test_a_proof_that_somebody_was_quicker_with_does_not_spoil_the_others(world: World) -> None:
    """The payer sees the transaction in the pool, and proves one of its locks before it."""
    chains = [Chainlet(10, 1_000, seed=bytes([number])) for number in range(3)]
    locks = [chain.lock for chain in chains]
    params = _closed(world, 0, locks, (0, 1, chains[0].preimage(1)))
    world.send(world.opener, "prove", params, True, world.claims(locks, [(1, 10, chains[1].preimage(10))]))
    proofs = world.claims(locks, [(at, 10, chain.preimage(10)) for at, chain in enumerate(chains)])
    world.send(world.partner, "prove", params, True, proofs)
    assert _filed(world, params) == (30_000, 0)


def test_a_long_proof_is_split_over_transactions(world: World) -> None:
    """Rule 12. A proof goes on from the last one, so that it costs only the ticks between."""
    chain = Chainlet(4_000, 1)
    params = _closed(world, 0, [chain.lock], (0, 3_900, chain.preimage(3_900)))
    claims = world.claims([chain.lock], [(0, 4_000, chain.preimage(4_000))])
    receipt = world.send(world.partner, "prove", params, True, claims)
    assert receipt.gas < 100_000
    assert _filed(world, params) == (4_000, 0)


def test_a_proof_goes_on_from_one_that_was_far_and_begins_again_where_it_was_not(world: World) -> None:
    """Rule 12. Nor does it go on from what was proven under another filing."""
    chain = Chainlet(1_100, 1)
    params = _closed(world, 0, [chain.lock])

    def prove(count: int, preimage: bytes | None = None) -> int:
        claims = world.claims([chain.lock], [(0, count, preimage or chain.preimage(count))])
        return world.send(world.partner, "prove", params, True, claims).gas

    again, apart = 1_000 * 260, 10 * 300  # gas: a walk from the root, and a short one
    prove(1_024)
    assert prove(1_025) > again
    assert prove(1_026) < again
    for wrong in (chain.preimage(1_031), chain.preimage(1_029), bytes(32)):
        with pytest.raises(Reverted, match="channel: bad preimage"):
            prove(1_030, wrong)
    assert abs(prove(1_040) - prove(1_050)) < apart
    assert _filed(world, params) == (1_050, 50)
    world.file(world.partner, params, *world.filing(params, world.partner, 7, [chain.lock], nonce=2))
    assert _filed(world, params) == (7, 1_100)
    assert prove(1_060) > again
    assert _filed(world, params) == (1_067, 40)


def test_locks_whose_ticks_are_kept_in_one_slot_count_apart(world: World) -> None:
    """Sixteen neighbours share one, both sides have their own, and a lock that is given up is so alone."""
    chains = [Chainlet(10, 100 + n, expiry=LATE if n % 2 else 0, seed=b"%d" % n) for n in range(34)]
    locks = [chain.lock for chain in chains]
    params = _closed(world, 0, locks)
    world.file(world.opener, params, *world.filing(params, world.opener, 0, locks))
    done = {True: dict.fromkeys(range(34), 0), False: dict.fromkeys(range(34), 0)}

    def prove(partner: bool, *counts: tuple[int, int]) -> None:
        claims = world.claims(locks, [(at, count, chains[at].preimage(count)) for at, count in counts])
        world.send(world.stranger, "prove", params, partner, claims)
        done[partner].update(counts)
        for payee in (world.opener, world.partner):
            earned = sum(chains[at].tick_value * n for at, n in done[payee is world.partner].items())
            assert _filed(world, params, payee) == (earned, sum(lock.value for lock in locks) - earned)

    prove(True, (15, 3), (16, 10), (0, 10), (14, 1))
    prove(False, (15, 9), (33, 1))
    prove(True, (15, 7), (17, 1), (31, 10), (32, 10))
    world.wait(PERIOD)
    world.send(world.stranger, "prove", params, True, world.claims(locks, [(14, 0, b""), (2, 0, b"")]))
    for spent in (0, 14, 2, 16):
        with pytest.raises(Reverted, match="channel: nothing left in the lock"):
            world.send(world.stranger, "prove", params, True, world.claims(locks, [(spent, 0, b"")]))
    world.send(world.stranger, "prove", params, True, world.claims(locks, [(15, 8, chains[15].preimage(8))]))
    world.send(world.stranger, "prove", params, False, world.claims(locks, [(14, 0, b"")]))


@pytest.mark.parametrize("count", [6, 101])
def test_a_wrong_count_proves_nothing(world: World, count: int) -> None:
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock])
    reason = {6: "bad preimage", 101: "more ticks than locked"}[count]
    preimage = sha256(chain.preimage(5)).digest()
    with pytest.raises(Reverted, match=f"channel: {reason}"):
        world.send(world.partner, "prove", params, True, world.claims([chain.lock], [(0, count, preimage)]))


def test_a_resumed_proof_needs_the_right_preimage(world: World) -> None:
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock], (0, 10, chain.preimage(10)))
    for wrong in (chain.preimage(11), chain.preimage(13), bytes(32)):
        with pytest.raises(Reverted, match="channel: bad preimage"):
            world.send(world.partner, "prove", params, True, world.claims([chain.lock], [(0, 12, wrong)]))


@pytest.mark.parametrize("change", ["index", "root", "tick_value", "ticks", "expiry", "branch", "depth"])
def test_a_lock_is_claimed_exactly_as_it_was_signed(world: World, change: str) -> None:
    chains = [Chainlet(100, 10, expiry=LATE, seed=b"%d" % n) for n in range(3)]
    locks = [chain.lock for chain in chains]
    params = _closed(world, 0, locks)
    head, root, preimage, *branch = world.claims(locks, [(1, 1, chains[1].preimage(1))])
    shift = {"index": 0, "ticks": 16, "depth": 48, "expiry": 56, "tick_value": 120}
    if change == "root":
        root = chains[0].lock.root
    elif change == "branch":
        branch[0] = branch[1]
    elif change == "depth":
        head = (int.from_bytes(head, "big") - (1 << shift[change])).to_bytes(32, "big")
    else:
        head = (int.from_bytes(head, "big") + (1 << shift[change])).to_bytes(32, "big")
    with pytest.raises(Reverted, match="channel: lock not in the voucher"):
        world.send(world.partner, "prove", params, True, [head, root, preimage, *branch])


def test_rule_13_an_inner_node_is_no_leaf(world: World) -> None:
    """A voucher whose tree is a bare leaf hash of other data, or zero, lets nothing be claimed."""
    params = world.open(10 * EURO)
    chain = Chainlet(10, 1)
    for root in (bytes(32), keccak(b"\x01" + chain.lock.leaf(0) + bytes(32))):
        voucher = Voucher(1, 0, 10, 0, root)
        filing = (abi_voucher(voucher), compact(world.opener_key.sign(voucher.digest(params))))
        claims = world.claims([chain.lock], [(0, 1, chain.preimage(1))])
        with pytest.raises(Reverted, match="channel: lock not in the voucher"):
            world.file(world.partner, params, *filing, claims, begin=True)


def test_rule_13_a_lock_stands_at_its_index(world: World) -> None:
    """Rule 13. A tree that is too small for the index signed in its leaf is no canonical tree."""
    params = world.open(10 * EURO)
    chain = Chainlet(10, 1)
    voucher = Voucher(1, 0, 10, 0, chain.lock.leaf(1))
    filing = (abi_voucher(voucher), compact(world.opener_key.sign(voucher.digest(params))))
    claims = world.claims([chain.lock] * 2, [(1, 1, chain.preimage(1))])[:3]
    claims[0] = (int.from_bytes(claims[0], "big") & ~(255 << 48)).to_bytes(32, "big")  # no depth
    with pytest.raises(Reverted, match="channel: lock not in the voucher"):
        world.file(world.partner, params, *filing, claims, begin=True)


def test_rule_2_a_direction_never_claims_more_than_its_locked_sum(world: World) -> None:
    """Rule 2.

    The payer signed a smaller sum than its locks are worth: the sum counts, and later expiries change nothing.
    """
    before = world.balances()
    chains = [Chainlet(10, 100, expiry=LATE, seed=b"%d" % n) for n in range(2)]
    locks = [chain.lock for chain in chains]
    params = world.open(10 * EURO)
    full = Voucher.over(1, 0, locks)
    voucher = Voucher(1, 0, 1_200, full.locked_until, full.locks_root)
    signature = compact(world.opener_key.sign(voucher.digest(params)))
    claims = world.claims(locks, [(0, 10, chains[0].preimage(10)), (1, 10, chains[1].preimage(10))])
    world.file(world.partner, params, abi_voucher(voucher), signature, claims, begin=True)
    assert _filed(world, params) == (1_200, 0)
    world.wait(PERIOD)
    world.send(world.partner, "settle", params)
    assert world.gains(before) == (-1_200, 1_200)


def test_rule_2_a_later_filing_takes_its_proofs_along(world: World) -> None:
    """Rule 2. Ticks proven under one voucher count under no other; folded ticks are not paid twice."""
    before, chain = world.balances(), Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock], (0, 60, chain.preimage(60)))
    rest = Lock(chain.preimage(60), 1_000, 40)  # the fold: 60 ticks became amount
    world.file(world.partner, params, *world.filing(params, world.partner, 60_000, [rest], nonce=2))
    assert _filed(world, params) == (60_000, 40_000)
    world.file(world.partner, params, *world.filing(params, world.partner, 0, [chain.lock]))
    assert _filed(world, params) == (0, 100_000)
    world.send(world.partner, "prove", params, True, world.claims([chain.lock], [(0, 60, chain.preimage(60))]))
    assert _filed(world, params) == (60_000, 40_000)
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-60_000, 60_000)


def test_a_voucher_without_locks_opens_no_lock_of_the_one_before(world: World) -> None:
    chain = Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock])
    world.file(world.partner, params, *world.filing(params, world.partner, 5, nonce=2))
    for count in (60, 0):
        claims = world.claims([chain.lock], [(0, count, chain.preimage(60))])
        with pytest.raises(Reverted, match="channel: lock"):
            world.send(world.partner, "prove", params, True, claims)
    assert _filed(world, params) == (5, 0)


def test_whoever_proves_does_it_for_the_payee(world: World) -> None:
    before, chain = world.balances(), Chainlet(100, 1_000)
    params = _closed(world, 0, [chain.lock])
    for sender, count in ((world.stranger, 1), (world.opener, 2)):
        claims = world.claims([chain.lock], [(0, count, chain.preimage(count))])
        with pytest.raises(Reverted, match="channel: nothing filed"):
            world.send(sender, "prove", params, False, claims)
        world.send(sender, "prove", params, True, claims)
        assert _filed(world, params) == (count * 1_000, (100 - count) * 1_000)
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-2_000, 2_000)


def test_a_lock_between_neighbours_is_proven_within_the_challenge_only(world: World) -> None:
    """Rule 10: a lock lasts until its own expiry, and counts where it was agreed to, acknowledged and final."""
    before, chain, hop = world.balances(), Chainlet(100, 1_000), Chainlet(10, 100, expiry=LATE, seed=b"hop")
    locks = [chain.lock, hop.lock]
    params = _closed(world, 0, locks)
    world.wait(PERIOD - 1)
    world.send(world.partner, "prove", params, True, world.claims(locks, [(0, 10, chain.preimage(10))]))
    world.wait(1)
    with pytest.raises(Reverted, match="channel: lock expired"):
        world.send(world.partner, "prove", params, True, world.claims(locks, [(0, 20, chain.preimage(20))]))
    world.send(world.partner, "prove", params, True, world.claims(locks, [(1, 4, hop.preimage(4))]))
    world.wait(LATE)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-10_400, 10_400)


def test_a_hop_lock_is_proven_until_its_expiry(world: World) -> None:
    """Rule 11: vouchers with open locks are filed always, and their ticks proven in time."""
    hop = Chainlet(10, 100, expiry=START + 100)
    params = _closed(world, 0, [hop.lock])
    world.wait(99)
    world.send(world.partner, "prove", params, True, world.claims([hop.lock], [(0, 4, hop.preimage(4))]))
    world.wait(1)
    with pytest.raises(Reverted, match="channel: lock expired"):
        world.send(world.partner, "prove", params, True, world.claims([hop.lock], [(0, 5, hop.preimage(5))]))


def test_a_lock_that_outlives_its_voucher_is_refused(world: World) -> None:
    hop = Chainlet(10, 100, expiry=LATE)
    params = world.open(10 * EURO)
    full = Voucher.over(1, 0, [hop.lock])
    voucher = Voucher(1, 0, full.locked, LATE - 1, full.locks_root)
    arguments = (abi_voucher(voucher), compact(world.opener_key.sign(voucher.digest(params))))
    claims = world.claims([hop.lock], [(0, 1, hop.preimage(1))])
    with pytest.raises(Reverted, match="channel: lock outlives its voucher"):
        world.file(world.partner, params, *arguments, claims, begin=True)


def test_settling_frees_at_once_all_that_no_hop_lock_holds(world: World) -> None:
    """Rule 8: a lock holds its share until it is used up, expired or released, and its root serves once."""
    before, hop = world.balances(), Chainlet(10, EURO // 10, expiry=LATE)
    params = _closed(world, 2 * EURO, [hop.lock])
    world.wait(PERIOD)
    receipt = world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-3 * EURO, 2 * EURO)
    assert world.channel.events(receipt, "Settled")[0]["amounts"] >> 192 == 1
    assert world.state(params)[0] == CLOSING
    assert world.drawn(params) == (7 * EURO, 7 * EURO)

    world.send(world.partner, "prove", params, True, world.claims([hop.lock], [(0, 4, hop.preimage(4))]))
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-3 * EURO, 2 * EURO + 400_000)
    again = world.send(world.stranger, "settle", params)
    assert world.channel.events(again, "Settled")[0]["amounts"] == 1 << 192
    assert world.gains(before) == (-3 * EURO, 2 * EURO + 400_000)

    world.wait(LATE - world.chain.now())
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-2 * EURO - 400_000, 2 * EURO + 400_000)
    assert world.state(params)[0] == SETTLED


def test_locks_in_both_directions_hold_only_their_own_value(world: World) -> None:
    """Rule 1: balances are netted first and clamped once, open locks taken at their worst."""
    before = world.balances()
    down, up = Chainlet(10, 1_000, expiry=LATE), Chainlet(10, 100, expiry=LATE, seed=b"up")
    params = _closed(world, 0, [down.lock])
    world.file(world.opener, params, *world.filing(params, world.opener, 0, [up.lock]))
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-10_000, -1_000)
    world.send(world.opener, "prove", params, False, world.claims([up.lock], [(0, 10, up.preimage(10))]))
    world.send(world.partner, "prove", params, True, world.claims([down.lock], [(0, 1, down.preimage(1))]))
    world.wait(LATE)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (0, 0)


def test_a_fully_proven_hop_lock_holds_nothing(world: World) -> None:
    before, hop = world.balances(), Chainlet(10, 100, expiry=LATE)
    params = _closed(world, 0, [hop.lock], (0, 10, hop.preimage(10)))
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-1_000, 1_000)
    assert world.state(params)[0] == SETTLED


def test_neighbour_locks_beside_a_hop_lock_are_let_go_after_the_challenge(world: World) -> None:
    """Rule: a hop lock holds its own value only; anybody may show that another lock in the tree is dead."""
    before = world.balances()
    near, hop = Chainlet(100, 1_000), Chainlet(10, 100, expiry=LATE, seed=b"hop")
    locks = [near.lock, hop.lock]
    params = _closed(world, 0, locks, (0, 10, near.preimage(10)))
    with pytest.raises(Reverted, match="channel: lock can still be proven"):
        world.send(world.stranger, "prove", params, True, world.claims(locks, [(0, 0, b"")]))
    world.wait(PERIOD)
    receipt = world.send(world.stranger, "prove", params, True, world.claims(locks, [(0, 0, b"")]))
    assert world.channel.events(receipt, "Expired")[0]["freed"] == 90_000
    with pytest.raises(Reverted, match="channel: nothing left in the lock"):
        world.send(world.stranger, "prove", params, True, world.claims(locks, [(0, 0, b"")]))
    with pytest.raises(Reverted, match="channel: lock can still be proven"):
        world.send(world.stranger, "prove", params, True, world.claims(locks, [(1, 0, b"")]))
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-11_000, 10_000)
    world.send(world.partner, "prove", params, True, world.claims(locks, [(1, 10, hop.preimage(10))]))
    world.send(world.partner, "settle", params)
    assert world.gains(before) == (-11_000, 11_000)


def test_an_expired_lock_lets_go_before_later_ones(world: World) -> None:
    before = world.balances()
    early, late = Chainlet(10, 100, expiry=START + PERIOD + 5), Chainlet(10, 1_000, expiry=LATE, seed=b"late")
    locks = [early.lock, late.lock]
    params = _closed(world, 0, locks)
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-11_000, 0)
    world.wait(5)
    world.send(world.stranger, "prove", params, True, world.claims(locks, [(0, 0, b"")]))
    world.send(world.stranger, "settle", params)
    assert world.gains(before) == (-10_000, 0)


def test_a_lock_that_was_not_filed_cannot_be_expired(world: World) -> None:
    chain, other = Chainlet(10, 100), Chainlet(10, 100, seed=b"other")
    params = _closed(world, 0, [chain.lock])
    world.wait(PERIOD)
    for partner, reason in ((True, "lock not in the voucher"), (False, "nothing filed")):
        with pytest.raises(Reverted, match=f"channel: {reason}"):
            world.send(world.stranger, "prove", params, partner, world.claims([other.lock], [(0, 0, b"")]))


def test_a_part_paid_channel_is_neither_filed_nor_closed_nor_added_to(world: World) -> None:
    hop = Chainlet(10, EURO // 10, expiry=LATE)
    params = _closed(world, 0, [hop.lock])
    world.wait(PERIOD)
    world.send(world.stranger, "settle", params)
    filing = world.filing(params, world.partner, EURO)
    for name, *args in (("close",), ("file", *filing, True), ("file", *filing, False), ("add", 1)):
        with pytest.raises(Reverted, match="channel: part paid out"):
            world.send(world.partner, str(name), params, *args)
    with pytest.raises(Reverted, match="channel: part paid out"):
        world.channel.send(world.stranger, "close_together", world.consent(params, 15 * EURO, 0))


def test_finishing_pays_the_ticks_proven_with_it(world: World) -> None:
    before = world.balances()
    chains = [Chainlet(100, 1_000), Chainlet(10, 7, seed=b"second")]
    locks = [chain.lock for chain in chains]
    params = world.open(10 * EURO, two_way=False)
    claims = [(0, 37, chains[0].preimage(37)), (1, 10, chains[1].preimage(10))]
    world.send(world.partner, "finish", params, *world.filing(params, world.partner, EURO, locks, claims))
    assert world.gains(before) == (-EURO - 37_070, EURO + 37_070)
    assert world.state(params)[0] == SETTLED


def test_rule_9_a_hop_lock_is_not_finished_before_the_payer_could_show_a_release(world: World) -> None:
    hop, params = Chainlet(10, 7, expiry=LATE), world.open(10 * EURO, two_way=False)
    filing = world.filing(params, world.partner, EURO, [hop.lock], [(0, 10, hop.preimage(10))])
    with pytest.raises(Reverted, match="channel: lock needs a challenge"):
        world.send(world.partner, "finish", params, *filing)
    world.file(world.partner, params, *filing, begin=True)


def test_finishing_counts_each_lock_once(world: World) -> None:
    chain = Chainlet(100, 1_000)
    params = world.open(10 * EURO, two_way=False)
    claims = [(0, 37, chain.preimage(37))] * 2
    with pytest.raises(Reverted, match="channel: claims out of order"):
        world.send(world.partner, "finish", params, *world.filing(params, world.partner, 0, [chain.lock], claims))


def test_finishing_after_a_filing_leaves_nothing_behind(world: World) -> None:
    before, chain = world.balances(), Chainlet(100, 1_000)
    params = world.open(10 * EURO, two_way=False)
    claims = [(0, 37, chain.preimage(37))]
    filing = world.filing(params, world.partner, 0, [chain.lock], claims)
    world.file(world.partner, params, *filing, begin=True)
    world.send(world.partner, "finish", params, *filing)
    assert world.gains(before) == (-37_000, 37_000)
    assert world.filed(params, world.partner) == (0, 0, 0, bytes(32))
