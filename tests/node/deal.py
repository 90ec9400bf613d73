"""A car and a pole that pay each other over one two-way channel: real purse, till, journals and ledger, and no link.

What a session would send is handed over by hand, durable before it is acted on, so that a test can stop anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from penstock.core.channel import ChannelParams
from penstock.core.codec import encode
from penstock.core.errors import RemoteError
from penstock.core.identity import Key
from penstock.core.messages import AskClose, Reason
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Feed, Offer, Receipt, Terms, accept_digest, propose_digest
from penstock.core.ports import Journal, Ledger
from penstock.core.rail import Ends, Evidence, PayeeEnd, PayerEnd
from penstock.core.session import SESSION_ROWS, Role, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.node import book
from penstock.node.book import SECRET_ROWS, ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.channel_till import ChannelTill
from penstock.node.tasks import durable
from penstock.rails.stream import NAME

TICK, FEED_TICK = 100, 60
DEPOSIT = 50_000
TOLD = 60_000  # ms that an offer is good for
FEED = Feed(Tariff.flat(300_000, 1_000), FEED_TICK, 3, 2_000, 100_000)


def offer_of(till: ChannelTill, now: Instant, **changes: Any) -> Offer:
    """What the pole sells, and takes back."""
    offer = Offer(
        supplier=till.key.address,
        name="pole",
        medium="electricity",
        tariff=Tariff.flat(400_000, 1_000),
        tick_value=TICK,
        package=3,
        credit_limit=2_000,
        mode="pay-after",
        tolerance=Tolerance(2, 20_000),
        rails={NAME: till.offer},
        meter="",
        expires=Instant(now + TOLD),
        feed=FEED,
    )
    return msgspec.structs.replace(offer, **changes)


class Deal:
    """The two of them, and the session that runs, if one does."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], Instant],
        car: tuple[Key, Journal],
        till: ChannelTill,
        told: Callable[..., None],
    ) -> None:
        self.ledger, self.clock, self.told = ledger, clock, told
        self.car, self.journal = car
        self.till = till

        async def found() -> Ledger:
            return ledger

        self.purse = ChannelPurse(self.car, self.journal, found, told)
        self.terms: Terms
        self.mine: Ends  # the car's
        self.theirs: Ends

    async def begin(self, need: int = DEPOSIT, two_way: bool = True, **changes: Any) -> None:
        """A session is agreed on, and both have written down that it is."""
        now = self.clock()
        offer = offer_of(self.till, now)
        details = changes.pop("details", None) or await self.purse.fund(offer, need, two_way)
        self.terms = msgspec.structs.replace(
            Terms(
                offer=offer,
                consumer=self.car.address,
                rail=NAME,
                rail_terms=details,
                quantity_limit=100_000,
                budget=10**9,
                at=now,
                nonce=os.urandom(16),
                feed_limit=100_000 if two_way else None,
            ),
            **changes,
        )
        digest, secret = self.terms.digest(), os.urandom(32)
        self.mine = self.purse.ends(self.terms, secret, again=False)
        opening = payer_of(self.mine).open()
        proposed = self._row(Role.CONSUMER, accepted=b"")
        await durable(self.journal, (*opening.rows, (SECRET_ROWS + digest, secret), proposed))
        try:
            self.theirs, rows = await self.till.admit(self.terms, opening.data)
        except RemoteError:
            await durable(self.journal, self.purse.forget(payer_of(self.mine)))
            raise
        await durable(self.till.journal, (*rows, self._row(Role.SUPPLIER)))
        await durable(self.journal, [self._row(Role.CONSUMER)])

    def _row(self, role: Role, **ended: Any) -> tuple[bytes, bytes]:
        digest, key = self.terms.digest(), self.till.key
        signatures = self.car.sign(propose_digest(digest)), key.sign(accept_digest(digest))
        row = SessionRow(role, self.terms, *signatures, Reading(Quantity(0), self.clock()))
        return SESSION_ROWS + digest, encode(msgspec.structs.replace(row, **ended))

    async def again(self) -> None:
        """Both processes die, and take the session up from their journals."""
        secret = book.one(self.journal, SECRET_ROWS + self.terms.digest())
        assert secret is not None
        self.mine = self.purse.ends(self.terms, secret, again=True)
        row = book.session_of(self.till.journal, self.terms.digest())
        assert row is not None
        self.theirs = self.till.restore(row)
        for payer, payee, ours, others in self._ways():
            await self._give(payer_of(payer).resume(payee_of(payee).state()), payee, ours, others)

    async def pay(self, amount: int, back: bool = False, fold: bool = True) -> None:
        """The car pays so much more, or is paid back: in ticks, and folded where the payer folds."""
        payer, payee, ours, others = self._ways()[back]
        end = payer_of(payer)
        upto = end.paid + amount
        while evidence := end.pay(upto):
            await self._give(evidence, payee, ours, others)
        if fold:
            await self._give(end.fold(), payee, ours, others)

    async def finish(self) -> None:
        """Both square what they have paid, and sign a receipt."""
        for payer, payee, ours, others in self._ways():
            if payer.payer is not None:
                paid = payer.payer.paid
                await self._give([payer.payer.square(paid)], payee, ours, others, paid)
        repaid = payer_of(self.theirs).paid if self.theirs.payer else 0
        receipt = Receipt(
            self.terms.digest(), Quantity(0), Quantity(0), Amount(payer_of(self.mine).paid), Amount(0), 0,
            Reason.OPERATOR, self.clock(), repaid=Amount(repaid),
        )  # fmt: skip
        ended = {
            "state": State.ENDED,
            "receipt": receipt,
            "consumer_signature": self.car.sign(receipt.digest()),
            "supplier_signature": self.till.key.sign(receipt.digest()),
        }
        for role, journal in ((Role.CONSUMER, self.journal), (Role.SUPPLIER, self.till.journal)):
            await durable(journal, [self._row(role, **ended)])
        self.leave()

    def leave(self) -> None:
        """The till hears that the session is over."""
        row = book.session_of(self.till.journal, self.terms.digest())
        assert row is not None
        self.till.release(row)

    async def sign_off(self) -> AskClose:
        """The car signs the channel's end."""
        ask = await self.purse.sign_off(self.terms, int(self.clock() // 1000) + 86_400)
        assert ask is not None
        return ask

    def rows(self) -> tuple[ChannelRow, ChannelRow]:
        """The channel as the car and as the pole have it."""
        channel = book.account_in(SessionRow(Role.CONSUMER, self.terms, b"", b"", Reading(Quantity(0), self.clock())))
        found = book.channel_of(self.journal, channel), book.channel_of(self.till.journal, channel)
        assert found[0] is not None
        assert found[1] is not None
        return found[0], found[1]

    @property
    def params(self) -> ChannelParams:
        """The channel."""
        return self.rows()[0].params

    def _ways(self) -> tuple[tuple[Ends, Ends, Journal, Journal], tuple[Ends, Ends, Journal, Journal]]:
        ours, others = self.journal, self.till.journal
        return (self.mine, self.theirs, ours, others), (self.theirs, self.mine, others, ours)

    @staticmethod
    async def _give(
        evidence: Iterable[Evidence], payee: Ends, ours: Journal, others: Journal, least: int | None = None
    ) -> None:
        for one in evidence:
            await durable(ours, one.rows)
            await durable(others, payee_of(payee).take(one.data, least))


def payer_of(ends: Ends) -> PayerEnd:
    """The end that pays."""
    assert ends.payer is not None
    return ends.payer


def payee_of(ends: Ends) -> PayeeEnd:
    """The end that is paid."""
    assert ends.payee is not None
    return ends.payee
