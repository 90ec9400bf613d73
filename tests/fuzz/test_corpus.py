"""What fuzzing found is tried again: an input for each kind of outcome, those that were bugs among them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_is_taken_or_refused_as_documented(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "no corpus"
    for file in inputs:
        TARGETS[name].run(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_mutations_of_them_are_taken_or_refused_as_documented(name: str) -> None:
    target, random = TARGETS[name], Random(20_261_122)
    for data in target.seeds():
        target.run(data)
        for _ in range(5):
            target.run(target.mutation(data, random))


def test_the_targets_accept_most_of_their_seeds() -> None:
    """Or what is mutated would be refused at the door."""
    for name, target in TARGETS.items():
        seeds = target.seeds()
        errors = [error.__name__ for error in target.errors]
        taken = [data for data in seeds if target.run(data).split(" ")[0] not in errors]
        assert 2 * len(taken) >= len(seeds), f"{name}: {len(taken)} of {len(seeds)}"
