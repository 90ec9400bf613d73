"""A supplier at one pole: offers, admits one session at a time, and takes up again what a fault broke off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from penstock.core.codec import decode, encode
from penstock.core.effects import Rows
from penstock.core.errors import (
    BadMessage,
    BadTerms,
    DeviceError,
    JournalError,
    LedgerError,
    PeerRefused,
    PenstockError,
    RemoteError,
)
from penstock.core.identity import check_signed
from penstock.core.messages import (
    Accepted,
    AskClose,
    AskOffer,
    Closing,
    Message,
    Offered,
    Propose,
    Reason,
    Receipted,
    Refused,
    Resume,
)
from penstock.core.meter import Tolerance
from penstock.core.offer import Mode, Offer, Terms, accept_digest, propose_digest, sign_offer
from penstock.core.ports import Link, Meter, Valve
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import Duration, Instant
from penstock.node import book
from penstock.node.shell import SessionShell
from penstock.node.site import Site
from penstock.node.tasks import Tasks, durable

OFFER_LIFE = Duration(60_000)  # how long a consumer may think about an offer
BEAT = 1.0  # seconds between two looks at the clock
BUSY = "the pole is busy with another session; try again when it has ended"
GOODBYE = 5.0  # seconds that a consumer gets to sign its receipt when we close


class Pole(NamedTuple):
    """Where the medium leaves: a name, a meter, and a valve."""

    name: str
    meter: Meter
    valve: Valve


class Goods(NamedTuple):
    """What is sold, and how it is to be paid: the supplier's own part of an offer (see `core.offer.Offer`)."""

    medium: str
    tariff: Tariff
    tick_value: int
    package: int
    credit_limit: int
    mode: Mode = "pay-after"
    tolerance: Tolerance = Tolerance(5, 20_000)


