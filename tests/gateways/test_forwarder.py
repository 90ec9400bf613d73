"""A forwarder over real links: what it counts, what it holds back, and what it makes of a peer that misbehaves."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from penstock.core.errors import BadFrame, DeviceError, PeerRefused, UsageError
from penstock.core.units import Price, Quantity
from penstock.gateways.forwarder import DataMeter, tolerance
from penstock.gateways.forwarder.connection import CLOSE, COUNT, DATA, END, HEAD, MAX_DATA, OPEN, OWED, TAKEN, WINDOW
from penstock.gateways.forwarder.count import Count
from penstock.gateways.forwarder.end import CONNECTIONS
from penstock.gateways.forwarder.meter import WAITING
from penstock.gateways.forwarder.supply import PACE
from penstock.node.clock import now
from penstock.transports.tls import TlsLink, connect

from .pipe import CONSUMER, HOST, SOON, STEP, Handler, Pipe, pipe, until

pytestmark = pytest.mark.asyncio

MB = 1_000_000


def sends(data: bytes) -> Handler:
    """A server that sends this and ends."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    return handler


async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that sends for ever."""
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a TCP connection."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def quiet(it: Pipe) -> None:
    """Wait until both meters stand still and agree."""
    before = -1
    async with asyncio.timeout(SOON):
        while before != it.supply.total or not it.agree():
            before = it.supply.total
            await asyncio.sleep(0.05)


# ---- what flows, and what is counted


async def test_bytes_arrive_as_they_were_sent_and_both_ends_count_them(tmp_path: Path) -> None:
    data = os.urandom(5 * MB)
    async with pipe(tmp_path) as it:
        reader, writer = await it.application()
        sending = asyncio.ensure_future(_send(writer, data))
        back = await asyncio.wait_for(reader.read(-1), SOON)
        await sending
        assert sha256(back).digest() == sha256(data).digest()
        await until(it.agree)
        assert it.supply.read().total == 2 * len(data)
        assert not it.ends
        writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def test_both_totals_are_the_same_at_every_reading_that_travels_with_the_data(tmp_path: Path) -> None:
    agreed: list[bool] = []
    async with pipe(tmp_path) as it:
        link = it.there[0]
        it.supply.watch(lambda reading: link.send(b"[%d]" % reading.total))
        other = it.here[0]
        take = it.meter.on_frame

        def on_frame(frame: bytes) -> None:
            if frame[:1] == b"[":
                agreed.append(int(frame[1:-1]) == it.meter.read().total)
            else:
                take(frame)

        other.attach(on_frame, lambda error: None)
        clients = [await it.application() for _ in range(3)]
        await asyncio.gather(*(_send(writer, os.urandom(2 * MB)) for _, writer in clients))
        for reader, writer in clients:
            assert len(await asyncio.wait_for(reader.read(-1), SOON)) == 2 * MB
            writer.close()
        await until(it.agree)
    assert len(agreed) > 12 * MB // STEP // 4
    assert all(agreed)


async def test_a_half_closed_connection_stays_open_the_other_way(tmp_path: Path) -> None:
    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(-1)
        writer.write(b"you said " + asked)
        await writer.drain()
        writer.write_eof()

    async with pipe(tmp_path, answers_at_the_end) as it:
        reader, writer = await it.application()
        writer.write(b"hello")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), SOON) == b"you said hello"
        writer.close()
        await until(lambda: not it.supply._connections and not it.meter._connections, "a connection stays")


async def test_streams_are_forgotten_whoever_ends_first(tmp_path: Path) -> None:
    async with pipe(tmp_path, sends(b"x" * 300_000)) as it:
        for first in ("reads", "resets") * 10:
            reader, writer = await it.application()
            if first == "reads":
                assert len(await asyncio.wait_for(reader.read(-1), SOON)) == 300_000
                writer.close()
            else:
                await reader.read(10)
                writer.transport.abort()
        await until(lambda: not it.supply._connections and not it.meter._connections, "a connection stays")
        await quiet(it)
        assert not it.ends


# ---- the valve


async def test_nothing_passes_beyond_what_is_allowed_and_nothing_piles_up(tmp_path: Path) -> None:
    sent = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with pipe(tmp_path, counts, allowed=3 * MB) as it:
        reader, writer = await it.application()
        got = 0
        while got < 3 * MB:
            got += len(await asyncio.wait_for(reader.read(65_536), SOON))
        await quiet(it)
        assert got == it.supply.total == 3 * MB
        assert it.readings[-1].total == 3 * MB, "its session must hear that supply has to wait"
        stalled = sent
        await asyncio.sleep(0.2)
        assert sent == stalled, "whoever sends is held up, not buffered"
        it.supply.allow(Quantity(4 * MB))
        while got < 4 * MB:
            got += len(await asyncio.wait_for(reader.read(65_536), SOON))
        await quiet(it)
        assert got == it.supply.total == 4 * MB
        writer.transport.abort()


async def test_what_an_application_sends_is_held_back_too(tmp_path: Path) -> None:
    passed = bytearray()

    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            passed.extend(data)

    async with pipe(tmp_path, takes, allowed=MB) as it:
        _, writer = await it.application()
        data = os.urandom(3 * MB)
        sending = asyncio.ensure_future(_send(writer, data))
        await until(lambda: len(passed) == MB)
        await quiet(it)
        assert it.supply.total == it.meter.total == len(passed) == MB
        it.supply.allow(Quantity(10 * MB))
        await until(lambda: len(passed) == 3 * MB)
        await sending
        assert bytes(passed) == data
        await quiet(it)
        assert it.supply.total == 3 * MB
        writer.close()


async def test_a_closed_valve_stops_the_flow_at_once(tmp_path: Path) -> None:
    async with pipe(tmp_path, pours) as it:
        reader, writer = await it.application()
        await asyncio.wait_for(reader.readexactly(MB), SOON)
        it.supply.close()
        closed = it.supply.total
        eating = asyncio.ensure_future(_eat(reader))
        await quiet(it)
        assert it.supply.total == it.meter.total == closed
        eating.cancel()
        writer.transport.abort()


async def _eat(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def test_a_slow_application_stalls_nobody_else(tmp_path: Path) -> None:
    async with pipe(tmp_path, sends(bytes(4 * MB))) as it:
        slow, slow_writer = await it.application()
        await until(lambda: it.meter.total > WINDOW)
        reader, writer = await it.application()
        assert len(await asyncio.wait_for(reader.read(-1), SOON)) == 4 * MB
        writer.close()
        held = it.meter.total - 4 * MB
        assert held <= WINDOW + 4 * MB - 1, "the slow one has its window, and what its sockets hold"
        assert len(await asyncio.wait_for(slow.read(-1), SOON)) == 4 * MB
        slow_writer.close()


async def test_what_a_session_says_is_not_kept_waiting_by_data(tmp_path: Path) -> None:
    async with pipe(tmp_path, pours) as it:
        readers = [await it.application() for _ in range(4)]
        eating = [asyncio.ensure_future(_eat(reader)) for reader, _ in readers]
        await until(lambda: it.meter.total > 4 * MB)
        waits = []
        for number in range(20):
            began, before = time.perf_counter(), len(it.others)
            it.here[0].send(b"[%d]" % number)
            it.there[0].send(b"[%d]" % number)
            await until(lambda before=before: len(it.others) == before + 2)
            waits.append(time.perf_counter() - began)
        assert sorted(waits)[10] < 0.5, "behind some hundreds of kB"
        for task in eating:
            task.cancel()
        for _, writer in readers:
            writer.transport.abort()


# ---- what goes wrong at the ends


async def test_a_target_that_cannot_be_reached_is_told_as_the_reason(tmp_path: Path) -> None:
    it = Pipe(tmp_path, (HOST, 1))
    try:
        await it.open()
        await it.link()
        it.supply.allow(Quantity(MB))
        reader, writer = await it.application()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)
        ((_, tried), (_, heard)) = it.told
        assert tried == {"to": f"{HOST}:1", "why": "connection refused"}
        assert heard == {"why": "the supplier cannot reach what it forwards to: connection refused"}
        assert it.supply.total == 0
        await until(lambda: not it.supply._connections and not it.meter._connections, "a connection stays")
        writer.close()
    finally:
        await it.close()


async def test_a_reset_reaches_the_other_side_as_a_reset(tmp_path: Path) -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    async with pipe(tmp_path, resets) as it:
        reader, writer = await it.application()
        writer.write(b"x" * 100_000)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)
        await until(lambda: not it.supply._connections and not it.meter._connections, "a connection stays")
        writer.close()


async def test_applications_beyond_the_bound_wait_for_their_turn(tmp_path: Path) -> None:
    async with pipe(tmp_path) as it:
        clients = [await it.application() for _ in range(CONNECTIONS + 1)]
        await until(lambda: len(it.meter._connections) == CONNECTIONS)
        for reader, writer in clients[:CONNECTIONS]:
            writer.write(b"?")
            assert await asyncio.wait_for(reader.readexactly(1), SOON) == b"?"
        reader, writer = clients[-1]
        writer.write(b"!")
        clients[0][1].close()
        assert await asyncio.wait_for(reader.readexactly(1), SOON) == b"!"
        for _, writer in clients:
            writer.close()


async def test_a_lost_link_ends_the_connections_and_new_ones_are_taken_over_the_next(tmp_path: Path) -> None:
    async with pipe(tmp_path, pours) as it:
        reader, writer = await it.application()
        await asyncio.wait_for(reader.readexactly(2 * MB), SOON)
        it.here[0].abort()
        it.meter.part()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_eat(reader), SOON)
        await until(lambda: len(it.ends) == 1)
        before = it.supply.total
        assert 2 * MB <= it.meter.total <= before
        waiting, waiting_writer = await it.application()
        await until(lambda: len(it.meter._waiting) == 1)
        await it.link()
        await asyncio.wait_for(waiting.readexactly(MB), SOON)
        assert it.supply.total >= before + MB
        writer.close()
        waiting_writer.transport.abort()


async def test_when_the_session_is_over_what_is_under_way_still_counts(tmp_path: Path) -> None:
    async with pipe(tmp_path, pours) as it:
        reader, writer = await it.application()
        await asyncio.wait_for(reader.readexactly(MB), SOON)
        it.meter.part()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_eat(reader), SOON)
        await quiet(it)
        assert not it.ends
        writer.close()


async def test_the_bound_on_what_a_broken_link_loses_is_what_the_credit_buys() -> None:
    """0.10 a GB, and a credit of 16 ticks of 0.0001."""
    assert tolerance(Price(100_000, 10**9), 1_600).at(0) // MB == 16


# ---- peers that misbehave


class Raw:
    """A peer that speaks the frames of a forwarder as a test wants."""

    def __init__(self, link: TlsLink) -> None:
        self.link = link
        self.frames: list[bytes] = []
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link.attach(self.frames.append, lambda error: self.ended.set_result(error.line()))

    def say(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.link.send(HEAD.pack(kind, number) + payload)

    async def cut_off(self) -> str:
        return await asyncio.wait_for(self.ended, SOON)


async def thief(it: Pipe) -> Raw:
    """In the consumer's place, on a link of its own."""
    before = len(it.there)
    peer = Raw(await connect(HOST, it.server.port, CONSUMER))
    await until(lambda: len(it.there) > before)
    return peer


