"""What every `core.ports.Link` must do, as checks against any implementation.

Give each check of `LINK_CHECKS` a factory that opens a fresh pair of linked ends (or run them all with `check_link`):

    @pytest.mark.parametrize("check", LINK_CHECKS, ids=lambda check: check.__name__)
    def test_a_link_conforms(check):
        asyncio.run(check(open_pair))

A check passes, or raises AssertionError with what was not kept. Each takes well under a second over loopback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from penstock.core.errors import BadMessage, LinkLost, OutOfRange, PeerRefused, PenstockError
from penstock.core.identity import Address
from penstock.core.ports import Link

MAX_FRAME = 64 * 1024
MANY = 14  # frames of that size that may wait for `attach`
BULK, BULK_FRAME = 600, 16 * 1024  # frames, and bytes each: far above what a link keeps waiting
PATIENCE = 10.0  # seconds until something that must happen counts as missing


class Pair(NamedTuple):
    """Two ends of one open link that nobody has attached to, and the addresses whose keys they hold."""

    left: Link
    right: Link
    left_address: Address
    right_address: Address


PairFactory = Callable[[], Awaitable[Pair]]
Check = Callable[[PairFactory], Coroutine[Any, Any, None]]


class Recorder:
    """Attaches to a link and keeps what it delivers."""

    def __init__(self, link: Link) -> None:
        self.frames: list[bytes] = []
        self.ends: list[PenstockError] = []
        self._changed = asyncio.Event()
        link.attach(self.on_frame, self.on_lost)

    def on_frame(self, frame: bytes) -> None:
        assert not self.ends, "a frame was delivered after on_lost"
        self.frames.append(frame)
        self._changed.set()

    def on_lost(self, error: PenstockError) -> None:
        self.ends.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for `condition`, which only something delivered can bring about."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"missing: {what}") from None

    async def count(self, count: int) -> list[bytes]:
        """The frames, once there are `count`."""
        await self.until(lambda: len(self.frames) >= count, f"{count} frames; {len(self.frames)} came")
        return self.frames

    async def end(self) -> PenstockError:
        """The link's end."""
        await self.until(lambda: bool(self.ends), "on_lost")
        return self.ends[0]


async def each_end_knows_the_other(pair: PairFactory) -> None:
    """`peer` is the address whose key the other end holds; both agree on the version."""
    left, right, left_address, right_address = await pair()
    assert left.peer == right_address, "the left end does not know the right one"
    assert right.peer == left_address, "the right end does not know the left one"
    assert left.version == right.version > 0, "the ends do not agree on a version"
    await _close(left, right)


async def frames_arrive_whole_and_in_order(pair: PairFactory) -> None:
    """Of every size that is allowed, both ways at once."""
    left, right, _, _ = await pair()
    there, back = Recorder(right), Recorder(left)
    sizes = (1, 2, 3, 4, 5, 100, 16_383, 16_384, 16_385, MAX_FRAME - 1, MAX_FRAME)
    sent = [bytes((index + 1,)) * size for index, size in enumerate(sizes)]
    for frame in sent:
        left.send(frame)
        right.send(frame[::-1])
    assert await there.count(len(sent)) == sent, "frames changed or changed places"
    assert await back.count(len(sent)) == sent, "frames changed or changed places on the way back"
    await _close(left, right)


async def sizes_that_no_frame_has_are_refused(pair: PairFactory) -> None:
    """An empty frame and one above 64 KiB raise OutOfRange at the sender, and harm nothing."""
    left, right, _, _ = await pair()
    there = Recorder(right)
    for size in (0, MAX_FRAME + 1):
        try:
            left.send(bytes(size))
        except OutOfRange:
            continue
        raise AssertionError(f"a frame of {size} bytes was taken")
    left.send(b"still here")
    assert await there.count(1) == [b"still here"]
    await _close(left, right)


async def frames_wait_for_attach(pair: PairFactory) -> None:
    """What came before `attach` is delivered first, and so is an end that came before it."""
    left, right, _, _ = await pair()
    back = Recorder(left)
    for number in range(3):
        left.send(bytes((number,)))
    right.send(b"here")
    await back.count(1)
    left.close()
    there = Recorder(right)
    assert isinstance(await there.end(), LinkLost)
    assert there.frames == [b"\0", b"\1", b"\2"], "frames that came before attach were lost"


async def a_reason_reaches_the_peer(pair: PairFactory) -> None:
    """What was queued arrives first, then PeerRefused with the reason, once; the closing end hears nothing."""
    left, right, _, _ = await pair()
    here, there = Recorder(left), Recorder(right)
    left.send(b"last")
    left.close("the battery is full")
    error = await there.end()
    assert isinstance(error, PeerRefused), f"{error!r} is no PeerRefused"
    assert "the battery is full" in str(error), "the reason is missing"
    assert there.frames == [b"last"], "what was queued before close did not arrive"
    right.send(b"too late")
    left.send(b"too late")
    left.close()
    right.close()
    await _settle(pair)
    assert len(there.ends) == 1, "on_lost was called again"
    assert not here.ends, "on_lost was called for an end of our own"
    assert not here.frames, "a frame was delivered after close"


async def a_close_without_reason_is_a_lost_link(pair: PairFactory) -> None:
    """The peer gets LinkLost: it may resume."""
    left, right, _, _ = await pair()
    there = Recorder(right)
    left.close()
    assert isinstance(await there.end(), LinkLost)


