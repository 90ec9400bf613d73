"""What a site must keep to: nothing is told that is not durable, and no more is out than the limit allows."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from penstock.core.codec import decode
from penstock.core.errors import PenstockError
from penstock.core.grid import Orders
from penstock.core.messages import Accepted, Closing, Message, Metered, Paid, Receipted, Resumed
from penstock.core.offer import Terms
from penstock.core.session import SESSION_ROWS, SessionRow, State
from penstock.node import book
from penstock.node.supplier import Supplier
from penstock.rails.stream import EARNED_ROWS, TICK_ROWS, _parse_tick, decode_terms
from penstock.sim.filings import close_alone, finish
from penstock.sim.model import Forbidden
from penstock.sim.promises import Promises
from penstock.sim.reckoning import Turns, limits, sums
from penstock.sim.scenario import PACKAGE

if TYPE_CHECKING:
    from penstock.sim.actors import Outlet
    from penstock.sim.checks import Checks

LONGEST_WAIT = 240  # seconds: the patience of the actors, and again for each clock that was set back meanwhile
PAYABLE_EVERY = 8  # commits of ticks between two trials of what the contract would pay


Flows = tuple[int, int]
"""What went through a cable to cars, and out of them (units)."""


class Sale(NamedTuple):
    """A session that a site accepted: over which channel, at which outlet, and the flow there when it began."""

    digest: bytes
    channel: bytes
    terms: Terms
    start: int  # what was held in the channel when it began
    paid: int  # and promised in it by the site
    outlet: Outlet
    flow: Flows

    @property
    def limit(self) -> int:
        """What may be out unpaid: nothing where the consumer pays first."""
        return limits(self.terms)[0]


class SiteAudit:
    """Follows one site's disk, wires and cables."""

    def __init__(self, checks: Checks) -> None:
        self._checks, self._world = checks, checks.world
        self._sales: dict[bytes, Sale] = {}  # running, by terms
        self._unpaid: dict[bytes, int] = {}  # by channel: what sessions that are over left due, in all
        self._held: dict[bytes, tuple[bytes | None, bytes | None, int]] = {}
        self._receipts: dict[bytes, bytes] = {}  # by terms: the supplier's signature under the session's receipt
        self._stood: dict[bytes, tuple[tuple[object, ...], float]] = {}  # by terms: how it stands, and since when
        self._commits = 0
        self.promises = Promises(checks)  # to cars
        self._orders = Orders()
        self._stands: dict[str, Flows] = {}  # by pole: what had flowed when the grid gave its last orders

    # ---- the disk

    def committed(self, keys: list[bytes]) -> None:
        """The site's disk has more: everything that it holds now would be paid by the ledger, in full."""
        if self._world.site.cheat:
            return
        self._checks.check_over(self._world.site.disk, keys)
        for key in keys:
            if key.startswith(SESSION_ROWS):
                self._session_kept(key.removeprefix(SESSION_ROWS))
        disk, accounts = self._world.site.disk, self._world.chain.head.accounts
        self._commits += 1
        for channel, state in accounts.channels.items():
            rows = disk.rows.get(EARNED_ROWS + channel), disk.rows.get(TICK_ROWS + channel)
            before = self._held.get(channel)
            if rows[0] is None or (before is not None and before[:2] == rows):
                continue
            value = self._checks.secured(disk, channel)
            self._held[channel] = (*rows, value)
            self._check_kept(channel, before[2] if before else 0, value)
            fresh = before is None or before[0] != rows[0]
            if state.status == "open" and (fresh or self._commits % PAYABLE_EVERY == 0):
                self._check_payable(channel, value)

    def _session_kept(self, digest: bytes) -> None:
        """A session's row is durable. Where it is over, what it left unpaid stays so."""
        row, sale = book.session_of(self._world.site.disk, digest), self._sales.get(digest)
        if row is None:
            return
        self._check_receipt(digest, row)
        if sale is None or row.state is not State.ENDED:
            return
        left = self._out(sale, sale.outlet.cable.totals) - (self._secured(sale) - sale.start)
        del self._sales[digest]
        if left > 0 and not sale.outlet.spoiled:
            self._unpaid[sale.channel] = self._unpaid.get(sale.channel, 0) + left

    def _check_receipt(self, digest: bytes, row: SessionRow) -> None:
        """A session has one receipt, for ever."""
        if self._receipts.setdefault(digest, row.supplier_signature) != row.supplier_signature:
            if self._receipts[digest]:
                self._checks.fail("two receipts: the supplier signed another one for the same session")
            self._receipts[digest] = row.supplier_signature

    def _check_kept(self, channel: bytes, before: int, value: int) -> None:
        """What is held never falls, but to a bill that both sides sign: its voucher locks nothing."""
        evidence = book.evidence_of(self._world.site.disk, channel)
        if value < before and (evidence is None or evidence.filing.locks):
            self._checks.fail(f"durable: {before} were held in {channel.hex()[:8]}, now {value}")

    def _check_payable(self, channel: bytes, value: int) -> None:
        evidence = book.evidence_of(self._world.site.disk, channel)
        assert evidence is not None
        accounts, now = self._world.chain.head.accounts.copy(), self._world.chain.head.time + 1
        deposits = accounts.channels[channel].deposits
        try:
            if evidence.params.two_way:
                close_alone(accounts, evidence.params, evidence.filing, now)
            else:
                finish(accounts, evidence.params, evidence.filing, now)
        except (Forbidden, PenstockError) as error:
            self._checks.fail(f"payable: the ledger would not take what was accepted in {channel.hex()[:8]}: {error!r}")
            return
        paid = accounts.channels[channel].paid[1]
        if evidence.params.two_way:
            backed = deposits[0] + self.promises.most.get(channel, 0)
            if value > backed:
                self._checks.fail(f"payable: {value} were accepted in {channel.hex()[:8]}, {backed} are there")
            value = min(deposits[1] + value, sum(deposits))
        if paid != value:
            self._checks.fail(f"payable: {value} were accepted in {channel.hex()[:8]}, the ledger would pay {paid}")

    # ---- the wire

    def sends(self, supplier: Supplier, frame: bytes) -> None:
        """What a site says is durable there."""
        if self._world.site.cheat == "rollback":
            return
        message = decode(frame)
        untrue = self._untrue(supplier, message)
        if untrue:
            self._checks.fail(f"durable: {untrue}")
        elif isinstance(message, Accepted):
            self._sold(supplier)
        elif isinstance(message, Paid):
            self.promises.give(self._world.site.disk, book.account_in(_row(supplier)), message.evidence)
        elif isinstance(message, Receipted) and message.evidence:
            row = next(row for row in book.sessions(self._world.site.disk) if _receipted(row, message))
            self.promises.give(self._world.site.disk, book.account_in(row), (message.evidence,))

    def _untrue(self, supplier: Supplier, message: Message) -> str:
        """What a message says that is not durable, if anything."""
        disk = self._world.site.disk
        match message:
            case Accepted():
                if book.session_of(disk, _row(supplier).terms.digest()) is None:
                    return "a session was accepted that the disk does not know"
            case Metered():
                stream = decode_terms(_row(supplier).terms.rail_terms)
                if message.secured > self._checks.secured(disk, stream.params.id) - stream.amount:
                    return f"{message.secured} were acknowledged that the disk does not hold"
            case Receipted():
                if not any(_receipted(row, message) for row in book.sessions(disk)):
                    return "a receipt was sent that the disk does not hold"
            case Closing():
                known = book.channel_of(disk, message.channel)
                if known is None or known.close is None:
                    return "a close was acknowledged that the disk does not hold"
            case Resumed():
                row = book.session_of(disk, _row(supplier).terms.digest())
                if row is None or (row.turns, row.feed_turns) != (message.turns, message.feed_turns):
                    return "a resumption names turns of the bill that the disk does not hold"
                return self._claimed(book.account_in(row), message.state)
        return ""

    def _claimed(self, channel: bytes, state: bytes) -> str:
        evidence = book.evidence_of(self._world.site.disk, channel)
        nonce, count, _ = _parse_tick(state)
        proofs = evidence.filing.proofs if evidence else ()
        held = evidence.filing.voucher.nonce if evidence else 0
        if (nonce, count) > (held, proofs[0][0] if proofs else 0):
            return "a resumption claims ticks that the disk does not hold"
        return ""

    def _sold(self, supplier: Supplier) -> None:
        row = _row(supplier)
        stream = decode_terms(row.terms.rail_terms)
        outlet = self._world.site.outlets[supplier.pole.name]
        known = book.channel_of(self._world.site.disk, stream.params.id)
        if known is not None and known.close is not None:
            self._checks.fail("one close: a session was accepted over a channel whose close is signed")
        twice = any(sale.channel == stream.params.id for sale in self._sales.values())
        if twice and not self._world.site.cheat:
            self._checks.fail("one payer: two sessions are paid over the same channel")
        digest, start = row.terms.digest(), self._checks.secured(self._world.site.disk, stream.params.id)
        paid = stream.back.amount if stream.back is not None else 0
        self._sales[digest] = Sale(digest, stream.params.id, row.terms, start, paid, outlet, outlet.cable.totals)

    # ---- the cable

    def ordered(self, orders: Orders) -> None:
        """The grid wants something else from now on."""
        self._orders = orders
        self._stands = {name: outlet.cable.totals for name, outlet in self._world.site.outlets.items()}

    def step(self) -> None:
        """Whenever time may have passed: what has flowed and is not secured on the disk is within the limit."""
        if self._world.site.cheat:
            return
        for sale in self._sales.values():
            if not sale.outlet.spoiled:
                self._check_exposure(sale)
                self._check_linked(sale)
                self._check_patience(sale)
        self._check_barred()

    def allows(self, outlet: Outlet, total: int, export: int) -> None:
        """The valve is told to let it flow: as far as is paid for and durable, and the limit beyond that."""
        for sale in self._sales.values():
            if sale.outlet is outlet and not outlet.spoiled and not self._world.site.cheat:
                now, most = outlet.cable.totals, self._most(sale)
                if total > now[0] and export > now[1]:
                    self._checks.fail("interlock: the valve is told to open both ways at once")
                ends = product((now[0], max(now[0], total)), (now[1], max(now[1], export)))
                out = max(self._out(sale, flows) for flows in ends)
                if out > most:
                    self._checks.fail(f"exposure: supply is let go for {out}, the disk holds enough for {most}")

    def _check_exposure(self, sale: Sale) -> None:
        """Whichever way it flows, and whoever paid for it."""
        most, flows = self._most(sale), sale.outlet.cable.totals
        supplied, fed = flows[0] - sale.flow[0], flows[1] - sale.flow[1]
        if sale.terms.feed is None and sale.terms.offer.tariff.highest.cost(supplied) <= most:
            return
        if self._out(sale, flows) > most:
            self._checks.fail(
                f"exposure: {self._out(sale, flows)} are out for {supplied} units and {fed} fed in, which is more "
                f"than {most}: what is secured and the limit of {sale.limit}, less "
                f"{self._unpaid.get(sale.channel, 0)} left owing"
            )

    def _check_barred(self) -> None:
        """Where the grid wants nothing to flow, no more than a package has since it said so."""
        bars = self._orders.supply_limit == 0, self._orders.feed_limit == 0
        if self._orders.setpoint is not None:
            bars = bars[0] or self._orders.setpoint <= 0, bars[1] or self._orders.setpoint >= 0
        for name, stood in self._stands.items() if any(bars) else ():
            for barred, before, now in zip(bars, stood, self._world.site.outlets[name].cable.totals, strict=True):
                if barred and now - before > PACKAGE and not self._world.site.outlets[name].spoiled:
                    self._checks.fail(f"grid: {now - before} units flowed at {name} where nothing may")

    def _check_linked(self, sale: Sale) -> None:
        """Nothing flows while no consumer is there: none that could pay."""
        supplier = self._world.site.suppliers.get(sale.outlet.name)
        alone = supplier is not None and supplier.shell is not None and supplier.visit is None
        if alone and self._world.site.life.alive and sale.outlet.cable.flows:
            self._checks.fail("interlock: supply flows though the link is lost")

    def _check_patience(self, sale: Sale) -> None:
        """No session waits for ever for a consumer that is gone, or that owes and does not pay."""
        site = self._world.site
        supplier = site.suppliers.get(sale.outlet.name)
        alone, total, held = supplier is None or supplier.visit is None, sale.outlet.cable.totals, self._secured(sale)
        stands = alone, total, held, site.lives, site.life.alive
        before, since = self._stood.setdefault(sale.digest, (stands, self._world.loop.time()))
        if before != stands:
            self._stood[sale.digest] = stands, self._world.loop.time()
            return
        if self._world.loop.time() - since <= LONGEST_WAIT or not site.life.alive:
            return
        if alone or self._out(sale, total) - (held - sale.start) >= sale.terms.offer.tick_value:
            self._checks.fail(f"patience: a session has stood still for {LONGEST_WAIT} s")

    def _most(self, sale: Sale) -> int:
        """The worth, since the session began, that may have been let go by now."""
        return self._secured(sale) - sale.start + sale.limit - self._unpaid.get(sale.channel, 0)

    def _secured(self, sale: Sale) -> int:
        return self._checks.secured(self._world.site.disk, sale.channel)

    def _out(self, sale: Sale, flows: Flows) -> int:
        """What the site has given, less what came for it but payment, where the cable has let so much flow."""
        row = book.session_of(self._world.site.disk, sale.digest)
        live = self._world.site.suppliers.get(sale.outlet.name)
        turns: tuple[Turns, Turns] = (row.turns, row.feed_turns) if row else ((), ())
        if live is not None and live.shell is not None and live.shell.session.digest == sale.digest:
            account = live.shell.session.account
            turns = account.bill.turns, account.feed_turns
        due, owed = sums(sale.terms, *turns, flows[0] - sale.flow[0], flows[1] - sale.flow[1])
        return due - owed + max(0, self.promises.given.get(sale.channel, 0) - sale.paid)


def _row(supplier: Supplier) -> SessionRow:
    assert supplier.shell is not None
    return supplier.shell.session.row


def _receipted(row: SessionRow, message: Receipted) -> bool:
    return row.supplier_signature == message.signature
