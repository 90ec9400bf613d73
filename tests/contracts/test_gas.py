"""No figure of `bench/gas.json` grows. `make gas` writes the file anew, and the table in docs/contract.md."""

from __future__ import annotations

import json
from pathlib import Path

from .gas import measure
from .world import World

RECORDED = Path(__file__).parents[2] / "bench" / "gas.json"
SLACK = 64  # gas: nonces of signatures and addresses have more or fewer zero bytes


def test_no_operation_costs_more_than_what_was_recorded(world: World) -> None:
    recorded, measured = json.loads(RECORDED.read_text()), measure(world)
    assert measured.keys() == recorded.keys()
    grown = {name: (gas, recorded[name]) for name, gas in measured.items() if gas > recorded[name] + SLACK}
    assert not grown
