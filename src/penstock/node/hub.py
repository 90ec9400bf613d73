"""A hub: lends capacity between the channels that come to it and those that it has opened, and sells nothing itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from penstock.core.errors import PeerRefused
from penstock.core.hops import Incoming
from penstock.core.identity import Key, to_hex
from penstock.core.messages import Reached
from penstock.core.ports import Journal, Ledger, Link
from penstock.core.session import Role
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.book import REACH_ROWS, ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.incoming import Incomings, Terms
from penstock.node.ledger_time import LedgerTime
from penstock.node.outgoing import Neighbour
from penstock.node.relay import Fees, Relay
from penstock.node.site import Site
from penstock.node.tasks import durable
from penstock.node.tell import Tell
from penstock.node.visit import Asked, Visit, Visits
from penstock.rails.stream import StreamOffer

Dial = Callable[[], Awaitable[Link]]


class Hub:
    """Takes links as a `Door` does, and keeps links to those whom it reaches."""

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Ledger,
        clock: Callable[[], Instant],
        tell: Tell,
        reach: Mapping[str, Dial],
        lend: int,
        fees: Fees,
        terms: Terms | None = None,
        period: int = 3_600,
        linger: int = 30,
    ) -> None:
        """`reach` dials whom the hub pays, by HOST:PORT; it opens a channel to each, with `lend` token units in it and
        a challenge period of `period` seconds. `linger` is `LedgerTime`'s.
        """
        self.key, self.journal, self.tell = key, journal, tell
        self._ledger, self._lend, self._period = ledger, lend, period
        self._time = LedgerTime(ledger, clock, linger)
        self.incomings = Incomings(key, journal, ledger, clock, tell, terms, self._time)
        self.relay = Relay(self.incomings, fees, tell)
        self.incomings.begin(self.relay)
        self.site = Site(key, journal, clock, tell, [])
        self.site.incomings = self.incomings
        self.incomings.fail = self.site.fail
        self.visits = Visits()
        self._purse = ChannelPurse(key, journal, self._at, tell, lend, period, ledger.domain)
        self._neighbours = {endpoint: self._neighbour(endpoint, dial) for endpoint, dial in reach.items()}

    async def _at(self) -> Ledger:
        return self._ledger

    def _neighbour(self, endpoint: str, dial: Dial) -> Neighbour:
        async def find(reached: Reached) -> ChannelRow:
            return await self._channel(endpoint, reached)

        return Neighbour(
            self.key, self.journal, dial, find, self._at, self._time, self.tell, self.relay, self.site.fail
        )

    async def start(self) -> None:
        """Take up what the journal knows, and look after it from now on."""
        rows = {
            row.params.id: row
            for row in book.each_channel(self.journal)
            if row.role is Role.CONSUMER and not row.settled
        }
        known = {bytes(value): key[len(REACH_ROWS) :].decode() for key, value in self.journal.load(REACH_ROWS)}
        for row in rows.values():
            endpoint = known.get(row.params.partner, "")
            neighbour = self._neighbours.get(endpoint)
            used = book.hops_out(self.journal, row.params.id)[0].signature
            if neighbour is not None and neighbour.outgoing is None and not row.over and (row.deposit or used):
                neighbour.take_up(row)
                self.relay.neighbours[row.params.partner] = neighbour
            elif used:  # without locks, too: old vouchers had some
                self._part_with(row)
        await self.relay.resume()
        self.incomings.start(self.site.tasks)
        for neighbour in self._neighbours.values():
            self.site.tasks.start(neighbour.run())

    def _part_with(self, row: ChannelRow) -> None:
        """Lend nothing over a channel any more, but see how the locks in it fare on the ledger."""
        former = self._neighbour("", _nobody)
        former.take_up(row)
        former.closing = True
        self.relay.former.append(former)
        self.site.tasks.start(former.run())

    async def _channel(self, endpoint: str, reached: Reached) -> ChannelRow:
        """The channel to whom we have just reached: one that is open, or a new one."""
        neighbour = self._neighbours[endpoint]
        if neighbour.outgoing is not None:
            row = book.channel_of(self.journal, neighbour.outgoing.params.id)
            if row is not None and neighbour.outgoing.row.signature:
                self._part_with(row)
            neighbour.outgoing, neighbour.closing = None, False
        wanted = StreamOffer(reached.domain, reached.node, reached.node, reached.min_period)
        row = await self._purse.channel(wanted, 1, self._lend, max(self._period, reached.min_period))
        await durable(self.journal, ((REACH_ROWS + endpoint.encode(), reached.node),))
        self.relay.neighbours[reached.node] = neighbour
        return row

    # ---- a door

    def on_link(self, link: Link) -> None:
        """A peer has come."""
        self.visits.add(Visit(self, link))

    def pole_for(self, asked: Asked) -> Any:
        """There is none (`Door`).

        Raises:
            PeerRefused: always.
        """
        raise PeerRefused("this is a hub: it sells nothing", "ask a supplier, and name the hub with --hub")

    def left(self, visit: Visit, in_order: bool) -> None:
        """A visit's link is gone (`Door`)."""
        self.visits.discard(visit)

    async def close(self) -> None:
        """Let go; what is locked stays so, and is taken up at the next start."""
        await self.site.close()
        await self.incomings.close()

    # ---- for the operator

    def standing(self) -> dict[str, Any]:
        """How the hub stands: capacity in and out, locks, fees earned, and what is at risk until when (token units)."""
        ins = [self._in(one) for one in self.incomings.channels.values()]
        outs = [self._out(one) for one in (*self.relay.neighbours.values(), *self.relay.former) if one.outgoing]
        held = [lock for one in self.incomings.channels.values() for lock in one.locks.values()]
        proven = [lock for lock in held if lock.count]
        return {
            "hub": to_hex(self.key.address),
            "in": ins,
            "out": outs,
            "locks": len(held),
            "carried": self.relay.carried,
            "messages": self.relay.messages,
            "fees": sum(one["earned"] for one in ins) - sum(one["paid"] for one in outs),
            "at_risk": sum(lock.worth for lock in proven),
            "until": min((lock.lock.expiry for lock in proven), default=None),
            "seen_s": max(0, self.site.clock() - self._time.seen) // 1000 if self._time.seen else None,
        }

    def _in(self, one: Incoming) -> dict[str, Any]:
        voucher = one.row.voucher
        return {
            "channel": to_hex(one.params.id),
            "from": to_hex(one.params.opener),
            "deposit": one.deposit,
            "earned": voucher.amount,
            "locked": voucher.locked,
            "locks": len(one.locks),
            "free": max(0, one.deposit - voucher.amount - voucher.locked),
            "period_s": one.params.period,
            "state": "closing" if self.incomings.lookout.closing(one.params.id) else "open",
        }

    def _out(self, one: Neighbour) -> dict[str, Any]:
        out = one.outgoing
        assert out is not None
        return {
            "channel": to_hex(out.params.id),
            "to": to_hex(out.params.partner),
            "deposit": out.deposit,
            "paid": out.row.voucher.amount,
            "locked": out.row.voucher.locked,
            "locks": len(out.all),
            "free": out.free,
            "state": "closing" if one.closing else "open" if one.ready.is_set() else "not reached",
        }


async def _nobody() -> Link:
    raise PeerRefused("no lock goes over this channel any more")
