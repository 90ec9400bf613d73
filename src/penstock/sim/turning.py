"""What a seed means for a flow that turns round: a third of the worlds sell both ways, at moving prices, under a grid.

They draw from numbers of their own, so that all other seeds stay the worlds that they were.
"""

from __future__ import annotations

from random import Random

from penstock.core.grid import Orders
from penstock.core.messages import Way
from penstock.core.offer import Feed
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.sim.scenario import PACKAGE, PER, PRICE, TROUBLE, CarPlan, Purchase, Scenario, Signal, Turn

SHARE = 1 / 3  # of all seeds
HOUR = 3_600  # seconds: the grid counts in units an hour
PRICES = (PRICE, PRICE // 2, PRICE // 4, 0, 0, -PRICE // 4, -PRICE)


def turned(scenario: Scenario, rng: Random, start: Instant) -> Scenario:
    """The same world where the flow turns round; two of three times the world as it is."""
    if rng.random() >= SHARE:
        return scenario
    feed = Feed(
        tariff=_tariff(rng, start, rng.choice((PRICE // 2, PRICE, PRICE // 4))),
        tick_value=rng.choice((1_000, 800, 100, 20)),
        package=PACKAGE,
        credit_limit=rng.choice((1_400, 2_000, 4_000, 10_000)),
        limit=rng.choice((0, 60, 10_000, 10_000)),
    )
    return scenario._replace(
        tariff=_tariff(rng, start, PRICE),
        feed=feed,
        stake=rng.choice((0, 0, 20_000, 200_000)),
        cars=tuple(_car(rng, plan) for plan in scenario.cars),
        signals=tuple(sorted(_signal(rng, scenario.rate) for _ in range(rng.choice((0, 0, 2, 5))))),
    )


def _tariff(rng: Random, start: Instant, last: int) -> Tariff:
    """Prices of which some are 0 or below; the last is not, for what is bought once all is healed is to be paid."""
    amounts, at = [rng.choice(PRICES[:3])], start
    steps = [Step(Instant(0), amounts[0])]
    for amount in [rng.choice(PRICES) for _ in range(rng.choice((0, 1, 3, 5)))] + [last]:
        at = Instant(at + rng.randint(3_000, 60_000))
        steps.append(Step(at, amount))
    return Tariff(PER, tuple(steps))


def _car(rng: Random, plan: CarPlan) -> CarPlan:
    return plan._replace(purchases=tuple(_purchase(rng, wanted) for wanted in plan.purchases))


def _purchase(rng: Random, wanted: Purchase) -> Purchase:
    if rng.random() < 0.15:
        return wanted  # one that has no use for it
    times = sorted(rng.uniform(0.2, 40.0) for _ in range(rng.choice((0, 1, 2, 4))))
    turns = [Turn(at, rng.choice((Way.FEED, Way.FEED, Way.SUPPLY, Way.HOLD))) for at in times]
    if turns:
        turns.append(Turn(times[-1] + rng.uniform(1.0, 20.0), Way.SUPPLY))
    return wanted._replace(
        feed=rng.choice((0, 30, 5_000, 5_000)),
        min_feed=rng.choice((None, None, PRICE // 4)),
        turns=tuple(turns),
    )


def _signal(rng: Random, rate: int) -> Signal:
    """The grid wants less, nothing, or something back; or no longer."""
    most = rate * HOUR
    orders = rng.choice(
        (
            Orders(),
            Orders(supply_limit=0),
            Orders(supply_limit=most // 3, feed_limit=most // 2),
            Orders(feed_limit=0),
            Orders(supply_limit=0, feed_limit=0),
            Orders(setpoint=-most // 2),
            Orders(setpoint=most // 2),
            Orders(setpoint=0),
        )
    )
    return Signal(rng.uniform(1.0, TROUBLE / 3), orders)
