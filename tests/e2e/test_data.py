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

from .test_session import holdings
from .world import DEADLINE, Process, World

PRICE = 100_000  # token units a GB
TICK, LIMIT = 100, 1_600  # token units: 1 MB, 16 MB


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


def relay(world: World, target: int, *flags: str, listen: str = "127.0.0.1:0") -> Process:
    """A supplier of data."""
    return world.start(
        "pole", "supply", *world.common("pole"), "--log", "json", "--json", "--listen", listen, "--name", "relay",
        "--medium", "data", "--price", "0.10", "--forward", f"127.0.0.1:{target}", "--once", *flags,
    )  # fmt: skip


def drawer(world: World, address: str, *flags: str) -> tuple[Process, int]:
    """A consumer of data, and the port where it takes applications."""
    process = world.start(
        "car", "consume", address, *world.common("car"), "--log", "json", "--json", "--medium", "data",
        "--max-price", "0.10", "--budget", "1", "--listen", "0", *flags,
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


def ends(consumer: Process, supplier: Process) -> tuple[dict[str, Any], dict[str, Any]]:
    """How both sides' session ended."""
    bought = consumer.answer()
    (sold,) = supplier.answer()["sessions"]
    return bought, sold


def test_what_an_application_got_is_what_both_sides_bill(world: World) -> None:
    before = holdings(world)
    with server() as target:
        supplier = relay(world, target)
        consumer, port = drawer(world, supplier.until("listening")["address"])
        sizes = (1, 7_654_321, 30_000_000)
        for size in sizes:
            assert hashlib.sha256(fetch(port, size)).digest() == hashlib.sha256(content(size)).digest()
        consumer.until("progress", total=sum(sizes))
        consumer.signal(signal.SIGINT)
        bought, sold = ends(consumer, supplier)
    assert (consumer.code, supplier.code) == (0, 0)
    receipt = bought["receipt"]
    assert receipt == sold["receipt"]
    asked = sum(len(b"%d\n" % size) for size in sizes)
    assert receipt["supplier_total"] == receipt["consumer_total"] == sum(sizes) + asked
    assert receipt["paid"] == cost(sum(sizes) + asked)
    assert sold["max_exposure"] <= LIMIT
    assert bought["max_exposure"] <= LIMIT
    pole, car = (now - then for now, then in zip(holdings(world), before, strict=True))
    assert (pole, car) == (receipt["paid"], -receipt["paid"])


def test_a_consumer_that_stops_paying_is_cut_within_the_credit_limit(world: World) -> None:
    with server() as target:
        supplier = relay(world, target, "--patience", "1")
        consumer, port = drawer(world, supplier.until("listening")["address"], "--patience", "1")
        got: list[bytes] = []
        application = threading.Thread(target=lambda: got.append(fetch(port, 0)), daemon=True)
        application.start()
        supplier.until("progress", total=50_000_000)
        consumer.signal(signal.SIGSTOP)
        sold = supplier.answer()["sessions"][0]
        consumer.kill()
        application.join(DEADLINE)
    assert sold["reason"] in ("payment stalled", "peer gone")
    assert 0 < sold["unpaid"] <= LIMIT
    assert cost(sold["total"]) - sold["paid"] <= LIMIT
    assert sold["max_exposure"] <= LIMIT
    assert len(got[0]) <= sold["total"]


def test_a_quantity_is_where_it_ends(world: World) -> None:
    with server() as target:
        supplier = relay(world, target)
        consumer, port = drawer(world, supplier.until("listening")["address"], "--quantity", "20MB")
        got = fetch(port, 0)
        bought, sold = ends(consumer, supplier)
    assert bought["receipt"] == sold["receipt"]
    assert bought["receipt"]["reason"] == "target reached"
    assert bought["receipt"]["supplier_total"] == bought["receipt"]["consumer_total"] == 20_000_000
    assert bought["receipt"]["paid"] == cost(20_000_000)
    assert got == bytes(20_000_000 - 2)


@pytest.mark.parametrize("who", ["supplier", "consumer"])
def test_a_killed_process_goes_on_counting_where_it_stood(world: World, who: str) -> None:
    with server() as target:
        supplier = relay(world, target)
        address = supplier.until("listening")["address"]
        consumer, port = drawer(world, address)
        application = threading.Thread(target=fetch, args=(port, 0), daemon=True)
        application.start()
        supplier.until("progress", total=50_000_000)
        if who == "supplier":
            supplier.kill()
            supplier = relay(world, target, listen=address)
        else:
            consumer.kill()
            supplier.until("link lost")
            consumer, port = drawer(world, address)
        assert consumer.until("resumed")["paid"] > 0
        application.join(DEADLINE)
        assert fetch(port, 5_000_000) == content(5_000_000), "new connections are taken"
        consumer.signal(signal.SIGINT)
        bought, sold = ends(consumer, supplier)
    assert bought["receipt"] == sold["receipt"]
    receipt = bought["receipt"]
    lost = receipt["supplier_total"] - receipt["consumer_total"]
    assert 0 <= lost <= 16_100_000, "what the broken link had under way"
    assert receipt["paid"] == cost(receipt["supplier_total"])
    assert receipt["unpaid"] == 0


def test_what_is_no_data_needs_a_line_and_data_needs_an_end(world: World) -> None:
    for flags, said in (
        (("--medium", "data", "--price", "1"), "give --forward"),
        (("--medium", "data", "--price", "1", "--line", "x"), "data flows through no line"),
        (("--price", "1", "--tick", "1", "--forward", "127.0.0.1:1"), "forwards data"),
        (("--medium", "data", "--price", "1", "--forward", "nowhere"), "--forward cannot be"),
    ):
        refused = world.command("pole", "supply", *world.common("pole"), *flags)
        assert refused.returncode == 2
        assert said in refused.stderr
    refused = world.command("car", "consume", "127.0.0.1:1", *world.common("car"), "--medium", "data")
    assert refused.returncode == 2
    assert "give --listen" in refused.stderr
    refused = world.command("car", "consume", "127.0.0.1:1", *world.common("car"), "--quantity", "much")
    assert refused.returncode == 2
    assert "--quantity cannot be 'much'" in refused.stderr
