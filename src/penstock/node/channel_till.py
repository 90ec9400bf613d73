"""Where a site is paid over channels: it takes their terms, keeps what pays them, and settles them in batches."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

import msgspec

from penstock.core.channel import ChannelParams, Close, Voucher, seconds
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadSignature, BadTerms, LedgerError, PeerRefused, TransactionFailed
from penstock.core.identity import Key, check_signed
from penstock.core.messages import AskClose, Reason
from penstock.core.offer import Terms
from penstock.core.ports import ChannelState, Journal, Ledger, Mined, SignedClose
from penstock.core.rail import Ends
from penstock.core.session import SESSION_ROWS, Role, SessionRow
from penstock.core.units import MAX_AMOUNT, Amount, Instant
from penstock.node import book
from penstock.node.book import SECRET_ROWS, ChannelRow
from penstock.node.lookout import Lookout
from penstock.node.stake import put_in
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell
from penstock.rails.stream import (
    NAME,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    check_terms,
    decode_terms,
    pair,
)

CLOSE_MARGIN = 600  # seconds that a cooperative close must still be good for when we take it
UNPAID = "the last session in this channel was not paid in full"
BATCH = 50  # closes in one transaction


class ChannelTill:
    """The channels that pay a site. A channel pays one session at a time."""

    name = NAME

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Ledger,
        clock: Callable[[], Instant],
        tell: Tell,
        min_period: int = 600,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        stake: int = 0,
    ) -> None:
        """`min_period` is the shortest challenge period (seconds) in which we trust ourselves to answer. `entropy(n)`
        gives n bytes that nobody can guess, and never the same twice. `stake` is the most that we put into a channel
        that pays both ways (token units): without it we pay only from what we earned there.
        """
        self.key = key
        self.journal = journal
        self.clock = clock
        self.tell = tell
        self._ledger, self._entropy, self._stake = ledger, entropy, stake
        self._tasks: Tasks | None = None
        self._payers: dict[bytes, StreamPayer] = {}  # of the sessions that run and pay back, by channel
        self._adding: set[bytes] = set()  # channels that we are putting something into
        self._offer = StreamOffer(ledger.domain, key.address, key.address, min_period)
        self.offer = encode(self._offer)
        self.lookout = Lookout(ledger, key, partial(book.evidence_of, journal), self._over, clock, tell)
        self._signed: list[bytes] = []  # channels with a close that is not mined
        for row in book.each_channel(journal):
            if row.role is Role.SUPPLIER and not row.settled:
                self.lookout.watch(row.params)
                if row.close:
                    self._signed.append(row.params.id)
        self._in_use: set[bytes] = set()
        self.pays_else: Callable[[bytes], bool] = lambda channel: False
        """Whether a channel pays us by hop locks: its deposit stands for those."""
        self._sent: dict[bytes, None] = {}  # those of `_signed` that are mined, but not deep enough to stay so
        self._owing = book.owing(journal)

    def start(self, tasks: Tasks) -> None:
        """Look after the channels from now on."""
        self._tasks = tasks
        tasks.start(self.lookout.run())
        tasks.start(self._follow())

    @property
    def seen(self) -> Instant:
        """When the ledger answered last."""
        return self.lookout.seen

    @property
    def watching(self) -> int:
        """How many channels are looked at on the ledger."""
        return self.lookout.watching

    async def admit(self, terms: Terms, evidence: bytes) -> tuple[Ends, Rows]:
        """Check that these terms would be paid, and reserve their channel. The rows go with the session's first.

        Raises:
            BadTerms: the channel is not ours, not open, too small, or in use, or not where we left it.
            BadVoucher, BadSignature: the evidence. LedgerError: the ledger cannot tell.
        """
        stream = decode_terms(terms.rail_terms)
        ticks = terms.offer.tick_value, terms.feed.tick_value if terms.feed else 0
        check_terms(self._offer, stream, (stream.amount, stream.back.amount if stream.back else 0), ticks)
        stream = self._shared(stream)
        params = stream.params
        known = book.channel_of(self.journal, params.id)
        self._check_back(stream, known)
        owing, restored = params.id in self._owing, known is not None and known.restored
        if owing and not restored:
            raise BadTerms(UNPAID, "open another channel")
        if params.id in self._in_use:
            raise BadTerms("the channel is paying another session", "wait for its end, or open another channel")
        self._in_use.add(params.id)
        try:
            if self.pays_else(params.id):
                raise BadTerms("the channel pays by hop locks", "open another channel")
            if known and (known.close or known.settled):
                raise BadTerms("the channel is closing", "open another channel")
            state = await self._ledger.channel(params)
            if state.status != "open":
                raise BadTerms(f"the channel is {state.status} on the ledger", "open one, and wait until it is mined")
            # The deposit says what was put in; what was taken out again pays nobody.
            if state.opener_drawn or (params.two_way and state.partner_drawn):
                raise BadTerms("somebody has withdrawn from the channel", "open another channel")
            check_terms(self._offer, stream, (state.opener_deposit, state.partner_deposit), ticks)
            secret = self._entropy(32)
            ends, payee = self._ends(stream, state.opener_deposit, state.partner_deposit, secret)
            if payee.capacity < terms.offer.least_credit:
                raise BadTerms(
                    f"the channel has {payee.capacity} token units left, too little for a first package",
                    f"add to it, or open one with at least {terms.offer.least_credit}",
                )
            if owing and payee.secured >= 0:  # nothing that the restored journal does not know of
                raise BadTerms(UNPAID, "open another channel")
            if payee.secured > 0:
                raise BadTerms(
                    "the session builds on an older voucher than the one that we hold", "finish the last session first"
                )
            rows = payee.take(evidence)
            if payee.secured < 0:
                raise BadTerms("the opening voucher is worth less than these terms begin with")
        except BaseException:
            self._in_use.discard(params.id)
            self._payers.pop(params.id, None)
            raise
        record = known or ChannelRow(params, Role.SUPPLIER, state.opener_deposit)
        # A payer that begins at its last voucher has brought what a restored journal did not have.
        record = msgspec.structs.replace(
            record, deposit=state.opener_deposit, partner_deposit=state.partner_deposit, restored=False
        )
        self.lookout.watch(params)
        if ends.payer is not None:
            rows = (*rows, (SECRET_ROWS + terms.digest(), secret))
        return ends, rows + record.rows() + self._forgive(params.id)

    def _check_back(self, stream: StreamTerms, known: ChannelRow | None) -> None:
        """Pass where the terms of a two-way channel begin at the last voucher that we have given in it.

        Raises:
            BadTerms: they do not, or we do not know any more what we have given.
        """
        if stream.back is None:
            return
        if known is not None and known.restored:
            raise BadTerms("our books of this channel are a backup", "open another channel; `channel close` ends this")
        paid = book.paid_of(self.journal, stream.params.id)
        ours = paid.note.voucher if paid else Voucher.over(0, 0)
        if ours.locked:
            raise BadTerms("the channel's last session broke off while we paid", "finish it first, or open another")
        if (stream.back.nonce, stream.back.amount) != (ours.nonce, ours.amount):
            raise BadTerms(
                f"we have promised {ours.amount} token units in this channel, by voucher {ours.nonce}; the terms say "
                f"{stream.back.amount}, by voucher {stream.back.nonce}",
                "finish the last session first, or open another channel",
            )

    def _ends(
        self, stream: StreamTerms, deposit: int, partner_deposit: int, secret: bytes | None
    ) -> tuple[Ends, StreamPayee]:
        """Our ends of a session, from where the journal has them."""
        channel = stream.params.id
        payee = StreamPayee(stream, deposit, *book.earned_of(self.journal, channel))
        if stream.back is None or not stream.back.tick_value:
            return Ends(None, payee), payee
        if secret is None:
            raise BadTerms("the journal knows the session, but not its secret", "restore a backup of the journal")
        paid = book.paid_of(self.journal, channel)
        payer = StreamPayer(stream, partner_deposit, self.key, secret, paid, back=True)
        self._payers[channel] = payer
        return pair(payer, payee), payee

    def _forgive(self, channel: bytes) -> Rows:
        """No debt is left in a channel whose payer has brought more than a restored journal knew.

        A session that was under way at the backup looks unpaid there, for all that flowed since.
        """
        if channel not in self._owing:
            return ()
        self._owing.discard(channel)
        debts = [row for row in book.sessions(self.journal) if row.unpaid and book.account_in(row) == channel]
        paid = (msgspec.structs.replace(row, unpaid=Amount(0)) for row in debts)
        return tuple((SESSION_ROWS + row.terms.digest(), encode(row)) for row in paid)

    def _shared(self, stream: StreamTerms) -> StreamTerms:
        """The same, over parts that all our channels share: what we keep of ten thousand is what differs."""
        ours = self._offer
        params = msgspec.structs.replace(
            stream.params, domain=ours.domain, partner=ours.payee, partner_key=ours.payee_key
        )
        return msgspec.structs.replace(stream, params=params) if params == stream.params else stream

    def begin(self, terms: Terms, stop: Callable[[Reason], None]) -> None:
        """A session streams under these terms; `stop` it where the ledger says something else of its channel."""
        params = decode_terms(terms.rail_terms).params
        self.lookout.stream(params.id, stop)
        payer = self._payers.get(params.id)
        if payer is not None and self._stake and self._tasks is not None and params.id not in self._adding:
            self._tasks.start(self._put_in(params, payer))

    async def _put_in(self, params: ChannelParams, payer: StreamPayer) -> None:
        self._adding.add(params.id)
        try:
            await put_in(self.journal, self._ledger, self.key, params, self._stake, payer.add, self.tell)
        finally:
            self._adding.discard(params.id)

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        return {"channel": "0x" + decode_terms(terms.rail_terms).params.id.hex()}

    def restore(self, row: SessionRow) -> Ends:
        """Our ends of a session that the journal knows, where we left it."""
        stream = self._shared(decode_terms(row.terms.rail_terms))
        record = book.channel_of(self.journal, stream.params.id)
        if record is None:
            raise BadTerms("the journal knows the session, but not its channel", "restore a backup of the journal")
        secret = book.one(self.journal, SECRET_ROWS + row.terms.digest())
        ends, _ = self._ends(stream, record.deposit, record.partner_deposit, secret)
        self._in_use.add(stream.params.id)
        return ends

    def release(self, row: SessionRow) -> None:
        """The session is over. Its channel may pay another, unless something was left unpaid: it gets no more credit
        then, for each time would cost us as much again. Another channel costs its opener gas.
        """
        if row.unpaid:
            self._owing.add(book.account_in(row))
        self.leave(row.terms)

    def leave(self, terms: Terms) -> None:
        """No session uses the channel of these terms any more."""
        channel = decode_terms(terms.rail_terms).params.id
        self._in_use.discard(channel)
        self._payers.pop(channel, None)
        self.lookout.rest(channel)

    async def _over(self, params: ChannelParams, lost: Amount) -> None:
        """The lookout saw that the channel was paid out."""
        row = book.channel_of(self.journal, params.id)
        if row is not None and not row.settled:
            await durable(self.journal, msgspec.structs.replace(row, settled=True, lost=lost).rows())

    def uses(self, channel: bytes) -> bool:
        """Whether a channel is paying a session, or about to, or a close of it is being signed."""
        return channel in self._in_use

    async def take_close(self, ask: AskClose) -> None:
        """Check a consumer's cooperative close against our books, sign it, and keep it for the next batch.

        Raises:
            PeerRefused: it pays less than we hold, expires too soon, or the channel is unknown or in use.
            LedgerError: after a backup was restored, the ledger has to say what the channel holds, and does not.
        """
        if ask.close.opener_balance + ask.close.partner_balance > MAX_AMOUNT:
            raise PeerRefused("the balances are more than a channel holds")  # and than a digest can name
        record = book.channel_of(self.journal, ask.channel)
        if record is None or record.role is not Role.SUPPLIER:
            raise PeerRefused("no such channel here")
        if self.uses(ask.channel):
            raise PeerRefused("the channel is paying a session")
        if self.pays_else(ask.channel):
            raise PeerRefused("the channel pays by hop locks, whose ends are to come: close it on the ledger")
        if ask.channel in self._adding:
            raise PeerRefused("we are adding to the channel: ask again")
        try:
            check_signed(ask.close.digest(record.params), ask.signature, record.params.opener_key, "the close")
        except BadSignature as error:
            raise PeerRefused(str(error)) from None
        if record.close == ask.close:
            return
        self._in_use.add(ask.channel)  # while we ask or write, neither a session nor another close may come in between
        try:
            if record.restored:  # its deposit may have grown since the backup
                state = await self._ledger.channel(record.params)
                record = msgspec.structs.replace(
                    record, deposit=state.opener_deposit, partner_deposit=state.partner_deposit
                )
            self._check_close(record, ask.close)
            ours = self.key.sign(ask.close.digest(record.params))
            record = msgspec.structs.replace(
                record, close=ask.close, opener_signature=ask.signature, partner_signature=ours
            )
            await durable(self.journal, record.rows())
        finally:
            self._in_use.discard(ask.channel)
        self._signed.append(ask.channel)
        self.tell("close taken", channel=book.name_of(record), pays=ask.close.partner_balance)

    def _check_close(self, record: ChannelRow, close: Close) -> None:
        ours = book.share_of(self.journal, record)
        if record.close is not None or record.settled:
            raise PeerRefused("the channel is closing already")
        if close.opener_balance < 0 or close.opener_balance + close.partner_balance != record.pot:
            raise PeerRefused(f"the balances do not sum to the channel's {record.pot}")
        if close.partner_balance < ours:
            raise PeerRefused(f"the close pays {close.partner_balance}, but {ours} are ours")
        if close.expiry < seconds(self.clock()) + CLOSE_MARGIN:
            raise PeerRefused("the close expires too soon to be mined")

    @property
    def unsettled(self) -> int:
        """How many cooperative closes are signed but not mined."""
        return len(self._signed)

    async def settle(self) -> list[Mined]:
        """Send every signed close to the ledger, many in one transaction.

        A close that the contract does not take (it has expired, or its opener has added to the channel since) is no
        loss: we close that channel alone, with the voucher that we hold.

        Raises:
            LedgerError: the ledger did not take them; they stay for the next time.
        """
        mined: list[Mined] = []
        waiting = len(self._signed)
        while self._signed:
            batch = self._signed[:BATCH]
            mined += await self._settle([row for row in (book.channel_of(self.journal, id_) for id_ in batch) if row])
            del self._signed[: len(batch)]
            self.tell("settled", channels=waiting - len(self._signed), of=waiting)
        return mined

    async def _settle(self, batch: list[ChannelRow]) -> list[Mined]:
        ready = [row for row, state in zip(batch, await self._states(batch), strict=True) if state.status == "open"]
        for row in batch:
            if row not in ready:
                self._sent[row.params.id] = None
                self.tell("not open any more", channel=book.name_of(row))  # the lookout answers
        for row in ready:
            self.lookout.settling(row.params.id, True)
        try:
            return await self._settle_open(ready)
        finally:
            for row in ready:
                record = book.channel_of(self.journal, row.params.id)
                if record is not None and record.settled:
                    self.lookout.forget(row.params.id)
                self.lookout.settling(row.params.id, False)

    async def _settle_open(self, ready: list[ChannelRow]) -> list[Mined]:
        mined = await self._close_together(ready) if ready else []
        done: Rows = ()
        for row, state in zip(ready, await self._states(ready), strict=True):
            own, channel = mined, row.params.id
            if state.status == "open":
                self.tell("closing alone", channel=book.name_of(row))
                try:
                    own = await self._ledger.close(self.key, row.params, book.filing_of(self.journal, row))
                except TransactionFailed as error:  # it must not keep the others waiting; the next start tries again
                    self.tell("not closed", channel=book.name_of(row), error=error.line())
                    continue
                mined = mined + own
            self._sent[channel] = None
            if state.status not in ("open", "settled"):  # its opener was quicker: the lookout answers
                self.tell("not open any more", channel=book.name_of(row))
                continue
            settled = await self._ledger.final(row.params)  # otherwise the lookout says when it is
            done += msgspec.structs.replace(row, settled=settled, mined=(*row.mined, *own)).rows()
        await durable(self.journal, done)
        return mined

    async def _follow(self) -> None:
        """Sign up again for the ledger what a reorganisation takes out of the chain, until it is settled for good."""
        while True:
            await asyncio.sleep(self.lookout.pause)
            for channel in list(self._sent):
                row = book.channel_of(self.journal, channel)
                if row is None or row.settled:
                    del self._sent[channel]
                    continue
                try:
                    state = await self._ledger.channel(row.params)
                except LedgerError:
                    break  # the lookout says so
                if state.status == "open":
                    del self._sent[channel]
                    self._signed.append(channel)
                    self.tell("open again", channel=book.name_of(row))

    async def _states(self, rows: list[ChannelRow]) -> list[ChannelState]:
        return await asyncio.gather(*(self._ledger.channel(row.params) for row in rows))

    async def _close_together(self, rows: list[ChannelRow]) -> list[Mined]:
        signed = [
            SignedClose(row.params, row.close, row.opener_signature, row.partner_signature)
            for row in rows
            if row.close is not None
        ]
        try:
            return await self._ledger.close_together(self.key, signed)
        except TransactionFailed as error:  # one row alone, that a batch would have skipped
            self.tell("close failed", error=error.line())
            return []
