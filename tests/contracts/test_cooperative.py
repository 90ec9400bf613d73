"""Ending a channel by consent, alone and in a batch."""

from __future__ import annotations

import pytest

from penstock.core.channel import Close, Voucher, compact
from penstock.core.identity import GROUP_ORDER
from penstock.ledgers.devnet.execute import Reverted

from .world import EURO, NO_SIGNATURE, START, World, abi_params

SETTLED = 3
ODD = 1 << 255  # the recovery bit
OPENER_SIGNATURE, PARTNER_SIGNATURE = 2, 3


def test_both_get_what_both_signed(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, 5 * EURO)
    receipt = world.channel.send(world.stranger, "close_together", world.consent(params, 2 * EURO, 13 * EURO))
    assert world.gains(before) == (-8 * EURO, 8 * EURO)
    assert world.state(params) == (SETTLED, 0, 0, 0)
    event = world.channel.events(receipt, "Settled")[0]
    assert (event["channel"], event["amounts"]) == (params.id, 2 * EURO | 13 * EURO << 96)


def test_a_side_that_sends_the_close_itself_need_not_sign(world: World) -> None:
    for sender, place in ((world.opener, OPENER_SIGNATURE), (world.partner, PARTNER_SIGNATURE)):
        params = world.open(10 * EURO)
        row = list(world.consent(params, 4 * EURO, 6 * EURO))
        row[place] = NO_SIGNATURE
        with pytest.raises(Reverted, match="has not signed"):
            world.channel.send(world.stranger, "close_together", tuple(row))
        world.channel.send(sender, "close_together", tuple(row))
        assert world.state(params)[0] == SETTLED


def test_the_sender_spares_its_own_signature_only(world: World) -> None:
    row = world.consent(world.open(10 * EURO), 10 * EURO, 0)
    with pytest.raises(Reverted, match="channel: partner has not signed"):
        world.channel.send(world.opener, "close_together", (*row[:3], NO_SIGNATURE))
    row = world.consent(world.open(10 * EURO), 0, 10 * EURO)
    with pytest.raises(Reverted, match="channel: opener has not signed"):
        world.channel.send(world.partner, "close_together", (*row[:2], NO_SIGNATURE, row[3]))


@pytest.mark.parametrize(
    "balances", [(4 * EURO, 6 * EURO - 1), (4 * EURO, 6 * EURO + 1), (0, 0), (2**96 - 1, 2**96 - 1)]
)
def test_balances_must_be_the_whole_pot(world: World, balances: tuple[int, int]) -> None:
    params = world.open(10 * EURO)
    with pytest.raises(Reverted, match="channel: balances are not the pot"):
        world.channel.send(world.stranger, "close_together", world.consent(params, *balances))


def test_rule_6_a_cooperative_close_expires(world: World) -> None:
    """Rule 6: what both signed expires, and binds who signed it until then."""
    params = world.open(10 * EURO)
    row = world.consent(params, 10 * EURO, 0, expiry=START + 10)
    world.wait(11)
    with pytest.raises(Reverted, match="channel: close expired"):
        world.channel.send(world.stranger, "close_together", row)


def test_a_close_is_good_in_its_last_second(world: World) -> None:
    params = world.open(10 * EURO)
    world.wait(10)
    world.channel.send(world.stranger, "close_together", world.consent(params, 0, 10 * EURO, expiry=START + 10))


def test_a_close_works_once(world: World) -> None:
    row = world.consent(world.open(10 * EURO), 0, 10 * EURO)
    world.channel.send(world.stranger, "close_together", row)
    with pytest.raises(Reverted, match="channel: no such channel"):
        world.channel.send(world.stranger, "close_together", row)


def test_a_close_signed_for_one_channel_closes_no_other(world: World) -> None:
    signed, other = world.open(10 * EURO), world.open(10 * EURO)
    row = world.consent(signed, 0, 10 * EURO)
    with pytest.raises(Reverted, match="channel: opener has not signed"):
        world.channel.send(world.stranger, "close_together", (abi_params(other), *row[1:]))


