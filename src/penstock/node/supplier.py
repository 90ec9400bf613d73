"""A supplier at one pole: offers, admits one session at a time, and takes up again what a fault broke off."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, Busy, DeviceError, JournalError, PeerRefused
from penstock.core.identity import check_signed
from penstock.core.messages import Accepted, AskPole, Offered, Propose, Reason, Receipted, Resume, Way
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Feed, Mode, Offer, Terms, accept_digest, propose_digest, sign_offer
from penstock.core.ports import Carrier, Link, Meter, TwoWayValve, Valve
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_INSTANT, Duration, Instant
from penstock.node import book
from penstock.node.sharing import Limits
from penstock.node.shell import SessionShell
from penstock.node.site import Site
from penstock.node.tasks import durable
from penstock.node.visit import Asked, Visit, Visits

OFFER_LIFE = Duration(60_000)  # how long a consumer may think about an offer
BUSY = "the pole is busy with another session; try again when it has ended"
USUAL = Patience()
GOODBYE = 5.0  # seconds that a consumer gets to sign its receipt when we close


class Pole(NamedTuple):
    """Where the medium leaves: a name, a meter, a valve, and a carrier where the medium flows over the link itself.

    `signs` names the key of a meter that signs its readings itself, as `core.offer.Offer.meter` does.
    """

    name: str
    meter: Meter
    valve: Valve | TwoWayValve
    carrier: Carrier | None = None
    signs: str = ""


class Goods(NamedTuple):
    """What is sold, and how it is to be paid: the supplier's own part of an offer (see `core.offer.Offer`).

    `until` is where the prices end: from then on nothing is offered. A session that runs keeps the last price.
    """

    medium: str
    tariff: Tariff
    tick_value: int
    package: int
    credit_limit: int
    mode: Mode = "pay-after"
    tolerance: Tolerance = Tolerance(5, 20_000)
    feed: Feed | None = None
    until: Instant = MAX_INSTANT


class Supplier:
    """Sells at one pole for a site. `on_session(session)` is called when a session has ended and its valve is shut.

    With a door of its own (`restore`, `on_link`, `close`) it is a whole node; a `Gateway` is the door of many, and
    gives them the list of those that are `free`, which they keep.
    """

    __slots__ = (
        "_admitting",
        "_barred",
        "_before",
        "_closing",
        "_free",
        "_on_session",
        "_order",
        "_patience",
        "goods",
        "parted",
        "pole",
        "shell",
        "site",
        "visit",
        "visits",
    )

    def __init__(
        self,
        site: Site,
        pole: Pole,
        goods: Goods,
        patience: Patience | None = None,
        on_session: Callable[[Session], None] = lambda session: None,
        free: OrderedDict[str, Supplier] | None = None,
        visits: Visits | None = None,
    ) -> None:
        self.site = site
        self.pole = pole
        self.goods = goods
        self.shell: SessionShell | None = None
        self.visit: Visit | None = None  # the one whose link the session uses
        self.visits = Visits() if visits is None else visits
        self.parted = False  # whether the last visit left in order; one that was cut short may come back
        self._patience = patience or USUAL
        self._on_session = on_session
        self._free: OrderedDict[str, Supplier] = OrderedDict() if free is None else free
        self._free[pole.name] = self
        self._admitting = False
        self._closing = False
        self._before: tuple[Goods, Instant] | None = None  # what was sold before, and when its last offer expires
        self._barred: frozenset[Way] = frozenset()
        self._order: Way | None = None
        pole.meter.watch(self._on_reading)

    async def restore(self) -> None:
        """Take up the pole's unfinished session from the journal, if there is one. Its consumer has to come back."""
        for row in book.unfinished(self.site.journal, Role.SUPPLIER):
            if row.terms.offer.name == self.pole.name:
                self.take_up(row)
        self.site.start()

    def take_up(self, row: SessionRow) -> None:
        """Take up an unfinished session of this pole, unless it has one."""
        if self.shell is None:
            session = Session(row, self.site.restore(row), self.site.key, self.site.clock(), self._patience)
            self._take(session)
            self.site.tell("restored", session=session.digest.hex(), secured=session.paid)

    async def close(self) -> None:
        """Stop a running session for good, with the operator as the reason, and let go."""
        self.stop()
        try:
            for _ in range(int(GOODBYE / 0.05)):
                if self.idle:
                    break
                await asyncio.sleep(0.05)
        finally:
            self.shut_valve()

    @property
    def idle(self) -> bool:
        """Whether no session is under way here, nor about to be."""
        return self.shell is None and not self._admitting

    def stop(self) -> None:
        """Sell no more, and end a running session."""
        self._closing = True
        if self.shell is not None:
            self.shell.stop(Reason.OPERATOR)

    def on_link(self, link: Link) -> None:
        """A peer has come."""
        self.visits.add(Visit(self, link))

    def pole_for(self, asked: Asked) -> Supplier:
        """Ourselves (`Door`).

        Raises:
            PeerRefused: another pole is asked for.
        """
        if isinstance(asked, AskPole) and asked.name != self.pole.name:
            raise PeerRefused(f"no pole {asked.name[:80]!r} here")
        return self

    def left(self, visit: Visit, in_order: bool) -> None:
        """A visit's link is gone (`Door`)."""
        self.visits.discard(visit)
        self.parted = in_order

    def heed(self, limits: Limits) -> None:
        """The pole's throttle was set to these limits: a way that is limited to 0 rests until it may flow again."""
        self._barred = frozenset(way for way, most in zip((Way.SUPPLY, Way.FEED), limits, strict=True) if most == 0)
        if self.shell is not None:
            self.shell.bar(self._barred)

    def direct(self, way: Way | None) -> None:
        """Let the flow go this way from now on, in this session and the next; None is what each consumer wants."""
        self._order = way
        if self.shell is not None:
            self.shell.direct(way)

    def sell(self, goods: Goods) -> None:
        """Offer these goods from now on. A session that runs keeps its terms, and the last offers before stay good.

        Raises:
            BadTerms: nobody could agree to them. The goods stay as they were.
        """
        if goods == self.goods:
            return
        now = self.site.clock()
        self._offer(goods, Instant(now + OFFER_LIFE)).check()
        self._before = (self.goods, Instant(now + OFFER_LIFE))
        self.goods = goods

    def offer(self) -> Offered:
        """Our offer as of now, signed.

        Raises:
            Busy: our prices have ended.
        """
        now = self.site.clock()
        if now >= self.goods.until:
            raise Busy("the pole has no prices for now; try again when it has new ones")
        offer = self._offer(self.goods, Instant(now + OFFER_LIFE))
        offer.check()
        return Offered(offer, sign_offer(self.site.key, offer))

    def _offered(self, offer: Offer) -> Offer:
        """The same offer, where we made it and it may still be taken.

        Raises:
            BadTerms: we did not.
        """
        made = offer.expires - OFFER_LIFE
        sold = [self.goods]
        if self._before is not None and offer.expires <= self._before[1]:
            sold.append(self._before[0])
        for goods in sold:
            if made < goods.until and (ours := self._offer(goods, offer.expires)) == offer:
                return ours
        raise BadTerms("these terms do not quote our offer", "ask for the offer again; it may have changed")

    def _offer(self, goods: Goods, expires: Instant) -> Offer:
        now = Instant(expires - OFFER_LIFE)
        return Offer(
            supplier=self.site.key.address,
            name=self.pole.name,
            medium=goods.medium,
            tariff=goods.tariff.since(now),
            tick_value=goods.tick_value,
            package=goods.package,
            credit_limit=goods.credit_limit,
            mode=goods.mode,
            tolerance=goods.tolerance,
            rails=self.site.rails,
            meter=self.pole.signs,
            expires=expires,
            feed=replace(goods.feed, tariff=goods.feed.tariff.since(now)) if goods.feed is not None else None,
        )

    async def admit(self, visit: Visit, propose: Propose) -> None:
        """Check proposed terms and begin the session, or refuse.

        Raises:
            RemoteError: the terms are not what we offered, or would not be paid. Nothing has changed.
        """
        self.check_free()
        terms = self._check(propose.terms, propose.signature, visit.link)
        propose = replace(propose, terms=terms)
        ends, rows = await self.site.admit(terms, propose.evidence)
        try:
            if terms.feed is not None and None in ends:
                raise BadTerms("what is fed in is paid over a channel that goes both ways", "open a two-way channel")
            self.check_free()  # whoever is still being looked at keeps nobody out
            self._admitting = True
            try:
                row = await self._keep(visit, propose, rows)
            finally:
                self._admitting = False
        except BaseException:
            self.site.leave(terms)
            raise
        session = Session(row, ends, self.site.key, self.site.clock(), self._patience)
        shell = self._take(session)
        self._use(visit)
        visit.send(Accepted(row.accepted, row.base.record))
        paid_by = self.site.till_of(terms).facts(terms)
        self.site.tell("accepted", session=session.digest.hex(), consumer="0x" + terms.consumer.hex(), **paid_by)
        shell.begin(visit.link)

    async def _keep(self, visit: Visit, propose: Propose, rows: Rows) -> SessionRow:
        """Make the session durable, with the rail's rows."""
        digest = propose.terms.digest()
        accepted = self.site.key.sign(accept_digest(digest))
        row = SessionRow(Role.SUPPLIER, propose.terms, propose.signature, accepted, self.pole.meter.read())
        await durable(self.site.journal, (*rows, (SESSION_ROWS + digest, encode(row))))
        if visit.gone or self._closing:
            ended = replace(row, state=State.ENDED, reason=Reason.PEER_GONE)
            await durable(self.site.journal, ((SESSION_ROWS + digest, encode(ended)),))
            raise PeerRefused("the peer went away, or the supplier closed, before its session began")
        return row

    def check_free(self) -> None:
        """Pass where a session could begin now.

        Raises:
            PeerRefused: one is under way, or we have a fault.
        """
        self.check_idle()
        if self._admitting:
            raise Busy(BUSY)

    def check_idle(self) -> None:
        """Pass where no session is under way; whoever is still being looked at keeps nobody from an offer.

        Raises:
            PeerRefused: one is under way, or we have a fault.
        """
        if self.site.fault is not None:
            raise PeerRefused("the supplier has a fault")
        if self._closing:
            raise PeerRefused("the supplier is closing")
        if self.shell is not None:
            raise Busy(BUSY)

    def _check(self, terms: Terms, signature: bytes, link: Link) -> Terms:
        """The same terms, over parts that all our sessions share."""
        terms.check()
        ours = self._offered(terms.offer)
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
        rail = self.site.till_of(terms).name
        return replace(terms, offer=ours, consumer=link.peer, rail=rail)

    def resume(self, visit: Visit, resume: Resume) -> None:
        """Go on with the session that the peer names, or say how it ended.

        Raises:
            PeerRefused: there is none of the peer's.
        """
        shell = self.shell
        if shell is not None and shell.session.digest == resume.terms:
            if shell.session.terms.consumer != visit.link.peer:
                raise PeerRefused("that session is somebody else's")
            before = self.visit
            self._use(visit)
            if before is not None and before is not visit:
                before.leave("the session was taken up over another link")
            self.site.tell("resumed", session=resume.terms.hex(), secured=shell.session.paid)
            shell.relink(visit.link, resume)
            return
        row = book.session_of(self.site.journal, resume.terms)
        if row is None or row.terms.consumer != visit.link.peer:
            raise PeerRefused("no such session here")
        if row.state is not State.ENDED:
            raise PeerRefused(f"that session is at {row.terms.offer.name!r}, not here")
        if not row.supplier_signature:
            raise PeerRefused(f"that session is over: {row.reason}")
        visit.send(Receipted(row.supplier_signature, row.last_evidence))

    def unlink(self, visit: Visit) -> None:
        """The link that our session uses is gone."""
        if self.visit is visit:
            self.visit = None
            if self.shell is not None:
                self.site.tell("link lost", session=self.shell.session.digest.hex())
                self.shell.unlink()

    def _use(self, visit: Visit | None) -> None:
        """From now on this link is our session's."""
        if self.visit is not None:
            self.visit.use(None)
        self.visit = visit
        if visit is not None:
            visit.use(self)

    def _take(self, session: Session) -> SessionShell:
        _, meter, valve, carrier, *_ = self.pole
        self._limit()
        session.barred, session.order = self._barred, self._order
        shell = SessionShell(session, self.site.journal, meter, valve, self.site.clock, self._ended, carrier)
        self.shell = shell
        self._free.pop(self.pole.name, None)
        self.site.beat.add(shell)
        self.site.tally.begin(session)
        self.site.begin(session.row, shell.stop)
        return shell

    def _limit(self) -> None:
        """Take part in the site's limit, before anything flows."""
        self._barred = frozenset()
        if self.site.limit is not None:
            self.site.limit.begin(self.pole.name, self.heed)
            self.heed(self.site.limit.of(self.pole.name))

    def _ended(self, error: JournalError | None) -> None:
        shell, self.shell = self.shell, None
        assert shell is not None
        session = shell.session
        self.shut_valve()
        self.site.tally.end(session)
        if self.site.limit is not None:
            self.site.limit.end(self.pole.name)
        self.site.release(session.row)
        self._free[self.pole.name] = self
        visit = self.visit
        self._use(None)
        if error is not None:
            self.site.fail(error)
            if visit is not None:
                visit.leave("the supplier's journal failed")
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

    def shut_valve(self) -> None:
        """Nothing flows from now on."""
        try:
            self.pole.valve.close()
        except DeviceError as error:
            self.site.tell("valve failed", pole=self.pole.name, error=error.line())

    def _on_reading(self, reading: Reading) -> None:
        if self.shell is not None:
            self.shell.on_reading(reading)
