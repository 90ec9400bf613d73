"""Random lives of many escrows: the contract does what its law says, no token is made or lost, and all get out."""

from __future__ import annotations

from penstock.ledgers.artifacts import load

from .machine import run

STEPS = 800


def test_the_contract_keeps_its_law() -> None:
    done = run(STEPS)
    functions = {entry["name"] for entry in load("Escrow")["abi"] if entry["type"] == "function" and _moves(entry)}
    took = {name for (name, how), count in done.tally.items() if count and how == "allowed"}
    refused = {name for (name, how), count in done.tally.items() if count and how in ("refused", "skipped")}
    assert functions <= took, f"never allowed: {functions - took}"
    assert functions <= refused, f"never refused: {functions - refused}"


def _moves(entry: dict[str, object]) -> bool:
    """Whether a function changes something."""
    return entry["stateMutability"] not in ("view", "pure")
