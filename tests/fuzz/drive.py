"""Run one target under libFuzzer: `python -m tests.fuzz.drive TARGET RUNS DIRECTORY SEED`, in a process of its own.

`DIRECTORY/TARGET` receives the inputs that reached new code, and `DIRECTORY/TARGET.kinds` one for each kind of outcome.
What must not happen ends the run, and is written to `DIRECTORY/TARGET.bad-*`.

libFuzzer keeps an input where it reached new Python code. Of a codec in C it sees none of that, and would forget every
valid message; so the shortest input of each kind of outcome is kept here, too, and most mutations begin from those.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from random import Random

import atheris  # type: ignore[import-untyped]  # it has no annotations

MOST_ADDRESSES = 4 * 2**30  # bytes: a parser that asks for more gets a MemoryError, and the machine stays whole
SECONDS = 20  # until a call counts as hung
PLAIN = 0.2  # of the mutations are libFuzzer's own
OURS = 0.6  # begin from an input that we kept
MOST_KINDS = 2_000

CORPUS = Path(__file__).parent / "corpus"

with atheris.instrument_imports(include=["penstock", "eth_abi"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS


class Kinds:
    """The shortest input of each kind of outcome; in files at once, since libFuzzer ends the process without a word."""

    def __init__(self, seeds: list[bytes], directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.inputs = seeds
        self._directory = directory
        self._at: dict[str, int] = {}

    def saw(self, outcome: str, data: bytes) -> None:
        """Keep the input where it is the first, or the shortest, of its kind."""
        at = self._at.get(outcome)
        if at is None:
            if len(self.inputs) == MOST_KINDS:
                return
            at = self._at[outcome] = len(self.inputs)
            self.inputs.append(data)
        elif len(data) < len(self.inputs[at]):
            self.inputs[at] = data
        else:
            return
        (self._directory / f"{at:04}").write_bytes(data)


def main(name: str, runs: int, directory: Path, seed: int) -> None:
    """Fuzz `name` for `runs` executions, from its seeds and the corpus that is kept with the project."""
    target, random = TARGETS[name], Random(seed)
    found, kept = directory / name, CORPUS / name
    found.mkdir(parents=True, exist_ok=True)
    kinds = Kinds(
        [*target.seeds(), *(file.read_bytes() for file in sorted(kept.glob("*")))], directory / f"{name}.kinds"
    )
    for number, data in enumerate(kinds.inputs):
        (found / f"seed-{number}").write_bytes(data)

    def mutate(data: bytes, most: int, _: int) -> bytes:
        chance = random.random()
        if chance < PLAIN:
            return bytes(atheris.Mutate(data, most))
        if chance < PLAIN + OURS:
            data = kinds.inputs[int(random.random() * len(kinds.inputs))]
        return target.mutation(data, random)[:most]

    def one(data: bytes) -> None:
        kinds.saw(target.run(data), data)

    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={target.longest}",
        f"-timeout={SECONDS}",
        f"-artifact_prefix={directory / name}.bad-",
        "-rss_limit_mb=2048",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
