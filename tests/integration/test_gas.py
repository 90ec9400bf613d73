"""The gas that `make gas` writes down is what a node that others made charges for the same transactions."""

from __future__ import annotations

from pathlib import Path

from ..contracts.gas import measure
from ..contracts.world import START, World
from .anvil import Anvil


def test_every_operation_costs_on_anvil_what_it_costs_on_the_devnet(tmp_path: Path) -> None:
    node = Anvil(tmp_path, START)
    try:
        assert measure(World(node.fund)) == measure(World())
    finally:
        node.kill()
