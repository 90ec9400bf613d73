"""Ticks a second between two processes over TLS on loopback: real sessions, links and journals, and a bare sketch.

Two processes stream over one channel at full speed: what the valve allows has flowed at once, so that the credit limit
(the window) bounds the ticks under way. A tick counts when the supplier has acknowledged it as secured: verified, and
durable. Rates are taken from the middle of the run, between the same two instants for both processes.

The sketch has the same frames over the same TLS, each with its sequence number and one hash to verify, and nothing
else: no session, no money, no meter, no journal.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench import sketch
from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.errors import PenstockError
from penstock.core.identity import Address, Key
from penstock.core.messages import Message, Metered, Reason
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer, Terms, accept_digest, propose_digest
from penstock.core.rail import Ends
from penstock.core.session import Role, Session, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_QUANTITY, Instant, Quantity
from penstock.node.clock import now
from penstock.node.shell import SessionShell
from penstock.node.tasks import durable
from penstock.rails.stream import NAME, StreamOffer, StreamPayee, StreamPayer, StreamTerms, decode_terms
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import TlsLink, connect, serve

SECONDS = 4.0  # of each stream
WARM = 0.7  # of them, in which nothing is counted: trust grows, chains are made
TICK = 1_000  # token units
UNIT = 10  # of the medium a tick: less than a tick is always on its way
DEPOSIT = 2**80
MESSAGES = 4_096  # in flight where several ticks are sent as one message
SUPPLIER, CONSUMER = Key(b"\x01" * 32), Key(b"\x02" * 32)


class Sample(NamedTuple):
    """What a process has done so far: at a monotonic instant (s), ticks, and CPU time (s)."""

    at: float
    ticks: int
    cpu: float


def terms(window: int, at: int) -> Terms:
    """A session that may have `window` ticks under way: the credit limit is as many, and a unit of the medium."""
    domain = Domain(1, Address(b"\x11" * 20), Address(b"\x22" * 20))
    payee = SUPPLIER.address
    offer = Offer(
        supplier=payee,
        name="bench",
        medium="electricity",
        tariff=Tariff.flat(TICK // UNIT, 1),
        tick_value=TICK,
        package=UNIT * window,
        credit_limit=TICK * window + TICK // UNIT,
        mode="pay-after",
        tolerance=Tolerance(5, 20_000),
        rails={NAME: encode(StreamOffer(domain, payee, payee, 600))},
        meter="",
        expires=Instant(at),
    )
    params = ChannelParams(domain, CONSUMER.address, payee, CONSUMER.address, payee, 3_600, False, 0)
    rail = encode(StreamTerms(params, 0, 0, TICK))
    return Terms(offer, CONSUMER.address, NAME, rail, MAX_QUANTITY, DEPOSIT, Instant(at), b"\x07" * 16)


class Watched(SessionShell):
    """A consumer's shell that keeps what was acknowledged, and how long that took."""

    __slots__ = ("acknowledged", "sent", "trips")

    def on_message(self, message: Message) -> None:
        if type(message) is Metered:
            if message.secured > self.acknowledged:
                self.acknowledged = message.secured
                self.trips.append(time.perf_counter() - self.sent)
            super().on_message(message)
            self.sent = time.perf_counter()
        else:
            super().on_message(message)


