"""What a seed means: who sells and buys what, who cheats and how, and which faults come when."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from penstock.core.grid import Orders
from penstock.core.messages import Way
from penstock.core.offer import Feed, Mode
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant

PRICE, PER, PACKAGE = 400_000, 1_000, 3
TROUBLE = 400.0  # seconds until everything is healed
PERIOD = 600  # seconds of challenge
PROOF = 10  # units that every honest car buys once all is healed


class Turn(NamedTuple):
    """What a car asks for, `at` seconds after its session was accepted."""

    at: float
    way: Way


class Signal(NamedTuple):
    """What the grid asks of the site from `at` on (s)."""

    at: float
    orders: Orders


class Purchase(NamedTuple):
    """What a car wants: at which pole, how much, with at most how much money, and whether it keeps its channel.

    `feed` is the most that it feeds in, for no less than `min_feed` (token units per `PER`); None where it does not.
    """

    pole: str
    quantity: int
    budget: int
    keep: bool
    deposit: int | None
    feed: int | None = None
    min_feed: int | None = None
    turns: tuple[Turn, ...] = ()


class CarPlan(NamedTuple):
    """One car: its purchases, when it begins, and how it cheats ("" where it is honest)."""

    name: str
    begins: float
    purchases: tuple[Purchase, ...]
    cheat: str


class Fault(NamedTuple):
    """Something that goes wrong with `target` at `at`, for `lasts` seconds; `size` is how bad it is, 0 to 1."""

    kind: str
    target: str
    at: float
    lasts: float
    size: float


class Scenario(NamedTuple):
    """One seed's world."""

    mode: Mode
    tariff: Tariff
    credit_limit: int
    tick: int  # token units
    rate: int  # units a second
    poles: tuple[str, ...]
    cars: tuple[CarPlan, ...]
    site_cheat: str
    latency: float  # seconds a frame takes, about
    sync: float  # seconds a commit takes, about
    faults: tuple[Fault, ...]
    brittle: tuple[str, ...]  # who dies at an effect of its own, again and again
    feed: Feed | None = None
    stake: int = 0  # what the site puts into a channel that pays both ways
    signals: tuple[Signal, ...] = ()


CAR_CHEATS = ("steal", "steal", "steal", "forge", "replay", "stall", "rollback", "lying meter", "stale close", "vanish")
SITE_CHEATS = ("steal", "forge", "replay", "stall", "rollback", "lying meter")
LINK_FAULTS = ("reset", "cut", "lossy", "mangled")
CAR_FAULTS = (*LINK_FAULTS, "crash", "fuse", "slow disk", "full disk", "skew", "jump", "stuck meter", "mute meter")
SITE_FAULTS = ("crash", "fuse", "slow disk", "full disk", "skew", "jump")
POLE_FAULTS = ("valve open", "valve shut", "stuck meter", "mute meter")
CHAIN_FAULTS = ("unreachable", "slow ledger", "reorganise", "censor", "stalled chain", "no gas")


def draw(rng: Random, start: Instant, calm: bool = False) -> Scenario:
    """The scenario of a seed's random numbers; a calm one has neither faults nor cheats."""
    poles = tuple(f"pole{number}" for number in range(rng.choice((1, 1, 2, 3))))
    cars = tuple(_car(rng, number, poles, calm) for number in range(rng.randint(1, 4)))
    site_cheat = rng.choice(SITE_CHEATS) if not calm and rng.random() < 0.15 else ""
    if site_cheat:
        cars = tuple(car._replace(cheat="") for car in cars)  # a cheat deserves an honest other side
    return Scenario(
        mode="pay-before" if rng.random() < 0.3 else "pay-after",
        tariff=_tariff(rng, start),
        credit_limit=rng.choice((1_400, 2_000, 4_000, 10_000)),
        tick=rng.choice((1_000, 1_000, 100, 20)),  # the smallest are folded, and need a second chain
        rate=rng.choice((2, 8, 30)),
        poles=poles,
        cars=cars,
        site_cheat=site_cheat,
        latency=rng.choice((0.002, 0.02, 0.2)),
        sync=rng.choice((0.0, 0.003, 0.03)),
        faults=() if calm else tuple(_fault(rng, poles, cars) for _ in range(rng.choice((0, 1, 3, 8, 20)))),
        brittle=tuple(name for name in ("site", *(car.name for car in cars)) if not calm and rng.random() < 0.15),
    )


def _tariff(rng: Random, start: Instant) -> Tariff:
    steps = [Step(Instant(0), PRICE)]
    at = start
    for _ in range(rng.choice((0, 0, 1, 3))):
        at = Instant(at + rng.randint(5_000, 120_000))
        steps.append(Step(at, rng.randint(PRICE // 4, PRICE)))
    return Tariff(PER, tuple(steps))


def _car(rng: Random, number: int, poles: tuple[str, ...], calm: bool) -> CarPlan:
    purchases = tuple(
        Purchase(
            pole=rng.choice(poles),
            quantity=rng.choice((3, 30, 100, 250)),
            budget=rng.choice((2_500, 1_000_000)),
            keep=rng.random() < 0.5,
            deposit=rng.choice((None, 100_000)),
        )
        for _ in range(rng.randint(1, 3))
    )
    cheat = rng.choice(CAR_CHEATS) if not calm and rng.random() < 0.3 else ""
    return CarPlan(f"car{number}", rng.uniform(0, 40), purchases, cheat)


def _fault(rng: Random, poles: tuple[str, ...], cars: tuple[CarPlan, ...]) -> Fault:
    groups = [(CAR_FAULTS, [car.name for car in cars]), (SITE_FAULTS, ["site"])]
    groups += [(POLE_FAULTS, list(poles)), (CHAIN_FAULTS, ["site", *(car.name for car in cars)])]
    kinds, targets = rng.choices(groups, (4, 3, 1, 2))[0]
    lasts = rng.choice((1.0, 8.0, 60.0))
    return Fault(rng.choice(kinds), rng.choice(targets), rng.uniform(10, TROUBLE / 3), lasts, rng.random())
