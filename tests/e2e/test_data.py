"""Data as a medium, with real processes: applications reach a server through a pole, and pay for each byte."""

from __future__ import annotations

import hashlib
import signal
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .world import DEADLINE, Process, World

PRICE = 100_000  # token units a GB
LIMIT = 1_600  # token units: 16 MB
RAILS = ("stream-channel", "escrow")


def cost(size: int) -> int:
    """What `size` bytes cost, in token units."""
    return size * PRICE // 10**9


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(socketserver.StreamRequestHandler):
    """Answers a line "size" with so many bytes, the same for the same size; 0 pours until it is cut."""

    def handle(self) -> None:
        size = int(self.rfile.readline() or b"0")
        try:
            while size == 0:
                self.wfile.write(bytes(65_536))
            self.wfile.write(content(size))
        except OSError:
            pass  # cut


def content(size: int) -> bytes:
    """`size` bytes that no two sizes share."""
    return hashlib.shake_128(str(size).encode()).digest(size)


@contextmanager
def server() -> Iterator[int]:
    """What the supplier forwards to; its port."""
    with _Server(("127.0.0.1", 0), _Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.server_address[1]
        made.shutdown()


def over(world: World, rail: str) -> list[str]:
    """The flags that choose a rail."""
    return ["--rail", rail, "--escrow", world.manifest["contracts"]["CryptoEuroEscrow"]]


def relay(world: World, target: int, rail: str, *flags: str, listen: str = "127.0.0.1:0") -> Process:
    """A supplier of data."""
    return world.start(
        "pole", "supply", *world.common("pole"), "--log", "json", "--json", "--listen", listen, "--name", "relay",
        "--medium", "data", "--price", "0.10", "--forward", f"127.0.0.1:{target}", "--once", *over(world, rail), *flags,
    )  # fmt: skip


def drawer(world: World, address: str, rail: str, *flags: str, module: str = "penstock") -> tuple[Process, int]:
    """A consumer of data, and the port where it takes applications."""
    process = world.start(
        "car", "consume", address, *world.common("car"), "--log", "json", "--json", "--medium", "data",
        "--max-price", "0.10", "--budget", "1", "--listen", "0", *over(world, rail), *flags,
        module=module,
    )  # fmt: skip
    return process, int(process.until("forwarding")["address"].rpartition(":")[2])


def fetch(port: int, size: int) -> bytes:
    """What an application gets; it may be cut off."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.sendall(b"%d\n" % size)
        try:
            while data := connection.recv(1 << 20):
                got += data
        except ConnectionResetError:
            pass
    return bytes(got)


def ends(consumer: Process, supplier: Process) -> dict[str, Any]:
    """The receipt that both sides signed, once the supplier owns what it says."""
    bought, document = consumer.answer(), supplier.answer()
    assert (consumer.code, supplier.code) == (0, 0)
    (sold,) = document["sessions"]
    receipt: dict[str, Any] = bought["receipt"]
    assert receipt == sold["receipt"]
    assert receipt["paid"] == cost(receipt["supplier_total"])
    assert receipt["unpaid"] == 0
    assert document["balance"]["after"] - document["balance"]["before"] == receipt["paid"]
    assert sold["max_exposure"] <= LIMIT
    return receipt


@pytest.mark.parametrize("rail", RAILS)
def test_what_an_application_got_is_what_both_sides_bill(world: World, rail: str) -> None:
    with server() as target:
        supplier = relay(world, target, rail)
        consumer, port = drawer(world, supplier.until("listening")["address"], rail)
        sizes = (1, 7_654_321, 30_000_000)
        for size in sizes:
            assert hashlib.sha256(fetch(port, size)).digest() == hashlib.sha256(content(size)).digest()
        consumer.until("progress", total=sum(sizes))
        consumer.signal(signal.SIGINT)
        receipt = ends(consumer, supplier)
    asked = sum(len(b"%d\n" % size) for size in sizes)
    assert receipt["supplier_total"] == receipt["consumer_total"] == sum(sizes) + asked


def test_a_consumer_that_takes_and_stops_paying_is_cut_within_the_credit_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAID_UNTIL", str(paid := cost(50_000_000)))
    with server() as target:
        supplier = relay(world, target, "stream-channel", "--patience", "0.5")
        address = supplier.until("listening")["address"]
        consumer, port = drawer(world, address, "stream-channel", "--patience", "1", module="tests.e2e.thief")
        got = fetch(port, 0)
        sold = supplier.answer()["sessions"][0]
        consumer.kill()
    assert sold["reason"] == "payment stalled"
    assert paid <= sold["paid"] <= cost(sold["total"])
    assert 0 < cost(sold["total"]) - paid <= LIMIT
    assert sold["max_exposure"] <= LIMIT
    assert 50_000_000 < len(got) <= sold["total"] <= 66_100_000


def test_a_consumer_that_vanishes_owes_no_more_than_the_credit_limit(world: World) -> None:
    with server() as target:
        supplier = relay(world, target, "escrow", "--patience", "0.5")
        consumer, port = drawer(world, supplier.until("listening")["address"], "escrow")
        application = threading.Thread(target=fetch, args=(port, 0), daemon=True)
        application.start()
        supplier.until("progress", total=50_000_000)
        consumer.kill()
        sold = supplier.answer()["sessions"][0]
        application.join(DEADLINE)
    assert sold["reason"] == "peer gone"
    assert sold["paid"] >= cost(50_000_000), "what the meter signed is secured, whoever is gone"
    assert cost(sold["total"]) - sold["paid"] == sold["unpaid"] <= LIMIT
    assert sold["max_exposure"] <= LIMIT


def test_a_quantity_is_where_it_ends(world: World) -> None:
    with server() as target:
        supplier = relay(world, target, "stream-channel")
        consumer, port = drawer(world, supplier.until("listening")["address"], "stream-channel", "--quantity", "20MB")
        got = fetch(port, 0)
        receipt = ends(consumer, supplier)
    assert receipt["reason"] == "target reached"
    assert receipt["supplier_total"] == receipt["consumer_total"] == 20_000_000
    assert got == bytes(20_000_000 - 2)


@pytest.mark.parametrize(("who", "rail"), [("supplier", "stream-channel"), ("consumer", "escrow")])
def test_a_killed_process_goes_on_counting_where_it_stood(world: World, who: str, rail: str) -> None:
    with server() as target:
        supplier = relay(world, target, rail)
        address = supplier.until("listening")["address"]
        consumer, port = drawer(world, address, rail)
        application = threading.Thread(target=fetch, args=(port, 0), daemon=True)
        application.start()
        supplier.until("progress", total=50_000_000)
        if who == "supplier":
            supplier.kill()
            supplier = relay(world, target, rail, listen=address)
        else:
            consumer.kill()
            supplier.until("link lost")
            consumer, port = drawer(world, address, rail)
        assert consumer.until("resumed")["paid"] > 0
        application.join(DEADLINE)
        assert fetch(port, 5_000_000) == content(5_000_000), "new connections are taken"
        consumer.signal(signal.SIGINT)
        receipt = ends(consumer, supplier)
    lost = receipt["supplier_total"] - receipt["consumer_total"]
    assert 0 <= lost <= 16_100_000, "what the broken link had under way"
