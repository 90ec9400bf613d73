"""Links in memory (`core.ports.Link`) over a network with delay, resets, partitions, and peers that die without a word.

A frame arrives whole, once and in order, as over TCP and TLS, or the link ends. Packets that a bad way loses are sent
again below the link: frames come late, in heaps. A mangled way breaks the link's promise: frames are lost, come twice,
or in another order, and the link goes on. What a cheating peer makes of its own frames is `tamper`: the network itself
can neither change nor forge any.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from penstock.core.errors import BadSignature, LinkLost, OutOfRange, PeerRefused, PenstockError
from penstock.core.identity import Address, Key
from penstock.sim.life import Life

MAX_FRAME = 64 * 1024
SILENCE = (30.0, 40.0)  # seconds after which a link that nothing comes through is dropped
AGAIN = (0.2, 3.0)  # seconds until a lost packet is sent again
MANGLED = 0.1  # of a mangled way's frames are lost; as many come twice, and as many too early

Tamper = Callable[[bytes], list[bytes]]


class _Host(NamedTuple):
    life: Life
    key: Key
    on_link: Callable[[SimLink], None]


class _Item(NamedTuple):
    """A frame, or an end (`error`), and when it arrives."""

    at: float
    frame: bytes
    error: PenstockError | None


class SimLink:
    """One end of a link."""

    def __init__(self, network: Network, life: Life, where: str, peer: Address, rng: Random) -> None:
        self.peer, self.version = peer, 1
        self.life, self.where = life, where
        self.other: SimLink
        self.ended = False
        self.tamper: Tamper | None = None
        self.on_send: Callable[[bytes], None] | None = None
        self._network, self._rng = network, rng
        self._on_frame: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[PenstockError], None] | None = None
        self._coming: deque[_Item] = deque()
        self._early: deque[_Item] = deque()
        self._pumping = False
        life.at_death(self._die)

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        if self._early:
            self.life.later(0, self._catch_up)

    def send(self, frame: bytes) -> None:
        if not 0 < len(frame) <= MAX_FRAME:
            raise OutOfRange(f"a frame is 1..{MAX_FRAME} bytes, not {len(frame)}")
        if self.ended or not self.life.boundary():
            return
        if self.on_send is not None:
            self.on_send(frame)
        for made in [frame] if self.tamper is None else self.tamper(frame):
            self.other._expect(made, None)
        self.life.boundary()

    @property
    def full(self) -> bool:
        return False

    def carry(self, on_room: Callable[[], None]) -> None:
        """Never full."""

    def wanted(self, size: int) -> None:
        """Takes any flood."""

    def close(self, reason: str = "") -> None:
        if self.ended or not self.life.alive:
            return
        self.ended = True
        self.other._expect(b"", PeerRefused(reason) if reason else LinkLost("the peer ended the link"))

    def lose(self, after: float) -> None:
        """The connection breaks: what is still on its way to this end is lost."""
        self._coming.clear()
        if not self.ended:
            self.life.later(after, self._end, LinkLost("the link fell silent"))

    def pump(self) -> None:
        """Deliver what has arrived by now."""
        self._pumping = False
        while self._coming and not self._network.holds(self.where, self.other.where):
            item = self._coming[0]
            ahead = item.at - self._network.loop.time()
            if ahead > 0:
                self._wait(ahead)
                return
            self._coming.popleft()
            self._deliver(item)

    @property
    def waiting(self) -> int:
        """How many frames, or ends, are on their way to this end."""
        return len(self._coming)

    def next(self) -> None:
        """What comes next arrives now, whatever holds it."""
        self._deliver(self._coming.popleft())

    def next_lost(self) -> None:
        """What comes next never arrives."""
        self._coming.popleft()

    def next_twice(self) -> None:
        """What comes next comes once more, behind it."""
        self._coming.insert(1, self._coming[0])

    def next_late(self) -> None:
        """What comes next comes behind all the rest."""
        self._coming.append(self._coming.popleft())

    def _wait(self, ahead: float) -> None:
        if not self._pumping:
            self._pumping = True
            self.life.later(ahead, self.pump)

    def _expect(self, frame: bytes, error: PenstockError | None) -> None:
        if self.ended:
            return
        last = self._coming[-1].at if self._coming else 0.0
        at = max(last, self._network.loop.time() + self._network.on_its_way(self.where, self.other.where))
        self._network.put(self._coming, _Item(at, frame, error), self.where, self.other.where)
        if self._coming and not self._network.holds(self.where, self.other.where):
            self._wait(self._coming[0].at - self._network.loop.time())

    def _deliver(self, item: _Item) -> None:
        if self._on_frame is None or self._early:
            self._early.append(item)
        elif not self.ended:
            self._take(item)

    def _catch_up(self) -> None:
        while self._early and not self.ended:
            self._take(self._early.popleft())

    def _take(self, item: _Item) -> None:
        if item.error is not None:
            self._end(item.error)
            return
        assert self._on_frame is not None
        try:
            self._on_frame(item.frame)
        except PenstockError as error:
            self._fail(error)
        except Exception as fault:
            self._network.loop.call_exception_handler({"message": "a frame's receiver failed", "exception": fault})
            self._fail(LinkLost("an internal error ended the link"))

    def _fail(self, error: PenstockError) -> None:
        if not self.ended:
            self.other._expect(b"", PeerRefused(error.line()))
            self._end(error)

    def _end(self, error: PenstockError) -> None:
        if self.ended:
            return
        if self._on_lost is None:
            self._early.append(_Item(0.0, b"", error))
            return
        self.ended = True
        self._on_lost(error)

    def _die(self) -> None:
        """Our process is gone: its system says so to the peer, or the machine is dead and says nothing."""
        if self.ended:
            return
        self.ended = True
        way = self._rng.random()
        if way < 0.4:
            self.other._expect(b"", LinkLost("the peer is gone"))
        else:
            self.other.lose(self._network.delay() if way < 0.8 else self._rng.uniform(*SILENCE))


class Network:
    """Who listens where, and how frames travel. `delay()` is a frame's time on its way, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random, delay: Callable[[], float]) -> None:
        self.loop, self.delay = loop, delay
        self.held = False  # nothing that is sent arrives by itself: somebody else decides
        self._rng = rng
        self._hosts: dict[str, _Host] = {}
        self._cut: dict[frozenset[str], int] = {}
        self._losses: dict[frozenset[str], float] = {}
        self._mangled: set[frozenset[str]] = set()
        self._links: list[SimLink] = []

    def listen(self, where: str, life: Life, key: Key, on_link: Callable[[SimLink], None]) -> None:
        """Take links at `where`, as long as this life lasts."""
        self._hosts[where] = _Host(life, key, on_link)

    async def dial(self, life: Life, here: str, key: Key, where: str, expect: Address | None = None) -> SimLink:
        """A link from `here` to whoever listens at `where`.

        Raises:
            LinkLost: nobody answers. BadSignature: somebody else than `expect` does.
        """
        await asyncio.sleep(self.delay())
        if self.is_cut(here, where):
            await asyncio.sleep(self._rng.uniform(3.0, 10.0))
            raise LinkLost(f"{where} does not answer")
        host = self._hosts.get(where)
        if host is None or not host.life.alive:
            raise LinkLost(f"nobody listens at {where}")
        if expect is not None and host.key.address != expect:
            raise BadSignature("somebody else answers there")
        ours = SimLink(self, life, here, host.key.address, self._rng)
        theirs = SimLink(self, host.life, where, key.address, self._rng)
        ours.other, theirs.other = theirs, ours
        self._links = [link for link in self._links if not (link.ended and link.other.ended)]
        self._links += [ours, theirs]
        host.life.later(0, host.on_link, theirs)
        return ours

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing gets through between the two."""
        return bool(self._cut) and frozenset((one, other)) in self._cut

    def holds(self, one: str, other: str) -> bool:
        """Whether what was sent between the two does not arrive now."""
        return self.held or self.is_cut(one, other)

    def let_go(self) -> None:
        """What is sent arrives by itself again."""
        self.held = False
        for link in self._links:
            link.life.later(0, link.pump)

    def coming(self, where: str, other: str) -> list[SimLink]:
        """The ends at `where` of the links from `other` for which something is on its way."""
        return [link for link in self._between(where, other) if link.where == where and link.waiting]

    def cut(self, one: str, other: str) -> None:
        """Let nothing through; links that wait too long are lost."""
        pair = frozenset((one, other))
        self._cut[pair] = self._cut.get(pair, 0) + 1
        for link in self._between(one, other):
            link.life.later(self._rng.uniform(*SILENCE), self._give_up, link, pair)

    def heal(self, one: str, other: str) -> None:
        """Let everything through again, what has waited, too."""
        pair = frozenset((one, other))
        self._cut[pair] = self._cut.get(pair, 0) - 1
        if self._cut[pair] <= 0:
            del self._cut[pair]
            for link in self._between(one, other):
                link.life.later(0, link.pump)

    def reset(self, one: str, other: str) -> None:
        """Break the links between the two; each end learns of it in its own time."""
        for link in self._between(one, other):
            link.lose(self.delay())

    def worsen(self, one: str, other: str, loss: float) -> None:
        """Let this part of what is sent between the two be lost, and sent again; 0 for none."""
        self._losses[frozenset((one, other))] = loss

    def mangle(self, one: str, other: str, on: bool) -> None:
        """Break the promise of the links between the two, or keep it again."""
        pair = frozenset((one, other))
        (self._mangled.add if on else self._mangled.discard)(pair)

    def on_its_way(self, one: str, other: str) -> float:
        """How long a frame between the two takes (s)."""
        delay = self.delay()
        loss = self._losses.get(frozenset((one, other)), 0.0)
        while loss and self._rng.random() < loss:
            delay += self._rng.uniform(*AGAIN)
        return delay

    def put(self, coming: deque[_Item], item: _Item, one: str, other: str) -> None:
        """Put what is sent between the two behind what is coming already; on a mangled way, perhaps elsewhere."""
        way = 1.0
        if item.error is None and frozenset((one, other)) in self._mangled:
            way = self._rng.random()
        if way < MANGLED:
            return  # lost
        if way < 2 * MANGLED and coming:
            coming.insert(len(coming) - 1, item)  # too early
            return
        coming.append(item)
        if way < 3 * MANGLED:
            coming.append(item)  # twice

    def _between(self, one: str, other: str) -> list[SimLink]:
        pair = {one, other}
        return [link for link in self._links if {link.where, link.other.where} == pair and not link.ended]

    def _give_up(self, link: SimLink, pair: frozenset[str]) -> None:
        if pair in self._cut:
            link.lose(0.0)
