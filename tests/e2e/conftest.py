from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .world import Process, World

_accounts = itertools.count(0, 2)


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A devnet process for all tests of this worker; each test takes two funded keys of its own."""
    process = Process(tmp_path_factory.mktemp("devnet"), "devnet", "--port", "0", "--accounts", "400", "--json")
    try:
        yield process.line()
    finally:
        process.end()


@pytest.fixture
def world(devnet: dict[str, Any], tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, devnet, next(_accounts))
    yield made
    made.end()
