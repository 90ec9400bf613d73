"""A devnet (or another node) in a process of its own, shared by the tests of a module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from penstock.ledgers.devnet.manifest import Manifest

from ..integration.anvil import Anvil
from ..integration.founding import found

SERVE = """
import asyncio, sys
from pathlib import Path
from penstock.ledgers.devnet.server import serve
asyncio.run(serve(
    ready=lambda manifest: print(manifest.line(), flush=True),
    accounts=int(sys.argv[1]),
    directory=Path(sys.argv[2]) if sys.argv[2] else None,
    port=int(sys.argv[3]),
))
"""


class Devnet:
    """A running devnet: its manifest and its process."""

    def __init__(self, accounts: int, directory: Path | None, port: int) -> None:
        where = str(directory) if directory is not None else ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(accounts), where, str(port)], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the devnet did not start"
        self.manifest = msgspec.json.decode(line, type=Manifest)
        self.port = int(self.manifest.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


Starter = Callable[..., Devnet]


@contextmanager
def starter() -> Iterator[Starter]:
    running: list[Devnet] = []

    def start(accounts: int = 4, directory: Path | None = None, port: int = 0) -> Devnet:
        running.append(Devnet(accounts, directory, port))
        return running[-1]

    try:
        yield start
    finally:
        for devnet in running:
            if devnet.process.poll() is None:
                devnet.kill()


@pytest.fixture
def start_devnet() -> Iterator[Starter]:
    """Starts devnets for one test."""
    with starter() as start:
        yield start


@pytest.fixture(scope="module")
def devnet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manifest]:
    """A devnet with 40 funded accounts that a module's tests share; each uses accounts of its own.

    With `--chain anvil` the same contracts and accounts on anvil, for what must work on any node.
    """
    if request.config.getoption("--chain") == "devnet":
        with starter() as start:
            yield start(accounts=40).manifest
        return
    node = Anvil(tmp_path_factory.mktemp("anvil"))
    try:
        yield found(node, accounts=40)
    finally:
        node.kill()
