"""A consumer: looks at an offer, takes or opens a channel, streams within its limits, and comes back after a fault."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from penstock.core.channel import seconds
from penstock.core.codec import encode
from penstock.core.errors import (
    BadTerms,
    LinkLost,
    OutOfFunds,
    PeerRefused,
    PenstockError,
    RemoteError,
)
from penstock.core.identity import Key, check_signed
from penstock.core.medium import medium
from penstock.core.messages import (
    Accepted,
    AskOffer,
    AskPole,
    Closing,
    Offered,
    Propose,
    Reason,
    Receipted,
    Resumed,
    Way,
)
from penstock.core.meter import Seal
from penstock.core.offer import Offer, Terms, accept_digest, check_offer, propose_digest
from penstock.core.ports import Carrier, Journal, Link, Meter, TwoWayValve
from penstock.core.rail import Ends, PayerEnd
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.units import MAX_QUANTITY, Instant, Price, Quantity
from penstock.node import book
from penstock.node.book import SECRET_ROWS
from penstock.node.rails import Purse
from penstock.node.shell import SessionShell
from penstock.node.talk import Talk
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell

TOLERATED = 10  # units that two meters may be apart, or as many as the credit limit buys
TOLERATED_PPM = 50_000  # and of the total: two meters of class B are within 20,000
CLOSE_LIFE = 86_400  # seconds that a cooperative close is good for
BEAT = 1.0
PAUSE, STEADY = 0.2, 10.0  # seconds: before the first try to come back, and how long a link lasts that was a good one
RESUMED = b"resumed"  # in the place of an acceptance that was lost: the supplier has taken the session up


class Wish(NamedTuple):
    """What the consumer wants and what it will not exceed. Sums in token units, quantities in the medium's unit.

    `keep` leaves the channel open for the next session. `pole` names one of a gateway's poles ("": any that is free).
    `feed` is the most that it feeds in, for no less than `min_feed`, where the supplier takes that; None where it has
    no valve of its own, or wants none of it. Above `max_price` the session ends, or where it `waits`, nothing is
    bought until prices fall again.
    """

    max_price: Price
    budget: int
    quantity: int | None = None
    medium: str = "electricity"
    keep: bool = False
    pole: str = ""
    feed: int | None = None
    min_feed: Price | None = None
    waits: bool = False


def seal_of(offer: Offer) -> Seal | None:
    """What checks the records of the meter that an offer names; None where it names none.

    Raises:
        BadTerms: it names one in no form that we know. UsageError: what checks it is not installed.
    """
    if not offer.meter:
        return None
    from penstock.gateways.ocmf import OcmfSeal

    return OcmfSeal.named(offer.meter)


class Consumer:
    """Buys from one supplier. `dial` makes an authenticated link to it, and `purse` is what we pay from."""

    def __init__(
        self,
        key: Key,
        journal: Journal,
        meter: Meter,
        dial: Callable[[], Awaitable[Link]],
        wish: Wish,
        clock: Callable[[], Instant],
        tell: Tell,
        purse: Purse,
        patience: Patience | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        carrier: Carrier | None = None,
        valve: TwoWayValve | None = None,
    ) -> None:
        """`entropy(n)` gives n bytes that nobody can guess, and never the same twice. `carrier` is there where the
        medium flows over the link itself, and `valve` where we may feed in: a wish to do so needs one.
        """
        self.session: Session | None = None
        self._key = key
        self._journal = journal
        self._purse = purse
        self._meter = meter
        self._carrier = carrier
        self._valve = valve
        self._dial = dial
        self._wish = wish
        self._clock = clock
        self._told = self._tell = tell  # the latter names the session, once there is one
        self._patience = patience or Patience()
        self._entropy = entropy
        self._shell: SessionShell | None = None
        self._over: asyncio.Future[Any] | None = None
        self._tasks = Tasks()
        self._pause = PAUSE  # before we dial again; it grows with links that do not last
        self._back = 0.0  # when we came back last, on the loop's clock

    async def buy(self) -> Session:
        """One session, from the offer to the receipt; an unfinished one with this supplier is taken up instead.

        Returns the ended session; its `reason` says why, `complete` whether both signed the receipt.

        Raises:
            PenstockError: it could not begin. Nothing was paid; a channel that was opened stays in the journal.
        """
        self._over = asyncio.get_running_loop().create_future()
        self._tasks.start(self._beat())
        talk: Talk | None = None
        try:
            talk = Talk(await self._dial())
            row = self._unfinished(talk.link)
            if row is None or not await self._take_up(talk, row):
                await self._begin(talk)
            while not self._over.done():
                await asyncio.wait([self._over, talk.lost], return_when=asyncio.FIRST_COMPLETED)
                if not self._over.done():
                    talk = await self._come_back(talk)
            self._over.result()
            session = self.session
            assert session is not None
            self._tell(
                "ended",
                reason=str(session.reason or ""),
                total=session.meter.total,
                paid=session.paid,
                complete=session.complete,
                fault=session.fault,
            )
            await self._purse.finish(session.terms)
            if session.complete and not self._wish.keep:
                talk = await self._sign_off(talk, session)
            return session
        finally:
            await self._tasks.cancel()
            await self._purse.close()
            if talk is not None:
                talk.leave()
            if self._over.done():
                self._over.exception()  # where another error came first, this one has been heard, too

    def stop(self, reason: Reason = Reason.OPERATOR) -> None:
        """End the session early, in order."""
        if self._shell is not None:
            self._shell.stop(reason)

    def direct(self, way: Way) -> None:
        """Ask for the flow to go this way, or to rest."""
        if self._shell is not None:
            self._shell.direct(way)

    # ---- beginning

    async def _begin(self, talk: Talk) -> None:
        offer = await self._offer(talk)
        purse = self._purse
        details = await purse.fund(offer, self._need(offer), self._feed_limit(offer) is not None)
        if offer.expires <= self._clock():  # funding took its time
            offer = await self._offer(talk)
        terms = self._terms(offer, details)
        digest, secret = terms.digest(), self._entropy(32)
        ends = purse.ends(terms, secret, again=False)
        opening = _payer(ends).open()
        signature = self._key.sign(propose_digest(digest))
        row = SessionRow(Role.CONSUMER, terms, signature, b"", self._meter.read())
        kept = (SESSION_ROWS + digest, encode(row))
        await durable(self._journal, (*opening.rows, (SECRET_ROWS + digest, secret), kept))
        try:
            accepted = await talk.ask(Propose(terms, signature, opening.data), Accepted)
            check_signed(accept_digest(digest), accepted.signature, offer.supplier, "the acceptance")
            if (seal := seal_of(offer)) is not None:
                seal.begin(accepted.record, Quantity(0))
        except LinkLost:
            raise  # it may have been accepted: the next time we ask
        except RemoteError as error:
            if not isinstance(error, PeerRefused):  # another answer: the payee may have taken the session all the same
                await self._forget(msgspec.structs.replace(row, accepted=book.UNHEARD), ends)
                raise
            await self._forget(row, ends)
            if not await purse.other(terms):
                raise
            await self._begin(talk)  # over another channel
            return
        row = msgspec.structs.replace(row, accepted=accepted.signature, began=accepted.record)
        await durable(self._journal, ((SESSION_ROWS + digest, encode(row)),))
        shell = self._take(self._session(row, ends))
        self._tell("accepted", **purse.facts(terms))
        shell.begin(talk.link)
        talk.hand_over(shell)

    async def _offer(self, talk: Talk) -> Offer:
        """What the supplier offers, once it is checked against the wish."""
        pole = self._wish.pole
        offered = await talk.ask(AskPole(pole) if pole else AskOffer(), Offered)
        offer = offered.offer
        check_offer(offer, offered.signature)
        if offer.supplier != talk.link.peer:
            raise BadTerms("the offer is signed by another key than the one on this link")
        if pole and offer.name != pole:
            raise BadTerms(f"the supplier offers {offer.name!r}, not {pole!r}")
        seal_of(offer)
        self._tell("offered", name=offer.name, price=offer.tariff.steps[0].amount, per=offer.tariff.per)
        self._check(offer)
        return offer

    async def _forget(self, row: SessionRow, ends: Ends) -> None:
        """There was no session, and nothing was paid."""
        ended = msgspec.structs.replace(row, state=State.ENDED, reason=Reason.OPERATOR)
        rows = self._purse.forget(_payer(ends))
        await durable(self._journal, (*rows, (SESSION_ROWS + row.terms.digest(), encode(ended))))

    def _check(self, offer: Offer) -> None:
        wish, price = self._wish, offer.tariff.highest
        if wish.waits:
            price = offer.tariff.lowest
        quoted = medium(offer.medium)
        if offer.medium != wish.medium:
            raise BadTerms(f"the supplier sells {offer.medium}, not {wish.medium}")
        if offer.expires <= self._clock():
            raise BadTerms("the offer has expired by our clock", "set this machine's clock, or the supplier's")
        if price.amount * wish.max_price.per > wish.max_price.amount * price.per:
            asked, most = (p.amount * quoted.per // p.per for p in (price, wish.max_price))
            raise BadTerms(
                f"price over the limit: {asked} token units per {quoted.quoted} asked, {most} allowed",
                "raise the limit, or look for another supplier",
            )
        tolerance, most = offer.tolerance, max(TOLERATED, offer.tariff.highest.affords(offer.credit_limit))
        if tolerance.units > most or tolerance.ppm > TOLERATED_PPM:
            raise BadTerms(
                f"the supplier wants its meter believed up to {tolerance.units} {quoted.unit} and {tolerance.ppm} ppm "
                f"beyond ours, more than {most} {quoted.unit} and {TOLERATED_PPM} ppm",
                "look for another supplier",
            )
        if wish.budget < offer.least_credit:
            raise OutOfFunds(
                f"budget too small: {wish.budget} token units, less than the {offer.least_credit} of a first package",
                "raise the budget",
            )
        if wish.feed and self._valve is not None and offer.feed is None:
            raise BadTerms("the supplier takes nothing back", "look for one that does, or feed nothing in")
        if self._purse.name not in offer.rails:
            taken = ", ".join(offer.rails) or "nothing"
            raise BadTerms(f"the supplier does not take {self._purse.name}; it takes {taken}", "choose with --rail")

    def _terms(self, offer: Offer, details: bytes) -> Terms:
        terms = Terms(
            offer=offer,
            consumer=self._key.address,
            rail=self._purse.name,
            rail_terms=details,
            quantity_limit=self._wish.quantity or MAX_QUANTITY,
            budget=self._wish.budget,
            at=self._clock(),
            nonce=self._entropy(16),
            feed_limit=self._feed_limit(offer),
        )
        terms.check()
        return terms

    def _feed_limit(self, offer: Offer) -> int | None:
        """The most that we feed in under this offer; None where we do not, and are paid nothing back."""
        if self._wish.feed is None or offer.feed is None or self._valve is None or not self._purse.two_way:
            return None
        return min(self._wish.feed, offer.feed.limit)

    def _need(self, offer: Offer) -> int:
        """The most that this session can cost; in whole ticks where they are paid before they are used."""
        wish = self._wish
        cost = offer.tariff.highest.cost(wish.quantity) if wish.quantity else wish.budget
        if offer.mode == "pay-before":
            cost = -(-cost // offer.tick_value) * offer.tick_value
        return max(min(cost, wish.budget), offer.least_credit)

    async def _sign_off(self, talk: Talk, session: Session) -> Talk:
        """Sign the channel's end over to the supplier, who sends it to the ledger with its next batch."""
        ask = await self._purse.sign_off(session.terms, seconds(self._clock()) + CLOSE_LIFE)
        if ask is None:
            return talk
        for _ in range(3):
            try:
                if talk.lost.done():
                    talk = Talk(await self._dial())
                await talk.ask(ask, Closing)
                return talk
            except LinkLost as error:
                why = error.line()
                talk.end(error)
                await asyncio.sleep(0.2)
            except RemoteError as error:
                why = error.line()
                break
        self._tell("close not taken", error=why, advice="`penstock channel close` ends it alone")
        return talk

    # ---- coming back

    async def _take_up(self, talk: Talk, row: SessionRow) -> bool:
        """Go on with an unfinished session. False where the supplier never took it, so that there is none."""
        shell, ends = self._restore(row)
        try:
            await self._resume(talk)
        except PeerRefused as error:
            self._tell("not resumed", error=error.line())
            if not row.accepted:
                await self._forget(msgspec.structs.replace(row, accepted=book.UNHEARD), ends)
                self.session = self._shell = None
                self._tell = self._told
                return False
            self._abandon(shell, error)
        except RemoteError as error:  # on this link; another may do
            talk.end(error)
        return True

    def _unfinished(self, link: Link) -> SessionRow | None:
        for row in book.unfinished(self._journal, Role.CONSUMER):
            if row.terms.offer.supplier == link.peer and row.terms.consumer == self._key.address:
                return row
        return None

    def _restore(self, row: SessionRow) -> tuple[SessionShell, Ends]:
        secret = book.one(self._journal, SECRET_ROWS + row.terms.digest())
        if secret is None:
            raise BadTerms("the journal knows the session, but not its secret", "restore a backup of the journal")
        if row.terms.rail != self._purse.name:
            raise BadTerms(
                f"an unfinished session with this supplier is paid over {row.terms.rail}",
                f"finish it first: --rail {row.terms.rail}",
            )
        ends = self._purse.ends(row.terms, secret, again=True)
        shell = self._take(self._session(row, ends))
        self._tell("restored")
        return shell, ends

    async def _resume(self, talk: Talk) -> None:
        """Take up our session over a fresh link."""
        shell = self._shell
        assert shell is not None
        session = shell.session
        answer = await talk.ask(session.request, Resumed, Receipted)
        if not session.row.accepted:
            began = self._began(session, answer) if isinstance(answer, Resumed) else b""
            session.row = msgspec.structs.replace(session.row, accepted=RESUMED, began=began)
            await durable(self._journal, ((SESSION_ROWS + session.digest, encode(session.row)),))
        shell.attach(talk.link)
        shell.on_message(answer)
        talk.hand_over(shell)
        self._tell("resumed", paid=session.paid)

    @staticmethod
    def _began(session: Session, answer: Resumed) -> bytes:
        """The first record that we hear of, where the acceptance was lost: what came before is the supplier's word, and
        our own meter's."""
        if session.seal is None:
            return b""
        session.seal.begin(answer.record, answer.total)
        return answer.record if answer.total == 0 else b""

    def _abandon(self, shell: SessionShell, error: PeerRefused) -> None:
        """The supplier knows nothing of the session any more, or has ended it: what was paid is paid."""
        shell.session.fault = shell.session.fault or error.line()
        shell.abandon()

    async def _come_back(self, talk: Talk) -> Talk:
        """Dial again until the session is taken up or patience ends."""
        shell = self._shell
        assert shell is not None
        assert self._over is not None
        self._tell("link lost", error=talk.why)
        shell.unlink()
        now = asyncio.get_running_loop().time()
        if now - self._back > STEADY:
            self._pause = PAUSE
        while not self._over.done():
            await asyncio.wait([self._over], timeout=self._pause)
            self._pause = min(5.0, self._pause * 1.7)
            trying = asyncio.ensure_future(self._try(shell))
            try:
                await asyncio.wait([trying, self._over], return_when=asyncio.FIRST_COMPLETED)
                if trying.done():
                    self._back = asyncio.get_running_loop().time()
                    return trying.result()
            except RemoteError as error:
                self._tell("not reached", error=error.line())
            finally:
                trying.cancel()
                await asyncio.gather(trying, return_exceptions=True)
        return talk

    async def _try(self, shell: SessionShell) -> Talk:
        """One attempt to come back."""
        talk = Talk(await self._dial())
        try:
            await self._resume(talk)
        except PeerRefused as error:
            self._tell("not resumed", error=error.line())
            self._abandon(shell, error)
        except BaseException:
            talk.leave()
            raise
        return talk

    def _session(self, row: SessionRow, ends: Ends) -> Session:
        """The session of a row; where its meter signs, every reading is checked against the record of the beginning.

        Raises:
            BadTerms: the meter's form is none that can be checked here. BadReading: it did not sign the beginning.
        """
        seal = seal_of(row.terms.offer)
        if seal is not None and row.began:
            seal.begin(row.began, Quantity(0))
        wish = self._wish
        return Session(
            row, ends, self._key, self._clock(), self._patience, wish.max_price, seal, wish.min_feed, wish.waits
        )

    def _take(self, session: Session) -> SessionShell:
        self.session = session
        self._tell = partial(self._told, session=session.digest.hex())
        valve = self._valve if session.terms.feed is not None else None
        shell = SessionShell(session, self._journal, self._meter, valve, self._clock, self._ended, self._carrier)
        self._shell = shell
        self._tasks.start(self._purse.guard(session.terms, shell.stop, self._clock))
        return shell

    def _ended(self, error: PenstockError | None) -> None:
        assert self._over is not None
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            if self._shell is not None:
                self._shell.on_time()


def _payer(ends: Ends) -> PayerEnd:
    assert ends.payer is not None, "a consumer pays"
    return ends.payer
