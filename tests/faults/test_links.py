"""Peers that open thousands of links and leave them idle, drip into them, or never read: others are still served."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from penstock.core.codec import encode
from penstock.core.messages import AskOffer
from penstock.transports.frames import header

from .conftest import AT_LENGTH, LINKS
from .greedy import Peer, allow_many
from .nursery import Child
from .scene import PRICE, Scene, Side, balances, eventually, journal_of

TICKS = os.sysconf("SC_CLK_TCK")
LINK_KB = 160  # a node's memory for a greedy link, at most: TLS before it has spoken costs the most
SWEEP = 8.0  # seconds after which pings are answered
WH_PER_S = 550  # what flows to the honest car
ASK = header(len(encode(AskOffer()))) + encode(AskOffer())
SPARE_KB = 40_000  # what a Python process gains anyway while it works


def cpu(child: Child) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{child.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_kb(child: Child, what: str = "VmRSS") -> int:
    """What a process has in memory, or had at most ("VmHWM")."""
    with open(f"/proc/{child.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


@contextmanager
def streaming(scene: Scene) -> Iterator[tuple[Side, Child]]:
    """A session under way between an honest car and the pole, slow enough to last."""
    scene.start_pole("pay-after", speed=300)
    side = scene.side("honest")
    car = scene.start_car(side, 200_000, "--budget", "90")
    flows(scene, 50)
    yield side, car
    assert car.alive, car.errors
    assert not car.said("link lost"), "the honest session lost its link"


def flows(scene: Scene, least: int) -> None:
    before = scene.register()
    eventually(lambda: scene.register() >= before + least, 30, "nothing flows")


def newcomer(scene: Scene, car: Child, side: Side) -> None:
    """The honest session ends in order, and somebody who has never been here is served, with the greedy still there."""
    car.send(15)
    assert car.wait() == 0, car.errors
    with journal_of(scene.pole_side) as journal:
        assert journal is not None
        (balance,) = balances(journal, scene.register(), side.key.address).values()
    assert balance.complete
    assert balance.secured == balance.supplied
    fresh = scene.start_car(scene.side("newcomer"), 100)
    assert fresh.wait() == 0, fresh.errors
    assert fresh.answer()["receipt"]["paid"] == 100 * PRICE


def opened(count: int, make: Callable[[], Peer], *, answer: bool = False) -> list[Peer]:
    """So many peers; those that `answer` pings are there for good."""
    allow_many()
    peers: list[Peer] = []
    swept = time.monotonic()
    while len(peers) < count:
        peers.append(make())
        if answer and time.monotonic() > swept + SWEEP:
            for peer in peers:
                peer.answer()
            swept = time.monotonic()
    return peers


def close(peers: list[Peer]) -> None:
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("kind", ["tcp", "tls", "open"])
def test_idle_links_keep_nobody_out(scene: Scene, kind: str) -> None:
    makes: dict[str, Callable[[], Peer]] = {
        "tcp": lambda: Peer(scene.address).idle(),
        "tls": lambda: Peer(scene.address).shake().idle(),
        "open": lambda: Peer(scene.address).prove(),
    }
    with streaming(scene) as (side, car):
        before, began = memory_kb(scene.pole), time.monotonic()
        peers = opened(LINKS, makes[kind], answer=kind == "open")
        took = time.monotonic() - began
        descriptors = len(os.listdir(f"/proc/{scene.pole.pid}/fd"))
        flows(scene, 50)
        spent, since = cpu(scene.pole), time.monotonic()
        flows(scene, 100)
        busy = (cpu(scene.pole) - spent) / (time.monotonic() - since)
        grown = memory_kb(scene.pole, "VmHWM") - before
        print(
            f"\n{LINKS} links ({kind}) in {took:.1f} s: {grown / 1024:.1f} MB, {grown / LINKS:.1f} kB each; "
            f"the pole holds {descriptors} descriptors; then {busy:.0%} of a core for the pole"
        )
        assert grown <= LINK_KB * LINKS + SPARE_KB
    newcomer(scene, car, side)
    close(peers)


@AT_LENGTH
def test_slow_peers_are_dropped_in_their_handshake_and_harmless_after_it(scene: Scene) -> None:
    """A byte a second in the handshake, in a frame's header, in a frame; and one that never reads what it asked for."""
    with streaming(scene) as (side, car):
        before = memory_kb(scene.pole)
        shaking = [Peer(scene.address) for _ in range(20)]
        words = shaking[0].first_words()
        in_header = [Peer(scene.address).prove() for _ in range(20)]
        in_frame = [Peer(scene.address).prove() for _ in range(20)]
        for peer in in_frame:
            peer.send(header(60_000))
        deaf = Peer(scene.address).prove()
        for _ in range(50):
            deaf.send(ASK)
        for second in range(13):
            for peer in shaking:
                with suppress(OSError):
                    peer.socket.sendall(words[second : second + 1])
            for peer in in_frame:
                peer.send(b"x")
            if second < 3:  # a fourth byte would complete the header
                for peer in in_header:
                    peer.send(header(60_000)[second : second + 1])
            time.sleep(1)
        assert all(peer.ended for peer in shaking), "a handshake lasts for ever"
        grown = memory_kb(scene.pole, "VmHWM") - before
        print(f"\nslow and deaf peers: {grown / 1024:.1f} MB at most")
        assert grown < SPARE_KB
        flows(scene, 50)
    newcomer(scene, car, side)
    close([*shaking, *in_header, *in_frame, deaf])