def _frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(kind, number) + payload


BREACHES = {
    "bytes for a connection that was never opened": (_frame(DATA, 1, b"x"),),
    "an end of a connection that was never opened": (_frame(END, 1),),
    "a close of a connection that was never opened": (_frame(CLOSE, 9),),
    "a taken for nothing": (_frame(OPEN, 1), COUNT.pack(TAKEN, 1, 1)),
    "a taken of zero": (_frame(OPEN, 1), COUNT.pack(TAKEN, 1, 0)),
    "a connection opened twice": (_frame(OPEN, 2), _frame(OPEN, 1)),
    "no bytes": (_frame(OPEN, 1), _frame(DATA, 1)),
    "bytes after the end": (_frame(OPEN, 1), _frame(END, 1), _frame(DATA, 1, b"x")),
    "two ends": (_frame(OPEN, 1), _frame(END, 1), _frame(END, 1)),
    "an open with a target of its own": (_frame(OPEN, 1, b"other.example:80"),),
    "a kind that is none": (_frame(6, 1),),
    "kind zero": (_frame(0, 1),),
    "too short": (b"\2\0\0",),
    "a reason that is too long": (_frame(OPEN, 1), _frame(CLOSE, 1, b"x" * 201)),
    "a taken of the wrong length": (_frame(OPEN, 1), _frame(TAKEN, 1, b"\0\0\1")),
}


