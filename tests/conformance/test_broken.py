"""Each property is missed where a rail does not have it: what passes the kit has passed something."""

from __future__ import annotations

import asyncio

import pytest

from penstock.rails import stream
from penstock.testing.rail import RAIL_PROPERTIES

from .broken import BROKEN, Broken
from .ground import ground


@pytest.fixture(autouse=True)
def _short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FOLD_EVERY", 3)
    monkeypatch.setattr(stream, "MAX_WALK", 7)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.number} {broken.what}")
def test_a_rail_that(broken: Broken) -> None:
    rule = next(rule for rule in RAIL_PROPERTIES if rule.number == broken.number)

    async def check() -> None:
        async with ground() as chain:
            setup = broken.setup(chain)
            assert not rule.skipped(setup.capabilities)
            with pytest.raises(AssertionError, match=broken.says):
                await rule.check(setup)

    asyncio.run(check())


def test_every_property_is_missed_by_some_rail() -> None:
    assert {broken.number for broken in BROKEN} == {rule.number for rule in RAIL_PROPERTIES}
