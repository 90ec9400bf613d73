"""The chain of the contract's tests, and the street of the node's."""

from __future__ import annotations

from ..contracts.conftest import _world, world
from ..node.conftest import _quick_beat, devnet, fresh_key, open_street

__all__ = ["_quick_beat", "_world", "devnet", "fresh_key", "open_street", "world"]
