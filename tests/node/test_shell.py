"""The queue of effects: what waits for the disk, what waits for nothing, and what a failing part does to a session."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import pytest

from penstock.core.effects import Allow, Persist, Send, ShutValve
from penstock.core.messages import Metered, Reason, Way
from penstock.core.units import Amount, Instant, Quantity
from penstock.node import book
from penstock.node.shell import SessionShell
from penstock.sim.line import LineMeter

from .world import LIMIT, SHORT, SPEED, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

_HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
SAID = Metered(Quantity(77), Instant(1), Amount(0), b"", b"", Quantity(0), Way.SUPPLY)


@contextmanager
def slow_disk(it: Street) -> Iterator[None]:
    """Nothing becomes durable meanwhile: another process holds the journal's write lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(it.directory / "pole.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        yield
        holder.kill()


async def running(it: Street) -> SessionShell:
    """The shell of a session whose first package has flowed, and whose consumer owes for it."""
    await it.robs()
    shell = it.supplier.shell
    assert shell is not None
    await until(lambda: it.line.power() == 0 and shell.session.meter.total)
    return shell


async def test_what_follows_a_persist_waits_until_it_is_durable(open_street: Open) -> None:
    """Rule 14: a tick counts once it is durable, and no seed is used twice."""
    async with open_street(speed=SPEED) as it:
        shell = await running(it)
        thief = it.thieves[-1]
        before = it.line.read().total
        with slow_disk(it):
            shell.run([Persist(((b"test/row", b"1"),)), Send(SAID), Allow(Quantity(before + 50))])
            await asyncio.sleep(0.2)
            assert SAID not in list(thief.inbox._queue)  # type: ignore[attr-defined]  # a queue's own
            assert it.line.read().total == before
        while await thief.hear(Metered) != SAID:
            pass
        assert book.one(it.journal, b"test/row") == b"1"
        await until(lambda: it.line.read().total > before)  # the session, which knows of no such leave, stops it early
        shell.abandon()


async def test_shutting_the_valve_waits_for_nothing_and_voids_what_waits(open_street: Open) -> None:
    async with open_street(speed=SPEED) as it:
        shell = await running(it)
        before = it.line.read().total
        shell.run([Allow(Quantity(before + 100_000))])
        await until(lambda: it.line.power())
        with slow_disk(it):
            shell.run([Persist(((b"test/row", b"2"),)), Allow(Quantity(before + 200_000))])
            shell.run([ShutValve()])
            assert it.line.power() == 0
            shut = it.line.read().total
        await until(lambda: book.one(it.journal, b"test/row") == b"2")
        await asyncio.sleep(0.05)
        assert (it.line.power(), it.line.read().total) == (0, shut)
        shell.abandon()


async def test_a_failing_journal_acknowledges_nothing_and_ends_the_session_once(open_street: Open) -> None:
    async with open_street(speed=SPEED, patience=SHORT, serves=False) as it:
        shell = await running(it)
        thief = it.thieves[-1]
        shell.run([Allow(Quantity(it.line.read().total + 100_000))])
        await it.journal.close()
        shell.run([Persist(((b"test/row", b"3"),)), Send(SAID), Allow(Quantity(10**9))])
        shell.run([Persist(((b"test/row", b"4"),)), Send(SAID)])
        await until(lambda: shell.over)
        assert it.line.power() == 0
        assert "journal" in await thief.cut_off()
        assert SAID not in list(thief.inbox._queue)  # type: ignore[attr-defined]  # a queue's own
        assert len(it.told.of("journal failed")) == 1
        shell.run([Send(SAID), Allow(Quantity(10**9))])
        shell.stop(Reason.OPERATOR)
        shell.on_time()
        assert it.line.power() == 0


async def test_a_meter_that_falls_is_billed_at_its_last_reading(open_street: Open) -> None:
    async with open_street(speed=SPEED) as it:
        good = it.supplier.pole
        falls = LineMeter(it.directory / "line", falls_at=Quantity(it.line.read().total + 300))
        it.supplier.pole = good._replace(meter=falls)
        async with it.car() as car:
            session = await car.buy(quantity=2_000)
        it.supplier.pole = good
        falls.detach()
        assert session.complete
        assert session.receipt is not None
        assert session.receipt.reason == Reason.DEVICE_FAILED
        assert session.receipt.unpaid == 0
        assert "meter" in it.sessions[-1].fault


async def test_a_car_whose_meter_fails_stops_and_squares(open_street: Open) -> None:
    async with open_street(speed=SPEED) as it, it.car() as first:
        await first.buy(quantity=10)
        async with it.car(name="falls", falls_at=Quantity(it.line.read().total + 300)) as car:
            session = await car.buy(quantity=2_000)
        assert session.reason is not None
        assert session.state == "ended"
        assert session.control.worst <= LIMIT
        assert "meter" in session.fault


async def test_a_valve_that_fails_ends_the_session(open_street: Open) -> None:
    async with open_street(speed=SPEED, serves=False) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=5_000))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid)
        it.line.detach()
        assert it.supplier.shell is not None
        it.supplier.shell.run([Allow(Quantity(10**9))])
        session = await asyncio.wait_for(buying, 10)
        assert session.complete
        assert session.receipt is not None
        assert session.receipt.reason == Reason.DEVICE_FAILED
        assert "let go of" in it.sessions[-1].fault
