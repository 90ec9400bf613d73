"""A gigabyte through the forwarder, paid and unpaid: the same ends over the same TLS links, in processes of their own.

Four processes: what is forwarded to (it pours), the supplier's end, the consumer's end, and the application, which is
the one that measures. Paid, the ends run a real session with its rail, journals on disk and the valve; unpaid, the same
ends are joined to the link alone, with the valve open and nobody at the meter. Paid and unpaid take turns; the ratio is
that of the medians.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from bench.streams import CONSUMER, DEPOSIT, SUPPLIER, say

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.errors import PenstockError
from penstock.core.escrow import EscrowDomain, EscrowParams, tariff_hash
from penstock.core.identity import Address
from penstock.core.messages import Reason
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.rail import Ends, PayeeEnd, PayerEnd
from penstock.core.session import Role, Session, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_QUANTITY, Instant, Quantity
from penstock.gateways.forwarder import DataMeter, DataSupply, tolerance
from penstock.node.clock import now
from penstock.node.shell import SessionShell
from penstock.node.tasks import durable
from penstock.rails import escrow, stream
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import TlsLink, connect, serve

SIZE = 10**9  # bytes of each run
ROUNDS = 3
HOST = "127.0.0.1"
KINDS = ("stream", "escrow", "unpaid")

# What `penstock supply --medium data --price 0.10` sells, for a token of 6 decimals.
TARIFF, TICK, PACKAGE, LIMIT = Tariff.flat(100_000, 10**9), 100, 10**6, 1_600
STEP = Quantity(10**6)


def terms(kind: str, at: int) -> tuple[Terms, PayeeEnd, PayerEnd]:
    """What both sides agree on, and the rail's two ends."""
    payee, payer = SUPPLIER.address, CONSUMER.address
    contract, token = Address(b"\x11" * 20), Address(b"\x22" * 20)
    offer = Offer(
        supplier=payee,
        name="bench",
        medium="data",
        tariff=TARIFF,
        tick_value=TICK,
        package=PACKAGE,
        credit_limit=LIMIT,
        mode="pay-after",
        tolerance=tolerance(TARIFF.highest, LIMIT),
        rails={kind: b""},
        meter="",
        expires=Instant(at),
    )
    payees: PayeeEnd
    payers: PayerEnd
    if kind == "escrow":
        deadline, deposit = at // 1_000 + 86_400, 10**12
        domain = EscrowDomain(1, contract, token)
        funds = EscrowParams(domain, payer, payee, payer, payee, payee, tariff_hash(TARIFF), deposit, deadline, 60, 0)
        rail = encode(escrow.EscrowTerms(funds))
        payees, payers = escrow.EscrowPayee(funds, offer, SUPPLIER), escrow.EscrowPayer(funds, offer, CONSUMER)
    else:
        params = ChannelParams(Domain(1, contract, token), payer, payee, payer, payee, 3_600, False, 0)
        lock = stream.StreamTerms(params, 0, 0, TICK)
        rail = encode(lock)
        payees, payers = stream.StreamPayee(lock, DEPOSIT), stream.StreamPayer(lock, DEPOSIT, CONSUMER, bytes(32))
    return Terms(offer, payer, kind, rail, MAX_QUANTITY, 10**12, Instant(at), b"\x07" * 16), payees, payers


class End:
    """One end of the forwarder with its session, or alone."""

    def __init__(self, role: Role, directory: Path, kind: str, at: int, device: DataSupply | DataMeter) -> None:
        self.device = device
        self.shell: SessionShell | None = None
        self.over: asyncio.Future[PenstockError | None] = asyncio.get_running_loop().create_future()
        if kind == "unpaid":
            return
        agreed, payee, payer = terms(kind, at)
        digest = agreed.digest()
        self.payee, self.payer = payee, payer
        self.journal = SqliteJournal(directory / f"{role}.sqlite")
        signed = CONSUMER.sign(propose_digest(digest)), SUPPLIER.sign(accept_digest(digest))
        row = SessionRow(role, agreed, *signed, device.read())
        mine = Ends(None, payee) if role is Role.SUPPLIER else Ends(payer, None)
        session = Session(row, mine, SUPPLIER if role is Role.SUPPLIER else CONSUMER, now())
        valve = device if isinstance(device, DataSupply) else None
        self.shell = SessionShell(session, self.journal, device, valve, now, self._end, device)
        device.watch(self.shell.on_reading)

    def _end(self, error: PenstockError | None) -> None:
        if not self.over.done():
            self.over.set_result(error)

    def join(self, link: TlsLink) -> None:
        """From now on bytes may flow."""
        if self.shell is not None:
            link.attach(self.shell.on_frame, self._end)
            self.shell.begin(link)
            return
        link.attach(self.device.on_frame, self._end)
        self.device.join(link)
        if isinstance(self.device, DataSupply):
            self.device.allow(MAX_QUANTITY)

    async def end(self) -> int:
        """Wait for the end, in order; returns what our meter says, which is what is paid."""
        error = await asyncio.wait_for(self.over, 120)
        if self.shell is not None:
            session = self.shell.session
            if error is not None or session.receipt is None or not session.complete:
                raise SystemExit(f"the session broke: {error or session.reason} {session.fault}")
            if session.receipt.paid != TARIFF.highest.cost(session.meter.total):
                raise SystemExit(f"{session.receipt.paid} was paid for {session.meter.total} bytes")
            await self.journal.close()
        await self.device.detach()
        return self.device.total