class Supplier:
    """Sells at one pole for a site. `on_session(session)` is called when a session has ended and its valve is shut."""

    def __init__(
        self,
        site: Site,
        pole: Pole,
        goods: Goods,
        patience: Patience | None = None,
        on_session: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.site = site
        self.pole = pole
        self.goods = goods
        self.shell: SessionShell | None = None
        self.visit: Visit | None = None  # the one whose link the session uses
        self.visits: set[Visit] = set()
        self.parted = False  # whether the last visit left in order; one that was cut short may come back
        self.tasks = Tasks()
        self.fault: JournalError | None = None
        self.failed = asyncio.Event()  # set with `fault`: nothing is sold any more until we are started again
        self._patience = patience or Patience()
        self._on_session = on_session
        self._admitting = False
        pole.meter.watch(self._on_reading)

    async def restore(self) -> None:
        """Take up the pole's unfinished session from the journal, if there is one. Its consumer has to come back."""
        for row in book.unfinished(self.site.journal, Role.SUPPLIER):
            if row.terms.offer.name == self.pole.name and self.shell is None:
                session = Session(row, self.site.restore(row), self.site.key, self.site.clock(), self._patience)
                self._take(session)
                self.site.tell("restored", session=session.digest.hex(), secured=session.paid)
        self.tasks.start(self._beat())
        self.site.start()

    async def close(self) -> None:
        """Stop a running session for good, with the operator as the reason, and let go."""
        if self.shell is not None:
            self.shell.stop(Reason.OPERATOR)
            for _ in range(int(GOODBYE / 0.05)):
                if self.shell is None:
                    break
                await asyncio.sleep(0.05)
        self._shut_valve()
        await self.tasks.cancel()

    def on_link(self, link: Link) -> None:
        """A peer has come."""
        self.visits.add(Visit(self, link))

    def offer(self) -> Offered:
        """Our offer as of now, signed."""
        goods = self.goods
        offer = Offer(
            supplier=self.site.key.address,
            name=self.pole.name,
            medium=goods.medium,
            tariff=goods.tariff,
            tick_value=goods.tick_value,
            package=goods.package,
            credit_limit=goods.credit_limit,
            mode=goods.mode,
            tolerance=goods.tolerance,
            rails=self.site.rails(),
            expires=Instant(self.site.clock() + OFFER_LIFE),
        )
        offer.check()
        return Offered(offer, sign_offer(self.site.key, offer))

    async def admit(self, visit: Visit, propose: Propose) -> None:
        """Check proposed terms and begin the session, or refuse.

        Raises:
            RemoteError: the terms are not what we offered, or would not be paid. Nothing has changed.
        """
        terms = propose.terms
        self.check_free()
        self._check(terms, propose.signature, visit.link)
        payee, rows = await self.site.admit(terms, propose.evidence)
        try:
            self.check_free()  # whoever is still being looked at keeps nobody out
            self._admitting = True
            try:
                row = await self._keep(visit, propose, rows)
            finally:
                self._admitting = False
        except BaseException:
            self.site.leave(terms)
            raise
        session = Session(row, payee, self.site.key, self.site.clock(), self._patience)
        shell = self._take(session)
        self.visit = visit
        visit.send(Accepted(row.accepted))
        self.site.tell("accepted", session=session.digest.hex(), consumer="0x" + terms.consumer.hex())
        shell.begin(visit.link)

    async def _keep(self, visit: Visit, propose: Propose, rows: Rows) -> SessionRow:
        """Make the session durable, with the rail's rows."""
        digest = propose.terms.digest()
        accepted = self.site.key.sign(accept_digest(digest))
        row = SessionRow(Role.SUPPLIER, propose.terms, propose.signature, accepted, self.pole.meter.read())
        await durable(self.site.journal, (*rows, (SESSION_ROWS + digest, encode(row))))
        if visit.gone:
            ended = msgspec.structs.replace(row, state=State.ENDED, reason=Reason.PEER_GONE)
            await durable(self.site.journal, ((SESSION_ROWS + digest, encode(ended)),))
            raise PeerRefused("the peer went away before its session began")
        return row

    def check_free(self) -> None:
        """Pass where a session could begin now.

        Raises:
            PeerRefused: one is under way, or we have a fault.
        """
        self.check_idle()
        if self._admitting:
            raise PeerRefused(BUSY)

    def check_idle(self) -> None:
        """Pass where no session is under way; whoever is still being looked at keeps nobody from an offer.

        Raises:
            PeerRefused: one is under way, or we have a fault.
        """
        if self.fault is not None:
            raise PeerRefused("the supplier has a fault")
        if self.shell is not None:
            raise PeerRefused(BUSY)

    def _check(self, terms: Terms, signature: bytes, link: Link) -> None:
        terms.check()
        ours = self.offer().offer
        if msgspec.structs.replace(ours, expires=terms.offer.expires) != terms.offer:
            raise BadTerms("these terms do not quote our offer", "ask for the offer again; it may have changed")
        now = self.site.clock()
        if not now <= terms.offer.expires <= now + OFFER_LIFE or terms.at > now + OFFER_LIFE:
            raise BadTerms("the offer has expired, or your clock is wrong", "ask for the offer again")
        if terms.consumer != link.peer:
            raise BadTerms("the terms name another consumer than the one on this link")
        if terms.budget < ours.least_credit:
            raise BadTerms(f"a budget of {terms.budget} does not pay a first package", f"at least {ours.least_credit}")
        check_signed(propose_digest(terms.digest()), signature, terms.consumer, "the proposal")
        if book.session_of(self.site.journal, terms.digest()) is not None:
            raise BadTerms("a session under these very terms has been", "propose with a fresh nonce")

    def resume(self, visit: Visit, resume: Resume) -> None:
        """Go on with the session that the peer names, or say how it ended.

        Raises:
            PeerRefused: there is none of the peer's.
        """
        shell = self.shell
        if shell is not None and shell.session.digest == resume.terms:
            if shell.session.terms.consumer != visit.link.peer:
                raise PeerRefused("that session is somebody else's")
            if self.visit is not None and self.visit is not visit:
                self.visit.leave("the session was taken up over another link")
            self.visit = visit
            self.site.tell("resumed", session=resume.terms.hex(), secured=shell.session.paid)
            shell.relink(visit.link)
            return
        row = book.session_of(self.site.journal, resume.terms)
        if row is None or row.terms.consumer != visit.link.peer:
            raise PeerRefused("no such session here")
        if row.state is not State.ENDED:
            raise PeerRefused(f"that session is at {row.terms.offer.name!r}, not here")
        if not row.supplier_signature:
            raise PeerRefused(f"that session is over: {row.reason}")
        visit.send(Receipted(row.supplier_signature))

    def left(self, visit: Visit) -> None:
        """A visit's link is gone."""
        self.visits.discard(visit)
        if self.visit is visit:
            self.visit = None
            if self.shell is not None:
                self.site.tell("link lost", session=self.shell.session.digest.hex())
                self.shell.unlink()

    def _take(self, session: Session) -> SessionShell:
        shell = SessionShell(session, self.site.journal, self.pole.meter, self.pole.valve, self.site.clock, self._ended)
        self.shell = shell
        self.site.lookout.stream(book.channel_in(session.row), shell.stop)
        return shell

    def _ended(self, error: JournalError | None) -> None:
        shell, self.shell = self.shell, None
        assert shell is not None
        session = shell.session
        self._shut_valve()
        self.site.release(session.row)
        if error is not None:
            self.fail(error)
            if self.visit is not None:
                self.visit.leave("the supplier's journal failed")
        self.visit = None
        self.site.tell(
            "ended",
            session=session.digest.hex(),
            reason=str(session.reason or ""),
            total=session.meter.total,
            paid=session.paid,
            complete=session.complete,
            fault=session.fault,
        )
        self._on_session(session)

    def fail(self, error: JournalError) -> None:
        """The journal failed: what cannot be written must not be sold."""
        if self.fault is None:
            self.fault = error
            self.failed.set()
            self.site.tell("journal failed", error=error.line())

    def _shut_valve(self) -> None:
        try:
            self.pole.valve.close()
        except DeviceError as error:
            self.site.tell("valve failed", error=error.line())

    def _on_reading(self, reading: object) -> None:
        if self.shell is not None:
            self.shell.on_reading(reading)  # type: ignore[arg-type]  # a meter reports readings

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            if self.shell is not None:
                self.shell.on_time()


class Visit:
    """One link to a supplier: what it asks, in order, one request at a time."""

    __slots__ = ("_busy", "_supplier", "gone", "link")

    def __init__(self, supplier: Supplier, link: Link) -> None:
        self.link = link
        self.gone = False
        self._supplier = supplier
        self._busy = False
        link.attach(self._on_frame, self._on_lost)

    def send(self, message: Message) -> None:
        """Send a message to the peer."""
        self.link.send(encode(message))

    def leave(self, reason: str) -> None:
        """Cut the peer off, with a reason."""
        self.gone = True
        self._supplier.visits.discard(self)
        self.link.close(reason)

    def _on_frame(self, frame: bytes) -> None:
        supplier = self._supplier
        try:
            if supplier.visit is self and supplier.shell is not None:
                supplier.shell.on_frame(frame)
            else:
                self._asked(decode(frame))
        except RemoteError as error:
            self._cut(error)
        except PenstockError as error:  # ours: the peer need not know more
            self._cut(error, "the supplier has a fault")

    def _asked(self, message: Message) -> None:
        if self._busy:
            raise BadMessage("one request at a time")
        supplier = self._supplier
        match message:
            case AskOffer():
                try:
                    supplier.check_idle()  # before anybody opens a channel for it
                except PeerRefused as error:
                    self.send(Refused(str(error)))
                else:
                    self.send(supplier.offer())
            case Resume():
                try:
                    supplier.resume(self, message)
                except PeerRefused as error:
                    self.send(Refused(str(error)))
            case Propose():
                self._busy = True
                supplier.tasks.start(self._answer(lambda: supplier.admit(self, message)))
            case AskClose():
                self._busy = True
                supplier.tasks.start(self._answer(lambda: self._close(message)))
            case _:
                state = State.ENDED if supplier.shell is None else "busy"
                raise BadMessage(f"{type(message).__name__} does not belong where no session is ({state})")

    async def _close(self, message: AskClose) -> None:
        await self._supplier.site.take_close(message)
        self.send(Closing(message.channel))

    async def _answer(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except LedgerError as error:
            self._supplier.site.tell("ledger", error=error.line())
            self.send(Refused("the supplier cannot reach its ledger now"))
        except RemoteError as error:
            self.send(Refused(error.line()))
        except PenstockError as error:
            if isinstance(error, JournalError):
                self._supplier.fail(error)
            self._supplier.site.tell("refused", error=error.line())
            self.send(Refused("the supplier has a fault"))
        finally:
            self._busy = False

    def _cut(self, error: PenstockError, reason: str = "") -> None:
        self._supplier.site.tell("cut off", peer="0x" + self.link.peer.hex(), error=error.line())
        self.leave(reason or error.line())
        self._supplier.left(self)

    def _on_lost(self, error: PenstockError) -> None:
        self.gone = True
        self._supplier.parted = isinstance(error, PeerRefused)
        self._supplier.left(self)
