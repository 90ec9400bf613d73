"""Target: a supplier's door. Whatever a stranger says, in whatever order, before, within and after a session.

    [step, ...]     a list is a message of the peer's (see `talk`), a number lets so much flow as the valve allows, and
                    null cuts the link and comes back on another

The site, its pole and the session's shell are the node's own, over a journal in memory and a ledger that knows one
channel. No task may fail with what is no error of ours, and the pole is never owed more than its credit limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import cache
from typing import Any, cast

import msgspec
from tests.core import pair
from tests.fuzz.evidence import sign, signed

from penstock.core import codec
from penstock.core.channel import Close
from penstock.core.errors import BadMessage, JournalError, PenstockError
from penstock.core.identity import Address
from penstock.core.messages import (
    AskClose,
    AskOffer,
    AskPole,
    Message,
    Paid,
    Propose,
    Reason,
    Resume,
    Square,
    Stop,
    Way,
)
from penstock.core.meter import Reading
from penstock.core.offer import Receipt, propose_digest
from penstock.core.ports import ChannelState, Ledger
from penstock.core.session import Patience
from penstock.core.units import Amount, Instant, Quantity
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.node.tasks import Tasks
from penstock.rails.stream import StreamPayer, StreamTerms

DEPOSIT = 60_000
STEPS = 32
_TURNS = 8  # of the loop, in which every answer is made and kept
_GOODS = Goods("electricity", pair.make_offer().tariff, 1_000, 3, 2_000, tolerance=pair.make_offer().tolerance)


class Memory:
    """A journal whose rows are durable in the next turn of the loop."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def load(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, self.rows[key]) for key in sorted(self.rows) if key.startswith(prefix)])

    def write(self, rows: Iterable[tuple[bytes, bytes | None]], done: Callable[[JournalError | None], None]) -> None:
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        asyncio.get_running_loop().call_soon(done, None)

    async def close(self) -> None:
        """Nothing is kept."""


class OneChannel:
    """A ledger on which one channel is open, and every other absent."""

    domain = pair.DOMAIN

    async def channel(self, params: Any) -> ChannelState:
        if params != pair.PARAMS:
            return ChannelState("absent")
        return ChannelState("open", Amount(DEPOSIT))


class Line:
    """A meter and a valve."""

    def __init__(self, clock: Callable[[], Instant]) -> None:
        self.total = self.allowed = 1_000
        self._clock = clock
        self._tell: Callable[[Reading], None] = lambda _: None

    def read(self) -> Reading:
        return Reading(Quantity(self.total), self._clock())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self._tell = on_reading

    def allow(self, total: Quantity) -> None:
        self.allowed = total

    def close(self) -> None:
        self.allowed = self.total

    def flow(self, units: int) -> None:
        self.total += max(0, min(units, self.allowed - self.total))
        self._tell(self.read())


class Peer:
    """A link as the node sees it; what the node says is kept."""

    version = 1

    def __init__(self) -> None:
        self.peer: Address = pair.CONSUMER.address
        self.heard: list[Message] = []
        self.closed = False
        self._on_frame: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[PenstockError], None] = lambda _: None

    def attach(self, on_frame: Callable[[bytes], None], on_lost: Callable[[PenstockError], None]) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost

    def send(self, frame: bytes) -> None:
        if not self.closed:
            self.heard.append(codec.decode(frame))

    @property
    def full(self) -> bool:
        return False

    def carry(self, on_room: Callable[[], None]) -> None:
        pass

    def wanted(self, size: int) -> None:
        pass

    def close(self, reason: str = "") -> None:
        self.closed = True

    def say(self, frame: bytes) -> None:
        if not self.closed:
            self._on_frame(frame)

    def lose(self, error: PenstockError) -> None:
        if not self.closed:
            self.closed = True
            self._on_lost(error)


