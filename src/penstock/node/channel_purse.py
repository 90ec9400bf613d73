"""A consumer's channels: which one pays a supplier, opened or raised where needed, and signed off at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import msgspec

from penstock.core.channel import ChannelParams, Close, Domain, Voucher
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, LedgerError, LedgerUnreachable, OutOfGas, PenstockError, WrongLedger
from penstock.core.identity import Key
from penstock.core.messages import AskClose, Reason
from penstock.core.offer import Offer, Terms
from penstock.core.ports import ChannelState, Journal, Ledger
from penstock.core.rail import Ends, PayerEnd
from penstock.core.session import SESSION_ROWS, Role, SessionRow
from penstock.core.units import Amount, Instant
from penstock.node import book
from penstock.node.book import ChannelRow
from penstock.node.lookout import LONGEST, Lookout
from penstock.node.stake import follow
from penstock.node.tasks import durable
from penstock.node.tell import Tell
from penstock.rails.stream import (
    NAME,
    StreamBack,
    StreamOffer,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    decode_offer,
    decode_terms,
    pair,
)

REFUSED = b"refused"  # the same, and then the payee did not take the channel any more
CONFIRMING = 900  # seconds that an opening may take to be deep enough


class ChannelPurse:
    """The channels that a key pays through. `ledger` is called only where one has to be asked or changed."""

    name = NAME
    two_way = True

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Callable[[], Awaitable[Ledger]],
        tell: Tell,
        deposit: int = 0,
        period: int = 3_600,
        domain: Domain | None = None,
    ) -> None:
        """`deposit` is what a new channel gets at least (token units), `period` the longest challenge period (s) that
        we open one with. `domain` is the ledger whose token our sums are in (None: any that the payee is on)."""
        self._key = key
        self._journal = journal
        self._ledger = ledger
        self._tell = tell
        self._deposit, self._period, self._domain = deposit, period, domain
        self._payees: dict[bytes, StreamPayee] = {}  # of the sessions that pay us, by channel

    async def fund(self, offer: Offer, need: int, two_way: bool = False) -> bytes:
        """The rail's part of terms over an open channel that can still pay `need` (`Purse`)."""
        details = decode_offer(offer.rails[NAME])
        if self._domain is not None:
            check_ledger(details.domain, self._domain)
        feed = offer.feed if two_way else None
        row = await self.channel(details, need, self._deposit, self._period, feed is not None)
        paid = book.paid_of(self._journal, row.params.id)
        nonce, amount = (paid.note.voucher.nonce, paid.note.voucher.amount) if paid else (0, 0)
        back = self._back(row.params.id, feed.tick_value if feed else 0) if row.params.two_way else None
        return encode(StreamTerms(row.params, nonce, amount, offer.tick_value, back))

    def _back(self, channel: bytes, tick_value: int) -> StreamBack:
        """Where the direction that pays us stands, by the best voucher that we hold."""
        earned, _ = book.earned_of(self._journal, channel)
        held = earned.note.voucher if earned else Voucher.over(0, 0)
        return StreamBack(held.nonce, held.amount, tick_value)

    def ends(self, terms: Terms, secret: bytes, *, again: bool) -> Ends:
        """Our ends of a session (`Purse`)."""
        stream = decode_terms(terms.rail_terms)
        channel = book.channel_of(self._journal, stream.params.id)
        if channel is None:
            raise BadTerms("the journal knows the session, but not its channel", "restore a backup of the journal")
        paid = book.paid_of(self._journal, stream.params.id) if again else None
        payer = StreamPayer(stream, channel.deposit, self._key, secret, paid)
        if not stream.back or not stream.back.tick_value:
            return Ends(payer, None)
        earned = book.earned_of(self._journal, stream.params.id)
        payee = StreamPayee(stream, channel.partner_deposit, *earned, back=True)
        self._payees[stream.params.id] = payee
        return pair(payer, payee)

    async def guard(self, terms: Terms, stop: Callable[[Reason], None], clock: Callable[[], Instant]) -> None:
        """Answer for what the channel pays us, and count on what its partner adds, until cancelled (`Purse`).

        Before it ends it looks once more: where the channel is closing, it waits until what we hold is filed.
        """
        params = decode_terms(terms.rail_terms).params
        if not params.two_way:
            return
        began = clock()
        while True:
            try:
                ledger = await self._ledger()
                break
            except LedgerError as error:
                self._tell("ledger not seen", error=error.line(), for_s=str(max(0, clock() - began) // 1000))
                if clock() - began > params.period * 500:
                    stop(Reason.LEDGER_UNSEEN)
                await asyncio.sleep(LONGEST)
        show = partial(book.evidence_of, self._journal)
        lookout = Lookout(ledger, self._key, show, self._over, clock, self._tell)
        lookout.watch(params, partner=False)
        lookout.stream(params.id, stop)
        following = asyncio.ensure_future(follow(self._journal, ledger, params, self._grown(params.id)))
        try:
            while True:
                await asyncio.sleep(lookout.pause)
                await lookout.look()
        finally:
            following.cancel()
            self._payees.pop(params.id, None)
            lookout.rest(params.id)
            await lookout.answer()
            await lookout.close()

    def _grown(self, channel: bytes) -> Callable[[int], None]:
        payee = self._payees.get(channel)
        return payee.add if payee is not None else lambda deposit: None

    async def _over(self, params: ChannelParams, lost: Amount) -> None:
        """The lookout saw that the channel was paid out."""
        row = book.channel_of(self._journal, params.id)
        if row is not None and not row.settled:
            await durable(self._journal, msgspec.structs.replace(row, settled=True, lost=lost).rows())

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        return {"channel": "0x" + decode_terms(terms.rail_terms).params.id.hex()}

    def forget(self, payer: PayerEnd) -> Rows:
        """There was no session: the channel's last voucher is one without a lock again."""
        return payer.square(0).rows

    async def other(self, terms: Terms) -> bool:
        """Whether another channel may do where the payee refused this one (`Purse`)."""
        row = book.channel_of(self._journal, decode_terms(terms.rail_terms).params.id)
        assert row is not None, "we proposed it"
        return await self.retire(row) or await self.doubt(row)

    async def channel(
        self, details: StreamOffer, need: int, deposit: int, period: int, two_way: bool = False
    ) -> ChannelRow:
        """An open channel to the payee of `details` that can still pay `need` token units: one that we have, or a new
        one with at least `deposit` in it and a challenge period of `period` seconds. A two-way channel serves one way,
        too, but no one-way channel serves both.

        Raises:
            BadTerms: the payee wants a longer period. WrongLedger: it is on another one than we are.
            LedgerError: the ledger does not take it. OutOfFunds: our wallet does not have it.
        """
        if details.min_period > period:
            raise BadTerms(
                f"the supplier may hold our deposit for {details.min_period} s, {period} s are allowed",
                "look for another supplier",
            )
        fitting = self._fitting(details, two_way)
        for row, spent in fitting:
            if row.deposit and row.deposit - spent >= need:
                return row
        known: list[tuple[ChannelRow, int]] = []
        for row, spent in fitting:
            if (found := await self._looked_up(row)) is not None:
                if found.deposit - spent >= need:
                    return found
                known.append((found, spent))
        if known:
            row, spent = known[0]
            return await self._raised(row, spent + need)
        return await self._fresh(details, Amount(max(need, deposit)), period, two_way)

    def _fitting(self, details: StreamOffer, two_way: bool) -> list[tuple[ChannelRow, int]]:
        """Our channels that could pay the payee of `details`, each with what was promised in it; what was promised to
        us is taken off, for we can spend it.
        """
        wanted = (details.domain, details.payee, details.payee_key)
        found, broken = [], self._broken()
        for row in book.channels(self._journal):
            params, paid = row.params, book.paid_of(self._journal, row.params.id)
            if row.role is not Role.CONSUMER or row.over or (paid and paid.chain_ticks) or params.id in broken:
                continue
            earned, _ = book.earned_of(self._journal, params.id)
            if (two_way and not params.two_way) or (earned and earned.note.locks):
                continue
            if (params.domain, params.partner, params.partner_key) != wanted:
                continue
            if params.opener_key == self._key.address and params.period >= details.min_period:
                spent = paid.note.voucher.amount if paid else book.promised_in(self._journal, params.id)
                found.append((row, spent - (earned.note.voucher.amount if earned else 0)))
        return found

    async def retire(self, row: ChannelRow) -> bool:
        """Whether the ledger says that the channel is closing, closed or not there: it is not used as it is then."""
        try:
            return await self._retired(row, await (await self._ledger()).channel(row.params))
        except LedgerError:
            return False

    async def doubt(self, row: ChannelRow) -> bool:
        """Whether the payee refuses the channel, as it seems, for a session that it took and gave up before we heard.

        The channel is used no more then.
        """
        doubtful = [
            msgspec.structs.replace(session, accepted=REFUSED)
            for session in book.sessions(self._journal)
            if session.accepted == book.UNHEARD and book.account_in(session) == row.params.id
        ]
        await durable(self._journal, [(SESSION_ROWS + one.terms.digest(), encode(one)) for one in doubtful])
        return bool(doubtful)

    async def finish(self, terms: Terms) -> None:
        """Nothing is left to do: the session's own end has paid (`Purse`)."""

    async def close(self) -> None:
        """Nothing of ours is open (`Purse`)."""

    async def sign_off(self, terms: Terms, expiry: int) -> AskClose:
        """Sign the cooperative close of a channel at its last voucher; it takes no more sessions from now on."""
        channel = decode_terms(terms.rail_terms).params.id
        row = book.channel_of(self._journal, channel)
        assert row is not None, "a session's channel is in the journal"
        if row.close is not None:
            return AskClose(channel, row.close, row.opener_signature)
        assert not row.restored, "nobody knows what was promised in it, and no session ran over it since"
        if row.params.two_way:
            with suppress(LedgerError):  # the partner may have added to it
                row = await self._looked_up(row) or row
        ours = book.share_of(self._journal, row)
        close = Close(ours, row.pot - ours, expiry)
        signature = self._key.sign(close.digest(row.params))
        await durable(self._journal, msgspec.structs.replace(row, close=close, opener_signature=signature).rows())
        return AskClose(channel, close, signature)

    def _broken(self) -> set[bytes]:
        """Channels whose last session the payee may hold to be unpaid: it gives them no more credit."""
        return {
            book.account_in(row)
            for row in book.sessions(self._journal)
            if row.role is Role.CONSUMER and row.accepted not in (b"", book.UNHEARD) and _left_unpaid(row)
        }

    async def _fresh(self, details: StreamOffer, deposit: Amount, period: int, two_way: bool) -> ChannelRow:
        """Open a channel. Its parameters are kept before the money moves: without them nobody could ever close it."""
        ledger = await self._ledger()
        check_ledger(details.domain, ledger.domain)
        params = ChannelParams(
            domain=details.domain,
            opener=self._key.address,
            partner=details.payee,
            opener_key=self._key.address,
            partner_key=details.payee_key,
            period=period,
            two_way=two_way,
            counter=await ledger.next_counter(self._key.address),
        )
        params.check()
        row = ChannelRow(params, Role.CONSUMER, Amount(0))
        await durable(self._journal, row.rows())
        self._tell("opening", channel=book.name_of(row), deposit=deposit)
        with _naming_authorize():
            mined = await ledger.open(self._key, params, deposit)
        await self._deep_enough(ledger, params, deposit)
        row = msgspec.structs.replace(row, deposit=deposit, mined=tuple(mined))
        await durable(self._journal, row.rows())
        self._tell("opened", channel=book.name_of(row), gas=sum(one.gas for one in mined))
        return row

    async def _looked_up(self, row: ChannelRow) -> ChannelRow | None:
        """The channel with the deposits that the ledger has; None where it is not open there.

        Ours is behind after an opening that somebody else sent, and where a crash came before one was seen mined.
        """
        state = await (await self._ledger()).channel(row.params)
        if state.status != "open":
            await self._retired(row, state)
            return None
        if row.deposit != state.opener_deposit or row.partner_deposit != state.partner_deposit:
            row = msgspec.structs.replace(row, deposit=state.opener_deposit, partner_deposit=state.partner_deposit)
            await durable(self._journal, row.rows())
        return row

    async def _raised(self, row: ChannelRow, deposit: int) -> ChannelRow:
        """An open channel with `deposit` in it. What it has is not known while we add to it, nor where the ledger does
        not say whether we did; after any other failure it is what it was."""
        ledger = await self._ledger()
        await durable(self._journal, msgspec.structs.replace(row, deposit=Amount(0)).rows())
        missing = Amount(deposit - row.deposit)
        self._tell("adding", channel=book.name_of(row), amount=missing)
        try:
            with _naming_authorize():
                mined = await ledger.add(self._key, row.params, missing)
        except LedgerUnreachable:
            raise
        except PenstockError:
            await durable(self._journal, row.rows())
            raise
        await self._deep_enough(ledger, row.params, deposit)
        row = msgspec.structs.replace(row, deposit=Amount(deposit), mined=(*row.mined, *mined))
        await durable(self._journal, row.rows())
        return row

    async def _retired(self, row: ChannelRow, state: ChannelState) -> bool:
        if state.status == "open" or (state.status == "absent" and not row.deposit):
            return False
        if state.status == "absent":  # a reorganisation took its opening out, and may bring it back: ask before its use
            await durable(self._journal, msgspec.structs.replace(row, deposit=Amount(0)).rows())
            return True
        settled = state.status == "settled" and await (await self._ledger()).final(row.params)
        await durable(self._journal, msgspec.structs.replace(row, closing=not settled, settled=settled).rows())
        return True

    async def _deep_enough(self, ledger: Ledger, params: ChannelParams, deposit: int) -> None:
        """Wait until the deposit counts: the supplier looks at the same chain, and would refuse it before.

        Raises:
            LedgerError: it does not come; a reorganisation may have taken it out again.
        """
        for _ in range(CONFIRMING):
            state = await ledger.channel(params)
            if state.status == "open" and state.opener_deposit >= deposit:
                return
            self._tell("waiting for confirmations", channel="0x" + params.id.hex())
            await asyncio.sleep(1)
        raise LedgerError(
            f"{deposit} token units in channel 0x{params.id.hex()[:8]}... are not final after {CONFIRMING} s",
            "try again: what the ledger has then counts",
        )


def check_ledger(wanted: Domain, ours: Domain) -> None:
    """Pass where the supplier is on our ledger.

    Raises:
        WrongLedger: it is on another one.
    """
    if wanted != ours:
        raise WrongLedger(
            f"the supplier wants chain {wanted.chain_id}, contract 0x{wanted.contract.hex()}; "
            f"ours is chain {ours.chain_id}, contract 0x{ours.contract.hex()}",
            "use the ledger that the supplier is on",
        )


@contextmanager
def _naming_authorize() -> Iterator[None]:
    """Who has no ether for an opening learns how to do without."""
    try:
        yield
    except OutOfGas as error:
        advice = f"{error.advice}, or open a channel without any: penstock channel authorize"
        raise OutOfGas(str(error), advice, error.account, error.has, error.needs, error.by) from error


def _left_unpaid(row: SessionRow) -> bool:
    return not row.supplier_signature or row.receipt is None or row.receipt.unpaid > 0
