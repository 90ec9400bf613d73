"""What a seed means where payments go over hubs: which there are, whom each pays, who cheats, and what fails besides.

These worlds draw from numbers of their own, so that all other seeds stay the worlds that they were.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from penstock.node.relay import Fees
from penstock.sim.scenario import CHAIN_FAULTS, TROUBLE, Fault, Scenario

MARGIN = 300  # seconds before an expiry in which what is proven is claimed
DELTA = 900  # seconds that an incoming lock of a hub outlives the outgoing one
LIFE = 1_800  # seconds that a lock lasts at the site
LEND = 1_000_000  # token units that a hub puts into each channel
FEES = Fees(fee_ppm=10_000, holding_ppm=100, delta=DELTA)
MAX_FEE = 200_000  # ppm: ticks are small, and a hub's part of one is rounded up

CALM = 0.1  # of these worlds have neither faults nor cheats, and are paid to the unit
CAR_CHEATS = ("vanish", "stale close", "never settles", "never settles", "forge", "replay", "stall", "lying meter")
ROBBERS = ("old voucher", "both vouchers", "last block", "tells late")  # sites that a car helps
SITE_CHEATS = (*ROBBERS, "too much", "never releases", "forge", "replay", "stall")

HUB_CHEATS = ("smaller", "shorter", "pretends", "twice", "never settles", "never tells", "vanish", "forge", "replay")
HUB_FAULTS = (
    "crash", "crash", "fuse", "fuse", "reset", "cut", "lossy", "slow disk", "full disk", "skew", "far jump",
    *CHAIN_FAULTS,
)  # fmt: skip


class HubPlan(NamedTuple):
    """One hub: whom it pays, by where they listen, and how it cheats ("" where it is honest)."""

    name: str
    reach: tuple[str, ...]
    cheat: str


class HubScenario(NamedTuple):
    """One seed's world over hubs. `entries` are the hubs that each car pays, by its name."""

    world: Scenario
    hubs: tuple[HubPlan, ...]
    entries: dict[str, tuple[str, ...]]

    @property
    def honest(self) -> bool:
        """Whether nobody cheats."""
        cars = any(car.cheat for car in self.world.cars)
        return not (cars or self.world.site_cheat or any(hub.cheat for hub in self.hubs))

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong, and nobody cheats."""
        return self.honest and not self.world.faults and not self.world.brittle


def hubs_of(scenario: Scenario, rng: Random, calm: bool = False) -> HubScenario:
    """The same world where all is paid over hubs. Each car can reach the site."""
    names = tuple(f"hub{number}" for number in range(rng.choice((1, 1, 2, 3))))
    cars = tuple(car._replace(cheat="") for car in scenario.cars)
    calm = calm or rng.random() < CALM
    world, cheats = scenario._replace(cars=cars, site_cheat=""), dict[str, str]()
    if calm:
        world = world._replace(faults=(), brittle=())
    if not calm and rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 3))):
            world = _corrupt(world, cheats, names, rng)
    hubs = tuple(
        HubPlan(name, _reach(names, number, scenario.poles, rng), cheats.get(name, ""))
        for number, name in enumerate(names)
    )
    if not calm:
        more = tuple(_fault(rng, names) for _ in range(rng.choice((0, 0, 1, 3, 8))))
        brittle = tuple(name for name in names if rng.random() < 0.15)
        faults = tuple(fault for fault in world.faults if fault.kind != "mangled") + more
        world = world._replace(faults=faults, brittle=world.brittle + brittle)
    return HubScenario(world, hubs, {car.name: _entries(names, rng) for car in cars})


def _reach(names: tuple[str, ...], number: int, poles: tuple[str, ...], rng: Random) -> tuple[str, ...]:
    """In a line to the site, and perhaps past those between."""
    onward = names[number + 1 :]
    past = tuple(name for name in onward[1:] if rng.random() < 0.3)
    site = poles[:1] if not onward or rng.random() < 0.3 else ()
    return onward[:1] + past + site


def _entries(names: tuple[str, ...], rng: Random) -> tuple[str, ...]:
    """The first hub, or another, or some."""
    if rng.random() < 0.6:
        return names[:1]
    return tuple(name for name in names if rng.random() < 0.5) or names[-1:]


def _corrupt(world: Scenario, cheats: dict[str, str], names: tuple[str, ...], rng: Random) -> Scenario:
    """Make one of them a cheat: a car, the site, or a hub; or the site and a car that helps it."""
    who = rng.choice(("car", "site", "hub"))
    if who == "hub":
        cheats[rng.choice(names)] = rng.choice(HUB_CHEATS)
        return world
    if who == "site":
        world = world._replace(site_cheat=rng.choice(SITE_CHEATS))
        if world.site_cheat not in ROBBERS:
            return world
    cheat = "colludes" if who == "site" else rng.choice(CAR_CHEATS)
    chosen = rng.randrange(len(world.cars))
    cars = tuple(car._replace(cheat=cheat) if at == chosen else car for at, car in enumerate(world.cars))
    return world._replace(cars=cars)


def _fault(rng: Random, names: tuple[str, ...]) -> Fault:
    kind = "for good" if rng.random() < 0.04 else rng.choice(HUB_FAULTS)
    return Fault(kind, rng.choice(names), rng.uniform(5, TROUBLE / 3), rng.choice((1.0, 8.0, 60.0)), rng.random())
