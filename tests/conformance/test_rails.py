"""Every rail has the nine properties."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from penstock.rails import stream
from penstock.testing.rail import RAIL_PROPERTIES, Property, RailSetup

from .escrow import EscrowSetup
from .ground import Ground, ground
from .stream import StreamSetup

SETUPS: dict[str, Callable[[Ground], RailSetup]] = {"stream channel": StreamSetup, "escrow": EscrowSetup}


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
