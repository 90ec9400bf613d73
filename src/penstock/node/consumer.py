"""A consumer: looks at an offer, takes or opens a channel, streams within its limits, and comes back after a fault."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from penstock.core.channel import ChannelParams, Close, seconds
from penstock.core.codec import decode, encode
from penstock.core.errors import (
    BadMessage,
    BadTerms,
    LinkLost,
    OutOfFunds,
    PeerRefused,
    PenstockError,
    RemoteError,
    WrongLedger,
)
from penstock.core.identity import Key, check_signed
from penstock.core.medium import medium
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
    Resumed,
)
from penstock.core.offer import Offer, Terms, accept_digest, check_offer, propose_digest
from penstock.core.ports import Journal, Ledger, Link, Meter
from penstock.core.session import SESSION_ROWS, Patience, Role, Session, SessionRow, State
from penstock.core.units import MAX_QUANTITY, Amount, Instant, Price
from penstock.node import book
from penstock.node.book import SECRET_ROWS, ChannelRow
from penstock.node.shell import SessionShell
from penstock.node.site import Tell
from penstock.node.tasks import Tasks, durable
from penstock.rails.stream import NAME, StreamPayer, StreamTerms, decode_offer, decode_terms

ANSWER = 60.0  # seconds for an answer that may need the peer's ledger
CONFIRMING = 900  # seconds that an opening may take to be deep enough
CLOSE_LIFE = 86_400  # seconds that a cooperative close is good for
BEAT = 1.0

_Answer = TypeVar("_Answer", bound=Message)


class Wish(NamedTuple):
    """What the consumer wants and what it will not exceed. Sums in token units, quantities in the medium's unit.

    `deposit` is what a new channel is opened with (None: what this session can cost at most), `period` its challenge
    period (seconds), `keep` leaves the channel open for the next session.
    """

    max_price: Price
    budget: int
    quantity: int | None = None
    medium: str = "electricity"
    deposit: int | None = None
    period: int = 3_600
    keep: bool = False


class Consumer:
    """Buys from one supplier. `dial` makes an authenticated link to it."""

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Callable[[], Awaitable[Ledger]],
        meter: Meter,
        dial: Callable[[], Awaitable[Link]],
        wish: Wish,
        clock: Callable[[], Instant],
        tell: Tell,
        patience: Patience | None = None,
    ) -> None:
        """`ledger` is called only where a transaction is needed: streaming over an open channel needs none."""
        self.session: Session | None = None
        self._key = key
        self._journal = journal
        self._ledger = ledger
        self._meter = meter
        self._dial = dial
        self._wish = wish
        self._clock = clock
        self._tell = tell
        self._patience = patience or Patience()
        self._shell: SessionShell | None = None
        self._over: asyncio.Future[Any] | None = None
        self._tasks = Tasks()

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
            talk = Talk(await self._dial(), self)
            row = self._unfinished(talk.link)
            if row is not None:
                self._restore(row)
                await self._resume(talk)
            else:
                await self._begin(talk)
            while not self._over.done():
                await asyncio.wait([self._over, talk.lost], return_when=asyncio.FIRST_COMPLETED)
                if not self._over.done():
                    talk = await self._come_back(talk)
            self._over.result()
            session = self.session
            assert session is not None
            if session.complete and not self._wish.keep:
                await self._close_channel(talk, session)
            return session
        finally:
            await self._tasks.cancel()
            if talk is not None:
                talk.leave()

    def stop(self, reason: Reason = Reason.OPERATOR) -> None:
        """End the session early, in order."""
        if self._shell is not None:
            self._shell.stop(reason)

    # ---- beginning

    async def _begin(self, talk: Talk) -> None:
        offered = await talk.ask(AskOffer(), Offered)
        offer = offered.offer
        check_offer(offer, offered.signature)
        if offer.supplier != talk.link.peer:
            raise BadTerms("the offer is signed by another key than the one on this link")
        self._tell("offered", name=offer.name, price=offer.tariff.steps[0].amount, per=offer.tariff.per)
        self._check(offer)
        channel = await self._channel(offer)
        terms, stream = self._terms(offer, channel)
        digest, secret = terms.digest(), secrets.token_bytes(32)
        payer = StreamPayer(stream, channel.deposit, self._key, secret)
        opening = payer.open()
        signature = self._key.sign(propose_digest(digest))
        row = SessionRow(Role.CONSUMER, terms, signature, b"", self._meter.read())
        kept = (SESSION_ROWS + digest, encode(row))
        await durable(self._journal, (*opening.rows, (SECRET_ROWS + digest, secret), kept))
        try:
            accepted = await talk.ask(Propose(terms, signature, opening.data), Accepted)
            check_signed(accept_digest(digest), accepted.signature, offer.supplier, "the acceptance")
        except PeerRefused:
            await self._forget(row, payer)
            raise
        row = msgspec.structs.replace(row, accepted=accepted.signature)
        await durable(self._journal, ((SESSION_ROWS + digest, encode(row)),))
        self._tell("accepted", session=digest.hex(), channel=book.name_of(channel))
        shell = self._take(Session(row, payer, self._key, self._clock(), self._patience, self._wish.max_price))
        shell.begin(talk.link)
        talk.hand_over(shell)

    async def _forget(self, row: SessionRow, payer: StreamPayer) -> None:
        """The supplier refused: nothing was paid, and the channel's last voucher is one without a lock again."""
        ended = msgspec.structs.replace(row, state=State.ENDED, reason=Reason.OPERATOR)
        rows = payer.square(0).rows
        await durable(self._journal, (*rows, (SESSION_ROWS + row.terms.digest(), encode(ended))))

    def _check(self, offer: Offer) -> None:
        wish, price = self._wish, offer.tariff.highest
        quoted = medium(offer.medium)
        if offer.medium != wish.medium:
            raise BadTerms(f"the supplier sells {offer.medium}, not {wish.medium}")
        if price.amount * wish.max_price.per > wish.max_price.amount * price.per:
            asked, most = (p.amount * quoted.per // p.per for p in (price, wish.max_price))
            raise BadTerms(
                f"price over the limit: {asked} token units per {quoted.quoted} asked, {most} allowed",
                "raise the limit, or look for another supplier",
            )
        if wish.budget < offer.least_credit:
            raise OutOfFunds(
                f"budget too small: {wish.budget} token units, less than the {offer.least_credit} of a first package",
                "raise the budget",
            )
        if NAME not in offer.rails:
            raise BadTerms(f"the supplier does not take {NAME}; it takes {', '.join(offer.rails) or 'nothing'}")

    def _terms(self, offer: Offer, channel: ChannelRow) -> tuple[Terms, StreamTerms]:
        paid = book.paid_of(self._journal, channel.params.id)
        nonce, amount = (paid.note.voucher.nonce, paid.note.voucher.amount) if paid else (0, 0)
        stream = StreamTerms(channel.params, nonce, amount, offer.tick_value)
        terms = Terms(
            offer=offer,
            consumer=self._key.address,
            rail=NAME,
            rail_terms=encode(stream),
            quantity_limit=self._wish.quantity or MAX_QUANTITY,
            budget=self._wish.budget,
            at=self._clock(),
            nonce=secrets.token_bytes(16),
        )
        terms.check()
        return terms, stream

    # ---- the channel

    async def _channel(self, offer: Offer) -> ChannelRow:
        """An open channel to this supplier that can pay for the wish: one that we have, or a new one."""
        details = decode_offer(offer.rails[NAME])
        need = self._need(offer)
        for row in book.channels(self._journal):
            if row.role is Role.CONSUMER and row.params.partner == details.payee and not (row.close or row.settled):
                params = row.params
                usable = params.domain == details.domain and params.partner_key == details.payee_key
                paid = book.paid_of(self._journal, params.id)
                if not usable or params.period < details.min_period or (paid and paid.chain_ticks):
                    continue
                row = await self._confirmed(row)
                spent = paid.note.voucher.amount if paid else 0
                if row.deposit and row.deposit - spent >= need:
                    return row
                if row.deposit:
                    return await self._add(row, need - (row.deposit - spent))
        ledger = await self._ledger()
        if ledger.domain != details.domain:
            raise WrongLedger(
                f"the supplier wants chain {details.domain.chain_id}, contract 0x{details.domain.contract.hex()}; "
                f"ours is chain {ledger.domain.chain_id}, contract 0x{ledger.domain.contract.hex()}",
                "use the ledger that the supplier is on",
            )
        params = ChannelParams(
            domain=details.domain,
            opener=self._key.address,
            partner=details.payee,
            opener_key=self._key.address,
            partner_key=details.payee_key,
            period=max(self._wish.period, details.min_period),
            two_way=False,
            counter=await ledger.next_counter(self._key.address),
        )
        params.check()
        return await self._open(ledger, params, Amount(max(need, self._wish.deposit or 0)))

    def _need(self, offer: Offer) -> int:
        """The most that this session can cost; in whole ticks where they are paid before they are used."""
        wish = self._wish
        cost = offer.tariff.highest.cost(wish.quantity) if wish.quantity else wish.budget
        if offer.mode == "pay-before":
            cost = -(-cost // offer.tick_value) * offer.tick_value
        return max(min(cost, wish.budget), offer.least_credit)

    async def _open(self, ledger: Ledger, params: ChannelParams, deposit: Amount) -> ChannelRow:
        """Keep the parameters before the money moves: without them nobody could ever close the channel."""
        row = ChannelRow(params, Role.CONSUMER, Amount(0))
        await durable(self._journal, row.rows())
        self._tell("opening", channel=book.name_of(row), deposit=deposit)
        mined = await ledger.open(self._key, params, deposit)
        await self._deep_enough(ledger, params)
        row = msgspec.structs.replace(row, deposit=deposit, mined=tuple(mined))
        await durable(self._journal, row.rows())
        self._tell("opened", channel=book.name_of(row), gas=sum(one.gas for one in mined))
        return row

    async def _deep_enough(self, ledger: Ledger, params: ChannelParams) -> None:
        """Wait until the opening counts: the supplier looks at the same chain, and would refuse it before."""
        for _ in range(int(CONFIRMING)):
            if (await ledger.channel(params)).status == "open":
                return
            self._tell("waiting for confirmations", channel=params.id.hex())
            await asyncio.sleep(1)

    async def _add(self, row: ChannelRow, missing: int) -> ChannelRow:
        ledger = await self._ledger()
        mined = await ledger.add(self._key, row.params, Amount(missing))
        row = msgspec.structs.replace(row, deposit=Amount(row.deposit + missing), mined=(*row.mined, *mined))
        await durable(self._journal, row.rows())
        return row

    async def _confirmed(self, row: ChannelRow) -> ChannelRow:
        """A channel whose opening we did not see mined (a crash came between): ask the ledger."""
        if row.deposit:
            return row
        state = await (await self._ledger()).channel(row.params)
        if state.status != "open":
            return row
        row = msgspec.structs.replace(row, deposit=state.opener_deposit)
        await durable(self._journal, row.rows())
        return row

    async def _close_channel(self, talk: Talk, session: Session) -> None:
        """Sign the channel's end over to the supplier, who sends it to the ledger with its next batch."""
        channel = book.channel_of(self._journal, book.channel_in(session.row))
        assert channel is not None
        paid = book.paid_of(self._journal, channel.params.id)
        amount = paid.note.voucher.amount if paid else 0
        close = Close(channel.deposit - amount, amount, seconds(self._clock()) + CLOSE_LIFE)
        signature = self._key.sign(close.digest(channel.params))
        signed = msgspec.structs.replace(channel, close=close, opener_signature=signature)
        await durable(self._journal, signed.rows())
        try:
            await talk.ask(AskClose(channel.params.id, close, signature), Closing)
        except RemoteError as error:
            self._tell("close not taken", error=error.line())

    # ---- coming back

    def _unfinished(self, link: Link) -> SessionRow | None:
        for row in book.unfinished(self._journal, Role.CONSUMER):
            if row.terms.offer.supplier == link.peer and row.terms.consumer == self._key.address:
                return row
        return None

    def _restore(self, row: SessionRow) -> None:
        digest = row.terms.digest()
        stream = decode_terms(row.terms.rail_terms)
        channel = book.channel_of(self._journal, stream.params.id)
        secret = book.one(self._journal, SECRET_ROWS + digest)
        if channel is None or secret is None:
            raise BadTerms("the journal knows the session, but not its channel", "restore a backup of the journal")
        paid = book.paid_of(self._journal, stream.params.id)
        payer = StreamPayer(stream, channel.deposit, self._key, secret, paid)
        self._take(Session(row, payer, self._key, self._clock(), self._patience, self._wish.max_price))
        self._tell("restored", session=digest.hex())

    async def _resume(self, talk: Talk) -> None:
        """Take up our session over a fresh link."""
        shell = self._shell
        assert shell is not None
        try:
            answer = await talk.ask(Resume(shell.session.digest), Resumed, Receipted)
        except PeerRefused as error:
            self._tell("not resumed", error=error.line())
            shell.session.fault = shell.session.fault or error.line()
            self._abandon(shell)
            return
        shell.attach(talk.link)
        shell.on_message(answer)
        talk.hand_over(shell)
        self._tell("resumed", session=shell.session.digest.hex(), paid=shell.session.paid)

    def _abandon(self, shell: SessionShell) -> None:
        """The supplier knows nothing of the session any more, or has ended it: what was paid is paid."""
        shell.abandon()

    async def _come_back(self, talk: Talk) -> Talk:
        """Dial again until the session is taken up or patience ends."""
        shell = self._shell
        assert shell is not None
        assert self._over is not None
        self._tell("link lost", error=talk.why)
        shell.unlink()
        pause = 0.2
        while not self._over.done():
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 1.7)
            try:
                fresh = Talk(await self._dial(), self)
                await self._resume(fresh)
            except (LinkLost, BadMessage) as error:
                self._tell("not reached", error=error.line())
                continue
            return fresh
        return talk

    def _take(self, session: Session) -> SessionShell:
        self.session = session
        self._shell = SessionShell(session, self._journal, self._meter, None, self._clock, self._ended)
        return self._shell

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


class Talk:
    """One link of a consumer: questions with their answers first, then a session's frames."""

    def __init__(self, link: Link, consumer: Consumer) -> None:
        self.link = link
        self.why = ""
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Any] = loop.create_future()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._shell: SessionShell | None = None
        link.attach(self._on_frame, self._on_lost)

    def hand_over(self, shell: SessionShell) -> None:
        """From now on messages are the session's, until it is over; those too that came while we were writing."""
        self._shell = shell
        while not self._answers.empty():
            self._take(self._answers.get_nowait())

    def leave(self) -> None:
        """End the link."""
        self.link.close("done")

    async def ask(self, message: Message, *answers: type[_Answer]) -> _Answer:
        """Send a message and wait for one of its answers.

        Raises:
            PeerRefused: the peer said no. LinkLost: no answer came. BadMessage: another answer came.
        """
        if self.lost.done():
            raise LinkLost(self.why or "the link is gone")
        self.link.send(encode(message))
        waiting: asyncio.Future[Any] = asyncio.ensure_future(self._answers.get())
        await asyncio.wait([waiting, self.lost], timeout=ANSWER, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            raise LinkLost(self.why or f"the peer did not answer within {ANSWER:.0f} s")
        answer = waiting.result()
        if isinstance(answer, Refused):
            raise PeerRefused(answer.why[:300])
        if not isinstance(answer, answers):
            raise BadMessage(f"the peer answered {type(message).__name__} with {type(answer).__name__}")
        return answer

    def _on_frame(self, frame: bytes) -> None:
        try:
            message = decode(frame)
        except RemoteError as error:
            self.link.close(error.line())
            self._on_lost(error)
        else:
            self._take(message)

    def _take(self, message: Message) -> None:
        if self._shell is None or self._shell.over:
            self._answers.put_nowait(message)
            return
        try:
            self._shell.on_message(message)
        except RemoteError as error:
            self.link.close(error.line())
            self._on_lost(error)

    def _on_lost(self, error: PenstockError) -> None:
        self.why = error.line()
        if not self.lost.done():
            self.lost.set_result(None)
