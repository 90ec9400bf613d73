from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.conformance.ground import Ground, ground, ground_at
from tests.integration.anvil import Anvil
from tests.integration.founding import found

from .street import HopStreet, hop_street
from .world import HopWorld, hop_world


@pytest_asyncio.fixture
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A chain for one test; with `--chain anvil` on a real node of its own."""
    if request.config.getoption("--chain") == "devnet":
        async with ground() as made:
            yield made
        return
    node = Anvil(tmp_path)

    async def stop() -> None:
        node.kill()

    try:
        manifest = found(node, accounts=6)
        async with ground_at(manifest.url, manifest.contracts, manifest.chain_id, stop, []) as made:
            yield made
    finally:
        node.kill()


@pytest_asyncio.fixture
async def world(chain: Ground, tmp_path: Path) -> AsyncIterator[HopWorld]:
    async with hop_world(chain, tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def street(chain: Ground, tmp_path: Path) -> AsyncIterator[HopStreet]:
    async with hop_street(chain, tmp_path) as made:
        yield made