@pytest.mark.parametrize("frames", BREACHES.values(), ids=BREACHES.keys())
async def test_whoever_breaks_the_rules_is_cut_off(tmp_path: Path, frames: tuple[bytes, ...]) -> None:
    async with pipe(tmp_path) as it:
        peer = await thief(it)
        for frame in frames:
            peer.link.send(frame)
        assert await peer.cut_off()
        assert any(isinstance(end, BadFrame) for end in it.ends)
        assert it.supply.total == 0


async def test_a_window_is_all_that_a_peer_may_send_unasked(tmp_path: Path) -> None:
    async with pipe(tmp_path, allowed=0) as it:
        peer = await thief(it)
        peer.say(OPEN, 1)
        for _ in range(WINDOW // MAX_DATA):
            peer.say(DATA, 1, bytes(MAX_DATA))
        peer.say(DATA, 1, bytes(WINDOW % MAX_DATA))
        await asyncio.sleep(0.1)
        assert not peer.ended.done()
        peer.say(DATA, 1, b"x")
        assert "whose window is 0" in await peer.cut_off()
        assert it.supply.total == 0


async def test_a_flood_of_streams_is_cut_off(tmp_path: Path) -> None:
    async with pipe(tmp_path) as it:
        peer = await thief(it)
        for number in range(1, CONNECTIONS + 2):
            peer.say(OPEN, number)
            peer.say(CLOSE, number)  # not over before we have answered
        assert f"more than {CONNECTIONS} connections" in await peer.cut_off()


async def test_a_consumer_that_never_takes_gets_no_more_than_its_window(tmp_path: Path) -> None:
    async with pipe(tmp_path, pours) as it:
        peer = await thief(it)
        peer.say(OPEN, 1)
        await until(lambda: it.supply.total == WINDOW)
        await asyncio.sleep(0.1)
        assert it.supply.total == WINDOW == sum(len(frame) - HEAD.size for frame in peer.frames)
        peer.link.send(COUNT.pack(TAKEN, 1, OWED))
        await until(lambda: it.supply.total == WINDOW + OWED)


async def test_a_supplier_opens_nothing_at_the_consumer(tmp_path: Path) -> None:
    async with pipe(tmp_path) as it:
        it.there[0].send(HEAD.pack(OPEN, 1))
        await until(lambda: bool(it.ends))
        assert any(isinstance(end, BadFrame | PeerRefused) and "opens no connections" in str(end) for end in it.ends)


async def test_more_applications_than_may_wait_are_turned_away(tmp_path: Path) -> None:
    it = Pipe(tmp_path, (HOST, 1))
    try:
        await it.open()
        writers = [(await it.application())[1] for _ in range(WAITING)]
        await until(lambda: len(it.meter._waiting) == WAITING)
        reader, writer = await it.application()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)
        for one in (*writers, writer):
            one.close()
    finally:
        await it.close()


