"""What fails around a session: the ledger goes away, the disk fills up, whoever reads the log leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .test_session import agree, holdings
from .world import DEADLINE, Process, World


class Outage:
    """A devnet of one's own that can be killed and brought back, with its state in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = "0"
        self.process = self._start()
        self.manifest = self.process.line()
        self._port = self.manifest["url"].rpartition(":")[2]

    def kill(self) -> None:
        self.process.kill()

    def back(self) -> None:
        self.process = self._start()
        assert self.process.line()["contracts"] == self.manifest["contracts"]

    def _start(self) -> Process:
        flags = ("--port", self._port, "--state", str(self._directory / "chain"), "--accounts", "2", "--json")
        return Process(self._directory, "devnet", *flags)


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    made = Outage(tmp_path)
    yield made
    made.process.end()


@pytest.fixture
def alone(outage: Outage, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, outage.manifest, 0)
    yield made
    made.end()


def test_streaming_goes_on_while_the_ledger_is_gone(outage: Outage, alone: World) -> None:
    before = holdings(alone)
    pole = alone.pole()
    car = alone.car(pole.until("listening")["address"], quantity=3_000)
    pole.until("progress", total=200)
    outage.kill()
    bought = car.answer()
    assert car.code == 0, car.errors
    assert bought["complete"]
    assert bought["receipt"]["paid"] == 3_000 * 400
    assert pole.answer()["error"]["kind"] == "LedgerUnreachable"
    assert pole.code == 1
    assert pole.errors[-1].startswith("penstock: no answer from the node")
    outage.back()
    pole = alone.pole()
    pole.until("settled")
    pole.signal(signal.SIGTERM)
    assert pole.answer()["sessions"] == []
    earned, spent = (now - then for now, then in zip(holdings(alone), before, strict=True))
    assert (earned, spent) == (3_000 * 400, -3_000 * 400)


def test_a_ledger_that_comes_back_while_streaming_is_used_again(outage: Outage, alone: World) -> None:
    before = holdings(alone)
    pole = alone.pole()
    car = alone.car(pole.until("listening")["address"], quantity=3_000)
    pole.until("progress", total=200)
    outage.kill()
    outage.back()
    assert car.answer()["complete"]
    assert pole.answer()["transactions"]
    assert holdings(alone)[0] - before[0] == 3_000 * 400


def test_a_full_disk_stops_the_supply_with_one_line(world: World) -> None:
    before = holdings(world)
    pole = world.pole()
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=3_000)
    pole.until("progress", total=200)
    full = (world.home("pole") / "journal.db-wal").stat().st_size
    resource.prlimit(pole.popen.pid, resource.RLIMIT_FSIZE, (full, full))
    answered = pole.answer()
    assert answered["error"]["kind"] == "JournalError"
    assert pole.code == 1
    (line,) = pole.errors
    assert "journal" in line
    assert "free disk space" in line
    pole = world.pole(listen=address)
    assert pole.until("restored")["secured"] > 0
    agree(world, before, car.answer(), pole.answer(), 3_000)


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)], ids=str)
def test_closed_streams_do_not_matter(world: World, closed: tuple[int, ...]) -> None:
    """A command whose stdin, stdout or stderr was closed before it began still does its work."""
    shut = "".join(f"os.close({number});" for number in closed)
    script = f"import os,sys;{shut}os.execv(sys.executable,[sys.executable,'-m','penstock','key','list','--json'])"
    environment = {**os.environ, "PENSTOCK_HOME": str(world.home("pole"))}
    done = run(script, environment)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    if 1 not in closed:
        assert json.loads(done.stdout)["keys"]


def run(script: str, environment: dict[str, str]) -> Any:
    import subprocess
    import sys

    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def test_a_log_that_nobody_reads_any_more_does_not_stop_the_supply(world: World) -> None:
    pole = world.pole()
    address = pole.until("listening")["address"]
    assert pole.popen.stderr is not None
    reader = pole.popen.stderr.fileno()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, reader)  # the pipe has no reader now
    os.close(null)
    bought = world.car(address, quantity=500).answer()
    assert bought["complete"]
    assert pole.answer()["sessions"][0]["complete"]
