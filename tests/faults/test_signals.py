"""Signals: whoever is asked to end does so in order, whoever is stopped for a while goes on."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from .nursery import Child
from .scene import PRICE, Scene, Side, balances, eventually, journal_of

ASKS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
GRACE = 8.0  # seconds to end in order


def flows(scene: Scene, least: int = 300) -> None:
    before = scene.register()
    eventually(lambda: scene.register() >= before + least, 20, "nothing flows")


def ends_in_order(child: Child) -> None:
    before = time.monotonic()
    code = child.wait(GRACE)
    assert code == 0, (child.errors, child.lines)
    assert time.monotonic() - before < GRACE
    assert child.errors == []


def nothing_is_left(home: Path) -> None:
    """The journal is one file again, nobody holds it, and nothing half-made lies beside it."""
    left = {found.name for found in home.iterdir()}
    assert left - {"keys", "journal.db", "journal.db.lock"} == set()


def signed(scene: Scene, side: Side) -> int:
    """What both signed for, the same on both sides (Wh)."""
    with journal_of(scene.pole_side) as journal:
        assert journal is not None
        ((_, balance),) = balances(journal, scene.register(), side.key.address).items()
    assert balance.complete
    assert balance.secured == balance.supplied
    return balance.supplied // PRICE


@pytest.mark.parametrize("number", ASKS, ids=lambda one: one.name)
def test_a_supplier_that_is_asked_to_end_has_its_receipt_signed(scene: Scene, number: signal.Signals) -> None:
    scene.start_pole("pay-after")
    side = scene.side("car")
    car = scene.start_car(side, 20_000)
    flows(scene)
    scene.pole.send(number)
    ends_in_order(scene.pole)
    assert car.wait() == 0, car.errors
    assert signed(scene, side) == scene.register() < 20_000
    nothing_is_left(scene.pole_side.home)
    nothing_is_left(side.home)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(scene.address)


@pytest.mark.parametrize("number", ASKS, ids=lambda one: one.name)
def test_a_consumer_that_is_asked_to_end_has_its_receipt_signed(scene: Scene, number: signal.Signals) -> None:
    scene.start_pole("pay-after")
    side = scene.side("car")
    car = scene.start_car(side, 20_000)
    flows(scene)
    car.send(number)
    ends_in_order(car)
    eventually(lambda: bool(scene.pole.said("settled")), GRACE, "the channel is not settled")
    assert signed(scene, side) == scene.register() < 20_000
    nothing_is_left(side.home)


@pytest.mark.parametrize("number", ASKS, ids=lambda one: one.name)
def test_a_devnet_that_is_asked_to_end_keeps_its_chain(scene: Scene, number: signal.Signals) -> None:
    head = scene.rpc("eth_getBlockByNumber", "latest", False)
    scene.devnet.send(number)
    ends_in_order(scene.devnet)
    scene.start_devnet()
    assert scene.rpc("eth_getBlockByNumber", head["number"], False)["hash"] == head["hash"]


def test_a_second_signal_does_not_wait_for_the_consumer(scene: Scene) -> None:
    scene.start_pole("pay-after")
    car = scene.start_car(scene.side("car"), 20_000)
    flows(scene)
    car.send(signal.SIGSTOP)
    scene.pole.send(signal.SIGTERM)
    scene.pole.until(lambda: False, 0.3)
    assert scene.pole.alive, "it did not wait for the receipt"
    scene.pole.send(signal.SIGTERM)
    before = time.monotonic()
    assert scene.pole.wait(GRACE) in (0, 130)
    assert time.monotonic() - before < 3
    assert not any("Traceback" in line for line in scene.pole.errors)


@pytest.mark.parametrize("who", ["supplier", "consumer", "both"])
def test_who_is_stopped_for_a_while_goes_on(scene: Scene, who: str) -> None:
    scene.start_pole("pay-after")
    side = scene.side("car")
    car = scene.start_car(side, 1_500)
    flows(scene)
    stopped = {"supplier": [scene.pole], "consumer": [car], "both": [scene.pole, car]}[who]
    for child in stopped:
        child.send(signal.SIGSTOP)
    time.sleep(0.3)  # what is on its way arrives
    stands = scene.register()
    time.sleep(0.7)
    assert scene.register() == stands, "it flows on without payment"
    for child in stopped:
        child.send(signal.SIGCONT)
    assert car.wait() == 0, car.errors
    assert signed(scene, side) == 1_500


def test_a_supplier_that_was_stopped_for_too_long_loses_no_more_than_the_credit(scene: Scene) -> None:
    scene.start_pole("pay-before")
    side = scene.side("car")
    car = scene.start_car(side, 20_000, "--patience", "0.5")
    flows(scene)
    scene.pole.send(signal.SIGSTOP)
    assert car.wait() == 1
    bought = json.loads(car.lines[0])
    assert bought["reason"] in ("supply stalled", "peer gone")
    assert 0 <= bought["paid"] - bought["total"] * PRICE <= scene.credit_limit
    scene.pole.send(signal.SIGCONT)
    eventually(lambda: bool(scene.pole.said("ended")) or bool(scene.pole.said("link lost")), 20, "it hangs")