async def an_error_of_the_receiver_ends_the_link(pair: PairFactory) -> None:
    """A PenstockError from `on_frame` goes to our `on_lost` and, as PeerRefused, to the peer. No frame follows."""
    left, right, _, _ = await pair()
    back = Recorder(left)
    seen: list[bytes] = []
    ends: list[PenstockError] = []

    def refuse(frame: bytes) -> None:
        seen.append(frame)
        raise BadMessage("that is no message")

    right.attach(refuse, ends.append)
    left.send(b"one")
    left.send(b"two")
    error = await back.end()
    assert isinstance(error, PeerRefused), f"{error!r} is no PeerRefused"
    assert "that is no message" in str(error), "the reason is missing"
    assert seen == [b"one"], "frames were delivered after the end"
    assert [type(end) for end in ends] == [BadMessage], "the receiver's own on_lost did not get its error"


async def a_link_may_be_closed_while_it_delivers(pair: PairFactory) -> None:
    """`close` in `on_frame` stops the delivery at once."""
    left, right, _, _ = await pair()
    back = Recorder(left)
    seen: list[bytes] = []

    def enough(frame: bytes) -> None:
        seen.append(frame)
        right.close("enough")

    right.attach(enough, lambda error: seen.append(b"lost"))
    left.send(b"one")
    left.send(b"two")
    assert "enough" in str(await back.end())
    assert seen == [b"one"], f"delivery went on: {seen}"


async def bulk_waits_while_the_link_is_full(pair: PairFactory) -> None:
    """Who fills a link hears when there is room again; all of it arrives in its order, and what is said in between."""
    left, right, _, _ = await pair()
    arrived: list[bytes] = []
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = [bytes((number % 251, number // 251)) * (BULK_FRAME // 2) for number in range(BULK)]
    sent = [*waiting, b"said"]

    def on_frame(frame: bytes) -> None:
        right.wanted(len(frame))
        arrived.append(frame)
        if len(arrived) == len(sent) and not done.done():
            done.set_result(None)

    def on_lost(error: PenstockError) -> None:
        if not done.done():
            done.set_exception(error)

    def pump() -> None:
        while waiting and not left.full:
            left.send(waiting.pop(0))
            if not waiting:
                left.send(b"said")

    right.attach(on_frame, on_lost)
    left.attach(on_frame, on_lost)
    left.carry(pump)
    right.carry(lambda: None)
    pump()
    try:
        async with asyncio.timeout(PATIENCE):
            await done
    except TimeoutError:
        raise AssertionError(f"{len(waiting)} of {BULK} frames of bulk wait for ever") from None
    assert arrived == sent, "bulk changed, or changed places"
    left.close()
    right.close()


async def a_fault_stays_on_its_link(pair: PairFactory) -> None:
    """A handler that fails with an error that is none of ours ends its own link; another link goes on."""
    left, right, _, _ = await pair()
    other_left, other_right, _, _ = await pair()
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception")))

    def fail(frame: bytes) -> None:
        raise ZeroDivisionError

    back, other_there = Recorder(left), Recorder(other_right)
    ends: list[PenstockError] = []
    right.attach(fail, ends.append)
    try:
        left.send(b"one")
        await back.end()
        other_left.send(b"unharmed")
        assert await other_there.count(1) == [b"unharmed"]
    finally:
        loop.set_exception_handler(None)
    assert len(ends) == 1, "the failing side was not told of its link's end"
    assert [type(fault) for fault in faults] == [ZeroDivisionError], "the fault was hidden, or told twice"
    await _close(other_left, other_right)


async def a_link_that_is_full_says_when_there_is_room(pair: PairFactory) -> None:
    """What is sent while it is `full` is queued, and arrives; then there is room, and `on_room` is called for it."""
    left, right, _, _ = await pair()
    rooms: list[bool] = []
    assert not left.full, "a link is full before anything was sent"
    left.carry(lambda: rooms.append(left.full))
    sent = 0
    while not left.full and sent < MANY:
        left.send(bytes(MAX_FRAME))
        sent += 1
    if left.full:
        left.send(b"said at last")
        there = Recorder(right)
        await there.count(sent + 1)
        assert there.frames[-1] == b"said at last"
        right.send(b"heard")
        await Recorder(left).count(1)
        assert rooms, "on_room was not called"
        assert not left.full, "it stays full though all of it has arrived"
    await _close(left, right)


LINK_CHECKS: tuple[Check, ...] = (
    each_end_knows_the_other,
    frames_arrive_whole_and_in_order,
    sizes_that_no_frame_has_are_refused,
    frames_wait_for_attach,
    a_reason_reaches_the_peer,
    a_close_without_reason_is_a_lost_link,
    an_error_of_the_receiver_ends_the_link,
    a_link_may_be_closed_while_it_delivers,
    bulk_waits_while_the_link_is_full,
    a_fault_stays_on_its_link,
    a_link_that_is_full_says_when_there_is_room,
)


async def check_link(pair: PairFactory) -> None:
    """Run every check, each on fresh pairs."""
    for check in LINK_CHECKS:
        await check(pair)


async def _close(left: Link, right: Link) -> None:
    there = Recorder(right)
    left.close()
    await there.end()


async def _settle(pair: PairFactory) -> None:
    """Let a whole exchange on another link pass: whatever was under way on the first has arrived by then."""
    left, right, _, _ = await pair()
    there, back = Recorder(right), Recorder(left)
    left.send(b"there")
    await there.count(1)
    right.send(b"back")
    await back.count(1)
    await _close(left, right)
