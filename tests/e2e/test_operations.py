"""Running a node for good: what it logs, what it shows to machines, and how it ends when it is asked to."""

from __future__ import annotations

import base64
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.storage.sqlite import SqliteJournal

from .test_outages import Outage
from .world import Process, World

ABOUT_A_SESSION = {"accepted", "ended", "progress", "restored", "resumed"}


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[Outage]:
    made = Outage(tmp_path)
    yield made
    made.process.end()


def events(process: Process) -> list[dict[str, Any]]:
    """Everything that an ended process has told."""
    found = []
    while (event := process.events.get(timeout=10)) is not None:
        found.append(event)
    return found


def spellings(secret: bytes) -> set[str]:
    """How a secret could be written."""
    return {secret.hex(), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1], str(secret)}


def secrets(world: World) -> set[str]:
    """Keys, what the seed of a running session is made of, and its last preimage, however they could be written."""
    raw = [key.secret for key in world.keys.values()]
    for name in ("pole", "car"):
        journal = SqliteJournal.open_readonly(world.home(name) / "journal.db")
        raw += [value[-32:] for prefix in (b"secret/", b"ticks/") for _, value in journal.load(prefix)]
        journal._reader.close()
    assert len(raw) >= 4, "two keys, the secret of a session, and its last tick"
    return {text for one in raw for text in spellings(one)}


def page(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_logs_name_the_session_and_keep_secrets_and_metrics_follow_it(world: World) -> None:
    pole = world.pole("--metrics", "127.0.0.1:0")
    shown = pole.until("metrics")["address"]
    address = pole.until("listening")["address"]
    car = world.car(address, quantity=2_000)
    accepted = pole.until("accepted")
    pole.until("progress", total=400)
    secret = secrets(world)
    assert json.loads(page(shown, "/health")) == {"ok": True, "problems": []}
    figures = dict(line.rpartition(" ")[::2] for line in page(shown, "/metrics").splitlines())
    assert figures["penstock_sessions_running"] == "1.0"
    assert float(figures["penstock_ticks_total"]) >= 100
    assert figures['penstock_events_total{event="accepted",level="info"}'] == "1.0"
    bought, sold = car.answer(), pole.answer()
    assert bought["complete"]

    lines = [accepted, *events(pole), *events(car)]
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    told = [line for line in lines if line["event"] in ABOUT_A_SESSION]
    assert {line["event"] for line in told} >= {"accepted", "ended", "progress"}
    assert {"0x" + line["session"] for line in told} == {bought["session"]} == {sold["sessions"][0]["session"]}
    said = json.dumps([lines, bought, sold, pole.errors, car.errors])
    assert not [one for one in secret if one in said]


def test_a_supplier_ends_in_order_while_its_ledger_is_gone(outage: Outage, tmp_path: Path) -> None:
    world = World(tmp_path, outage.manifest, 0)
    try:
        pole = world.pole()
        car = world.car(pole.until("listening")["address"], quantity=50_000)
        pole.until("progress", total=400)
        outage.kill()
        pole.signal(signal.SIGTERM)
        asked = time.monotonic()
        bought, sold = car.answer(), pole.answer()
        assert time.monotonic() - asked < 30, "systemd would kill it after 90 s"
        assert (car.code, pole.code) == (0, 0), (car.errors, pole.errors)
        assert sold["balance"]["after"] is None
        assert sold["sessions"][0]["receipt"] == bought["receipt"]
        assert bought["receipt"]["reason"] == "stopped by its operator"
        outage.back()
        again = world.pole()
        again.until("settled")
    finally:
        world.end()


def test_a_watcher_shows_itself_too_and_ends_in_order(world: World) -> None:
    pole = world.pole(speed=None)
    assert world.car(pole.until("listening")["address"], "--keep", quantity=50).answer()["complete"]
    assert pole.answer()["sessions"]
    watch = world.start(
        "pole", "watch", "--url", world.manifest["url"], "--key", "pole", "--passphrase-file", str(world.passphrase),
        "--every", "0.2", "--metrics", "127.0.0.1:0", "--log", "json", "--json",
    )  # fmt: skip
    shown = watch.until("metrics")["address"]
    watch.until("watching", channels=1)
    figures = page(shown, "/metrics").splitlines()
    assert "penstock_channels_watched 1.0" in figures
    assert "penstock_lost_token_units_total 0.0" in figures
    assert json.loads(page(shown, "/health"))["ok"]
    watch.signal(signal.SIGTERM)
    assert watch.answer() == {"settled": 0, "left": 1, "lost": 0}
    assert watch.code == 0
