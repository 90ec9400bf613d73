"""What must always hold (DESIGN section 7), checked from outside while the real node runs.

The checks look at disks, wires, cables and the chain, never at what the code under test believes. The first violation
is kept; the world stops at its next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from penstock.core.codec import decode, decode_part
from penstock.core.errors import PenstockError
from penstock.core.messages import Accepted, AskClose, Closing, Metered, Paid, Propose, Receipted, Resumed, Square
from penstock.core.offer import Offer
from penstock.core.session import SESSION_ROWS, Session, SessionRow, State
from penstock.core.tariff import Bill
from penstock.core.units import Amount, Quantity
from penstock.core.watcher import worth
from penstock.node import book
from penstock.node.book import SECRET_ROWS
from penstock.node.consumer import Consumer
from penstock.node.supplier import Supplier
from penstock.rails.stream import EARNED_ROWS, TICK_ROWS, VoucherNote, _parse_tick, decode_terms
from penstock.sim.chain import Block
from penstock.sim.disk import Disk
from penstock.sim.filings import finish
from penstock.sim.model import Forbidden
from penstock.sim.scenario import PROOF

if TYPE_CHECKING:
    from penstock.sim.actors import CarActor, Outlet
    from penstock.sim.world import World


class Violation(AssertionError):
    """Something that must always hold does not."""


class Sale(NamedTuple):
    """A session that a site accepted: over which channel, at which outlet, and the flow there when it began."""

    digest: bytes
    channel: bytes
    offer: Offer
    start: int  # the voucher's amount when it began
    outlet: Outlet
    flow: int


class Checks:
    """The checks of one world."""

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.world = world
        self.promised: dict[bytes, int] = {}  # by channel: the most that a car's evidence has been worth
        self._tokens = 0
        self._sales: dict[bytes, Sale] = {}  # running, by terms
        self._unpaid: dict[bytes, int] = {}  # by channel: what sessions that are over left due, in all
        self._worths: dict[bytes, tuple[bytes | None, bytes | None, int]] = {}
        self._commits = 0
        self._roots: dict[tuple[bytes, bytes], int] = {}  # of locks, by channel, and the voucher that brought each

    def fail(self, what: str) -> None:
        """Something does not hold."""
        if self.violation is None:
            self.violation = Violation(what)
            self.world.trace("checks", "VIOLATION", what=what)

    # ---- after every step

    def step(self) -> None:
        """Between two turns of the loop.

        Raises:
            Violation: something does not hold.
        """
        if self.violation is not None:
            raise self.violation
        for sale in self._sales.values():
            self._check_exposure(sale)

    def block(self, block: Block) -> None:
        """A block was made: no token is made or lost."""
        tokens = block.accounts.tokens
        if self._tokens and tokens != self._tokens:
            self.fail(f"there were {self._tokens} token units, now {tokens}")
        self._tokens = tokens

    def site_commit(self, keys: list[bytes]) -> None:
        """The site's disk has more: everything that it holds now would be paid by the ledger, in full."""
        if self.world.site.cheat:
            return
        for key in keys:
            if key.startswith(SESSION_ROWS):
                self._session_kept(key.removeprefix(SESSION_ROWS))
        disk, accounts = self.world.site.disk, self.world.chain.head.accounts
        self._commits += 1
        for channel, channel_state in accounts.channels.items():
            key = EARNED_ROWS + channel
            rows = disk.rows.get(key), disk.rows.get(TICK_ROWS + channel)
            if rows[0] is None or channel_state.status != "open":
                continue
            before = self._worths.get(channel)
            if before is not None and before[:2] == rows:
                continue
            fresh = before is None or before[0] != rows[0]
            value = self.secured(disk, channel)
            if fresh or self._commits % 8 == 0:
                self._check_payable(channel, value)

    def _check_payable(self, channel: bytes, value: int) -> None:
        evidence = book.evidence_of(self.world.site.disk, channel)
        assert evidence is not None
        accounts = self.world.chain.head.accounts.copy()
        try:
            finish(accounts, evidence.params, evidence.filing, self.world.chain.head.time + 1)
        except (Forbidden, PenstockError) as error:
            self.fail(f"the ledger would not take what was accepted in {channel.hex()[:8]}: {error!r}")
            return
        paid = accounts.channels[channel].paid[1]
        if paid != value:
            self.fail(f"{value} were accepted in {channel.hex()[:8]}, the ledger would pay {paid}")

    # ---- the supplier

    def secured(self, disk: Disk, channel: bytes) -> int:
        """What a site's disk is worth in a channel (token units)."""
        rows = disk.rows.get(EARNED_ROWS + channel), disk.rows.get(TICK_ROWS + channel)
        kept = self._worths.get(channel)
        if kept is None or kept[:2] != rows:
            evidence = book.evidence_of(disk, channel)
            kept = self._worths[channel] = (*rows, int(worth(evidence.filing if evidence else None)))
        return kept[2]

    def site_sends(self, supplier: Supplier, frame: bytes) -> None:
        """What a site says is durable there."""
        if self.world.site.cheat == "rollback":
            return
        disk, message = self.world.site.disk, decode(frame)
        match message:
            case Accepted():
                self._sold(supplier)
            case Metered():
                assert supplier.shell is not None
                row = supplier.shell.session.row
                stream = decode_terms(row.terms.rail_terms)
                if message.secured > self.secured(disk, stream.params.id) - stream.amount:
                    self.fail(f"{message.secured} were acknowledged, and are not durable")
            case Receipted():
                if not any(row.supplier_signature == message.signature for row in book.sessions(disk)):
                    self.fail("a receipt was sent that is not durable")
            case Closing():
                known = book.channel_of(disk, message.channel)
                if known is None or known.close is None:
                    self.fail("a close was acknowledged that is not durable")
            case Resumed():
                assert supplier.shell is not None
                channel = book.channel_in(supplier.shell.session.row)
                evidence = book.evidence_of(disk, channel)
                nonce, count, _ = _parse_tick(message.state)
                proofs = evidence.filing.proofs if evidence else ()
                held = evidence.filing.voucher.nonce if evidence else 0
                if (nonce, count) > (held, proofs[0][0] if proofs else 0):
                    self.fail("a resumption claims what is not durable")

    def _sold(self, supplier: Supplier) -> None:
        assert supplier.shell is not None
        session = supplier.shell.session
        if book.session_of(self.world.site.disk, session.digest) is None:
            self.fail("a session was accepted that is not durable")
        stream = decode_terms(session.terms.rail_terms)
        outlet = self.world.site.outlets[supplier.pole.name]
        channel, offer = stream.params.id, session.terms.offer
        self._sales[session.digest] = Sale(session.digest, channel, offer, stream.amount, outlet, outlet.cable.total)

    def _session_kept(self, digest: bytes) -> None:
        """A session's row is durable. Where it is over, what it left unpaid stays so."""
        row, sale = book.session_of(self.world.site.disk, digest), self._sales.get(digest)
        if row is None or sale is None or row.state is not State.ENDED:
            return
        del self._sales[digest]
        left = self._due(sale) - (self.secured(self.world.site.disk, sale.channel) - sale.start)
        if left > 0 and not sale.outlet.spoiled:
            self._unpaid[sale.channel] = self._unpaid.get(sale.channel, 0) + left

    def _due(self, sale: Sale) -> int:
        row = book.session_of(self.world.site.disk, sale.digest)
        live = self.world.site.suppliers.get(sale.outlet.name)
        turns: tuple[Quantity, ...] = row.turns if row else ()
        if live is not None and live.shell is not None and live.shell.session.digest == sale.digest:
            turns = live.shell.session.bill.turns
        return Bill(sale.offer.tariff, turns).due(sale.outlet.cable.total - sale.flow)

    def _check_exposure(self, sale: Sale) -> None:
        """In pay-after: what has flowed and is not secured on the disk. The other side's is checked where it pays."""
        if self.world.site.cheat or sale.outlet.spoiled:
            return
        limit = sale.offer.credit_limit if sale.offer.mode == "pay-after" else 0
        secured = self.secured(self.world.site.disk, sale.channel) - sale.start
        most = secured + limit - self._unpaid.get(sale.channel, 0)
        total = sale.outlet.cable.total - sale.flow
        if sale.offer.tariff.highest.cost(total) > most and self._due(sale) > most:
            self.fail(
                f"{self._due(sale)} are due for {total} units, {secured} are secured, {limit} is the limit, "
                f"{self._unpaid.get(sale.channel, 0)} were left owing before"
            )

    # ---- the consumer

    def car_sends(self, car: CarActor, consumer: Consumer, frame: bytes) -> None:
        """What a car gives away is written down, and no more than it may be without."""
        if car.cheat == "rollback":
            return
        message, disk = decode(frame), car.disk
        match message:
            case Propose():
                digest = message.terms.digest()
                if SECRET_ROWS + digest not in disk.rows or SESSION_ROWS + digest not in disk.rows:
                    self.fail("a session was proposed that is not durable")
                self._gave(car, decode_terms(message.terms.rail_terms).params.id, (message.evidence,))
            case Paid():
                session = _session(consumer)
                self._gave(car, book.channel_in(session.row), message.evidence)
                self._check_car(car, session)
            case Square():
                session = _session(consumer)
                row = book.session_of(disk, session.digest)
                if row is None or row.consumer_signature != message.signature:
                    self.fail("a receipt was sent that is not durable")
                self._gave(car, book.channel_in(session.row), (message.evidence,))
                self._check_car(car, session)
            case AskClose():
                known = book.channel_of(disk, message.channel)
                if known is None or known.close != message.close:
                    self.fail("a close was signed over that is not durable")

    def _gave(self, car: CarActor, channel: bytes, evidence: tuple[bytes, ...]) -> None:
        for one in evidence:
            paid = book.paid_of(car.disk, channel)
            held = paid.note.voucher if paid else None
            if one[:1] == b"\x02":
                note = decode_part(one[1:], VoucherNote)
                nonce, value = note.voucher.nonce, note.voucher.amount
                for lock in note.locks:
                    if self._roots.setdefault((channel, lock.root), nonce) != nonce:
                        self.fail(f"the chain under voucher {nonce} has been used before")
            else:
                nonce, count, _ = _parse_tick(one)
                if held is None or paid is None or nonce > held.nonce:
                    self.fail(f"ticks were revealed under voucher {nonce}, which is not durable")
                    return
                if nonce != held.nonce:
                    continue  # a fold in the same message follows
                value = held.amount + count * (paid.note.locks[0].tick_value if paid.note.locks else 0)
            if held is None or held.nonce < nonce:
                self.fail(f"voucher {nonce} was sent, and is not durable")
            self.promised[channel] = max(self.promised.get(channel, 0), value)

    def _check_car(self, car: CarActor, session: Session) -> None:
        """A car never gave more than what it got is worth, its own meter's tolerance and its limit aside."""
        if car.cheat or car.spoiled:
            return
        stream = decode_terms(session.terms.rail_terms)
        offer = session.terms.offer
        got = car.meter.total - session.row.base.total
        units, ppm = offer.tolerance.units, offer.tolerance.ppm
        most = (got + units) * 1_000_000 // (1_000_000 - ppm) + 1
        limit = offer.credit_limit if offer.mode == "pay-before" else 0
        given = self.promised.get(stream.params.id, 0) - stream.amount
        if given > Bill(offer.tariff, session.bill.turns).due(most) + limit:
            self.fail(f"{given} were given for {got} units, beyond tolerance and limit {limit}")

    # ---- at the end

    def final(self) -> None:
        """Everything is settled, and every honest party has what it is owed, to the last unit."""
        accounts, site = self.world.chain.head.accounts, self.world.site
        cars = {car.key.address: car for car in self.world.cars}
        for channel, state in accounts.channels.items():
            name, car = channel.hex()[:8], cars[accounts.params[channel].opener]
            known = book.channel_of(site.disk, channel) is not None
            if state.status != "ended":
                if (known and not site.cheat) or not car.cheat:
                    self.fail(f"channel {name} of {car.name} is {state.status} at the end")
                continue
            paid, secured = state.paid[1], self.secured(site.disk, channel)
            promised = self.promised.get(channel, 0)
            if not site.cheat and paid < secured:
                self.fail(f"channel {name} of {car.name} paid {paid}, its payee held {secured}")
            if not car.cheat and paid > promised:
                self.fail(f"channel {name} of {car.name} paid {paid}, its payer promised {promised}")
            if not (site.cheat or car.cheat) and paid != secured:
                self.fail(f"channel {name} of {car.name} paid {paid}, not the {secured} that were held")
        self._compare_receipts()

    def _compare_receipts(self) -> None:
        """Both sides hold the same receipts, and what they say was paid is what was paid."""
        site = self.world.site
        for car in self.world.cars:
            if car.cheat or site.cheat:
                continue
            if not car.bought or not car.bought[-1].complete or car.bought[-1].meter.total != PROOF:
                self.fail(f"{car.name} could not buy once all was healed")
            for row in book.sessions(car.disk):
                theirs = book.session_of(site.disk, row.terms.digest())
                if row.state is not State.ENDED:
                    self.fail(f"a session of {car.name} never ended")
                if row.supplier_signature and (theirs is None or theirs.receipt != row.receipt):
                    self.fail(f"a receipt of {car.name} is not its supplier's")
            self._compare_sums(car)

    def _compare_sums(self, car: CarActor) -> None:
        accounts, site = self.world.chain.head.accounts, self.world.site
        by_channel: dict[bytes, list[SessionRow]] = {}
        for row in book.sessions(site.disk):
            if row.terms.consumer == car.key.address:
                by_channel.setdefault(book.channel_in(row), []).append(row)
        for channel, rows in by_channel.items():
            receipts = [row.receipt for row in rows]
            if channel in accounts.channels and all(row.supplier_signature for row in rows):
                total = Amount(sum(receipt.paid for receipt in receipts if receipt))
                if accounts.channels[channel].paid[1] != total:
                    paid = accounts.channels[channel].paid[1]
                    self.fail(f"receipts of {car.name} say {total}, the ledger paid {paid}")


def _session(consumer: Consumer) -> Session:
    assert consumer.session is not None
    return consumer.session
