"""Whatever bytes make of two nodes and a ledger: once all is healed, everything settles."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .opcodes import OpcodeWorld

CORPUS = [
    bytes.fromhex(line.split()[0])
    for line in Path(__file__).with_name("opcodes.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("part", range(4))
def test_every_kept_string_settles(part: int) -> None:
    for program in CORPUS[part::4]:
        _settles(program)


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_any_string_settles(program: bytes) -> None:
    _settles(program)


def test_a_string_is_the_same_world_every_time() -> None:
    assert OpcodeWorld(CORPUS[0]).run().hash == OpcodeWorld(CORPUS[0]).run().hash


def _settles(program: bytes) -> None:
    outcome = OpcodeWorld(program).run()
    again = f"python -m tests.sim.opcodes --replay {program.hex()}"
    assert not outcome.violation, "\n".join([*outcome.tail, outcome.violation, again])