async def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    async with pipe(tmp_path) as it:
        other = DataMeter(tmp_path / "other", now, lambda event, **facts: None)
        with pytest.raises(UsageError, match="cannot listen on"):
            await other.listen(HOST, it.port)
        await other.detach()


# ---- the count


async def test_a_count_outlives_its_process_and_has_one_holder(tmp_path: Path) -> None:
    first = Count(tmp_path / "count")
    first.write(123_456_789_012, 5)
    with pytest.raises(DeviceError, match="another process"):
        Count(tmp_path / "count")
    first.close()
    again = Count(tmp_path / "count")
    assert (again.total, again.at) == (123_456_789_012, 5)
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: b"X" + raw[1:],
        lambda raw: raw[:9] + b"\xff" + raw[10:],
    ],
)
async def test_a_damaged_count_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    count = Count(tmp_path / "count")
    count.write(1_000, 1)
    count.close()
    (tmp_path / "count").write_bytes(damage((tmp_path / "count").read_bytes()))
    with pytest.raises(DeviceError, match="damaged"):
        Count(tmp_path / "count")


async def test_totals_go_on_over_a_restart(tmp_path: Path) -> None:
    for round_ in (1, 2):
        async with pipe(tmp_path, sends(b"x" * 1_000)) as it:
            reader, writer = await it.application()
            assert len(await asyncio.wait_for(reader.read(-1), SOON)) == 1_000
            writer.close()
            await quiet(it)
            assert it.supply.read().total == it.meter.read().total == 1_000 * round_


