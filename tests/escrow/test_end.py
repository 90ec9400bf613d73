"""Ends that both keys have signed, alone and in rows; and what was signed with one thing changed."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.channel import compact
from penstock.core.escrow import end_digest
from penstock.ledgers.devnet.execute import Reverted

from ..contracts.world import EURO, NO_SIGNATURE
from .spoil import at, flipped, leaves, put
from .test_contest import FALSE, TRUE
from .words import abi_params, abi_tariff
from .world import DAY, HOUR, TARIFF, World, reading


@pytest.mark.parametrize("amount", [0, 1, 3 * EURO, 10 * EURO])
def test_an_end_pays_at_once_as_both_have_signed(world: World, amount: int) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.end(params, amount)
    assert world.balances() == (10 * EURO - amount, amount)
    assert world.standing(params)[:2] == (amount, amount)
    assert world.standing(params).ended
    with pytest.raises(Reverted, match="escrow: escrow has ended"):
        world.end(params, amount)


def test_an_end_counts_what_was_drawn(world: World) -> None:
    params = world.make(window=0)
    world.file(params, reading(5_000))
    with pytest.raises(Reverted, match="escrow: less than was drawn"):
        world.end(params, 2 * EURO - 1)
    world.end(params, 3 * EURO)
    assert world.balances() == (7 * EURO, 3 * EURO)


@pytest.mark.parametrize("amount", [10 * EURO + 1, 2**96, 2**256 - 1])
def test_an_end_gives_no_more_than_the_deposit(world: World, amount: int) -> None:
    with pytest.raises(Reverted, match="escrow: more than the deposit"):
        world.end(world.make(), amount)


def test_both_make_peace_after_a_contest_and_after_the_deadline(world: World) -> None:
    contested, late = world.make(), world.make()
    world.file(contested, FALSE)
    world.contest(contested, FALSE, TRUE)
    world.end(contested, 2 * EURO)
    world.wait(DAY)
    world.end(late, 4 * EURO)
    assert world.balances() == (14 * EURO, 6 * EURO)


@pytest.mark.parametrize(("missing", "reason"), [(0, "payer has not signed"), (1, "payee has not signed")])
def test_an_end_needs_both_keys_and_the_accounts_are_none(world: World, missing: int, reason: str) -> None:
    params = world.make()
    words, amount, *signatures = world.row(params, EURO)
    digest = end_digest(params, EURO)
    for wrong in (NO_SIGNATURE, compact((world.payer, world.payee)[missing].sign(digest)), signatures[1 - missing]):
        signatures[missing] = wrong
        with pytest.raises(Reverted, match=f"escrow: {reason}"):
            world.contract.send(world.parties[missing], "end", (words, amount, *signatures))


def test_a_bad_row_does_not_hold_up_the_rest(world: World) -> None:
    good, twice, ended, other = (world.make() for _ in range(4))
    world.end(ended, EURO)
    never = world.params()
    rows = [
        world.row(good, EURO),
        world.row(ended, EURO),
        world.row(never, EURO),
        world.row(other, 11 * EURO),
        (*world.row(other, EURO)[:3], NO_SIGNATURE),
        world.row(twice, 2 * EURO),
        world.row(twice, 2 * EURO),
    ]
    receipt = world.contract.send(world.stranger, "end_many", rows)
    skipped = [(event["escrow"], event["reason"]) for event in world.contract.events(receipt, "Skipped")]
    assert skipped == [
        (ended.id, "escrow has ended"),
        (never.id, "no such escrow"),
        (other.id, "more than the deposit"),
        (other.id, "payee has not signed"),
        (twice.id, "escrow has ended"),
    ]
    assert world.balances() == (26 * EURO, 4 * EURO)
    assert world.wallet(world.contract.address) == 40 * EURO


def test_sixty_four_rows_fit_and_one_more_does_not(world: World) -> None:
    rows = [world.row(world.make(deposit=2), 1)] * 64
    receipt = world.contract.send(world.stranger, "end_many", rows)
    assert len(world.contract.events(receipt, "Skipped")) == 63
    with pytest.raises(Reverted):
        world.contract.send(world.stranger, "end_many", [*rows, rows[0]])


def _calls(world: World) -> dict[str, tuple[Any, ...]]:
    """A good call of everything that is signed for this contract, about one escrow that has a claim waiting."""
    params, fresh = world.make(), world.params()
    world.file(params, reading(5_000))
    world.fund(world.payer, 20 * EURO)
    words, tariff = abi_params(params), abi_tariff(TARIFF)
    return {
        "release": (words, tariff, *world.seal(params, reading(7_500, 2, last=True))),
        "contest": (words, tariff, *world.seal(params, reading(7_500)), *world.seal(params, reading(2_500, 2))),
        "end": (world.row(params, 3 * EURO),),
        "deposit_signed": (abi_params(fresh), *world.consent(fresh, fee=4)),
        "deposit_with_authorization": (abi_params(fresh), *world.authorization(fresh, fee=4)),
    }


@pytest.mark.parametrize("name", ["release", "contest", "end", "deposit_signed", "deposit_with_authorization"])
def test_what_was_signed_does_nothing_with_any_field_changed(world: World, name: str) -> None:
    args = _calls(world)[name]
    held, balances = world.wallet(world.contract.address), world.balances()
    for path in leaves(args):
        for bit in (0, 1, 3):
            changed = put(args, path, flipped(at(args, path), bit))
            with pytest.raises(Reverted):
                world.contract.send(world.stranger, name, *changed)
    assert (world.wallet(world.contract.address), world.balances()) == (held, balances)
    world.wait(HOUR - 1)
    world.contract.send(world.stranger, name, *args)
