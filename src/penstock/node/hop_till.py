"""Where a pole is paid over hubs: the locks that come to it, the sessions that they pay, and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms
from penstock.core.hops import Incoming, InLock, Place
from penstock.core.identity import to_hex
from penstock.core.messages import Add, Ask, Change, Reached, Reason, SignedReach
from penstock.core.offer import Terms
from penstock.core.ports import Mined
from penstock.core.rail import Ends
from penstock.core.session import Role, SessionRow
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.incoming import Incomings
from penstock.node.tasks import Tasks, durable
from penstock.rails.hops import (
    END_ROWS,
    NAME,
    TICK_ROWS,
    HopOffer,
    HopPayee,
    HopTerms,
    check_lock,
    decode_terms,
)

UNUSED = 60_000  # ms that a lock may stand before a session is paid from it
FOR_REST = 10_000  # ms that the consumer gets to pay the rest of a tick over its hubs
LOOK = 0.5  # seconds


class _Use:
    """A lock and the session that it pays. `ended` is when the session did; `total` what it came to."""

    __slots__ = ("came", "ended", "payee", "place", "stop", "total")

    def __init__(self, place: Place, came: Instant) -> None:
        self.place, self.came = place, came
        self.payee: HopPayee | None = None
        self.stop: Callable[[Reason], None] | None = None
        self.ended: Instant | None = None
        self.total = 0


class HopTill:
    """The locks that pay a site, by their roots: one root pays one session."""

    name = NAME

    def __init__(self, incomings: Incomings, least_life: int = 0) -> None:
        """`least_life` is how long (seconds) a lock must still have to go when a session begins, beyond the margins."""
        self.incomings = incomings
        self._life = least_life + 3 * incomings.terms.margin
        self.offer = encode(HopOffer(incomings.ledger.domain, incomings.key.address, self._life))
        self._uses: dict[bytes, _Use] = {}
        incomings.begin(self)

    def start(self, tasks: Tasks) -> None:
        going = {book.account_in(row) for row in book.unfinished(self.incomings.journal, Role.SUPPLIER)}
        for root, use in self._uses.items():
            if use.payee is not None and root not in going:  # its session had ended before we were started again
                use.ended, use.total = self.incomings.clock(), use.payee.secured
        self.incomings.start(tasks)
        tasks.start(self._run())

    @property
    def seen(self) -> Instant:
        return self.incomings.time.seen or self.incomings.lookout.seen

    @property
    def watching(self) -> int:
        return self.incomings.lookout.watching

    @property
    def unsettled(self) -> int:
        return 0  # hubs settle with us while they live, and the lookout where they do not

    @property
    def folding(self) -> int:
        """How many sessions have ended whose hubs have not settled with us."""
        return sum(use.ended is not None and self._held(use) is not None for use in self._uses.values())

    async def settle(self) -> list[Mined]:
        return []

    # ---- locks

    def take_up(self, incoming: Incoming) -> None:
        journal = self.incomings.journal
        for number, held in incoming.locks.items():
            root = held.lock.root
            if held.done is not None or root in self._uses:
                continue
            self._uses[root] = use = _Use(Place(incoming.params.id, number), self.incomings.clock())
            ticks, end = book.one(journal, TICK_ROWS + root), book.one(journal, END_ROWS + root)
            if ticks is not None or end is not None:
                terms = HopTerms(incoming.params.domain, root, held.lock.ticks, held.lock.expiry)
                use.payee = HopPayee(terms, held.lock.tick_value, ticks, end)

    async def changed(self, incoming: Incoming, changes: tuple[Change, ...]) -> None:
        for change in changes:
            match change:
                case Add():
                    await self._came(incoming, change)
                case Ask(number=number):
                    use = self._use(Place(incoming.params.id, number))
                    if use is not None and use.ended is not None:
                        await self._end(use)

    async def _came(self, incoming: Incoming, add: Add) -> None:
        number, root = add.number, add.lock.root
        why = self.incomings.why_not(incoming, incoming.locks[number])
        if add.onward:
            why = why or "the route goes on, and this is no hub"
        if root in self._uses or book.one(self.incomings.journal, TICK_ROWS + root) is not None:
            why = why or "one root pays one session: take a fresh chain"
        if why:
            await self.incomings.keep(incoming, number, incoming.done(number, 0, why))
            return
        self._uses[root] = _Use(Place(incoming.params.id, number), self.incomings.clock())
        await self.incomings.keep(incoming, number, incoming.place(number))

    def _use(self, place: Place) -> _Use | None:
        return next((use for use in self._uses.values() if use.place == place), None)

    def _held(self, use: _Use) -> tuple[Incoming, InLock] | None:
        incoming = self.incomings.channels.get(use.place.channel)
        held = incoming.locks.get(use.place.number) if incoming else None
        return (incoming, held) if incoming and held else None

    def reached(self) -> list[SignedReach]:
        return []

    def speaks(self, reached: Reached) -> Reached:
        return reached

    # ---- sessions

    async def admit(self, terms: Terms, evidence: bytes) -> tuple[Ends, Rows]:
        """Check that the lock of these terms has arrived as they say, and reserve it.

        Raises:
            BadTerms: it has not, or is in use. BadMessage: the terms.
        """
        hop, offer = decode_terms(terms.rail_terms), terms.offer
        use = self._uses.get(hop.root)
        found = self._held(use) if use else None
        if use is None or found is None or hop.domain != self.incomings.ledger.domain:
            raise BadTerms("no such lock has arrived here", "lock over a hub that reaches this pole first")
        incoming, held = found
        check_lock(hop, held.lock, offer.tick_value)
        if use.payee is not None or held.done is not None:
            raise BadTerms("the lock pays another session, or has paid one", "take a fresh chain")
        if evidence:
            raise BadTerms("a lock speaks for itself")
        if why := self.incomings.why_not(incoming, held):
            raise BadTerms(why)
        if held.lock.expiry - self.incomings.time.latest < self._life:
            raise BadTerms(f"the lock expires within {self._life} s", "lock for longer")
        if held.lock.value < offer.least_credit:
            raise BadTerms("the lock is worth too little for a first package", f"at least {offer.least_credit}")
        use.payee = HopPayee(hop, offer.tick_value)
        return Ends(None, use.payee), ()

    def restore(self, row: SessionRow) -> Ends:
        """Our end of a session that the journal knows, where we left it."""
        hop, journal = decode_terms(row.terms.rail_terms), self.incomings.journal
        ticks, end = book.one(journal, TICK_ROWS + hop.root), book.one(journal, END_ROWS + hop.root)
        payee = HopPayee(hop, row.terms.offer.tick_value, ticks, end)
        if (use := self._uses.get(hop.root)) is not None:
            use.payee = payee
        return Ends(None, payee)

    def begin(self, terms: Terms, stop: Callable[[Reason], None]) -> None:
        if (use := self._uses.get(decode_terms(terms.rail_terms).root)) is not None:
            use.stop = stop

    def facts(self, terms: Terms) -> dict[str, str]:
        root = decode_terms(terms.rail_terms).root
        use = self._uses.get(root)
        return {"lock": to_hex(root), "channel": to_hex(use.place.channel) if use else ""}

    def release(self, row: SessionRow) -> None:
        """The session is over: its lock is done as soon as the rest of a tick has come, or has not."""
        use = self._uses.get(decode_terms(row.terms.rail_terms).root)
        if use is not None and use.payee is not None and use.ended is None:
            use.stop, use.ended = None, self.incomings.clock()
            use.total = use.payee.secured

    def leave(self, terms: Terms) -> None:
        use = self._uses.get(decode_terms(terms.rail_terms).root)
        if use is not None and use.payee is not None and not use.payee.ticks:
            use.payee, use.stop, use.ended, use.total = None, None, self.incomings.clock(), 0

    async def _end(self, use: _Use) -> None:
        """Say that we are done with a lock, with what we can prove of it."""
        found = self._held(use)
        if found is None:
            return
        incoming, _ = found
        number = use.place.number
        rows: Rows = ()
        if use.payee is not None and use.payee.ticks:
            rows = incoming.prove(number, *use.payee.proof)
        await self.incomings.keep(incoming, number, rows + incoming.done(number, use.total))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """See which locks are done, and which sessions have to stop because theirs is about to expire."""
        now = self.incomings.clock()
        for root, use in list(self._uses.items()):
            found = self._held(use)
            if found is None:
                if use.stop is None:
                    del self._uses[root]
                continue
            incoming, held = found
            left = held.lock.expiry - self.incomings.time.latest
            if use.stop is not None and (
                left < 2 * self.incomings.terms.margin or self.incomings.lookout.closing(incoming.params.id)
            ):
                use.stop(Reason.LOCK_ENDS)
            if use.payee is not None and use.payee.ticks > held.count and left < 2 * self.incomings.terms.margin:
                await durable(self.incomings.journal, incoming.prove(use.place.number, *use.payee.proof))
            if held.done is None:
                await self._look_at_end(use, held, now)

    async def _look_at_end(self, use: _Use, held: InLock, now: Instant) -> None:
        if use.payee is None:
            if abs(now - use.came) > UNUSED or use.ended is not None:
                await self._end(use)
        elif use.ended is not None:
            rest = use.total - use.payee.ticks * held.lock.tick_value
            if held.rest >= rest or abs(now - use.ended) > FOR_REST:
                await self._end(use)
