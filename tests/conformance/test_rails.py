"""Every rail has the ten properties."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from penstock.rails import stream
from penstock.testing import rail as kit
from penstock.testing.rail import RAIL_PROPERTIES, Property, RailSetup

from .escrow import EscrowSetup
from .ground import Ground, ground
from .hops import HopSetup, ThreeHubs, TwoHubs
from .stream import StreamSetup

SETUPS: dict[str, Callable[[Ground], RailSetup]] = {
    "stream channel": StreamSetup,
    "escrow": EscrowSetup,
    "one hub": HopSetup,
    "two hubs": TwoHubs,
    "three hubs": ThreeHubs,
}


@pytest.fixture(autouse=True)
def _short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds and fresh chains every few ticks, so that a short session has them where it breaks."""
    monkeypatch.setattr(stream, "FOLD_EVERY", 3)
    monkeypatch.setattr(stream, "MAX_WALK", 7)


@pytest.mark.parametrize("rule", RAIL_PROPERTIES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("rail", SETUPS)
def test_a_rail_conforms(rail: str, rule: Property) -> None:
    async def check() -> None:
        async with ground() as chain:
            setup = SETUPS[rail](chain)
            if reason := rule.skipped(setup.capabilities):
                pytest.skip(reason)
            await rule.check(setup)

    asyncio.run(check())


def test_what_does_not_apply_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rail whose ending is final at once has nothing stale to refute."""
    said: list[str] = []
    monkeypatch.setattr(kit, "RAIL_PROPERTIES", [rule for rule in RAIL_PROPERTIES if rule.number in (2, 6)])

    async def check() -> None:
        async with ground() as chain:
            setup = EscrowSetup(chain)
            setup.capabilities = msgspec.structs.replace(setup.capabilities, refutable=False)
            await kit.check_rail(setup, said.append)

    asyncio.run(check())
    assert said[0] == "escrow: 2 a claim never falls: holds"
    assert said[1] == (
        "escrow: 6 a stale close is refuted: skipped: what ends a session on the escrow rail is final at once"
    )


def test_what_every_rail_must_do_is_skipped_by_none() -> None:
    for rule in RAIL_PROPERTIES:
        for setup in (StreamSetup, EscrowSetup, HopSetup):
            assert bool(rule.skipped(setup.capabilities)) is (rule.number == 10 and setup is not StreamSetup)