async def hear(link: TlsLink) -> bytes:
    """The frame that begins the run, from the other end."""
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link.attach(first.set_result, lambda error: None)
    return await first


def untold(event: str, **facts: Any) -> None:
    """Events of the devices, for nobody."""


async def supply(directory: str, kind: str, at: str, target: str) -> None:
    """The supplier's end."""
    place = Path(directory)
    device = DataSupply((HOST, int(target)), place / "supplied", STEP, now, untold)
    links: asyncio.Queue[TlsLink] = asyncio.Queue()
    server = await serve(HOST, 0, SUPPLIER, links.put_nowait)
    end = End(Role.SUPPLIER, place, kind, int(at), device)
    say({"port": server.port})
    link = await links.get()
    opening = await hear(link)
    if kind == "stream":
        await durable(end.journal, end.payee.take(opening))
    end.join(link)
    link.send(b"-")
    total = await end.end()
    link.close()
    await server.close()
    say({"total": total})


async def consume(directory: str, kind: str, at: str, port: str) -> None:
    """The consumer's end. It ends the session when its standard input ends."""
    place, loop = Path(directory), asyncio.get_running_loop()
    device = DataMeter(place / "drawn", now, untold)
    end = End(Role.CONSUMER, place, kind, int(at), device)
    link = await connect(HOST, int(port), CONSUMER, expect=SUPPLIER.address)
    opening = b""
    if end.shell is not None:
        evidence = end.payer.open()
        await durable(end.journal, evidence.rows)
        opening = evidence.data
    link.send(opening or b"-")
    await hear(link)
    end.join(link)
    say({"port": await device.listen(HOST, 0)})
    asked = asyncio.Event()
    loop.add_reader(sys.stdin, asked.set)
    either: list[asyncio.Future[Any]] = [asyncio.ensure_future(asked.wait()), end.over]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    loop.remove_reader(sys.stdin)
    if end.shell is not None:
        end.shell.stop(Reason.OPERATOR)
    else:
        end._end(None)
        link.close()
    say({"total": await end.end()})
    link.close()


def pour(size: str) -> None:
    """What is forwarded to: sends so many bytes to whoever comes first."""
    with socket.create_server((HOST, 0)) as server:
        say({"port": server.getsockname()[1]})
        connection, _ = server.accept()
        part, left = bytes(1 << 20), int(size)
        with connection:
            while left:
                connection.sendall(part[: min(left, len(part))])
                left -= min(left, len(part))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1):
                pass


# ---- the process that measures


class Child:
    """A process of this module, which says JSON lines."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "bench.forwarder", *arguments]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hear(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit("a process of the forwarder's benchmark ended early")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def tell_to_end(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def leave(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()


def forward(kind: str, size: int = SIZE) -> float:
    """Bytes a second from the first to the last, as the application gets them."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        children: list[Child] = []

        def start(*arguments: str) -> Child:
            children.append(Child(*arguments))
            return children[-1]

        try:
            target = start("pour", str(size)).hear()["port"]
            supplier = start("supply", directory, kind, at := str(now()), str(target))
            consumer = start("consume", directory, kind, at, str(supplier.hear()["port"]))
            rate = draw(consumer.hear()["port"], size)
            consumer.tell_to_end()
            totals = [consumer.hear()["total"], supplier.hear()["total"]]
            if totals != [size, size]:
                raise SystemExit(f"{size} bytes were forwarded, and the meters say {totals}")
            return rate
        finally:
            for child in children:
                child.leave()


def draw(port: int, size: int) -> float:
    """The application: read it all; bytes a second."""
    buffer, got, began = bytearray(1 << 20), 0, 0.0
    with socket.create_connection((HOST, port), timeout=60) as connection:
        while count := connection.recv_into(buffer):
            began = began or time.perf_counter()
            got += count
    if got != size:
        raise SystemExit(f"{got} of {size} bytes arrived")
    return got / (time.perf_counter() - began)


def run(size: int = SIZE, rounds: int = ROUNDS) -> dict[str, Any]:
    """This module's keys of `results.json`: MB a second."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            found[kind].append(forward(kind, size) / 1e6)
    return {"forwarded_mb_per_s": {kind: statistics.median(rates) for kind, rates in found.items()}}


WORK: dict[str, Callable[..., Any]] = {"supply": supply, "consume": consume}

if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(run())
    elif sys.argv[1] == "pour":
        pour(sys.argv[2])
    else:
        uvloop.run(WORK[sys.argv[1]](*sys.argv[2:]))