def ask_without_reading(peer: Peer) -> None:
    """Ask for more offers than the other side can be rid of."""
    peer.socket.settimeout(3.0)
    with suppress(OSError):  # reset, or nothing taken for three seconds
        for _ in range(200):
            peer.send(ASK * 100)


def test_peers_that_ask_without_end_are_cut_off_and_starve_nobody(scene: Scene) -> None:
    with streaming(scene) as (side, car):
        peers = [Peer(scene.address).prove() for _ in range(10)]
        asking = [threading.Thread(target=ask_without_reading, args=(peer,)) for peer in peers]
        began, stood = time.monotonic(), scene.register()
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        eventually(lambda: all(peer.ended for peer in peers), 10, "they may ask for ever")
        flows(scene, 50)
        rate = (scene.register() - stood) / (time.monotonic() - began)
        assert rate > 0.5 * WH_PER_S, f"the honest session is starved: {rate:.0f} Wh/s"
    newcomer(scene, car, side)
    close(peers)


def test_a_node_that_runs_out_of_descriptors_serves_on_and_recovers(scene: Scene) -> None:
    with streaming(scene) as (side, car):
        used = len(os.listdir(f"/proc/{scene.pole.pid}/fd"))
        resource.prlimit(scene.pole.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
        peers = opened(60, lambda: Peer(scene.address).idle())
        eventually(lambda: len(os.listdir(f"/proc/{scene.pole.pid}/fd")) >= used + 19, 10, "it has descriptors left")
        flows(scene, 50)
        spent, since = cpu(scene.pole), time.monotonic()
        flows(scene, 150)
        busy = (cpu(scene.pole) - spent) / (time.monotonic() - since)
        assert busy < 0.6, f"it spins: {busy:.0%} of a core"
        print(f"\nwithout descriptors: {busy:.0%} of a core for the pole")
        close(peers)
        eventually(lambda: len(os.listdir(f"/proc/{scene.pole.pid}/fd")) <= used + 5, 15, "they are not given back")
    newcomer(scene, car, side)
    assert not any("Traceback" in line for line in scene.pole.errors), scene.pole.errors


def test_a_listener_with_a_full_queue_serves_who_is_patient(scene: Scene) -> None:
    """A stopped node: connections wait in the kernel, and are served when it goes on."""
    scene.start_pole("pay-after")
    scene.pole.send(19)
    waiting = [socket.create_connection(scene.address, 5) for _ in range(50)]
    car = scene.start_car(scene.side("patient"), 100)
    time.sleep(0.5)
    scene.pole.send(18)
    assert car.wait() == 0, car.errors
    for one in waiting:
        one.close()


@pytest.mark.parametrize("limit", [14, 24])
def test_a_node_that_starts_without_descriptors_says_so_in_one_line(scene: Scene, limit: int) -> None:
    done = scene.exec(scene.pole_side, *scene.supply("pay-after"), descriptors=limit)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: too many open files")
    assert "ulimit" in line
