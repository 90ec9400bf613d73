from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.conformance.ground import ground

from .street import HopStreet, hop_street
from .world import HopWorld, hop_world


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[HopWorld]:
    async with ground() as chain, hop_world(chain, tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def street(tmp_path: Path) -> AsyncIterator[HopStreet]:
    async with ground() as chain, hop_street(chain, tmp_path) as made:
        yield made
