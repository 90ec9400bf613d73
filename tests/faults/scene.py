"""A devnet, one pole and many cars, each car with a home and a key of its own, and what their disks say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.identity import Address, Key
from penstock.core.session import Role, State
from penstock.core.watcher import worth
from penstock.ledgers.devnet.manifest import dev_key
from penstock.node import book
from penstock.rails.stream import decode_terms
from penstock.sim.register import Register
from penstock.storage import keystore
from penstock.storage.sqlite import SqliteJournal

from .nursery import Child, Nursery

PRICE = 400  # token units for a Wh
TICK = 1_000  # token units
ACCOUNTS = 1_000
_JOURNAL = ("journal.db", "journal.db-wal")


class Side(NamedTuple):
    """A node's home and key; dev keys are funded in the order of `index`."""

    home: Path
    key: Key
    tape: Path


class Scene:
    """Everything is in `directory`, and every process is started from one nursery."""

    def __init__(self, directory: Path, credit_ticks: int = 8) -> None:
        self.directory = self._stage = directory
        self.credit_limit = credit_ticks * TICK
        self.nursery = Nursery(directory)
        self._passphrase = directory / "passphrase"
        self._passphrase.write_text("test\n")
        self._port = "0"
        self._index = 0
        self.manifest: dict[str, Any] = {}
        self.devnet = self.start_devnet()
        self.pole: Child
        self.fresh(directory)

    def fresh(self, directory: Path) -> None:
        """Another pole, with its home, its line and the homes of its cars in `directory`."""
        self.directory = directory
        self.line = directory / "line"
        self.pole_side = self.side("pole")
        self._listen = "127.0.0.1:0"

    # ---- processes

    def start_devnet(self) -> Child:
        """The devnet, where it was before."""
        (self._stage / "devnet").mkdir(exist_ok=True)
        self.devnet = self.nursery.start(
            "devnet", self._stage / "devnet", "devnet", "--port", self._port, "--json",
            "--accounts", str(ACCOUNTS), "--state", str(self._stage / "chain"),
        )  # fmt: skip
        assert self.devnet.until(lambda: bool(self.devnet.lines) or not self.devnet.alive), "no devnet"
        assert self.devnet.lines, self.devnet.errors
        manifest = json.loads(self.devnet.lines[0])
        assert not self.manifest or manifest["contracts"] == self.manifest["contracts"]
        self.manifest = manifest
        self._port = manifest["url"].rpartition(":")[2]
        return self.devnet

    def side(self, name: str) -> Side:
        """A new node: its home, with the next funded key in it."""
        home, key = self.directory / name, dev_key(self._index)
        self._index += 1
        home.mkdir(mode=0o700, exist_ok=True)  # a test may have put a small disk there
        keystore.create(home / "keys", name, "test", key.secret, cost=keystore.LIGHT)
        return Side(home, key, self.directory / f"{name}.tape")

    def start_pole(self, mode: str, *flags: str, speed: float = 1_200, wait: bool = True) -> Child:
        """The pole, at the address that it had before; `wait` until it listens."""
        self.pole = pole = self.nursery.start(
            "pole", self.pole_side.home, *self.supply(mode, speed), *flags, tape=self.pole_side.tape
        )
        if wait:
            listening = pole.event("listening")
            assert listening is not None, (pole.errors, pole.code)
            self._listen = listening["address"]
        return pole

    def supply(self, mode: str, speed: float = 1_200) -> list[str]:
        """The pole's command line."""
        return [
            "supply", *self._common(self.pole_side.home.name), "--listen", self._listen, "--name", "pole",
            "--price", "0.40", "--tick", "0.001", "--credit-ticks", str(self.credit_limit // TICK), "--mode", mode,
            "--line", str(self.line), "--power-w", "6600", "--speed", str(speed),
        ]  # fmt: skip

    def exec(self, side: Side, *arguments: str, descriptors: int) -> subprocess.CompletedProcess[str]:
        """Run a command from the very start, with so many descriptors at most, to its end."""
        return subprocess.run(
            [
                "/bin/sh",
                "-c",
                f'ulimit -n {descriptors}; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "penstock",
                *arguments,
            ],
            env={**os.environ, "PENSTOCK_HOME": str(side.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start_car(self, side: Side, quantity: int, *flags: str) -> Child:
        """A car that buys `quantity` Wh."""
        return self.nursery.start(
            side.home.name, side.home, "consume", self._listen, *self._common(side.home.name),
            "--quantity", str(quantity), "--max-price", "0.45", "--budget", "9", "--line", str(self.line), *flags,
            tape=side.tape,
        )  # fmt: skip

    def command(self, side: Side, *arguments: str) -> Child:
        """Any other command of a node, run to its end."""
        child = self.nursery.start(side.home.name, side.home, *arguments, *self._common(side.home.name)[:-2])
        child.wait()
        return child

    def _common(self, name: str) -> list[str]:
        return [
            "--url", self.manifest["url"], "--contract", self.contract,
            "--key", name, "--passphrase-file", str(self._passphrase), "--json", "--log", "json",
        ]  # fmt: skip

    def end_pole(self) -> int:
        """Ask the pole to end, in order."""
        self.pole.send(signal.SIGTERM)
        return self.pole.wait()

    def close(self) -> None:
        self.nursery.close()

    # ---- what is to be seen from outside

    @property
    def contract(self) -> str:
        """The channel contract of the test euro."""
        found: str = self.manifest["contracts"]["CryptoEuroChannel"]
        return found

    @property
    def address(self) -> tuple[str, int]:
        """Where the pole listens."""
        host, _, port = self._listen.rpartition(":")
        return host, int(port)

    def register(self) -> int:
        """What the line has carried (Wh), as its file says."""
        if not self.line.exists():
            return 0
        register = Register.read_end(self.line)
        try:
            return register.read().total
        finally:
            register.close()

    def rpc(self, method: str, *params: Any) -> Any:
        """Ask the devnet, which must know."""
        answered = rpc(self.manifest["url"], method, *params)
        assert "error" not in answered, answered
        return answered["result"]


def rpc(url: str, method: str, *params: Any) -> dict[str, Any]:
    """The answer of a ledger's node, which may be an error."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        answered: dict[str, Any] = json.load(reply)
    return answered


@contextmanager
def journal_of(side: Side) -> Iterator[SqliteJournal | None]:
    """A copy of a node's journal as it is on disk now, so that looking at it changes nothing; None before there is one.

    Nobody may be writing: its process is dead or stopped.
    """
    if not (side.home / _JOURNAL[0]).exists():
        yield None
        return
    with tempfile.TemporaryDirectory(dir=side.home.parent) as directory:
        for name in _JOURNAL:
            if (side.home / name).exists():
                shutil.copyfile(side.home / name, Path(directory) / name)
        journal = SqliteJournal.open_readonly(Path(directory) / _JOURNAL[0])
        try:
            yield journal
        finally:
            journal._reader.close()


def held(journal: SqliteJournal, channel: bytes) -> int:
    """What a channel is worth to its payee by the payee's journal alone (token units since its opening)."""
    row = book.channel_of(journal, channel)
    return worth(book.filing_of(journal, row)) if row is not None else 0


class Balance(NamedTuple):
    """A session as a frozen supplier's disk and line have it: token units since it began; whether both have signed its
    receipt, and whether it has ended."""

    supplied: int
    secured: int
    limit: int
    complete: bool
    over: bool


def balances(journal: SqliteJournal, total: int, consumer: Address) -> dict[bytes, Balance]:
    """The sessions with a consumer, by the hash of their terms; `total` is what the line's register shows (Wh)."""
    found: dict[bytes, Balance] = {}
    for row in book.sessions(journal):
        if row.role is Role.SUPPLIER and row.terms.consumer == consumer:
            stream = decode_terms(row.terms.rail_terms)
            end = row.last.total if row.last is not None else total
            found[row.terms.digest()] = Balance(
                supplied=(end - row.base.total) * PRICE,
                secured=held(journal, stream.params.id) - stream.amount,
                limit=row.terms.offer.credit_limit,
                complete=bool(row.supplier_signature and row.consumer_signature),
                over=row.state is State.ENDED,
            )
    return found


def eventually(what: Callable[[], bool], seconds: float, message: str) -> None:
    """Poll until `what` is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.01)
