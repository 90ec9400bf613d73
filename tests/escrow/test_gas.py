"""No figure of `bench/escrow_gas.json` grows. `make gas` writes the file anew, and the table in docs/escrow.md."""

from __future__ import annotations

import json
from pathlib import Path

from .gas import measure
from .world import World

RECORDED = Path(__file__).parents[2] / "bench" / "escrow_gas.json"
SLACK = 64  # gas: nonces of signatures and addresses have more or fewer zero bytes


def test_no_operation_costs_more_than_what_was_recorded(world: World) -> None:
    recorded, measured = json.loads(RECORDED.read_text()), measure(world)
    assert measured.keys() == recorded.keys()
    grown = {name: (gas, recorded[name]) for name, gas in measured.items() if gas > recorded[name] + SLACK}
    assert not grown


def test_a_session_costs_what_was_promised() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert recorded["deposit_by_authorization_eip3009"] <= 120_000
    assert recorded["final_release"] <= 70_000
