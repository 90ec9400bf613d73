"""Readings, filed: what they release, when it is paid, and who cannot hinder or hasten it."""

from __future__ import annotations

import pytest

from penstock.core.escrow import MeterReading
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.ledgers.devnet.execute import Reverted

from ..contracts.world import EURO, START
from .world import DAY, HOUR, NIGHT, Standing, World, reading

KWH = 400_000  # token units, by day


def test_a_last_reading_without_a_window_ends_the_escrow_at_once(world: World) -> None:
    params = world.make(window=0)
    receipt = world.file(params, reading(5_000, last=True))
    assert world.balances() == (8 * EURO, 2 * EURO)
    assert world.standing(params) == (2 * EURO, 2 * EURO, START, True, True, False, True)
    (event,) = world.contract.events(receipt, "Released")
    assert event["escrow"] == params.id
    assert Standing.of(event["word"]) == world.standing(params)


def test_readings_without_a_window_are_paid_at_once(world: World) -> None:
    params = world.make(window=0)
    for sequence, total in ((1, 1_000), (2, 3_000)):
        world.file(params, reading(total, sequence))
        assert world.balances() == (0, total // 1_000 * KWH)
    world.file(params, reading(3_500, 3, last=True))
    assert world.balances() == (10 * EURO - 1_400_000, 1_400_000)


def test_a_price_step_is_billed_from_its_turn(world: World) -> None:
    params = world.make(window=0)
    world.file(params, reading(9_000, at=NIGHT + 600, turns=(6_000,), last=True))
    assert world.balances()[1] == 6 * 400_000 + 3 * 500_000


def test_what_is_due_beyond_the_deposit_is_the_deposit(world: World) -> None:
    params = world.make(window=0)
    world.file(params, reading(10**9))
    assert world.balances() == (0, 10 * EURO)
    with pytest.raises(Reverted, match="escrow: nothing more to claim"):
        world.file(params, reading(2 * 10**9, 2))
    world.file(params, reading(2 * 10**9, 2, last=True))
    assert world.standing(params).ended


def test_a_claim_waits_its_window(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000, last=True))
    world.wait(HOUR - 1)
    with pytest.raises(Reverted, match="escrow: nothing to pay yet"):
        world.send(world.payee, "settle", params)
    world.wait(1)
    world.send(world.stranger, "settle", params)
    assert world.balances() == (8 * EURO, 2 * EURO)
    for name in ("settle", "release"):
        with pytest.raises(Reverted, match="escrow: escrow has ended"):
            world.send(world.payee, name, params) if name == "settle" else world.file(params, reading(9_000, 2))


def test_what_has_matured_is_paid_before_more_is_claimed(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR)
    world.file(params, reading(7_500, 2))
    assert world.balances() == (0, 2 * EURO)
    assert world.standing(params)[:3] == (3 * EURO, 2 * EURO, START + HOUR)


def test_what_has_matured_is_paid_while_the_session_lasts(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR)
    world.send(world.stranger, "settle", params)
    assert world.balances() == (0, 2 * EURO)
    assert not world.standing(params).ended
    with pytest.raises(Reverted, match="escrow: nothing to pay yet"):
        world.send(world.stranger, "settle", params)


@pytest.mark.parametrize("who", ["payer", "stranger"])
def test_who_is_not_the_payee_files_the_last_reading_alone(world: World, who: str) -> None:
    params = world.make()
    with pytest.raises(Reverted, match="escrow: not the payee"):
        world.file(params, reading(5_000), sender=getattr(world, who))
    world.file(params, reading(5_000, last=True), sender=getattr(world, who))
    assert world.standing(params).last


def test_others_put_off_a_payment_by_one_window_and_once(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR - 1)
    world.file(params, reading(5_001, 2, last=True), sender=world.payer)
    with pytest.raises(Reverted, match="escrow: no more readings"):
        world.file(params, reading(5_002, 3, last=True), sender=world.payer)
    world.wait(HOUR)
    world.send(world.payee, "settle", params)
    assert world.balances()[1] == 2 * EURO + 400
    assert world.standing(params).ended