class End:
    """One side of the stream, in a process of its own."""

    def __init__(self, role: Role, directory: Path, window: int, at: int, at_once: int) -> None:
        agreed = terms(window, at)
        digest, stream = agreed.digest(), decode_terms(agreed.rail_terms)
        self.journal = SqliteJournal(directory / f"{role}.sqlite")
        self.samples: list[Sample] = []
        self.over = asyncio.get_running_loop().create_future()
        line, signed = directory / "line", (CONSUMER.sign(propose_digest(digest)), SUPPLIER.sign(accept_digest(digest)))
        if role is Role.SUPPLIER:
            self.line = LineSupply(line, 10**9, package=Quantity(1))
            row = SessionRow(role, agreed, *signed, self.line.read())
            session = Session(row, Ends(None, StreamPayee(stream, DEPOSIT)), SUPPLIER, now())
            self.shell = SessionShell(session, self.journal, self.line, self.line, now, self._end)
            self.line.watch(self.shell.on_reading)
        else:
            meter = LineMeter(line)
            row = SessionRow(role, agreed, *signed, meter.read())
            self.payer = StreamPayer(stream, DEPOSIT, CONSUMER, bytes(32), at_once=at_once)
            session = Session(row, Ends(self.payer, None), CONSUMER, now())
            shell = self.shell = Watched(session, self.journal, meter, None, now, self._end)
            shell.acknowledged, shell.sent, shell.trips = 0, 0.0, []

    def _end(self, error: PenstockError | None) -> None:
        if not self.over.done():
            self.over.set_result(error)

    async def stream(self, link: TlsLink) -> None:
        """Stream for `SECONDS`, and end with the receipt."""
        shell = self.shell
        link.attach(shell.on_frame, lambda error: self._end(error))
        if shell.session.payer is not None:
            opening = self.payer.open()
            await durable(self.journal, opening.rows)
            link.send(opening.data)
        shell.begin(link)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not self.over.done():
            self.sample()
            await asyncio.sleep(0.1)
        if shell.session.payer is not None:
            shell.stop(Reason.OPERATOR)
        error = await asyncio.wait_for(self.over, 30)
        if error is not None or not shell.session.complete:
            raise SystemExit(f"the stream broke: {error or shell.session.reason} {shell.session.fault}")
        await self.journal.close()

    def sample(self) -> None:
        """Note where we are."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        acknowledged = getattr(self.shell, "acknowledged", 0)
        self.samples.append(Sample(time.monotonic(), acknowledged // TICK, used.ru_utime + used.ru_stime))


async def supply(directory: Path, window: int, at: int, at_once: int) -> None:
    end = End(Role.SUPPLIER, directory, window, at, at_once)
    links: asyncio.Queue[TlsLink] = asyncio.Queue()
    server = await serve("127.0.0.1", 0, SUPPLIER, links.put_nowait)
    say({"port": server.port})
    link = await links.get()
    opening: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link.attach(opening.set_result, lambda error: None)
    rows = end.shell.session.payee.take(await opening)  # type: ignore[union-attr]  # it is a payee
    await durable(end.journal, rows)
    await end.stream(link)
    await server.close()
    say({"samples": end.samples})


async def consume(directory: Path, window: int, at: int, at_once: int, port: int) -> None:
    end = End(Role.CONSUMER, directory, window, at, at_once)
    link = await connect("127.0.0.1", port, CONSUMER, expect=SUPPLIER.address)
    await end.stream(link)
    link.close()
    say({"samples": end.samples, "trips": end.shell.trips})  # type: ignore[attr-defined]  # a consumer's shell


def say(facts: dict[str, Any]) -> None:
    """One line for the process that started us."""
    print(json.dumps(facts), flush=True)


# ---- the process that measures


async def pair(first: list[str], second: list[str]) -> list[dict[str, Any]]:
    """Start a server and its client; what they say at their ends."""
    server = await child(*first)
    try:
        port = json.loads(await server.stdout.readline())["port"]  # type: ignore[union-attr]  # a pipe
        client = await child(*second, str(port))
        out, _ = await asyncio.wait_for(client.communicate(), 120)
        served, _ = await asyncio.wait_for(server.communicate(), 30)
        return [json.loads(said.splitlines()[-1]) for said in (served, out)]
    finally:
        if server.returncode is None:
            server.kill()


async def child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.streams", *arguments, stdout=asyncio.subprocess.PIPE
    )


def stream(window: int, at_once: int = 1) -> dict[str, Any]:
    """One stream: ticks a second acknowledged, CPU us a tick of both processes, and round trips (s)."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        facts = [directory, str(window), str(now()), str(at_once)]
        served, bought = uvloop.run(pair(["supply", *facts], ["consume", *facts]))
    seller = [Sample(*one) for one in served["samples"]]
    buyer = [Sample(*one) for one in bought["samples"]]
    first, last = (after(buyer, buyer[0].at + when) for when in (WARM, SECONDS - 0.3))
    ticks = last.ticks - first.ticks
    used = [after(seller, last.at).cpu - after(seller, first.at).cpu, last.cpu - first.cpu]
    return {
        "rate": ticks / (last.at - first.at),
        "cpu_us": [round(one / ticks * 1e6, 2) for one in used],
        "trips": bought["trips"],
    }