def test_a_payment_is_no_consent_to_close(world: World) -> None:
    """Mistake: the same signed message served as a payment and as a consent to close.

    The signature of a voucher with the same numbers does not close a channel.
    """
    params = world.open(10 * EURO)
    row = list(world.consent(params, 4, 10 * EURO - 4, expiry=START + 99))
    voucher = Voucher(4, 10 * EURO - 4, START + 99, 0, bytes(32))
    row[OPENER_SIGNATURE] = compact(world.opener_key.sign(voucher.digest(params)))
    with pytest.raises(Reverted, match="channel: opener has not signed"):
        world.channel.send(world.stranger, "close_together", tuple(row))


def test_only_the_one_form_of_a_signature_is_taken(world: World) -> None:
    params = world.open(10 * EURO)
    row = list(world.consent(params, 4 * EURO, 6 * EURO))
    r, vs = row[OPENER_SIGNATURE]
    odd, s = vs & ODD, vs & ~ODD
    account = compact(world.opener.sign(Close(4 * EURO, 6 * EURO, row[1] >> 192).digest(params)))
    for bad in ((r, (ODD ^ odd) | (GROUP_ORDER - s)), (r, vs ^ ODD), (r, odd), (0, vs), (r, GROUP_ORDER), (0, 0)):
        row[OPENER_SIGNATURE] = bad
        with pytest.raises(Reverted, match="channel: opener has not signed"):
            world.channel.send(world.stranger, "close_together", tuple(row))
    row[OPENER_SIGNATURE] = account  # rule 4: the plain key fixed at opening signs, not the account
    with pytest.raises(Reverted, match="channel: opener has not signed"):
        world.channel.send(world.stranger, "close_together", tuple(row))


def test_consent_ends_a_challenge(world: World) -> None:
    before, params = world.balances(), world.open(10 * EURO, 5 * EURO)
    world.file(world.partner, params, *world.filing(params, world.partner, 9 * EURO), begin=True)
    world.channel.send(world.stranger, "close_together", world.consent(params, 15 * EURO, 0))
    assert world.gains(before) == (5 * EURO, -5 * EURO)
    world.wait(params.period)
    with pytest.raises(Reverted, match="channel: not closing"):
        world.send(world.partner, "settle", params)
    assert world.filed(params, world.partner) == (0, 0, 0, bytes(32))


def test_a_batch_skips_bad_rows_and_says_why(world: World) -> None:
    """One unconfirmed deposit once blocked a whole batch elsewhere; here the good rows go through."""
    before = world.balances()
    good = [world.open(10 * EURO) for _ in range(3)]
    unsigned, expired, closed = world.open(EURO), world.open(EURO), world.open(EURO)
    world.channel.send(world.opener, "close_together", world.consent(closed, EURO, 0))
    absent, uneven = world.params(), world.open(EURO)
    bad = [
        ((*world.consent(unsigned, 0, EURO)[:2], NO_SIGNATURE, NO_SIGNATURE), unsigned, "opener has not signed"),
        (world.consent(expired, 0, EURO, expiry=START - 1), expired, "close expired"),
        (world.consent(closed, 0, EURO), closed, "no such channel"),
        (world.consent(absent, 0, EURO), absent, "no such channel"),
        (world.consent(uneven, 0, EURO + 1), uneven, "balances are not the pot"),
    ]
    first, *rest = [world.consent(params, 4 * EURO, 6 * EURO) for params in good]
    rows = [first, *(row for row, _, _ in bad), *rest, first]
    receipt = world.channel.send(world.stranger, "close_many", rows)
    assert [event["channel"] for event in world.channel.events(receipt, "Settled")] == [params.id for params in good]
    skipped = [(event["channel"], event["reason"]) for event in world.channel.events(receipt, "Skipped")]
    assert skipped == [
        *((params.id, reason) for _, params, reason in bad),
        (good[0].id, "no such channel"),
    ]
    assert [world.state(params)[0] for params in (unsigned, expired, uneven)] == [1, 1, 1]
    assert world.gains(before) == (-18 * EURO - 3 * EURO, 18 * EURO)


def test_an_empty_batch_does_nothing(world: World) -> None:
    assert world.channel.send(world.stranger, "close_many", []).logs == []