class Watched(Tasks):
    """Background tasks whose failures end the input."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = super().start(work)
        self.all.append(task)
        return task

    def check(self) -> None:
        for task in self.all:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error


class Scene:
    """A site with one pole, and a stranger at its door."""

    def __init__(self) -> None:
        self.now = pair.START
        self.journal, self.line = Memory(), Line(lambda: self.now)
        site = Site.with_channels(
            pair.SUPPLIER, self.journal, cast(Ledger, OneChannel()), lambda: self.now, lambda *_, **__: None, 60
        )
        self.tasks = site.tasks = Watched()
        site.beat._tasks = self.tasks
        self.supplier = Supplier(site, Pole("pole", self.line, self.line), _GOODS, Patience())
        self.peer = Peer()
        self.supplier.on_link(self.peer)

    async def step(self, step: object) -> None:
        self.now = Instant(self.now + 100)
        if isinstance(step, list):
            self.peer.say(codec.encode(sealed(step)))
        elif type(step) is int:
            self.line.flow(step)
        elif step is None:
            self.peer.lose(BadMessage("cut"))
            self.peer = Peer()
            self.supplier.on_link(self.peer)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.tasks.check()
        if self.supplier.shell is not None:
            assert self.supplier.shell.session.control.exposure <= _GOODS.credit_limit

    async def end(self) -> None:
        await self.tasks.cancel()


def sealed(fields: list[Any]) -> object:
    """What the stranger says, with its signature where it is left empty; as it is, where it is no message."""
    try:
        message = codec.decode(codec.encode(fields))
    except BadMessage:
        return fields
    match message:
        case Propose(terms, signature, evidence):
            return Propose(terms, signature or pair.CONSUMER.sign(propose_digest(terms.digest())), signed(evidence))
        case Paid(total, evidence_):
            return Paid(total, tuple(map(signed, evidence_)))
        case Square(receipt, signature, evidence):
            return Square(receipt, signature or pair.CONSUMER.sign(receipt.digest()), signed(evidence))
        case AskClose(channel, close, b""):
            return AskClose(channel, close, sign(close, pair.PARAMS, pair.CONSUMER))
        case _:
            return message


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_fail)
    return loop


_faults: list[dict[str, Any]] = []


def _fail(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _faults.append(context)


def door(data: bytes) -> object:
    """What a stranger says at a supplier's door."""
    steps = codec.decode_part(data, list)
    kinds = _loop().run_until_complete(_play(steps[:STEPS]))
    if _faults:
        context = _faults.pop()
        _faults.clear()
        raise AssertionError(context["message"]) from context.get("exception")
    return kinds


async def _play(steps: list[Any]) -> tuple[str, ...]:
    scene = Scene()
    try:
        for step in steps:
            await scene.step(step)
    finally:
        await scene.end()
    said = [type(message).__name__ for message in scene.peer.heard]
    return (*said[-2:], str(len(scene.tasks.all)), str(scene.supplier.shell is not None))


def door_seeds() -> list[bytes]:
    """A session that is sold, one that is resumed on another link, and a close; questions in and out of order."""
    seeds: list[bytes] = []
    for breaks in (False, True):
        heard = _loop().run_until_complete(_sold(breaks))
        seeds += [codec.encode(heard), codec.encode([*heard[:8], *heard[3:]])]
    far = AskClose(pair.PARAMS.id, Close(DEPOSIT, 0, 2**40), b"")
    questions = [
        AskOffer(),
        AskPole("pole"),
        AskPole("other"),
        Resume(bytes(32), b"", Way.SUPPLY),
        far,
        Stop(Reason.OPERATOR),
    ]
    return [*seeds, codec.encode(msgspec.to_builtins(questions))]


async def _sold(breaks: bool) -> list[Any]:
    """What a consumer says in a session of some ticks, and when what flows."""
    scene, steps = Scene(), []  # type: Scene, list[Any]

    async def do(step: Any) -> None:
        steps.append(msgspec.to_builtins(step))
        await scene.step(steps[-1])

    await do(AskOffer())
    offer = scene.supplier.offer().offer
    rail = codec.encode(StreamTerms(pair.PARAMS, 0, 0, 1_000))
    terms = pair.make_terms(offer, rail_terms=rail, at=scene.now)
    payer = StreamPayer(StreamTerms(pair.PARAMS, 0, 0, 1_000), DEPOSIT, pair.CONSUMER, pair.SECRET)
    await do(Propose(terms, b"", payer.open().data))
    for tick in range(1, 5):
        await do(3)
        await do(Paid(Quantity(3 * tick), tuple(one.data for one in payer.pay(1_000 * tick))))
        if breaks and tick == 2:
            await do(None)
            await do(Resume(terms.digest(), b"", Way.SUPPLY))
    await do(Stop(Reason.TARGET_REACHED))
    session = scene.supplier.shell.session if scene.supplier.shell is not None else None
    if session is not None:
        total = session.meter.total
        bill = session.bill.due(total)
        receipt = Receipt(terms.digest(), total, total, bill, Amount(0), 4, Reason.TARGET_REACHED, scene.now)
        await do(Square(receipt, b"", payer.square(bill).data))
    await do(AskClose(pair.PARAMS.id, Close(DEPOSIT - payer.paid, payer.paid, 2**33), b""))
    await scene.end()
    return steps