def after(samples: list[Sample], at: float) -> Sample:
    """The first sample at or after an instant; the last where there is none."""
    return next((one for one in samples if one.at >= at), samples[-1])


def run() -> dict[str, Any]:
    """This module's keys of `results.json`."""
    one, some, many = (stream(window) for window in (1, 16, 256))
    eight, most = stream(8 * MESSAGES, 8), stream(64 * MESSAGES, 64)
    trips = sorted(one["trips"][len(one["trips"]) // 5 :])
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        commits = uvloop.run(commit_rate(Path(directory)))
    return {
        "durable_ticks_per_s": {"w1": round(one["rate"]), "w16": round(some["rate"]), "w256": round(many["rate"])},
        "cpu_us_per_tick": {"supplier": many["cpu_us"][0], "consumer": many["cpu_us"][1]},
        "coalesced_ticks_per_s": {"8": round(eight["rate"]), "64": round(most["rate"])},
        "bare_sketch_ticks_per_s": round(uvloop.run(pair(["sketch"], ["sketch_pay", "256"]))[1]["rate"]),
        "sha256_per_s": round(hash_rate()),
        "link_round_trips_per_s": round(uvloop.run(pair(["echo"], ["ask"]))[1]["rate"]),
        "commit_per_s": round(commits),
        "round_trip_ms": {
            "p50": round(1000 * statistics.median(trips), 3),
            "p99": round(1000 * trips[len(trips) * 99 // 100], 3),
        },
    }


def hash_rate() -> float:
    """Bare SHA-256 calls a second, as a chain is walked."""
    value, count = bytes(32), 1_000_000
    began = time.perf_counter()
    for _ in range(count):
        value = sha256(value).digest()
    return count / (time.perf_counter() - began)


async def commit_rate(directory: Path) -> float:
    """Commits a second, one after the other, seen from the event loop: a row of a tick's size."""
    journal, count = SqliteJournal(directory / "journal"), 1_500
    key = b"ticks/" + bytes(32)
    for index in range(100):
        await durable(journal, ((key, index.to_bytes(45, "big")),))
    began = time.perf_counter()
    for index in range(count):
        await durable(journal, ((key, index.to_bytes(45, "big")),))
    rate = count / (time.perf_counter() - began)
    await journal.close()
    return rate


TRIPS = 5_000
FRAME = bytes(73)  # as long as a tick's


async def echo() -> None:
    """A server that sends every frame back."""
    over = asyncio.Event()

    def on_link(link: TlsLink) -> None:
        link.attach(link.send, lambda error: over.set())

    server = await serve("127.0.0.1", 0, SUPPLIER, on_link)
    say({"port": server.port})
    await over.wait()
    await server.close()
    say({})


async def ask(port: int) -> None:
    """Its client: one frame at a time, there and back."""
    link = await connect("127.0.0.1", port, CONSUMER, expect=SUPPLIER.address)
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = [TRIPS]

    def on_frame(frame: bytes) -> None:
        left[0] -= 1
        if left[0]:
            link.send(frame)
        else:
            over.set_result(None)

    link.attach(on_frame, over.set_exception)
    began = time.perf_counter()
    link.send(FRAME)
    await over
    rate = TRIPS / (time.perf_counter() - began)
    link.close()
    say({"rate": rate})


async def supply_(directory: str, *numbers: str) -> None:
    await supply(Path(directory), *map(int, numbers))


async def consume_(directory: str, *numbers: str) -> None:
    await consume(Path(directory), *map(int, numbers))


async def sketch_pay(window: str, port: str) -> None:
    say({"rate": await sketch.pay(int(port), int(window))})


WORK: dict[str, Callable[..., Any]] = {
    "supply": supply_,
    "consume": consume_,
    "sketch": sketch.serve,
    "sketch_pay": sketch_pay,
    "echo": echo,
    "ask": lambda port: ask(int(port)),
}

if __name__ == "__main__":
    uvloop.run(WORK[sys.argv[1]](*sys.argv[2:]))
