"""One chain for all tests of the escrow contract; each test starts from the same point of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..contracts.world import START
from ..integration.anvil import Anvil
from .world import World


@pytest.fixture(scope="session")
def _world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if request.config.getoption("--chain") == "devnet":
        yield World()
        return
    node = Anvil(tmp_path_factory.mktemp("anvil"), START)
    try:
        yield World(node.fund)
    finally:
        node.kill()


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    point, counter, served = _world.chain.snapshot(), _world._counter, (_world.token, _world.contract)
    yield _world
    _world.chain.revert(point)
    _world._counter = counter
    _world.serve(*served)
