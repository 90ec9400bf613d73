"""What must hold where payments go over hubs: a hub never stands between two that can both take from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.codec import decode
from penstock.core.hops import (
    IN_ROWS,
    OUT_ROWS,
    InLock,
    OutLock,
    Place,
    decode_in,
    decode_in_lock,
    decode_out,
    decode_out_lock,
    lock_key,
)
from penstock.core.messages import (
    Accepted,
    Add,
    Message,
    Metered,
    Paid,
    Promise,
    Propose,
    Receipted,
    Resumed,
    Square,
    Taken,
    Told,
)
from penstock.core.session import SESSION_ROWS
from penstock.core.units import Quantity
from penstock.node import book
from penstock.node.book import SECRET_ROWS
from penstock.node.supplier import Supplier
from penstock.rails.hops import END_ROWS, TICK_ROWS, decode_terms, proof_in
from penstock.sim.audit_cars import CarAudit, _session
from penstock.sim.audit_site import Sale, SiteAudit, _receipted, _row
from penstock.sim.checks import Checks
from penstock.sim.disk import Disk
from penstock.sim.hub_scenario import DELTA, FEES
from penstock.sim.reckoning import limits, sums

if TYPE_CHECKING:
    from penstock.core.session import Session
    from penstock.node.consumer import Consumer
    from penstock.sim.actors import Actor, CarActor
    from penstock.sim.hub_actors import HubActor
    from penstock.sim.hub_world import HubWorld


class HubChecks(Checks):
    """The checks of a world over hubs."""

    world: HubWorld
    site: HubSiteAudit
    cars: HubCarAudit

    def __init__(self, world: HubWorld) -> None:
        super().__init__(world)
        self.site = HubSiteAudit(self)
        self.cars = HubCarAudit(self)
        self.hubs = HubAudit(self)

    def secured(self, disk: Disk, channel: bytes) -> int:
        """What the site's disk is worth by the lock of that root (token units)."""
        if (end := disk.rows.get(END_ROWS + channel)) is not None:
            return proof_in(end)[2]
        ticks = disk.rows.get(TICK_ROWS + channel)
        return proof_in(ticks)[0] * self.world.scenario.tick if ticks else 0

    def final(self) -> None:
        from penstock.sim.hub_end import audit_end

        audit_end(self)


class HubAudit:
    """Follows the wires between neighbours, and the disks of hubs."""

    def __init__(self, checks: HubChecks) -> None:
        self._checks = checks
        self.said: dict[bytes, list[tuple[float, str]]] = {}  # by root: what neighbours said of a lock, and when
        self._roots: dict[Place, bytes] = {}
        self._signed: dict[tuple[bytes, int], bytes] = {}

    # ---- the wire

    def sends(self, actor: Actor, frame: bytes) -> None:
        """What a neighbour says is durable there; it promises nothing twice."""
        self._checks.world.trace.quiet(actor.name, "sends", frame)
        message, rows = decode(frame), actor.disk.rows
        self._note(message)
        if actor.cheat:
            return
        match message:
            case Promise(channel=channel):
                kept = rows.get(OUT_ROWS + channel)
                if kept is None or decode_out(kept).signature != message.signature:
                    self._checks.fail(f"durable: {actor.name} promised what its disk does not hold")
                if self._signed.setdefault((channel, message.voucher.nonce), message.signature) != message.signature:
                    self._checks.fail(f"no signature twice: {actor.name} has signed two vouchers of the same nonce")
            case Taken(channel=channel):
                kept = rows.get(IN_ROWS + channel)
                if kept is None or decode_in(kept).voucher.nonce < message.nonce:
                    self._checks.fail(f"durable: {actor.name} has released for a voucher that its disk does not hold")
            case Told():
                self._told(actor, message)

    def _told(self, actor: Actor, told: Told) -> None:
        place = Place(told.channel, told.number)
        kept = actor.disk.rows.get(lock_key(IN_ROWS, place))
        held = decode_in_lock(kept) if kept else None
        if held is None or held.told(place) != told:
            self._checks.fail(f"durable: {actor.name} told of a lock what its disk does not hold")

    def _note(self, message: Message) -> None:
        now = self._checks.world.loop.time()
        if isinstance(message, Promise):
            for change in message.changes:
                place = Place(message.channel, change.number)
                if isinstance(change, Add):
                    self._roots[place] = change.lock.root
                self.said.setdefault(self._roots.get(place, b""), []).append((now, type(change).__name__))
        elif isinstance(message, Told):
            root = self._roots.get(Place(message.channel, message.number), b"")
            self.said.setdefault(root, []).append((now, "Told"))

    # ---- the disks

    def committed(self, hub: HubActor, keys: list[bytes]) -> None:
        """A hub's disk has more: for every lock that can still be claimed from it, there is one that pays for it."""
        if hub.cheat:
            return
        self._checks.check_over(hub.disk, keys)
        if not any(key.startswith((IN_ROWS, OUT_ROWS)) for key in keys):
            return
        paying: dict[Place, Place] = {}
        for key, value in hub.disk.load(OUT_ROWS):
            at = key.removeprefix(OUT_ROWS)
            if len(at) > 32:
                out = decode_out_lock(value)
                self._pair(hub, Place(at[:32], int.from_bytes(at[32:], "big")), out, paying)

    def _pair(self, hub: HubActor, place: Place, out: OutLock, paying: dict[Place, Place]) -> None:
        now = self._checks.world.chain.head.time
        if now >= out.lock.expiry:
            return
        if out.origin is None:
            self._checks.fail(f"pairs: {hub.name} promises a lock that nobody pays for")
            return
        if paying.setdefault(out.origin, place) != place:
            self._checks.fail(f"pairs: {hub.name} promises two locks for one")
        kept = hub.disk.rows.get(lock_key(IN_ROWS, out.origin))
        if kept is not None:  # else its payer has paid for all of it
            self._fits(hub, place, out, decode_in_lock(kept))

    def _fits(self, hub: HubActor, place: Place, out: OutLock, held: InLock) -> None:
        lock, paid = out.lock, held.lock
        if held.out != place:
            self._checks.fail(
                f"pairs: {hub.name} would not know after a crash which lock pays for one that it promises"
            )
        if (lock.root, lock.ticks) != (paid.root, paid.ticks) or paid.tick_value < FEES.tick(lock.tick_value):
            self._checks.fail(f"pairs: {hub.name} promises {lock.tick_value} a tick for {paid.tick_value}")
        if paid.expiry < lock.expiry + DELTA:
            self._checks.fail(f"pairs: a lock of {hub.name} lasts until {lock.expiry}, the one that pays {paid.expiry}")
        if held.done is not None and held.count < lock.ticks:
            self._checks.fail(f"released: {hub.name} let its payer off before its payee had released the lock")


