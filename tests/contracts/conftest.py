"""One chain for all tests of the contracts; each test starts from the same point of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import World


@pytest.fixture(scope="session")
def _world() -> World:
    return World()


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    point, counter = _world.chain.snapshot(), _world._counter
    yield _world
    _world.chain.revert(point)
    _world._counter = counter
