"""Within the window: the meter's word against the same meter's."""

from __future__ import annotations

import pytest
from eth_abi.abi import decode

from penstock.core.escrow import MeterReading
from penstock.ledgers.devnet.execute import Reverted

from ..contracts.world import EURO, START
from .world import DAY, HOUR, NIGHT, World, reading

LATER = START * 1_000 + 5_000
TRUE, FALSE = reading(2_500, 2, LATER), reading(7_500, 1)  # worth 1 and 3 euros: the total fell


def test_a_contradiction_leaves_the_lesser(world: World) -> None:
    params = world.make()
    world.file(params, FALSE)
    world.contest(params, FALSE, TRUE)
    assert world.standing(params) == (EURO, 0, START, True, False, True, False)
    with pytest.raises(Reverted, match="escrow: no more readings"):
        world.file(params, reading(9_000, 3, last=True))
    world.wait(HOUR)
    world.send(world.stranger, "settle", params)
    assert world.balances() == (9 * EURO, EURO)
    assert world.standing(params).ended


@pytest.mark.parametrize("who", ["payer", "payee", "stranger"])
def test_anybody_contests_in_any_order(world: World, who: str) -> None:
    params = world.make()
    world.file(params, FALSE)
    world.contest(params, TRUE, FALSE, sender=getattr(world, who))
    assert world.standing(params).claimed == EURO


def test_what_was_drawn_stays_with_the_payee(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR)
    world.file(params, reading(7_500, 2, LATER))
    world.contest(params, reading(7_500, 2, LATER), reading(2_500, 3, LATER))
    assert world.balances() == (8 * EURO, 2 * EURO)
    assert world.standing(params).ended


@pytest.mark.parametrize("waited", [HOUR, HOUR + 1])
def test_after_its_window_a_claim_stands(world: World, waited: int) -> None:
    params = world.make()
    world.file(params, FALSE)
    world.wait(waited)
    with pytest.raises(Reverted, match="escrow: no claim waits"):
        world.contest(params, FALSE, TRUE)
    world.send(world.payee, "settle", params)
    assert world.balances()[1] == 3 * EURO


def test_a_contest_needs_a_claim_that_waits(world: World) -> None:
    params, at_once = world.make(), world.make(window=0)
    with pytest.raises(Reverted, match="escrow: no claim waits"):
        world.contest(params, FALSE, TRUE)
    world.file(at_once, FALSE)
    with pytest.raises(Reverted, match="escrow: no claim waits"):
        world.contest(at_once, FALSE, TRUE)


def test_a_contest_in_the_last_second_counts_even_after_the_deadline(world: World) -> None:
    params = world.make()
    world.wait(DAY - 1)
    world.file(params, FALSE)
    world.wait(HOUR - 1)
    world.contest(params, FALSE, TRUE)
    assert world.standing(params).claimed == EURO


def test_a_contest_never_raises_a_claim_nor_hastens_it(world: World) -> None:
    """The payee may run the meter: what it could make it sign is no way around the window."""
    params = world.make()
    world.file(params, reading(2_500))
    world.contest(params, reading(10_000, 2, LATER), reading(9_000, 3, LATER), sender=world.payee)
    assert world.standing(params)[:3] == (EURO, 0, START)
    with pytest.raises(Reverted, match="escrow: nothing to pay yet"):
        world.send(world.payee, "settle", params)


def test_who_contests_first_takes_no_better_contest_away(world: World) -> None:
    params = world.make()
    world.file(params, reading(7_500))
    world.contest(params, reading(7_500), reading(7_499, 2, LATER), sender=world.payee)
    world.contest(params, FALSE, TRUE)
    assert world.standing(params).claimed == EURO
    with pytest.raises(Reverted, match="escrow: claim is as low already"):
        world.contest(params, FALSE, TRUE)


def test_what_is_needed_for_a_contest_is_logged_with_a_claim_that_waits(world: World) -> None:
    """The payee may have filed through another contract, so that nothing else shows what the meter has signed."""
    params, at_once = world.make(), world.make(window=0)
    assert len(world.file(at_once, FALSE).logs) == 1
    _, filed = world.file(params, FALSE).logs
    assert filed["topics"][1] == "0x" + params.id.hex()
    found = decode(["(uint256,uint256,uint256,uint256[],bool)", "uint256[2]"], bytes.fromhex(filed["data"][2:]))
    tariff = (1_000, (400_000, 500_000 | NIGHT << 96))
    shown = (*found, *world.seal(params, TRUE))
    world.send(world.payer, "contest", params, tariff, *shown)
    assert world.standing(params).claimed == EURO


NIGHT_1 = reading(7_500, 2, NIGHT, (5_000,))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (reading(7_500), reading(7_000)),  # one sequence, two totals
        (reading(7_500), reading(7_500, at=LATER)),
        (reading(7_500), reading(7_500, last=True)),
        (reading(7_500, 1), reading(7_499, 2)),
        (reading(7_500, 1, LATER), reading(7_500, 2, LATER - 1)),
        (reading(7_500, 1, last=True), reading(7_500, 2)),
        (NIGHT_1, reading(7_500, 3, NIGHT, (5_001,))),
        (reading(7_500, 1, NIGHT, (5_000,)), reading(7_500, 2, LATER)),  # a turn taken back, and the time
        (reading(7_500, 1), reading(8_000, 2, NIGHT, (7_499,))),  # what was billed by day, billed by night
    ],
)
def test_every_kind_of_contradiction_counts(world: World, first: MeterReading, second: MeterReading) -> None:
    params = world.make()
    world.file(params, reading(9_000, 9))
    world.contest(params, first, second)
    assert world.standing(params).contested
    assert world.standing(params).claimed < 3_600_000


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (reading(7_500), reading(7_500)),
        (reading(7_500, 1), reading(7_500, 2)),
        (reading(7_500, 1), reading(8_000, 2, LATER, last=True)),
        (reading(5_000, 1), NIGHT_1),
        (NIGHT_1, reading(8_000, 3, NIGHT + 1, (5_000,))),
    ],
)
def test_readings_that_agree_are_no_contradiction(world: World, first: MeterReading, second: MeterReading) -> None:
    params = world.make()
    world.file(params, reading(9_000, 9))
    for pair in ((first, second), (second, first)):
        with pytest.raises(Reverted, match="escrow: no contradiction"):
            world.contest(params, *pair)


def test_readings_of_another_escrow_contest_nothing(world: World) -> None:
    params, other = world.make(), world.make()
    world.file(params, FALSE)
    tariff = (1_000, (400_000, 500_000 | NIGHT << 96))
    for shown in (
        (*world.seal(other, FALSE), *world.seal(params, TRUE)),
        (*world.seal(params, FALSE), *world.seal(other, TRUE)),
        (*world.seal(params, FALSE, world.payer), *world.seal(params, TRUE)),
    ):
        with pytest.raises(Reverted, match="escrow: meter has not signed"):
            world.send(world.payer, "contest", params, tariff, *shown)


def test_a_contest_is_over_once_the_escrow_has_ended(world: World) -> None:
    params = world.make()
    world.file(params, FALSE)
    world.end(params, 2 * EURO)
    with pytest.raises(Reverted, match="escrow: escrow has ended"):
        world.contest(params, FALSE, TRUE)