def test_a_last_reading_that_claims_no_more_puts_off_nothing(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR - 1)
    world.file(params, reading(5_000, 2, last=True), sender=world.stranger)
    assert world.standing(params).since == START
    world.wait(1)
    world.send(world.payee, "settle", params)
    assert world.standing(params).ended


def test_a_last_reading_that_adds_nothing_to_what_was_paid_ends_the_escrow(world: World) -> None:
    params = world.make()
    world.file(params, reading(5_000))
    world.wait(HOUR)
    world.file(params, reading(5_000, 2, last=True), sender=world.payer)
    assert world.standing(params).ended
    assert world.balances() == (8 * EURO, 2 * EURO)


def test_a_session_without_supply_gives_the_deposit_back_at_once(world: World) -> None:
    params = world.make()
    world.file(params, reading(0, last=True), sender=world.payer)
    assert world.balances() == (10 * EURO, 0)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("window", [0, HOUR])
def test_a_stale_reading_is_refused_whoever_files_it(world: World, window: int, last: bool) -> None:
    """A last one, too: the meter has said more since."""
    params = world.make(window=window)
    world.file(params, reading(5_000, 2))
    for total, sequence in ((4_999, 1), (0, 1), *(((5_000, 2),) if not last else ())):
        with pytest.raises(Reverted, match="escrow: nothing more to claim"):
            world.file(params, reading(total, sequence, last=last))
    assert world.standing(params).claimed == 2 * EURO


def test_a_reading_is_taken_until_the_second_before_the_deadline(world: World) -> None:
    params, late = world.make(), world.make()
    world.wait(DAY - 1)
    world.file(params, reading(5_000))
    world.wait(1)
    for made in (reading(5_000), reading(5_000, last=True)):
        with pytest.raises(Reverted, match="escrow: deadline has passed"):
            world.file(late, made)
    world.send(world.stranger, "settle", late)
    assert world.balances() == (10 * EURO, 0)
    with pytest.raises(Reverted, match="escrow: nothing to pay yet"):
        world.send(world.payer, "settle", params)
    world.wait(HOUR - 1)
    world.send(world.payer, "settle", params)
    assert world.balances() == (18 * EURO, 2 * EURO)
    assert world.standing(params).ended


def test_the_deposit_is_not_given_back_before_the_deadline(world: World) -> None:
    params = world.make()
    world.wait(DAY - 1)
    with pytest.raises(Reverted, match="escrow: nothing to pay yet"):
        world.send(world.payer, "settle", params)
    world.wait(1)
    world.send(world.payer, "settle", params)
    assert world.balances() == (10 * EURO, 0)


def test_a_reading_serves_one_escrow(world: World) -> None:
    params, other = world.make(), world.make()
    made = reading(5_000)
    tariff = (1_000, (400_000, 500_000 | NIGHT << 96))
    with pytest.raises(Reverted, match="escrow: meter has not signed"):
        world.send(world.payee, "release", other, tariff, *world.seal(params, made))


@pytest.mark.parametrize("signer", ["payer", "payee", "payer_key", "payee_key", "stranger"])
def test_nobody_but_the_meter_signs_readings(world: World, signer: str) -> None:
    params = world.make()
    tariff = (1_000, (400_000, 500_000 | NIGHT << 96))
    with pytest.raises(Reverted, match="escrow: meter has not signed"):
        world.send(world.payee, "release", params, tariff, *world.seal(params, reading(5), getattr(world, signer)))


def test_an_escrow_without_deposit_releases_nothing(world: World) -> None:
    params = world.params()
    with pytest.raises(Reverted, match="escrow: no such escrow"):
        world.file(params, reading(5_000, last=True))
    with pytest.raises(Reverted, match="escrow: no such escrow"):
        world.send(world.payer, "settle", params)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 2_499, 2_501])
def test_a_sum_is_rounded_down_once(world: World, total: int) -> None:
    tariff = Tariff(7, (Step(Instant(0), 3), Step(Instant(START * 1_000), 5)))
    params = world.make(tariff=tariff, window=0)
    made: MeterReading = reading(total, at=START * 1_000, turns=(total // 2,), last=True)
    world.file(params, made, tariff=tariff)
    assert world.balances()[1] == (total // 2 * 3 + (total - total // 2) * 5) // 7 == made.due(tariff, 10 * EURO)
