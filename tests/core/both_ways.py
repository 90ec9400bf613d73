"""Sessions whose flow turns round over a two-way channel, without a shell or a ledger (`testing.rail.both`)."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.codec import encode
from penstock.core.offer import Feed, Terms
from penstock.core.rail import Ends
from penstock.core.session import Role
from penstock.core.tariff import Tariff
from penstock.rails.stream import (
    EARNED_ROWS,
    PAID_ROWS,
    TICK_ROWS,
    StreamBack,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    decode_earned,
    decode_paid,
    pair,
)
from penstock.testing.rail import both
from penstock.testing.rail.both import Machine
from penstock.testing.rail.setup import Books

from .pair import CONSUMER, PARAMS, SECRET, START, SUPPLIER, make_offer, make_terms

__all__ = ["START", "Both", "Machine", "Streams", "feed_terms"]


class Streams:
    """A two-way channel, funded by either side."""

    params = msgspec.structs.replace(PARAMS, two_way=True)

    def __init__(self, deposit: int = 10_000_000, stake: int = 0, tick: int = 1_000, back: int = 800) -> None:
        self.deposit, self.stake = deposit, stake
        self.stream = StreamTerms(self.params, 0, 0, tick, StreamBack(0, 0, back))

    def terms(self) -> bytes:
        return encode(self.stream)

    def both(self, role: Role, books: Books) -> Ends:
        earned, ticks = books.get(EARNED_ROWS + self.params.id), books.get(TICK_ROWS + self.params.id)
        paid = books.get(PAID_ROWS + self.params.id)
        pays_back = role is Role.SUPPLIER
        ours, theirs = (self.stake, self.deposit) if pays_back else (self.deposit, self.stake)
        key, secret = (SUPPLIER, b"\x08" * 32) if pays_back else (CONSUMER, SECRET)
        payer = StreamPayer(self.stream, ours, key, secret, decode_paid(paid) if paid else None, back=pays_back)
        row = decode_earned(earned) if earned else None
        payee = StreamPayee(self.stream, theirs, row, ticks, back=not pays_back)
        pair(payer, payee)
        return Ends(payer, payee)


def feed_terms(rail: Streams, feed_limit: int = 400, **changes: Any) -> Terms:
    """0.40 EUR/kWh to the car, 0.50 back; with `changes` to the offer."""
    feed = changes.pop("feed", None) or Feed(Tariff.flat(500_000, 1_000), 800, 3, 2_400, 1_000)
    return make_terms(make_offer(feed=feed, **changes), rail_terms=rail.terms(), feed_limit=feed_limit)


class Both(both.Both):
    """A supplier and a consumer on one line, under one clock, over a channel."""

    def __init__(self, rail: Streams, terms: Terms | None = None) -> None:
        super().__init__(rail, terms or feed_terms(rail), SUPPLIER, CONSUMER)
