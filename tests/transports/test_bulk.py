"""A link that carries a medium beside what its session says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from penstock.core.errors import LinkLost
from penstock.transports import frames
from penstock.transports.link import FULL
from penstock.transports.tls import Limits, TlsLink

from .support import Pole, RawPeer, pole

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def unread(limits: Limits) -> AsyncIterator[tuple[Pole, RawPeer, TlsLink]]:
    """A pole, a peer that does not read, and the pole's end of the link to it."""
    async with pole(limits) as it:
        peer = await RawPeer.dial(it.port)
        await peer.prove()
        peer.writer.transport.pause_reading()
        yield it, peer, await asyncio.wait_for(it.links.get(), 10)
        peer.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Poll, but not for long."""
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def fill(link: TlsLink) -> int:
    """Send as long as there is room, and until there is none for a while; returns the bytes sent."""
    sent = 0
    for _ in range(20):
        while not link.full:
            link.send(bytes(frames.MAX_FRAME))
            sent += frames.MAX_FRAME
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
    return sent


async def test_a_link_to_a_peer_that_does_not_read_stays_full_and_open() -> None:
    async with unread(Limits()) as (it, peer, link):
        rooms: list[bool] = []
        link.carry(lambda: rooms.append(link.full))
        await fill(link)
        assert link.full
        before = len(rooms)
        assert link._transport is not None
        assert link._transport.get_write_buffer_size() <= 3 * FULL, "some hundreds of kB, and no more"
        await asyncio.sleep(0.05)
        assert len(rooms) == before, "there is no room"
        assert it.ends.empty(), "whoever waits for room is not cut off"
        peer.writer.transport.resume_reading()
        eating = asyncio.ensure_future(peer.ended())
        await until(lambda: len(rooms) > before)
        assert rooms[-1] is False
        eating.cancel()


async def test_a_peer_that_never_reads_is_dropped_whoever_looked_for_room() -> None:
    async with unread(Limits(max_unsent=4 * FULL)) as (it, _, link):
        link.carry(lambda: None)
        await fill(link)
        assert it.ends.empty()
        for _ in range(4 * FULL // frames.MAX_FRAME + 2):
            link.send(bytes(frames.MAX_FRAME))
            await asyncio.sleep(0)
        error = await it.end()
        assert isinstance(error, LinkLost)
        assert f"{4 * FULL} bytes wait for it" in str(error)


@pytest.mark.parametrize("wanted", [True, False])
async def test_what_was_asked_for_is_no_flood(wanted: bool) -> None:
    async with pole(Limits(max_rate=300_000)) as it:
        peer = await RawPeer.dial(it.port)
        await peer.prove()
        link = await asyncio.wait_for(it.links.get(), 10)
        came = 0

        def take(frame: bytes) -> None:
            nonlocal came
            came += len(frame)
            if wanted:
                link.wanted(len(frame))

        link.attach(take, it.ends.put_nowait)
        frame = frames.header(frames.MAX_FRAME) + bytes(frames.MAX_FRAME)
        for _ in range(30):  # 2 MB at once
            peer.writer.write(frame)
        if wanted:
            await until(lambda: came == 30 * frames.MAX_FRAME)
            assert it.ends.empty()
        else:
            assert "bytes a second" in str(await it.end())
        peer.abort()