class HubSiteAudit(SiteAudit):
    """Follows a site that is paid over hubs. A sale's `channel` is the root of its lock."""

    _checks: HubChecks

    def __init__(self, checks: HubChecks) -> None:
        super().__init__(checks)
        self.times: dict[bytes, list[float]] = {}  # by root: when its session began, and when its receipt was signed

    def committed(self, keys: list[bytes]) -> None:
        if self._world.site.cheat:
            return
        self._checks.check_over(self._world.site.disk, keys)
        for key in keys:
            if key.startswith(SESSION_ROWS):
                self._session_kept(key.removeprefix(SESSION_ROWS))

    def sends(self, supplier: Supplier, frame: bytes) -> None:
        message = decode(frame)
        self._checks.hubs.sends(self._world.site, frame)
        if self._world.site.cheat:
            return
        if untrue := self._untrue(supplier, message):
            self._checks.fail(f"durable: {untrue}")
        elif isinstance(message, Accepted):
            self._sold(supplier)
        elif isinstance(message, Receipted):
            row = next(row for row in book.sessions(self._world.site.disk) if _receipted(row, message))
            self.times.setdefault(book.account_in(row), []).append(self._world.loop.time())

    def _untrue(self, supplier: Supplier, message: Message) -> str:
        disk = self._world.site.disk
        if isinstance(message, Metered):
            held = self._checks.secured(disk, book.account_in(_row(supplier)))
            return f"{message.secured} were acknowledged of the {held} on the disk" if message.secured > held else ""
        if isinstance(message, Resumed):
            row = book.session_of(disk, _row(supplier).terms.digest())
            if row is None or row.turns != message.turns:
                return "a resumption names turns of the bill that the disk does not hold"
            kept = disk.rows.get(TICK_ROWS + book.account_in(row))
            if proof_in(message.state)[0] > (proof_in(kept)[0] if kept else 0):
                return "a resumption claims ticks that the disk does not hold"
            return ""
        return super()._untrue(supplier, message)

    def _sold(self, supplier: Supplier) -> None:
        row, outlet = _row(supplier), self._world.site.outlets[supplier.pole.name]
        root, digest = book.account_in(row), row.terms.digest()
        if root in self.times:
            self._checks.fail("no seed twice: two sessions are paid from one lock")
        self.times[root] = [self._world.loop.time()]
        self._sales[digest] = Sale(digest, root, row.terms, 0, 0, outlet, outlet.cable.totals)


class HubCarAudit(CarAudit):
    """Follows what cars reveal."""

    _checks: HubChecks

    def __init__(self, checks: HubChecks) -> None:
        super().__init__(checks)
        self.revealed: dict[bytes, int] = {}  # by root: ticks

    def sends(self, car: CarActor, consumer: Consumer, frame: bytes) -> None:
        message, disk = decode(frame), car.disk
        match message:
            case Propose():
                digest = message.terms.digest()
                if SECRET_ROWS + digest not in disk.rows:
                    self._checks.fail("durable: a session was proposed that is not")
            case Paid():
                for evidence in message.evidence:
                    self._reveals(car, _session(consumer), evidence)
            case Square():
                session = _session(consumer)
                row = book.session_of(disk, session.digest)
                if row is None or row.consumer_signature != message.signature:
                    self._checks.fail("durable: a receipt was sent that is not")
                if self._receipts.setdefault(session.digest, message.receipt) != message.receipt:
                    self._checks.fail("two receipts: the consumer signed another one for the same session")
                self._reveals(car, session, message.evidence)

    def _reveals(self, car: CarActor, session: Session, evidence: bytes) -> None:
        """No more than what it got is worth, its own meter's tolerance and its limit aside."""
        root, (count, _, bill) = decode_terms(session.terms.rail_terms).root, proof_in(evidence)
        self.revealed[root] = max(count, self.revealed.get(root, 0))
        if car.cheat or car.spoiled:
            return
        terms, given = session.terms, max(bill, self.revealed[root] * session.terms.offer.tick_value)
        got, tolerance = car.meter.totals[0] - session.row.base.total, terms.offer.tolerance
        most = Quantity((got + tolerance.units) * 1_000_000 // (1_000_000 - tolerance.ppm) + 1)
        due, _ = sums(terms, session.account.bill.turns, session.account.feed_turns, most, 0)
        if given > terms.budget:
            self._checks.fail(f"budget: {given} were given, {terms.budget} are the most for this session")
        if given > due + limits(terms)[1]:
            self._checks.fail(f"exposure: {given} were given for {got} units by {car.name}, which are worth {due}")
