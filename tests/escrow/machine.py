"""The machine that tests the escrow contract: random lives, the contract and its law side by side.

    python -m tests.escrow.machine --steps 100000 [--seed N]

runs so many moves and prints what was done. The law is in `law` (whole calls) and `penstock.sim.escrow_model` (one
escrow), the moves are in `moves` and `spoil`, what must hold after each is in `play` and `invariants`.
"""

from __future__ import annotations

import argparse
import sys

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis.stateful import run_state_machine_as_test

from penstock.core.identity import keccak
from penstock.ledgers.artifacts import Artifact, load

from ..contracts import machine as channels
from ..contracts.machine import CHAPTER, LENGTH
from .moves import Moves
from .play import Play


class Run(channels.Run):
    """What a run has done so far."""

    def report(self, steps: int) -> str:
        """The summary, as lines."""
        _, *lines = super().report(steps).splitlines()
        first = f"contract {keccak(load('Escrow')['bytecode'].encode()).hex()[:16]}, Python {sys.version.split()[0]}"
        return "\n".join([first, *lines])


def run(
    steps: int,
    seed: int | None = None,
    progress: int = 0,
    shrink: bool = False,
    artifact: Artifact | None = None,
) -> Run:
    """Make at least `steps` moves. The same seed makes the same moves; without one they are always the same.

    `progress`: print a line every so many lives; `artifact`: try this contract instead of the real one.
    Raises what an invariant raised, with the moves that led there.
    """
    done = Run()

    class Machine(Moves):
        def begin(self) -> Play:
            done.lives += 1
            if progress and done.lives % progress == 0:
                print(f"{done.lives} lives, {done.sent} calls and waits", flush=True)
            return Play(done.tally, artifact)

    chosen = settings(
        stateful_step_count=LENGTH,
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    left = -(-steps // LENGTH)
    while left > 0:
        lives = left if seed is None else min(left, CHAPTER)
        if seed is not None:
            with_seed(seed)(Machine)
            seed += 1
        run_state_machine_as_test(Machine, settings=settings(chosen, max_examples=lives))
        left -= lives
    return done


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.escrow.machine", description="Test the escrow contract.")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="look for the shortest life that fails")
    given = parser.parse_args(arguments)
    done = run(given.steps, given.seed, progress=100, shrink=given.shrink)
    print(done.report(given.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
