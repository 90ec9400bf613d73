"""The acting halves of a rail: the till, where a supplier is paid over it, and the purse that a consumer pays from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from penstock.core.effects import Rows
from penstock.core.messages import AskClose, Reason
from penstock.core.offer import Offer, Terms
from penstock.core.ports import Mined
from penstock.core.rail import Capabilities, Ends, PayerEnd
from penstock.core.session import SessionRow
from penstock.core.units import Instant
from penstock.node.tasks import Tasks
from penstock.rails import escrow, hops, stream

RAILS: dict[str, Capabilities] = {
    one.name: one for one in (stream.CAPABILITIES, escrow.CAPABILITIES, hops.CAPABILITIES)
}
"""Every rail, by its name in offers and on the command line."""


class Till(Protocol):
    """The implementor's duty: who is admitted can pay; what is secured reaches the ledger in time, crashes included."""

    @property
    def name(self) -> str:
        """The rail's name."""
        ...

    @property
    def offer(self) -> bytes:
        """What a payer has to know, in the rail's own encoding."""
        ...

    @property
    def seen(self) -> Instant:
        """When the ledger answered last."""
        ...

    @property
    def watching(self) -> int:
        """How many accounts are looked at on the ledger."""
        ...

    @property
    def unsettled(self) -> int:
        """How many accounts could be settled now, and are not."""
        ...

    def start(self, tasks: Tasks) -> None:
        """Look after the accounts on the ledger from now on."""
        ...

    async def admit(self, terms: Terms, evidence: bytes) -> tuple[Ends, Rows]:
        """Check that these terms would be paid, and reserve what pays them. The rows go with the session's first.

        There is always a payee's end; a payer's, too, where the terms pay both ways.

        Raises:
            BadTerms: they would not. BadMessage, BadVoucher, BadSignature: the evidence.
            LedgerError: the ledger cannot tell.
        """
        ...

    def restore(self, row: SessionRow) -> Ends:
        """Our ends of a session that the journal knows, where we left it."""
        ...

    def begin(self, terms: Terms, stop: Callable[[Reason], None]) -> None:
        """A session streams under these terms; `stop` it where it would not be paid any more."""
        ...

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        ...

    def release(self, row: SessionRow) -> None:
        """The session is over; what it secured can be settled."""
        ...

    def leave(self, terms: Terms) -> None:
        """There is no session under these terms after all."""
        ...

    async def settle(self) -> list[Mined]:
        """Send to the ledger what can be settled.

        Raises:
            LedgerError: it did not take it; it stays for the next time.
        """
        ...


class Purse(Protocol):
    """The implementor's duty: what is promised is in the purse, and what was funded is never forgotten."""

    @property
    def name(self) -> str:
        """The rail's name."""
        ...

    @property
    def two_way(self) -> bool:
        """Whether we can be paid over it, too."""
        ...

    async def fund(self, offer: Offer, need: int, two_way: bool = False) -> bytes:
        """The rail's part of terms under which `need` token units can be paid: of an account that we have, or of a new
        one. In `two_way` terms the payee can pay us, too, by the offer's `feed`.

        Raises:
            BadTerms: the payee wants what we do not. LedgerError: the ledger does not take it.
            OutOfFunds: our wallet does not have it.
        """
        ...

    def ends(self, terms: Terms, secret: bytes, *, again: bool) -> Ends:
        """Our ends of a session under these terms; `again` takes up one that the journal knows.

        There is always a payer's end; a payee's, too, where the terms pay both ways. `secret` is 32 bytes, this
        session's alone.
        """
        ...

    async def guard(self, terms: Terms, stop: Callable[[Reason], None], clock: Callable[[], Instant]) -> None:
        """Until cancelled, look after what this session pays us on its ledger, and `stop` it where that is in danger.

        Returns at once where nothing is paid to us. To be run beside every session, from its acceptance on.
        """
        ...

    def facts(self, terms: Terms) -> dict[str, str]:
        """What pays the session, for the log."""
        ...

    def forget(self, payer: PayerEnd) -> Rows:
        """There was no session, and nothing was paid: the rows that say so."""
        ...

    async def other(self, terms: Terms) -> bool:
        """Whether the payee's refusal may be for the account, which is used no more then: another may do."""
        ...

    async def finish(self, terms: Terms) -> None:
        """The session is over: make final what it paid, as far as that takes anybody beside the payee."""
        ...

    async def close(self) -> None:
        """We need nobody beside the payee any more."""
        ...

    async def sign_off(self, terms: Terms, expiry: int) -> AskClose | None:
        """Sign the account's end over to the payee; None where the session's own end has done that."""
        ...
