"""Where a site is paid over escrows: it takes their terms, signs what the meter says, and claims it in time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from penstock.core.channel import seconds
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, LedgerError, TransactionFailed, UsageError
from penstock.core.escrow import EscrowParams, end_digest
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reason
from penstock.core.offer import Terms
from penstock.core.ports import EscrowLedger, EscrowState, Journal, Mined, SignedEnd
from penstock.core.rail import Ends
from penstock.core.session import Role, SessionRow
from penstock.core.units import Amount, Instant
from penstock.node import book
from penstock.node.book import METER_ROW, EscrowRow
from penstock.node.escrow_ending import payable, settle
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell
from penstock.rails.escrow import (
    NAME,
    EscrowOffer,
    EscrowPayee,
    check_offer,
    check_terms,
    decode_terms,
)

MARGIN = 900  # seconds before its deadline at which a session ends: its reading has to be mined
PAUSE = 15.0  # seconds between two looks at the ledger
BATCH = 50  # ends in one transaction


class EscrowTill:
    """The escrows that pay a site, each one session."""

    name = NAME

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: EscrowLedger,
        clock: Callable[[], Instant],
        tell: Tell,
        max_window: int = 600,
        min_life: int = 4 * 3_600,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """We wait at most `max_window` seconds for what a reading releases, and want `min_life` seconds to stream and
        file in.

        Readings are signed by a key of the journal's own: that of a gateway, which attests to what its meter says. Who
        has another journal, or an old one, knows other escrows, and would contradict what was signed for these.
        `entropy(n)` gives n bytes that nobody can guess: that key, where the journal has none yet.
        """
        self.seen = clock()
        self._key, self._journal, self._ledger = key, journal, ledger
        self._clock, self._tell = clock, tell
        self._meter = book.meter_of(journal) or Key(entropy(32))
        self._offer = EscrowOffer(ledger.domain, key.address, key.address, self._meter.address, max_window, min_life)
        self.offer = encode(self._offer)
        self._ahead = 0  # seconds that the ledger's clock is ahead of ours
        self._stops: dict[bytes, Callable[[Reason], None]] = {}  # of the sessions that stream, by escrow
        self._in_use: set[bytes] = set()
        self._watched: dict[bytes, EscrowParams] = {}  # not settled for good
        self._lost: set[bytes] = set()  # those that were not claimed by their deadline
        self._ready: dict[bytes, None] = {}  # those for which something can be sent now
        for row in book.escrows(journal):
            if row.role is Role.SUPPLIER and not row.settled:
                self._watched[row.params.id] = row.params
                self._ready[row.params.id] = None

    @property
    def watching(self) -> int:
        """How many escrows are looked at on the ledger."""
        return len(self._watched)

    @property
    def unsettled(self) -> int:
        """For how many escrows something can be sent now."""
        return len(self._ready)

    def start(self, tasks: Tasks) -> None:
        """Look after the escrows from now on."""
        tasks.start(self._follow())

    async def admit(self, terms: Terms, evidence: bytes) -> tuple[Ends, Rows]:
        """Check that the escrow would pay, and reserve it (`Till`)."""
        check_offer(terms.offer)
        asked = decode_terms(terms.rail_terms)
        check_terms(self._offer, terms.offer, asked, await self._time())
        params = asked.params
        if params.payer_key != terms.consumer:  # all of an escrow's parameters are public
            raise BadTerms("the escrow is another consumer's", "fund one of your own")
        if params.id in self._in_use or book.escrow_of(self._journal, params.id) is not None:
            raise BadTerms("the escrow has paid a session already", "fund another for this one")
        self._in_use.add(params.id)
        try:
            state = await self._ledger.escrow(params)
            if state.status != "open" or state.claimed:
                raise BadTerms(f"the escrow is {state.status} on the ledger", "fund one, and wait until it is mined")
            if params.deposit < terms.offer.least_credit:
                raise BadTerms(
                    f"the escrow has {params.deposit} token units, too little for a first package",
                    f"fund one with at least {terms.offer.least_credit}",
                )
            payee = EscrowPayee(params, terms.offer, self._meter)
            rows = payee.take(evidence)
        except BaseException:
            self._in_use.discard(params.id)
            raise
        self._watched[params.id] = params
        record = EscrowRow(params, Role.SUPPLIER, terms.offer.tariff, terms.digest(), funded=True)
        if book.meter_of(self._journal) is None:  # it goes with every session until it is durable
            rows = (*rows, (METER_ROW, self._meter.secret))
        return Ends(None, payee), rows + record.rows()

    def restore(self, row: SessionRow) -> Ends:
        """Our end of a session that the journal knows (`Till`)."""
        params = decode_terms(row.terms.rail_terms).params
        self._in_use.add(params.id)
        self._watched[params.id] = params
        self._ready.pop(params.id, None)
        reading, end = book.reading_of(self._journal, params.id), book.end_of(self._journal, params.id)
        return Ends(None, EscrowPayee(params, row.terms.offer, self._meter, reading, end))

    def begin(self, terms: Terms, stop: Callable[[Reason], None]) -> None:
        """A session streams (`Till`): it is stopped where its escrow comes to its deadline."""
        self._stops[decode_terms(terms.rail_terms).params.id] = stop

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        return {"escrow": to_hex(decode_terms(terms.rail_terms).params.id)}

    def release(self, row: SessionRow) -> None:
        """The session is over (`Till`)."""
        self.leave(row.terms)
        self._ready[decode_terms(row.terms.rail_terms).params.id] = None

    def leave(self, terms: Terms) -> None:
        """No session uses the escrow any more (`Till`)."""
        escrow = decode_terms(terms.rail_terms).params.id
        self._in_use.discard(escrow)
        self._stops.pop(escrow, None)
        if book.escrow_of(self._journal, escrow) is None:
            self._watched.pop(escrow, None)

    async def settle(self) -> list[Mined]:
        """Claim what the ready escrows owe us: those whose end was signed in batches, others by their reading (`Till`).

        Raises:
            LedgerError: the ledger did not take it; they stay for the next time.
        """
        mined: list[Mined] = []
        while self._ready:
            batch = list(self._ready)[:BATCH]
            mined += await self._settle([row for row in (book.escrow_of(self._journal, id_) for id_ in batch) if row])
            for escrow in batch:
                self._ready.pop(escrow, None)
        return mined

    async def _settle(self, rows: list[EscrowRow]) -> list[Mined]:
        ends: list[SignedEnd] = []
        alone: list[EscrowRow] = []
        for row in rows:
            state = await self._look(row)
            note = book.end_of(self._journal, row.params.id)
            if state.status in ("absent", "ended"):
                continue
            if note is not None and not state.contested:
                ours = self._key.sign(end_digest(row.params, note.amount))
                ends.append(SignedEnd(row.params, Amount(note.amount), note.signature, ours))
            else:
                alone.append(row)
        mined = await self._end(ends) if ends else []
        for row in alone:
            mined += await self._alone(row)
        for row in rows:
            await self._look(row)
        return mined

    async def _end(self, ends: list[SignedEnd]) -> list[Mined]:
        try:
            mined = await self._ledger.end(self._key, ends)
        except TransactionFailed as error:  # one row alone, that a batch would have skipped
            self._tell("close failed", error=error.line())
            return []
        for end in ends:
            row = book.escrow_of(self._journal, end.params.id)
            if row is not None:
                await durable(self._journal, msgspec.structs.replace(row, mined=(*row.mined, *mined)).rows())
        self._tell("settled", escrows=len(ends))
        return mined

    async def _alone(self, row: EscrowRow) -> list[Mined]:
        """File the meter's last reading, or be paid what has matured."""
        try:
            mined, state = await settle(self._journal, self._ledger, self._key, row)
        except UsageError:
            return []  # there is nothing to be paid, or not yet
        except TransactionFailed as error:  # it must not keep the others waiting
            self._tell("not closed", escrow=to_hex(row.params.id), error=error.line())
            return []
        if state.status == "ending":
            self._tell("filed", escrow=to_hex(row.params.id), worth=state.claimed, gas=sum(one.gas for one in mined))
        return mined

    async def _look(self, row: EscrowRow) -> EscrowState:
        """The escrow on its ledger; it is watched no more once it has ended for good."""
        state = await self._ledger.escrow(row.params)
        self.seen = self._clock()
        if state.status == "ended" and await self._ledger.final(row.params):
            kept = book.escrow_of(self._journal, row.params.id) or row
            await durable(self._journal, msgspec.structs.replace(kept, settled=True).rows())
            self._watched.pop(row.params.id, None)
            self._tell("settled for good", escrow=to_hex(row.params.id), secured=state.drawn)
        return state

    async def _time(self) -> int:
        """The ledger's time (s). Where it is ahead of our clock, so are its deadlines."""
        now = await self._ledger.now()
        self.seen = self._clock()
        self._ahead = max(0, now - seconds(self.seen))
        return now

    async def _follow(self) -> None:
        """See what became of what was sent, what has matured, and which session comes to its escrow's deadline."""
        while True:
            await asyncio.sleep(PAUSE)
            now = seconds(self._clock()) + self._ahead
            for escrow, stop in list(self._stops.items()):
                params = self._watched.get(escrow)
                if params is None or now > params.deadline - MARGIN:
                    stop(Reason.CHANNEL_CLOSING)
            try:
                await self._turn()
            except LedgerError as error:
                age = max(0, self._clock() - self.seen) // 1000
                self._tell("ledger not seen", error=error.line(), for_s=str(age))

    async def _turn(self) -> None:
        await self._time()
        for escrow in list(self._watched):
            if escrow in self._in_use or escrow in self._ready:
                continue
            row = book.escrow_of(self._journal, escrow)
            if row is None or row.settled:
                continue
            state, now = await self._look(row), await self._time()
            ours = book.end_of(self._journal, escrow) or book.reading_of(self._journal, escrow)
            fileable = state.status == "open" and now < row.params.deadline and not state.contested
            matured = state.status in ("open", "ending") and state.claimed and payable(row.params, state, now)
            if matured or (ours and fileable):  # the latter may have been sent, and be out of the chain again
                self._ready[escrow] = None
            elif ours and state.status == "open" and not state.claimed and escrow not in self._lost:
                self._lost.add(escrow)
                self._tell("LOST: no answer came in time", escrow=to_hex(escrow))
