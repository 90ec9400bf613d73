from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .scene import Scene

LINKS = int(os.environ.get("LINKS", "200"))  # idle links that a greedy peer opens; `make faults` asks for 5,000
AT_LENGTH = pytest.mark.skipif("LINKS" not in os.environ, reason="takes its time: `make faults` runs it")


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A devnet, and a nursery that starts processes in milliseconds, for all tests of this worker."""
    made = Scene(tmp_path_factory.mktemp("scene"))
    yield made
    made.close()


@pytest.fixture
def scene(stage: Scene, tmp_path: Path) -> Iterator[Scene]:
    """The stage, with a pole of the test's own, which has not been started yet."""
    stage.fresh(tmp_path)
    yield stage
    stage.nursery.quiet(but=stage.devnet)
    if not stage.devnet.alive:
        stage.start_devnet()
