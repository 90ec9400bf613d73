"""A plan: the cheapest schedule, against an independent linear program; what it says where it cannot be carried out."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from penstock.core.errors import OutOfRange
from penstock.core.messages import Way
from penstock.core.plan import Battery, Lack, Order, Plan, Schedule, schedule
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Price

QUARTER = 900_000  # ms
KWH = 1_000
NOW = Instant(1_000_000_000)
FREE = Price(10**9, KWH)


def prices(*amounts: int, per: int = KWH, width: int = QUARTER) -> Tariff:
    return Tariff(per, tuple(Step(Instant(NOW + number * width), amount) for number, amount in enumerate(amounts)))


def plan(energy: int, slots: int, battery: Battery, **more: object) -> Plan:
    given: dict[str, object] = {"max_price": FREE, "power": 4_000, **more}
    return Plan(energy, Instant(NOW + slots * QUARTER), battery=battery, **given)  # type: ignore[arg-type]  # as written


def flows(found: Schedule) -> list[int]:
    return [-slot.amount if slot.way is Way.FEED else slot.amount for slot in found.slots]


def exact(amounts: list[int], buy: Tariff, sell: Tariff) -> Fraction:
    """What these flows cost, one for each quarter."""
    return sum(
        (
            Fraction(flow * (buy.steps[number].amount if flow > 0 else sell.steps[number].amount))
            / (buy.per if flow > 0 else sell.per)
            for number, flow in enumerate(amounts)
        ),
        Fraction(0),
    )


def test_the_cheapest_hours_are_bought() -> None:
    found = schedule(plan(2_500, 4, Battery(0, 0, 10_000)), prices(300, 100, 400, 200), None, NOW)
    assert flows(found) == [500, 1_000, 0, 1_000]
    assert found.cost == (500 * 300 + 1_000 * 100 + 1_000 * 200) // KWH
    assert (found.missing, found.lack) == (0, None)


def test_energy_is_bought_cheap_and_sold_dear_within_the_battery() -> None:
    wish = plan(0, 3, Battery(5_000, 4_500, 5_500), min_sell=Price(350, KWH), feed_power=4_000)
    found = schedule(wish, prices(100, 400, 200), prices(90, 390, 190), NOW)
    assert flows(found) == [500, -1_000, 500]
    assert found.earned == 390 * 1_000


def test_nothing_is_sold_below_the_price_that_was_named() -> None:
    wish = plan(0, 3, Battery(5_000, 0, 9_000), min_sell=Price(391, KWH), feed_power=4_000)
    assert flows(schedule(wish, prices(100, 400, 200), prices(90, 390, 190), NOW)) == [0, 0, 0]


def test_prices_below_0_fill_the_battery_beyond_what_was_asked() -> None:
    found = schedule(plan(0, 3, Battery(0, 0, 1_500)), prices(-5, -10, 0), None, NOW)
    assert flows(found) == [500, 1_000, 0]
    assert (found.owed, found.earned, found.cost) == (0, 12_500, -12)


def test_room_is_made_before_prices_below_0() -> None:
    wish = plan(0, 2, Battery(1_000, 0, 1_000), min_sell=Price(0, KWH), feed_power=4_000)
    assert flows(schedule(wish, prices(20, -50), prices(10, -60), NOW)) == [-1_000, 1_000]


@pytest.mark.parametrize(
    ("wish", "missing", "lack"),
    [
        (plan(5_000, 4, Battery(0, 0, 90_000)), 1_000, Lack.TIME),
        (plan(4_000, 4, Battery(0, 0, 90_000), max_price=Price(250, KWH)), 2_000, Lack.PRICE),
        (plan(4_000, 4, Battery(1_000, 0, 3_000)), 2_000, Lack.BATTERY),
    ],
)
def test_what_cannot_be_had_is_said_and_the_rest_is_planned(wish: Plan, missing: int, lack: Lack) -> None:
    found = schedule(wish, prices(300, 100, 400, 200), None, NOW)
    assert (found.missing, found.lack, found.net) == (missing, lack, wish.energy - missing)


def test_a_deadline_that_has_passed_leaves_nothing_to_do() -> None:
    found = schedule(plan(1_000, 0, Battery(0, 0, 2_000)), prices(1), None, NOW)
    assert (found.slots, found.missing, found.lack) == ((), 1_000, Lack.TIME)
    assert found.at(NOW).way is Way.HOLD


def test_it_says_at_each_instant_what_is_to_be_done_and_until_when() -> None:
    found = schedule(plan(1_500, 3, Battery(0, 0, 9_000)), prices(200, 300, 100), None, NOW)
    assert found.at(NOW) == Order(Way.SUPPLY, Instant(NOW + QUARTER // 2))
    assert found.at(Instant(NOW + QUARTER // 2)) == Order(Way.HOLD, Instant(NOW + QUARTER))
    assert found.at(Instant(NOW + QUARTER)) == Order(Way.HOLD, Instant(NOW + 2 * QUARTER))
    assert found.at(Instant(NOW + 2 * QUARTER)) == Order(Way.SUPPLY, Instant(NOW + 3 * QUARTER))
    assert found.at(Instant(NOW + 3 * QUARTER)).way is Way.HOLD


def test_what_is_left_of_a_plan_reaches_the_same_level() -> None:
    wish = plan(4_000, 4, Battery(1_000, 500, 9_000))
    assert wish.after(1_500) == wish._replace(energy=2_500, battery=Battery(2_500, 500, 9_000))


@pytest.mark.parametrize(
    "wish",
    [
        plan(1, 1, Battery(0, 0, 1), power=0),
        plan(1, 1, Battery(0, 2, 1)),
        plan(1, 1, Battery(-1, 0, 1)),
        plan(2**70, 1, Battery(0, 0, 1)),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wish: Plan) -> None:
    with pytest.raises(OutOfRange):
        schedule(wish, prices(1), None, NOW)


@st.composite
def instances(draw: st.DrawFn) -> tuple[Plan, Tariff, Tariff]:
    slots = draw(st.integers(1, 14))
    price = st.integers(-60, 600)
    buy = draw(st.lists(price, min_size=slots, max_size=slots))
    sell = draw(st.lists(price, min_size=slots, max_size=slots))
    most = draw(st.integers(0, 6_000))
    battery = Battery(draw(st.integers(0, 6_000)), draw(st.integers(0, most)), most)
    wish = plan(
        draw(st.integers(-3_000, 9_000)),
        slots,
        battery,
        power=draw(st.integers(1, 12_000)),
        feed_power=draw(st.integers(0, 12_000)),
        max_price=Price(draw(price), KWH),
        min_sell=draw(st.none() | st.builds(Price, price, st.just(KWH))),
    )
    return wish, prices(*buy), prices(*sell, per=draw(st.sampled_from([KWH, 300])))


def program(wish: Plan, buy: Tariff, sell: Tariff) -> tuple[Fraction, int]:
    """The least cost, and the energy that can be had, by a linear program of what is bought and sold in each quarter.

    First the highest level below the target that can be had in the end, then the least cost at which it can. Its matrix
    is a network's, so that the simplex method ends at whole numbers.
    """
    n = len(buy.steps)
    asked = [Fraction(step.amount, buy.per) for step in buy.steps]
    bid = [Fraction(step.amount, sell.per) for step in sell.steps]
    limit = Fraction(*wish.max_price)
    floor = None if wish.min_sell is None else Fraction(*wish.min_sell)
    room = [wish.power * QUARTER // 3_600_000 if price <= limit else 0 for price in asked]
    back = [wish.feed_power * QUARTER // 3_600_000 if floor is not None and price >= floor else 0 for price in bid]
    worth = [min(b, a) if r else b for a, b, r in zip(asked, bid, room, strict=True)]
    now, least, most = wish.battery
    sums = np.hstack([np.tril(np.ones((n, n))), -np.tril(np.ones((n, n)))])
    over = np.full(n, max(now, most) - now)
    under = np.full(n, now - min(now, least))
    bounds = [(0, r) for r in room] + [(0, b) for b in back]
    levels, ends = np.vstack([sums, -sums]), np.concatenate([over, under])
    furthest = linprog(-sums[-1], A_ub=levels, b_ub=ends, bounds=bounds, method="highs-ds")
    goal = min(wish.energy, round(-furthest.fun))
    best = linprog(
        [float(price) for price in asked] + [-float(price) for price in worth],
        A_ub=np.vstack([levels, -sums[-1:]]),
        b_ub=np.append(ends, -goal),
        bounds=bounds,
        method="highs-ds",
    )
    assert best.success
    whole = [round(flow) for flow in best.x]
    assert np.allclose(whole, best.x, atol=1e-5)
    cost = sum((price * flow for price, flow in zip(asked, whole[:n], strict=True)), Fraction(0))
    cost -= sum((price * flow for price, flow in zip(worth, whole[n:], strict=True)), Fraction(0))
    return cost, goal


@given(instances())
@settings(max_examples=200, deadline=None)
def test_no_linear_program_finds_a_cheaper_schedule(instance: tuple[Plan, Tariff, Tariff]) -> None:
    wish, buy, sell = instance
    found = schedule(wish, buy, sell, NOW)
    cost, goal = program(wish, buy, sell)
    worth = Tariff(
        buy.per * sell.per,
        tuple(
            Step(
                theirs.start,
                min(theirs.amount * buy.per, ours.amount * sell.per)
                if wish.power * QUARTER >= 3_600_000 and Fraction(ours.amount, buy.per) <= Fraction(*wish.max_price)
                else theirs.amount * buy.per,
            )
            for ours, theirs in zip(buy.steps, sell.steps, strict=True)
        ),
    )
    assert exact(flows(found), buy, worth) == cost
    assert found.missing == max(0, wish.energy - goal)
    if worth == sell:
        assert Fraction(found.owed - found.earned, found.per) == cost
    now, least, most = wish.battery
    level = now
    for flow in flows(found):
        level += flow
        assert min(now, least) <= level <= max(now, most)
    assert level - now == found.net >= wish.energy - found.missing


def test_ten_days_of_quarter_hours_are_planned_at_once() -> None:
    amounts = [(number * 7_919) % 601 - 60 for number in range(960)]
    wish = plan(30_000, 960, Battery(20_000, 10_000, 77_000), power=11_000, min_sell=Price(300, KWH), feed_power=11_000)
    begun = time.process_time()
    found = schedule(wish, prices(*amounts), prices(*(amount - 20 for amount in amounts)), NOW)
    assert time.process_time() - begun < 0.5
    assert (found.missing, found.net) == (0, 30_000)
