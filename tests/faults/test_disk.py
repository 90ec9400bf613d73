"""A disk that fills up under a node: it says so in a line and ends, and goes on from what it had acknowledged.

The disk is a tmpfs of eight megabytes, which only root may mount. Elsewhere these tests say that they were skipped, and
`tests/e2e/test_outages.py` limits the size of the file instead.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .nursery import Child
from .scene import PRICE, TICK, Scene, Side, balances, eventually, journal_of, rpc
from .tape import Told

SIZE = 8 * 1024 * 1024  # SQLite folds its write-ahead log into the file at 4 MB: a node needs some 5 MB


class Disk:
    """A small file system of its own, which can be filled and cleared."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._filler = where / "somebody else's"

    def fill(self) -> None:
        """Leave nothing free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 18, 4096, 512, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def clear(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(scene: Scene) -> Iterator[Disk]:
    where = scene.directory / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(where)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({mounted.stderr.strip()}): run as root")
    yield Disk(where)
    scene.nursery.quiet(but=scene.devnet)
    subprocess.run(["umount", str(where)], check=True)


def flows(scene: Scene, least: int) -> None:
    before = scene.register()
    eventually(lambda: scene.register() >= before + least, 20, "nothing flows")


def says_that_the_disk_is_full(child: Child) -> None:
    assert child.wait() == 1
    (line,) = [text for text in child.errors if text.startswith("penstock:")]
    assert "journal" in line
    assert "free disk space" in line
    assert not any("Traceback" in text for text in child.errors)
    assert child.answer()["error"]["kind"] == "JournalError"


def agree(scene: Scene, car: Side, quantity: int) -> None:
    """Both books hold the same receipt over all that flowed, and the pole holds all that the car was told of."""
    with journal_of(scene.pole_side) as journal:
        assert journal is not None
        ((digest, balance),) = balances(journal, scene.register(), car.key.address).items()
        assert balance.complete
        assert balance.secured == balance.supplied == quantity * PRICE
        assert Told(car.tape).secured[digest] <= balance.secured


def test_a_full_disk_at_the_supplier_stops_the_supply_and_loses_nothing(scene: Scene, disk: Disk) -> None:
    scene.pole_side = scene.side("small")
    scene.start_pole("pay-after")
    side = scene.side("car")
    car = scene.start_car(side, 4_000)
    flows(scene, 300)
    disk.fill()
    says_that_the_disk_is_full(scene.pole)
    stands = scene.register()
    told = Told(side.tape)
    with journal_of(scene.pole_side) as journal:
        assert journal is not None
        ((digest, balance),) = balances(journal, stands, side.key.address).items()
        assert balance.secured >= told.secured[digest] > 0
        assert balance.supplied - balance.secured <= scene.credit_limit
    disk.clear()
    scene.start_pole("pay-after")
    restored = scene.pole.event("restored")
    assert restored is not None
    assert restored["secured"] >= told.secured[digest]
    assert car.wait() == 0, car.errors
    assert scene.end_pole() == 0
    agree(scene, side, 4_000)


def test_a_supplier_whose_disk_is_full_from_the_start_sells_nothing(scene: Scene, disk: Disk) -> None:
    scene.pole_side = scene.side("small")
    disk.fill()
    scene.start_pole("pay-after", wait=False)
    assert scene.pole.wait() == 1
    (line,) = scene.pole.errors
    assert line.startswith("penstock: journal")
    assert "Traceback" not in line
    disk.clear()
    scene.start_pole("pay-after")
    assert scene.start_car(scene.side("car"), 300).wait() == 0


def test_a_full_disk_at_the_consumer_stops_its_payments_and_loses_nothing(scene: Scene, disk: Disk) -> None:
    scene.start_pole("pay-after")
    side = scene.side("small")
    car = scene.start_car(side, 4_000)
    flows(scene, 300)
    disk.fill()  # it will be written to at the next fold, or at the end
    says_that_the_disk_is_full(car)
    eventually(lambda: bool(scene.pole.said("link lost")), 10, "the pole has not noticed")
    scene.pole.until(lambda: False, 0.3)
    stands = scene.register()
    told = Told(side.tape)
    disk.clear()
    again = scene.start_car(side, 4_000)
    assert again.wait() == 0, again.errors
    assert again.said("resumed")
    assert scene.register() > stands
    assert max(told.given.values()) <= stands * PRICE + TICK
    assert scene.end_pole() == 0
    agree(scene, side, 4_000)


def test_a_full_disk_under_the_devnet_costs_no_block_that_it_told_of(scene: Scene, disk: Disk) -> None:
    """A chain that cannot write a block refuses it, says why, and goes on once there is space."""
    flags = ("devnet", "--json", "--accounts", "3", "--state", str(disk.where / "chain"), "--port")
    chain = scene.nursery.start("devnet", disk.where, *flags, "0")
    assert chain.until(lambda: bool(chain.lines)), chain.errors
    url = json.loads(chain.lines[0])["url"]
    disk.fill()
    refused = 0
    told = rpc(url, "eth_getBlockByNumber", "latest", False)["result"]
    for _ in range(400):
        answered = rpc(url, "evm_mine")
        if "error" in answered:
            refused += 1
            assert "disk" in answered["error"]["message"]
        else:
            told = rpc(url, "eth_getBlockByNumber", "latest", False)["result"]
        if refused == 3:
            break
    assert refused == 3, "the disk never filled up"
    assert rpc(url, "eth_getBlockByNumber", "latest", False)["result"] == told
    disk.clear()
    assert "error" not in rpc(url, "evm_mine")
    chain.kill()
    again = scene.nursery.start("devnet", disk.where, *flags, url.rpartition(":")[2])
    assert again.until(lambda: bool(again.lines)), again.errors
    assert rpc(url, "eth_getBlockByNumber", told["number"], False)["result"] == told


def test_the_small_disk_is_small(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        (disk.where / "more").write_bytes(b"x")
    assert os.statvfs(disk.where).f_bavail == 0
