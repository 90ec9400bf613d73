"""Registering payments with 1 to 10,000 channels: what a payment costs must not depend on how many channels there are.

A payment is one tick in a frame of its own for a running session: decoded, its preimage verified, its exposure counted,
its row made durable on disk with whatever else waits, and its own package released after that; then it counts. At every
size `WINDOW` payments are in flight, round robin over all channels, each fed in a call of the event loop of its own. At
the end the journal is read anew, and has to hold every one.

Everything is the node's own code but for the links and `SessionShell`: that one secures together what a session hears
in one turn of the loop. With one channel it would do once for 256 payments what it does 256 times with 256 channels,
and the figures would show how payments gather, not what a channel costs. Here every payment is secured by itself.

The sizes are measured in turns, several times, since machines are noisy: `run` returns medians. The first round of each
does not count, so that each is seen at its steady state.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import decode, encode
from penstock.core.effects import Allow, Persist, Rows
from penstock.core.errors import JournalError
from penstock.core.identity import Address, Key
from penstock.core.messages import Paid
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Terms
from penstock.core.rail import Ends
from penstock.core.session import SESSION_ROWS, Role, Session, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_INSTANT, MAX_QUANTITY, Amount, Instant, Quantity
from penstock.node import clock
from penstock.node.book import ChannelRow
from penstock.node.tasks import durable
from penstock.rails.stream import NAME, TICK_ROWS, StreamOffer, StreamPayee, StreamPayer, StreamTerms
from penstock.storage.sqlite import SqliteJournal

SIZES = (1, 10, 100, 1_000, 10_000)
WINDOW = 256  # payments in flight
PAYMENTS = 20_480  # a round: with 10,000 channels, too, the journal folds its log about once
ROUNDS = 7
WARM = 1  # rounds that do not count
TICK = 1_000  # token units; a unit of the medium costs as much
COMMITS = 200
SOME = 20_000  # rows of a write while the sessions are set up

DOMAIN = Domain(31_337, Address(b"\x03" * 20), Address(b"\x04" * 20))
POLE, CAR = Key(b"\x01" * 32), Key(b"\x02" * 32)
ZERO = Reading(Quantity(0), Instant(0))
OFFER = Offer(
    supplier=POLE.address,
    name="pole",
    medium="electricity",
    tariff=Tariff.flat(TICK, 1),
    tick_value=TICK,
    package=1,
    credit_limit=8 * TICK,
    mode="pay-before",
    tolerance=Tolerance(5, 20_000),
    rails={NAME: encode(StreamOffer(DOMAIN, POLE.address, POLE.address, 600))},
    meter="",
    expires=MAX_INSTANT,
)


class Paying(NamedTuple):
    """A running session over a channel of its own: the pole's side, the pole's books, and who pays."""

    session: Session
    payee: StreamPayee
    payer: StreamPayer
    key: bytes


def begun(number: int, deposit: int) -> tuple[Paying, Rows]:
    """A session as it stands once it is accepted, and the rows that keep it."""
    parties = (CAR.address, POLE.address)
    params = ChannelParams(DOMAIN, *parties, *parties, 3_600, False, number)
    rail = StreamTerms(params, 0, 0, TICK)
    nonce = number.to_bytes(16, "big")
    terms = Terms(OFFER, CAR.address, NAME, encode(rail), MAX_QUANTITY, 2**90, Instant(0), nonce)
    payer, payee = StreamPayer(rail, deposit, CAR, os.urandom(32)), StreamPayee(rail, deposit)
    rows = payee.take(payer.open().data) + ChannelRow(params, Role.SUPPLIER, Amount(deposit)).rows()
    row = SessionRow(Role.SUPPLIER, terms, bytes(65), bytes(65), ZERO)
    session = Session(row, Ends(None, payee), POLE, clock.now())
    session.begin(clock.now())
    kept = (SESSION_ROWS + session.digest, encode(row))
    return Paying(session, payee, payer, TICK_ROWS + params.id), (*rows, kept)


class Node:
    """A node with `count` running sessions that will take so many payments in all."""

    def __init__(self, directory: Path, count: int, payments: int) -> None:
        self._path = directory / f"journal-{count}"
        self._journal = SqliteJournal(self._path)
        self._paying: list[Paying] = []
        self._first: list[tuple[bytes, bytes | None]] = []
        for number in range(count):
            paying, rows = begun(number, (payments // count + 1) * TICK)
            self._paying.append(paying)
            self._first += rows
        self._paid = 0
        self._flying = 0
        self._feed: Iterator[tuple[Session, bytes]] = iter(())
        self._over: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Make the sessions durable."""
        for at in range(0, len(self._first), SOME):
            await durable(self._journal, self._first[at : at + SOME])
        self._first.clear()

    def frames(self, payments: int) -> list[tuple[Session, bytes]]:
        """The next payments, round robin, as they come over the links."""
        made = []
        for number in range(self._paid, self._paid + payments):
            paying = self._paying[number % len(self._paying)]
            evidence = paying.payer.pay((number // len(self._paying) + 1) * TICK)
            made.append((paying.session, encode(Paid(Quantity(0), tuple(one.data for one in evidence)))))
        return made

    async def take(self, frames: list[tuple[Session, bytes]]) -> None:
        """Feed the frames, and return once every payment is durable and its package released."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self._feed, self._flying = iter(frames), WINDOW
        for _ in range(WINDOW):
            loop.call_soon(self._one)
        await self._over
        self._paid += len(frames)

    def _one(self) -> None:
        try:
            frame = next(self._feed, None)
            if frame is None:
                self._flying -= 1
                if self._flying == 0:
                    self._end(None)
            else:
                self._register(*frame)
        except Exception as error:
            self._end(error)

    def _register(self, session: Session, frame: bytes) -> None:
        """One payment, secured by itself."""
        message = decode(frame)
        assert type(message) is Paid
        session.on_paid(message)
        persist, allow = session.secure(clock.now())
        assert type(persist) is Persist
        assert type(allow) is Allow
        self._journal.write(persist.rows, partial(self._release, allow))

    def _release(self, allow: Allow, error: JournalError | None) -> None:
        if error is not None:
            self._end(error)
        asyncio.get_running_loop().call_soon(self._one)  # the package flows, and the next payment comes

    def _end(self, error: Exception | None) -> None:
        assert self._over is not None
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

    async def close(self) -> None:
        """Close the journal, and see that it holds all that was paid."""
        await self._journal.close()
        reader = SqliteJournal.open_readonly(self._path)
        kept = dict(reader.load(TICK_ROWS))
        await reader.close()
        count = len(self._paying)
        for index, paying in enumerate(self._paying):
            paid = self._paid // count + (index < self._paid % count)
            assert paying.payee.secured == paid * TICK, "a payment was not taken"
            assert kept.get(paying.key) == paying.payee.state(), "a payment was not kept"


class Round(NamedTuple):
    """Payments a second, and CPU seconds a payment."""

    rate: float
    cost: float


async def _round(node: Node) -> Round:
    frames = node.frames(PAYMENTS)
    wall, cpu = time.perf_counter(), _cpu()
    await node.take(frames)
    return Round(PAYMENTS / (time.perf_counter() - wall), (_cpu() - cpu) / PAYMENTS)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _commits(directory: Path) -> float:
    """Small rows made durable one after the other, as the event loop sees it (a second)."""
    journal = SqliteJournal(directory / "commits")
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        for number in range(COMMITS // 5):
            await durable(journal, ((b"row/%d" % number, b"x" * 45),))
        rates.append(COMMITS / 5 / (time.perf_counter() - began))
    await journal.close()
    return statistics.median(rates)


async def _measure(directory: Path, sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    nodes = {size: Node(directory, size, (rounds + WARM) * PAYMENTS) for size in sizes}
    for node in nodes.values():
        await node.begin()
    gc.freeze()  # ten thousand sessions are not to be looked through at each collection
    found: dict[int, list[Round]] = {size: [] for size in sizes}
    commits = []
    for turn in range(rounds + WARM):
        commits.append(await _commits(directory))
        for size, node in nodes.items():
            figures = await _round(node)
            if turn >= WARM:
                found[size].append(figures)
    for node in nodes.values():
        await node.close()
    gc.unfreeze()
    rates = {str(size): statistics.median(one.rate for one in found[size]) for size in sizes}
    costs = {str(size): 1e6 * statistics.median(one.cost for one in found[size]) for size in sizes}
    return {
        "payments_per_s_by_channels": rates,
        "commit_per_s": statistics.median(commits),
        "cpu_us_per_payment_by_channels": costs,
    }


def run(sizes: tuple[int, ...] = SIZES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Payments a second and CPU µs a payment by number of channels, and commits of one small row a second."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as made,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(Path(made), sizes, rounds))


if __name__ == "__main__":
    print(run(tuple(map(int, sys.argv[1:])) or SIZES))
