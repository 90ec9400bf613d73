"""Real processes for end-to-end tests: a devnet, poles and cars, each the `penstock` command with a home of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.ledgers.devnet.manifest import dev_key
from penstock.storage import keystore

DEADLINE = 60.0  # seconds for anything at all to happen


class Process:
    """One `penstock` process; the JSON events of its stderr can be waited for."""

    def __init__(self, home: Path, *arguments: str, module: str = "penstock") -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, "PENSTOCK_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.errors: list[str] = []
        self._out: queue.Queue[str | None] = queue.Queue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read_err, self._read_out)]
        for thread in self._threads:
            thread.start()

    def until(self, event: str, **floors: int) -> dict[str, Any]:
        """The next event of that name whose facts reach all `floors`."""
        end = time.monotonic() + DEADLINE
        while True:
            found = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if found is None:
                raise AssertionError(f"no {event!r} before the process ended: {self.errors[-3:]}")
            if found["event"] == event and all(found.get(name, 0) >= least for name, least in floors.items()):
                return found

    def answer(self) -> dict[str, Any]:
        """What it prints on stdout when it ends, whatever its exit code."""
        self.code = self.popen.wait(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        return self.line()

    def line(self) -> dict[str, Any]:
        """The next line of its stdout."""
        line = self._out.get(timeout=DEADLINE)
        assert line is not None, f"nothing on stdout; stderr ends in {self.errors[-3:]}"
        answered: dict[str, Any] = json.loads(line)
        return answered

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(DEADLINE)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(DEADLINE)

    def _read_err(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            try:
                self.events.put(json.loads(line))
            except ValueError:
                self.errors.append(line.strip())
        self.events.put(None)

    def _read_out(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._out.put(line)
        self._out.put(None)


class World:
    """A directory with a home for the pole and the car, on a devnet."""

    def __init__(
        self, directory: Path, manifest: dict[str, Any], account: int, roles: Sequence[str] = ("pole", "car")
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.contract = manifest["contracts"]["CryptoEuroChannel"]
        self.processes: list[Process] = []
        self.keys = {name: dev_key(account + index) for index, name in enumerate(roles)}
        self.passphrase = directory / "passphrase"
        self.passphrase.write_text("test\n")
        for name, key in self.keys.items():
            home = directory / name
            home.mkdir(mode=0o700)
            keystore.create(home / "keys", name, "test", key.secret, cost=keystore.LIGHT)

    def home(self, name: str) -> Path:
        return self.directory / name

    def common(self, name: str) -> list[str]:
        return [
            "--url", self.manifest["url"], "--contract", self.contract,
            "--key", name, "--passphrase-file", str(self.passphrase),
        ]  # fmt: skip

    def start(self, name: str, *arguments: str, module: str = "penstock") -> Process:
        process = Process(self.home(name), *arguments, module=module)
        self.processes.append(process)
        return process

    def pole(self, *flags: str, listen: str = "127.0.0.1:0", speed: str | None = "600") -> Process:
        pace = ["--speed", speed] if speed else []
        return self.start(
            "pole", "supply", *self.common("pole"), "--log", "json", "--json", "--listen", listen, "--name", "pole",
            "--price", "0.40", "--tick", "0.001", "--line", str(self.directory / "line"), "--power-w", "6600",
            "--once", *pace, *flags,
        )  # fmt: skip

    def car(self, address: str, *flags: str, quantity: int = 2_000) -> Process:
        return self.start(
            "car", "consume", address, *self.common("car"), "--log", "json", "--json", "--quantity", str(quantity),
            "--max-price", "0.45", "--budget", "9", "--line", str(self.directory / "line"), *flags,
        )  # fmt: skip

    def hub(self, name: str, *reach: str, listen: str = "127.0.0.1:0", flags: Sequence[str] = ()) -> Process:
        onward = [part for one in reach for part in ("--reach", one)]
        return self.start(
            name, "hub", *self.common(name), "--log", "json", "--json", "--listen", listen, "--lend", "10", *onward,
            *flags,
        )  # fmt: skip

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "penstock", *arguments],
            env={**os.environ, "PENSTOCK_HOME": str(self.home(name))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def end(self) -> None:
        for process in self.processes:
            process.end()