async def test_what_a_server_sent_before_it_broke_arrives_first(tmp_path: Path) -> None:
    async def answers_and_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(bytes(2 * MB))
        await writer.drain()  # and is closed: what comes then is answered with a reset

    async with pipe(tmp_path, answers_and_leaves, allowed=MB) as it:
        reader, writer = await it.application()
        writer.write(b"?")
        await until(lambda: it.supply.total == MB)
        writer.write(b"more")
        await asyncio.sleep(0.05)
        it.supply.allow(Quantity(10 * MB))
        assert len(await asyncio.wait_for(reader.readexactly(2 * MB), SOON)) == 2 * MB
        writer.close()
        await until(lambda: not it.supply._connections and not it.meter._connections, "a connection stays")
        await quiet(it)


async def test_whoever_opens_and_closes_without_end_is_held_to_a_pace(tmp_path: Path) -> None:
    made = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        await reader.read()

    async with pipe(tmp_path, counts) as it:
        peer = await thief(it)
        number = 0
        async with asyncio.timeout(SOON):
            began = time.perf_counter()
            while number < 6 * CONNECTIONS:
                answered = sum(frame[0] == CLOSE for frame in peer.frames)
                while number - answered < CONNECTIONS and number < 6 * CONNECTIONS:
                    number += 1
                    peer.say(OPEN, number)
                    peer.say(CLOSE, number)
                await asyncio.sleep(0.001)
        assert not peer.ended.done(), "nobody broke a rule"
        assert time.perf_counter() - began >= 3 * CONNECTIONS / PACE
        assert made <= 6 * CONNECTIONS


async def test_what_breaks_after_both_ends_is_over_all_the_same(tmp_path: Path) -> None:
    """For the consumer it may be over already, which then takes its place for another."""
    go_on = asyncio.Event()

    async def says_its_part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"0123456789")
        writer.write_eof()
        await go_on.wait()
        reset(writer)

    async with pipe(tmp_path, says_its_part) as it:
        peer = await thief(it)
        peer.say(OPEN, 1)
        await until(lambda: [frame[0] for frame in peer.frames] == [DATA, END])
        connection, sent = it.supply._connections[1], 0
        while not connection.blocked:  # nobody reads over there, but it was passed on
            if connection.granted >= MAX_DATA:
                peer.say(DATA, 1, bytes(MAX_DATA))
                sent += MAX_DATA
            await asyncio.sleep(0.001)
        await until(lambda: it.supply.total == sent + 10)
        peer.say(END, 1)
        await until(lambda: connection.heard == END)
        go_on.set()
        await until(lambda: connection.transport is None)
        peer.link.send(COUNT.pack(TAKEN, 1, 10))
        await until(lambda: not it.supply._connections)
        assert CLOSE not in {frame[0] for frame in peer.frames}
        assert not peer.ended.done()
