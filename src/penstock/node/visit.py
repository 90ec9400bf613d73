"""One link to a supplier: what it asks, in order, one request at a time; then its session's frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from penstock.core.codec import decode, encode
from penstock.core.errors import BadMessage, JournalError, LedgerError, PeerRefused, PenstockError, RemoteError
from penstock.core.messages import (
    AskClose,
    AskOffer,
    AskPole,
    AskReach,
    Closing,
    Enter,
    Message,
    Promise,
    Propose,
    Refused,
    Resume,
)
from penstock.core.ports import Link
from penstock.core.units import Duration, Instant

if TYPE_CHECKING:
    from penstock.node.incoming import Incomings
    from penstock.node.site import Site
    from penstock.node.supplier import Supplier

Asked = AskOffer | AskPole | Propose | Resume
"""What is asked of a pole."""


ASKS = 60  # requests that a link may make in a minute: an offer costs us a signature, and one peer's thirst the others
MINUTE = Duration(60_000)


class Door(Protocol):
    """Where links come in: to one pole, or to many."""

    site: Site
    visits: Visits

    def pole_for(self, asked: Asked) -> Supplier:
        """The pole that is asked.

        Raises:
            PeerRefused: there is none of that name, or none is free.
        """
        ...

    def left(self, visit: Visit, in_order: bool) -> None:
        """The visit's link is gone; `in_order` says whether the peer took its leave."""
        ...


class Visits:
    """The links of a door, those without a session in the order in which they last asked something."""

    def __init__(self) -> None:
        self._all: set[Visit] = set()
        self._idle: OrderedDict[Visit, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, visit: Visit) -> None:
        """A link has come."""
        self._all.add(visit)
        self._idle[visit] = None

    def discard(self, visit: Visit) -> None:
        """A link is gone."""
        self._all.discard(visit)
        self._idle.pop(visit, None)

    def moved(self, visit: Visit) -> None:
        """It asked something, or its session began or ended."""
        self._idle.pop(visit, None)
        if visit.supplier is None and visit in self._all:
            self._idle[visit] = None

    def make_room(self) -> bool:
        """Send away the link without a session that has been silent longest; whether there is one.

        Whoever only stands there keeps nobody out: an honest consumer needs a moment, and can come back.
        """
        idle = next((visit for visit in self._idle if not visit.busy), None)
        if idle is None:
            return False
        idle.leave("too many are waiting here: come back when you are ready")
        return True


class Visit:
    """One link. `supplier` is the pole whose session uses it, while one does."""

    __slots__ = ("_asks", "_door", "_since", "busy", "gone", "link", "supplier")

    def __init__(self, door: Door, link: Link) -> None:
        self.link = link
        self.gone = False
        self.supplier: Supplier | None = None
        self._door = door
        self.busy = False
        self._asks = 0
        self._since = Instant(0)  # when the minute began in which there were so many
        link.attach(self._on_frame, self._on_lost)

    def send(self, message: Message) -> None:
        """Send a message to the peer."""
        self.link.send(encode(message))

    def use(self, supplier: Supplier | None) -> None:
        """From now on its frames belong to the session at this pole; to none."""
        self.supplier = supplier
        self._door.visits.moved(self)

    def leave(self, reason: str) -> None:
        """Cut the peer off, with a reason."""
        self.link.close(reason)
        self._part(in_order=False)

    def _on_frame(self, frame: bytes) -> None:
        supplier = self.supplier
        try:
            if supplier is not None and supplier.shell is not None:
                supplier.shell.on_frame(frame)
            else:
                self._asked(decode(frame))
        except RemoteError as error:
            self._cut(error)
        except PenstockError as error:  # ours: the peer need not know more
            self._cut(error, "the supplier has a fault")

    def _asked(self, message: Message) -> None:
        if self.busy and not isinstance(message, AskReach):  # which a neighbour asks from time to time, whatever is on
            raise BadMessage("one request at a time")
        if not isinstance(message, Promise):  # of which a hub has many, and counts what they bring
            self._count()
        self._door.visits.moved(self)
        match message:
            case AskOffer() | AskPole() | Resume() | AskReach():
                try:
                    self._ask(message)
                except PeerRefused as error:
                    self._refuse("refused", error)
                    self.send(Refused(str(error)))
            case Propose():
                self._begin(lambda: self._propose(message))
            case AskClose():
                self._begin(lambda: self._close(message))
            case Enter():
                self._begin(lambda: self._incomings.enter(self, self.link.peer, message))
            case Promise():
                self._begin(lambda: self._incomings.promise(self, message))
            case _:
                raise BadMessage(f"{type(message).__name__} does not belong where no session is")

    def _count(self) -> None:
        now = self._door.site.clock()
        if not 0 <= now - self._since < MINUTE:  # or the clock was set back
            self._asks, self._since = 0, now
        self._asks += 1
        if self._asks > ASKS:
            raise BadMessage(f"more than {ASKS} requests in a minute", "ask once, and keep the answer")

    def _ask(self, message: AskOffer | AskPole | Resume | AskReach) -> None:
        if isinstance(message, AskReach):
            self.send(self._incomings.reach())
            return
        supplier = self._door.pole_for(message)
        if isinstance(message, Resume):
            supplier.resume(self, message)
        else:
            supplier.check_idle()  # before anybody opens a channel for it
            self.send(supplier.offer())

    @property
    def _incomings(self) -> Incomings:
        """Where hop locks are taken.

        Raises:
            PeerRefused: nowhere here.
        """
        if self._door.site.incomings is None:
            raise PeerRefused("no hop locks are taken here")
        return self._door.site.incomings

    async def _propose(self, message: Propose) -> None:
        await self._door.pole_for(message).admit(self, message)

    async def _close(self, message: AskClose) -> None:
        await self._door.site.take_close(message)
        self.send(Closing(message.channel))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.busy = True
        self._door.site.tasks.start(self._answer(work))

    async def _answer(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        site = self._door.site
        try:
            await work()
        except LedgerError as error:
            self._refuse("ledger", error)
            self.send(Refused("the supplier cannot reach its ledger now"))
        except RemoteError as error:
            self._refuse("refused", error)
            self.send(Refused(error.line()))
        except PenstockError as error:
            if isinstance(error, JournalError):
                site.fail(error)
            self._refuse("fault", error)
            self.send(Refused("the supplier has a fault"))
        finally:
            self.busy = False

    def _refuse(self, event: str, error: PenstockError) -> None:
        shell = self.supplier.shell if self.supplier is not None else None
        session = {"session": shell.session.digest.hex()} if shell is not None else {}
        self._door.site.refuse(event, error, **session, peer="0x" + self.link.peer.hex())

    def _cut(self, error: PenstockError, reason: str = "") -> None:
        self._refuse("cut off", error)
        self.leave(reason or error.line())

    def _on_lost(self, error: PenstockError) -> None:
        self._part(in_order=isinstance(error, PeerRefused))

    def _part(self, in_order: bool) -> None:
        self.gone = True
        supplier, self.supplier = self.supplier, None
        self._door.left(self, in_order)
        if supplier is not None:
            supplier.unlink(self)
