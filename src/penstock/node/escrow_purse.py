"""A consumer's escrows: one is funded for each session; what was not used comes back after its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, LedgerError, WrongLedger
from penstock.core.escrow import EscrowDomain, EscrowParams, tariff_hash
from penstock.core.identity import Key, to_hex
from penstock.core.messages import AskClose, Reason
from penstock.core.offer import Offer, Terms
from penstock.core.ports import EscrowLedger, Journal
from penstock.core.rail import Ends, PayerEnd
from penstock.core.session import Role
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.book import EscrowRow
from penstock.node.tasks import durable
from penstock.node.tell import Tell
from penstock.rails.escrow import (
    NAME,
    EscrowOffer,
    EscrowPayer,
    EscrowTerms,
    check_offer,
    decode_offer,
    decode_terms,
)

CONFIRMING = 900  # seconds that a deposit may take to be deep enough
WINDOW, LEAST_WINDOW = 600, 60  # seconds to object to a claim in
LIFE = 86_400  # seconds from the deposit to the deadline, unless the payee wants more


class EscrowPurse:
    """The escrows that a key pays from. `ledger` is called where one has to be funded."""

    name = NAME
    two_way = False

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Callable[[], Awaitable[EscrowLedger]],
        tell: Tell,
        life: int = LIFE,
        domain: EscrowDomain | None = None,
        window: int = WINDOW,
        least_window: int = LEAST_WINDOW,
    ) -> None:
        """`life` is how long our deposit may be held (s); `domain` the ledger whose token our sums are in (None: any
        that the payee is on). We want `window` seconds to object to a claim in, and take no fewer than `least_window`.
        """
        self._key = key
        self._journal = journal
        self._ledger = ledger
        self._tell = tell
        self._life, self._domain = life, domain
        self._window, self._least_window = window, least_window

    async def fund(self, offer: Offer, need: int, two_way: bool = False) -> bytes:
        """The rail's part of terms over an escrow with `need` in it (`Purse`): one that no session used, or a new one.

        Its parameters are kept before the money moves: without them nobody could get it back.
        """
        check_offer(offer)
        if two_way:
            raise BadTerms("an escrow pays one way, and cannot pay for what is fed in", "choose another with --rail")
        details = decode_offer(offer.rails[NAME])
        if self._domain is not None and details.domain != self._domain:
            raise WrongLedger(
                f"the supplier's escrows are kept by {to_hex(details.domain.contract)} on chain "
                f"{details.domain.chain_id}, ours by {to_hex(self._domain.contract)} on chain {self._domain.chain_id}",
                "use the ledger that the supplier is on",
            )
        if details.min_life > self._life:
            raise BadTerms(
                f"the supplier may hold our deposit for {details.min_life} s, {self._life} s are allowed",
                "look for another supplier",
            )
        if details.max_window < self._least_window:
            raise BadTerms(
                f"the supplier waits at most {details.max_window} s for its money, which leaves no time to object",
                "look for another supplier",
            )
        ledger = await self._ledger()
        row = await self._unused(ledger, details, offer, need) or await self._fresh(ledger, details, offer, need)
        return encode(EscrowTerms(row.params))

    def ends(self, terms: Terms, secret: bytes, *, again: bool) -> Ends:
        """Our end of a session (`Purse`); an escrow needs no secret."""
        params = decode_terms(terms.rail_terms).params
        if not again:
            if params.tariff != tariff_hash(terms.offer.tariff):
                raise BadTerms("the offer's price changed while the deposit was made", "try again")
            return Ends(EscrowPayer(params, terms.offer, self._key), None)
        reading, end = book.reading_of(self._journal, params.id), book.end_of(self._journal, params.id)
        return Ends(EscrowPayer(params, terms.offer, self._key, reading, end), None)

    async def guard(self, terms: Terms, stop: Callable[[Reason], None], clock: Callable[[], Instant]) -> None:
        """Nothing: an escrow pays its payer nothing (`Purse`)."""

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        return {"escrow": to_hex(decode_terms(terms.rail_terms).params.id)}

    def forget(self, payer: PayerEnd) -> Rows:
        """There was no session: nothing was signed, and the escrow can pay another."""
        return ()

    async def other(self, terms: Terms) -> bool:
        """Whether the payee refused this escrow because the ledger has it no more, as after a reorganisation.

        One that the payee has claimed in is no reason to fund another: it could go on so until nothing is left.
        """
        row = book.escrow_of(self._journal, decode_terms(terms.rail_terms).params.id)
        assert row is not None, "we proposed it"
        try:
            state = await (await self._ledger()).escrow(row.params)
        except LedgerError:
            return False
        if state.status != "absent":
            return False
        await durable(self._journal, msgspec.structs.replace(row, session=terms.digest()).rows())
        return True

    async def finish(self, terms: Terms) -> None:
        """Nothing is left to do: the session's own end has paid (`Purse`)."""

    async def close(self) -> None:
        """Nothing of ours is open (`Purse`)."""

    async def sign_off(self, terms: Terms, expiry: int) -> AskClose | None:
        """Nothing: the session's own end is the escrow's (`Purse`)."""
        return None

    async def _unused(self, ledger: EscrowLedger, details: EscrowOffer, offer: Offer, need: int) -> EscrowRow | None:
        """An escrow of ours that was funded for this payee, and that no session has used."""
        used = {book.account_in(row) for row in book.sessions(self._journal) if row.accepted}
        wanted = (details.domain, details.payee, details.payee_key, details.meter, tariff_hash(offer.tariff))
        for row in book.escrows(self._journal):
            params = row.params
            if row.role is not Role.CONSUMER or row.session or row.settled or params.id in used:
                continue
            if (params.domain, params.payee, params.payee_key, params.meter, params.tariff) != wanted:
                continue
            if params.payer != self._key.address or params.deposit != need or params.window > details.max_window:
                continue
            now = await ledger.now()
            if params.deadline < now + details.min_life + self._margin(details):
                continue
            state = await ledger.escrow(params)
            if state.status == "open" and not state.claimed:
                return row
        return None

    async def _fresh(self, ledger: EscrowLedger, details: EscrowOffer, offer: Offer, need: int) -> EscrowRow:
        params = EscrowParams(
            domain=details.domain,
            payer=self._key.address,
            payee=details.payee,
            payer_key=self._key.address,
            payee_key=details.payee_key,
            meter=details.meter,
            tariff=tariff_hash(offer.tariff),
            deposit=need,
            deadline=await ledger.now() + self._life,
            window=min(self._window, details.max_window),
            counter=ledger.fresh_counter(),
        )
        params.check()
        row = EscrowRow(params, Role.CONSUMER, offer.tariff)
        await durable(self._journal, row.rows())
        self._tell("funding", escrow=to_hex(params.id), deposit=need)
        mined = await ledger.fund(self._key, params)
        await self._deep_enough(ledger, params)
        row = msgspec.structs.replace(row, funded=True, mined=tuple(mined))
        await durable(self._journal, row.rows())
        self._tell("funded", escrow=to_hex(params.id), gas=sum(one.gas for one in mined))
        return row

    @staticmethod
    def _margin(details: EscrowOffer) -> int:
        """Seconds that may pass until the payee looks at the deadline."""
        return 60

    async def _deep_enough(self, ledger: EscrowLedger, params: EscrowParams) -> None:
        """Wait until the deposit counts: the supplier looks at the same chain, and would refuse it before.

        Raises:
            LedgerError: it does not come; a reorganisation may have taken it out again.
        """
        for _ in range(CONFIRMING):
            if (await ledger.escrow(params)).status == "open":
                return
            self._tell("waiting for confirmations", escrow=to_hex(params.id))
            await asyncio.sleep(1)
        raise LedgerError(
            f"the deposit in escrow {to_hex(params.id)[:10]}... is not final after {CONFIRMING} s",
            "try again: what the ledger has then counts",
        )
