"""What it costs to begin: CPU seconds of real processes, from the command line to its help, or to the first tick.

`penstock consume` runs to the end of a session of one tick, over a channel that is open already, against a real
`penstock supply`: so it has the tick, its log, the receipt and the exit in it. Its key is one that guards money; what
the derivation of that key takes is measured in the same run and subtracted.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from penstock.ledgers.devnet.manifest import dev_key
from penstock.storage import keystore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
WAIT = 60.0  # seconds for a process to end
PASSPHRASE = "bench"


def run() -> dict[str, float]:
    """Medians of `ROUNDS`: CPU (s) of `penstock --help`, and of `penstock consume` beyond its key's derivation."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        place = _Place(Path(directory))
        with place.open() as address:
            place.buy(address, "--keep", "--deposit", "5")  # opens the channel; the ledger is asked here, and only here
            beyond = [place.buy(address, "--keep") - _derivation() for _ in range(ROUNDS)]
        helps = [place.cost("car", "--help") for _ in range(ROUNDS)]
    return {"cli_help_cpu_s": statistics.median(helps), "consume_cpu_s": statistics.median(beyond)}


def _derivation() -> float:
    """CPU (s) of one derivation as a key file of a key that guards money asks for it."""
    began = time.process_time()
    hashlib.scrypt(PASSPHRASE.encode(), salt=bytes(32), n=keystore.STRONG, r=8, p=1, maxmem=2**29, dklen=32)
    return time.process_time() - began


class _Place:
    """A devnet and a pole as processes, and homes for the pole and a car."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._passphrase = directory / "passphrase"
        self._passphrase.write_text(PASSPHRASE + "\n")
        for number, name in enumerate(("pole", "car")):
            (directory / name).mkdir(mode=0o700)
            keystore.create(directory / name / "keys", name, PASSPHRASE, dev_key(number).secret)

    @contextmanager
    def open(self) -> Iterator[str]:
        """The pole, open for business at the address given."""
        with ExitStack() as stack:
            devnet = stack.enter_context(self._running("devnet", "devnet", "--port", "0", "--accounts", "2", "--json"))
            manifest = _line(devnet.stdout)
            self._common = [
                "--url", manifest["url"], "--contract", manifest["contracts"]["CryptoEuroChannel"],
                "--passphrase-file", str(self._passphrase), "--line", str(self.directory / "line"),
            ]  # fmt: skip
            flags = ("--listen", "127.0.0.1:0", "--price", "0.40", "--tick", "0.001", "--log", "json")
            pole = stack.enter_context(self._running("pole", "supply", *self._common, *flags))
            listening = _line(pole.stderr)
            while listening["event"] != "listening":
                listening = _line(pole.stderr)
            yield listening["address"]

    def buy(self, address: str, *flags: str) -> float:
        """A session of one tick, bought by a process of its own; returns its CPU (s)."""
        limits = ("--quantity", "3", "--max-price", "0.45", "--budget", "1")
        return self.cost("car", "consume", address, *self._common, *limits, *flags)

    def cost(self, home: str, *arguments: str) -> float:
        """CPU (s) of a command that runs to its end."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(_command(arguments), env=self._environment(home), capture_output=True, timeout=WAIT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    @contextmanager
    def _running(self, home: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            _command(arguments),
            env=self._environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate(timeout=WAIT)

    def _environment(self, home: str) -> dict[str, str]:
        return {**os.environ, "PENSTOCK_HOME": str(self.directory / home)}


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "penstock", *arguments]


def _line(stream: IO[str] | None) -> dict[str, Any]:
    assert stream is not None
    found: dict[str, Any] = json.loads(stream.readline())
    return found


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
