"""Journals lost and restored from backups that running nodes gave: nobody loses, nobody cheats."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .test_session import LIMIT, holdings
from .world import World


def command(world: World, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = world.command(name, *arguments, "--json")
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def lose(home: Path) -> None:
    for file in home.glob("journal*"):
        file.unlink()


def test_a_supplier_that_lost_its_disk_goes_on_from_a_backup_of_the_running_session(world: World) -> None:
    """The consumer comes back, and brings every tick that the backup does not have."""
    before = holdings(world)
    pole = world.pole(speed="200")
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=3_000)
    total = pole.until("progress", total=400)["total"]
    copy = world.directory / "copy"
    command(world, "pole", "journal", "backup", str(copy))
    while not pole.events.empty():
        total = (pole.events.get() or {}).get("total", total)
    total = pole.until("progress", total=total + 200)["total"]
    pole.kill()
    car.until("link lost")
    lose(world.home("pole"))

    command(world, "pole", "journal", "restore", str(copy))
    checked = command(world, "pole", "journal", "check")
    assert checked["problems"] == []
    assert (checked["channels"], checked["unfinished_sessions"]) == ({"pay_us": 1, "we_pay": 0}, 1)
    assert len(checked["restored_at"]) == 1
    again = world.pole(listen=address)
    assert again.until("restored")["secured"] < total * 400 - LIMIT, "the backup was to be older"
    bought, sold = car.answer(), again.answer()
    assert (car.code, again.code) == (0, 0)
    assert sold["sessions"][0]["receipt"] == bought["receipt"]
    assert bought["receipt"]["paid"] == 3_000 * 400
    assert bought["max_exposure"] <= LIMIT
    assert [now - then for now, then in zip(holdings(world), before, strict=True)] == [3_000 * 400, -3_000 * 400]


def test_a_consumer_with_an_old_journal_pays_through_another_channel_and_gets_its_rest_back(world: World) -> None:
    before = holdings(world)
    pole = world.pole(speed=None)
    first = world.car(pole.until("listening")["address"], "--keep", "--deposit", "5", quantity=500)
    old = first.answer()["channel"]
    pole.answer()
    copy = world.directory / "copy"
    command(world, "car", "journal", "backup", str(copy))
    pole = world.pole(speed=None)
    assert world.car(pole.until("listening")["address"], "--keep", quantity=700).answer()["channel"] == old
    pole.answer()

    refused = command(world, "car", "journal", "restore", str(copy), code=2)
    assert "--replace" in refused["error"]["advice"]
    restored = command(world, "car", "journal", "restore", str(copy), "--replace")
    assert restored["retired"] == 1
    assert Path(restored["kept"]).exists()
    assert command(world, "car", "journal", "check", restored["kept"])["problems"] == []

    pole = world.pole(speed=None)
    third = world.car(pole.until("listening")["address"], quantity=300)
    bought = third.answer()
    assert bought["channel"] != old
    pole.answer()
    common = ["--url", world.manifest["url"], "--passphrase-file", str(world.passphrase)]
    command(world, "car", "channel", "close", old, "--key", "car", *common)
    command(world, "pole", "channel", "close", old, "--key", "pole", *common)
    now = holdings(world)
    assert (now[0] - before[0], now[1] - before[1]) == (1_500 * 400, -1_500 * 400)


def test_restoring_waits_for_no_node_and_checking_finds_what_was_spoilt(world: World) -> None:
    pole = world.pole()
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=2_500)
    pole.until("progress", total=400)
    copy = world.directory / "copy"
    command(world, "pole", "journal", "backup", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    command(world, "pole", "journal", "backup", str(copy), code=2)
    error = command(world, "pole", "journal", "restore", str(copy), "--replace", code=1)["error"]
    assert f"in use by process {pole.popen.pid}" in error["message"]
    assert command(world, "pole", "journal", "check")["problems"] == []  # beside the running node
    car.answer()
    pole.answer()

    content = bytearray(copy.read_bytes())
    at = content.index(b'"supplier","terms":')
    content[at + 60 : at + 64] = os.urandom(4)
    copy.write_bytes(content)
    spoilt = command(world, "pole", "journal", "check", str(copy), code=1)["error"]
    assert "restore a backup" in spoilt["advice"]
