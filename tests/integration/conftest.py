"""A node of its own for each test: what a reorg or a restart does to one reaches no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.ledgers.devnet.manifest import Manifest

from .anvil import Anvil
from .founding import found


@pytest.fixture
def anvil(tmp_path: Path) -> Iterator[Anvil]:
    """A new node whose chain time is the clock; each transaction gets a block at once until `set_automine`."""
    node = Anvil(tmp_path)
    try:
        yield node
    finally:
        node.kill()


@pytest.fixture
def manifest(anvil: Anvil) -> Manifest:
    """The contracts of a devnet on that node, and the accounts `dev_key(0)` to `dev_key(9)` with ether and euros."""
    return found(anvil)
