"""A car and a pole as real processes on a real chain: they stream, settle, and lose no more than the credit limit."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from penstock.core.identity import parse_address
from penstock.core.ports import Holdings
from penstock.ledgers.evm import EvmLedger

from .world import World

LIMIT = 2_000  # token units: two ticks


def holdings(world: World) -> list[int]:
    """What pole and car own outside channels (token units)."""

    async def ask() -> list[Holdings]:
        ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
        try:
            return [await ledger.holdings(key.address) for key in world.keys.values()]
        finally:
            await ledger.disconnect()

    return [one.tokens for one in asyncio.run(ask())]


def agree(world: World, before: list[int], bought: dict[str, Any], sold: dict[str, Any], energy: int) -> None:
    """Both receipts, both exposures and the chain say the same, to the token unit."""
    (session,) = sold["sessions"]
    assert session["receipt"] == bought["receipt"]
    receipt = bought["receipt"]
    assert (receipt["supplier_total"], receipt["consumer_total"]) == (energy, energy)
    assert receipt["paid"] == energy * 400
    assert receipt["reason"] == "target reached"
    assert session["max_exposure"] <= LIMIT
    assert bought["max_exposure"] <= LIMIT
    pole, car = (now - then for now, then in zip(holdings(world), before, strict=True))
    assert (pole, car) == (energy * 400, -energy * 400)


def test_a_killed_supplier_resumes_at_the_last_tick_and_settles(world: World) -> None:
    before = holdings(world)
    pole = world.pole()
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=2_500)
    pole.until("progress", total=400)
    pole.kill()
    car.until("link lost")
    again = world.pole(listen=address)
    assert again.until("restored")["secured"] >= 400 * 400 - LIMIT
    agree(world, before, car.answer(), again.answer(), 2_500)
    assert (car.code, again.code) == (0, 0)


def test_a_killed_consumer_resumes_at_the_last_tick_and_settles(world: World) -> None:
    before = holdings(world)
    pole = world.pole()
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=2_500)
    car.until("progress", total=400)
    car.kill()
    pole.until("link lost")
    again = world.car(address, quantity=2_500)
    assert again.until("resumed")["paid"] >= 400 * 400 - LIMIT
    agree(world, before, again.answer(), pole.answer(), 2_500)
    assert (again.code, pole.code) == (0, 0)


def test_both_killed_at_once_resume_and_settle(world: World) -> None:
    before = holdings(world)
    pole = world.pole()
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=2_500)
    pole.until("progress", total=400)
    pole.kill()
    car.kill()
    pole = world.pole(listen=address)
    pole.until("listening")
    car = world.car(address, quantity=2_500)
    agree(world, before, car.answer(), pole.answer(), 2_500)


def test_a_consumer_that_stops_paying_gets_no_more_than_the_credit_limit(world: World) -> None:
    pole = world.pole("--patience", "3")
    car = world.car(pole.until("listening")["address"], "--patience", "1", quantity=50_000)
    pole.until("progress", total=400)
    car.signal(signal.SIGSTOP)
    sold = pole.answer()["sessions"][0]
    assert sold["reason"] in ("payment stalled", "peer gone")
    assert 0 < sold["unpaid"] <= LIMIT
    assert sold["total"] * 400 - sold["paid"] <= LIMIT
    assert sold["max_exposure"] <= LIMIT


def test_a_supplier_that_stops_supplying_keeps_no_more_than_the_credit_limit(world: World) -> None:
    pole = world.pole("--patience", "1", "--mode", "pay-before")
    car = world.car(pole.until("listening")["address"], "--patience", "1", quantity=50_000)
    car.until("progress", total=400)
    pole.signal(signal.SIGSTOP)
    bought = car.answer()
    assert car.code == 1
    assert bought["reason"] in ("supply stalled", "peer gone")
    assert bought["paid"] - bought["total"] * 400 <= LIMIT
    assert bought["max_exposure"] <= LIMIT


def test_paying_ahead_is_exact_too(world: World) -> None:
    before = holdings(world)
    pole = world.pole("--mode", "pay-before")
    car = world.car(pole.until("listening")["address"], quantity=1_001)
    agree(world, before, car.answer(), pole.answer(), 1_001)


def test_meters_that_disagree_stop_both_sides_who_say_so(world: World) -> None:
    pole = world.pole("--patience", "3")
    car = world.car(pole.until("listening")["address"], "--meter-error", "-60000", quantity=50_000)
    bought, sold = car.answer(), pole.answer()["sessions"][0]
    assert bought["reason"] == sold["reason"] == "meters disagree"
    assert "meter" in bought["fault"]
    assert sold["unpaid"] <= LIMIT
    assert sold["receipt"] == bought["receipt"]


def test_a_kept_channel_serves_the_next_session_without_the_chain(world: World) -> None:
    before = holdings(world)
    pole = world.pole(speed=None)
    first = world.car(pole.until("listening")["address"], "--keep", "--deposit", "5", quantity=500)
    opened = first.answer()
    pole.answer()
    assert [one["what"] for one in opened["transactions"]] == ["open with authorization"]
    pole = world.pole(speed=None)
    second = world.car(pole.until("listening")["address"], quantity=700)
    bought = second.answer()
    assert bought["channel"] == opened["channel"]
    assert bought["transactions"] == opened["transactions"]
    assert bought["receipt"]["paid"] == 700 * 400
    pole.answer()
    assert holdings(world)[0] - before[0] == 1_200 * 400


def test_a_supplier_that_is_asked_to_end_squares_the_bill(world: World) -> None:
    before = holdings(world)
    pole = world.pole()
    car = world.car(pole.until("listening")["address"], quantity=50_000)
    pole.until("progress", total=400)
    pole.signal(signal.SIGTERM)
    bought = car.answer()
    sold = pole.answer()["sessions"][0]
    assert sold["receipt"] == bought["receipt"]
    assert sold["receipt"]["reason"] == "stopped by its operator"
    assert sold["paid"] == sold["total"] * 400
    assert holdings(world)[0] - before[0] in (0, sold["paid"])


def test_a_consumer_that_is_interrupted_squares_the_bill(world: World) -> None:
    pole = world.pole()
    car = world.car(pole.until("listening")["address"], quantity=50_000)
    car.until("progress", total=400)
    car.signal(signal.SIGINT)
    bought, sold = car.answer(), pole.answer()["sessions"][0]
    assert car.code == 0
    assert bought["receipt"] == sold["receipt"]
    assert bought["paid"] == bought["total"] * 400
