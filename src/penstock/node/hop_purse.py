"""What a consumer pays from over hubs: its channels to hubs, and the locks that it asks them to carry onward."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from penstock.core.channel import MAX_TICKS, Domain, Lock
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import BadTerms, JournalError, OutOfFunds, PeerRefused, PenstockError
from penstock.core.hops import OutLock
from penstock.core.identity import Address, Key, to_hex
from penstock.core.messages import AskClose, Reached, Reason, Told
from penstock.core.offer import Offer, Terms
from penstock.core.ports import Journal, Ledger, Link
from penstock.core.rail import Ends, PayerEnd
from penstock.core.session import Role
from penstock.core.ticks import TickChain
from penstock.core.units import Instant
from penstock.node import book
from penstock.node.book import ChannelRow
from penstock.node.channel_purse import CONFIRMING, ChannelPurse, check_ledger
from penstock.node.outgoing import Neighbour
from penstock.node.routes import Route, newest, routes
from penstock.node.tasks import Tasks, durable
from penstock.node.tell import Tell
from penstock.rails.hops import (
    END_ROWS,
    NAME,
    SEED_ROWS,
    HopOffer,
    HopPayer,
    HopTerms,
    SeedRow,
    decode_offer,
    decode_seed,
    decode_terms,
    proof_in,
)
from penstock.rails.stream import StreamOffer

REACH = 10.0  # seconds that a hub gets to let us in
PLACE = 20.0  # and that a lock gets to be in place, all the way
SETTLE = 20.0  # and that the hubs get to settle what a session came to
TRIES = 5  # routes
LIFE = 4 * 3_600  # seconds that a lock lasts at the supplier, where nobody says otherwise
LONGEST = 86_400  # seconds that a supplier may want a lock to last: hubs refuse what would be locked for too long
MILLION = 1_000_000


class HopCosts(NamedTuple):
    """What a session cost beyond what its supplier got, and what is still locked for it (token units)."""

    fees: int
    locked: int


class HopPurse:
    """Pays over hubs. Each of `hubs` is dialled by a call, and paid over a channel that is opened where there is none.

    Implements `Purse`, and `Heard` for what becomes of the locks.
    """

    name = NAME
    two_way = False

    def __init__(
        self,
        key: Key,
        journal: Journal,
        ledger: Callable[[], Awaitable[Ledger]],
        hubs: Sequence[Callable[[], Awaitable[Link]]],
        clock: Callable[[], Instant],
        tell: Tell,
        domain: Domain,
        deposit: int = 0,
        period: int = 3_600,
        max_fee_ppm: int = 50_000,
        life: int = LIFE,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """`deposit` is what a new channel to a hub gets at least (token units), `period` its challenge period (s).

        `max_fee_ppm` is the most that hubs may take of what the supplier gets, in millionths, holding fees included.
        """
        self._key, self._journal, self._clock, self._tell = key, journal, clock, tell
        self._domain, self._deposit, self._period = domain, deposit, period
        self._max_fee, self._life, self._entropy = max_fee_ppm, life, entropy
        self._channels = ChannelPurse(key, journal, ledger, tell, deposit, period, domain)
        self._need: int | None = None  # that a channel must have room for, while we look for a way
        self._neighbours = [
            Neighbour(key, journal, dial, self._channel, ledger, None, tell, self, self._fail) for dial in hubs
        ]
        self._fault: JournalError | None = None
        self._tasks = Tasks()
        self._running = False
        self._waiting: dict[tuple[bytes, int], asyncio.Future[Told | None]] = {}
        self._gone: dict[tuple[bytes, int], asyncio.Event] = {}

    # ---- the way there

    async def fund(self, offer: Offer, need: int, two_way: bool = False) -> bytes:
        """Lock what the session may need, all the way to the supplier (`Purse`)."""
        details = decode_offer(offer.rails[NAME])
        check_ledger(details.domain, self._domain)
        if details.least_life > LONGEST:
            raise BadTerms(f"the supplier wants a lock for {details.least_life} s", "look for another supplier")
        ticks = -(-need // offer.tick_value)
        if ticks > MAX_TICKS:
            self._tell("lock shortened", ticks=MAX_TICKS, wanted=ticks)
            ticks = MAX_TICKS
        self._need = (ticks + 1) * offer.tick_value * (MILLION + self._max_fee) // MILLION
        try:
            return await self._locked(offer, details, ticks)
        finally:
            self._need = None

    async def _locked(self, offer: Offer, details: HopOffer, ticks: int) -> bytes:
        """A lock in place over the cheapest way that takes it; the rail's part of the terms.

        Raises:
            PenstockError: there is none.
        """
        await self._reach()
        expiry = self._clock() // 1000 + max(self._life, details.least_life + 60)
        for _ in range(int(REACH)):
            if self._fault is not None:
                raise self._fault
            firsts, ways = self._ways(details.payee, offer.tick_value, ticks, expiry)
            if ways:
                break
            for one in self._neighbours:  # a hub may be about to reach the supplier, which has just been started
                one.ask_reach()
            await asyncio.sleep(1)
        most = ticks * offer.tick_value * self._max_fee // MILLION
        affordable = [way for way in ways if way.cost(ticks, offer.tick_value) <= most]
        if not affordable:
            raise self._no_way(ways, most, ticks, offer)
        whys = []
        for way in affordable[:TRIES]:
            try:
                return await self._lock(firsts[way.hubs[0]], way, ticks, offer, expiry)
            except (PeerRefused, OutOfFunds) as error:
                whys.append(error.line())
                self._tell("route refused", hubs=len(way.hubs), error=whys[-1])
        raise PeerRefused(f"none of {len(whys)} routes took the lock: {whys[-1]}", "try again, or over other hubs")

    def _ways(
        self, payee: Address, tick_value: int, ticks: int, expiry: int
    ) -> tuple[dict[Address, Neighbour], list[Route]]:
        """The hubs that let us in, and the ways from there, the cheapest first."""
        firsts = {one.reached.node: one for one in self._neighbours if one.reached and one.ready.is_set()}
        told = newest(said for one in firsts.values() for said in one.known)
        return firsts, routes(told, firsts, payee, tick_value, ticks, expiry, self._clock() // 1000)

    def _no_way(self, ways: list[Route], most: int, ticks: int, offer: Offer) -> PenstockError:
        if ways:
            cost = ways[0].cost(ticks, offer.tick_value)
            return BadTerms(
                f"the cheapest route costs up to {cost} token units, more than the {most} allowed", "raise --max-fee"
            )
        reached = [one for one in self._neighbours if one.ready.is_set()]
        if not reached:
            why = "; ".join(dict.fromkeys(one.why for one in self._neighbours if one.why))
            return PeerRefused(f"none of our hubs can be reached: {why}", "check --hub")
        return PeerRefused(
            f"our hubs know no way to {to_hex(decode_offer(offer.rails[NAME]).payee)} with room for "
            f"{ticks * offer.tick_value} token units",
            "try less, later, or over other hubs",
        )

    async def _reach(self) -> None:
        """Give every hub a moment to let us in; a new channel has to be deep enough in the ledger first."""
        self._start()
        ready = [asyncio.ensure_future(one.ready.wait()) for one in self._neighbours]
        try:
            done, _ = await asyncio.wait(ready, timeout=REACH)
            for second in range(CONFIRMING):
                if done or not any(one.opening for one in self._neighbours):
                    return
                if not second:
                    self._tell("waiting for confirmations", at_most_s=CONFIRMING)
                done, _ = await asyncio.wait(ready, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in ready:
                one.cancel()

    def _fail(self, error: JournalError) -> None:
        self._fault = error

    def _start(self) -> None:
        if not self._running:
            self._running = True
            for one in self._neighbours:
                self._tasks.start(one.run())

    async def _channel(self, reached: Reached) -> ChannelRow:
        """The channel to a hub, with room for what we need: one that we have, or a new one."""
        wanted = StreamOffer(reached.domain, reached.node, reached.node, reached.min_period)
        check_ledger(reached.domain, self._domain)
        if self._need is None:  # only what is locked already is to be settled: nothing is opened for that
            for row in book.channels(self._journal):
                if row.params.partner == reached.node and row.role is Role.CONSUMER and not row.over:
                    return row
            raise PeerRefused("the channel to this hub is closed")
        row = await self._channels.channel(wanted, self._need, self._deposit, self._period)
        refused = any(one.refused for one in self._neighbours if one.reached and one.reached.node == reached.node)
        if refused and await self._channels.retire(row):  # the hub has closed it to claim a lock
            row = await self._channels.channel(wanted, self._need, self._deposit, self._period)
        return row

    async def _lock(self, hub: Neighbour, way: Route, ticks: int, offer: Offer, expiry: int) -> bytes:
        """Lock over this route, under a fresh chain.

        Raises:
            PeerRefused: it did not come to stand. OutOfFunds: our channel has not so much left.
        """
        seed = self._entropy(32)
        chain = TickChain(seed, ticks)
        lock = Lock(chain.root, way.tick_value, ticks, way.expiry)
        number = hub.add(lock, way.holding, way.onward)
        assert hub.outgoing is not None
        place = (hub.outgoing.params.id, number)
        row = SeedRow(seed, ticks, *place, way.tick_value, way.holding)
        self._waiting[place] = waiter = asyncio.get_running_loop().create_future()
        self._gone[place] = asyncio.Event()
        await durable(self._journal, ((SEED_ROWS + chain.root, encode(row)),))
        try:
            told = await asyncio.wait_for(waiter, PLACE)
        except TimeoutError:
            raise PeerRefused(f"the lock was not in place within {PLACE:g} s") from None
        finally:
            self._waiting.pop(place, None)
        if told is not None:
            raise PeerRefused(told.why or "a hub gave the lock up")
        self._tell("lock in place", hubs=len(way.hubs), fee=way.cost(ticks, offer.tick_value), ticks=ticks)
        return encode(HopTerms(self._domain, chain.root, ticks, expiry))

    # ---- the session

    def ends(self, terms: Terms, secret: bytes, *, again: bool) -> Ends:
        """Our end of a session (`Purse`)."""
        hop = decode_terms(terms.rail_terms)
        seed = book.one(self._journal, SEED_ROWS + hop.root)
        if seed is None:
            raise BadTerms("the journal knows the session, but not its chain", "restore a backup of the journal")
        end = book.one(self._journal, END_ROWS + hop.root) if again else None
        return Ends(HopPayer(hop, terms.offer.tick_value, decode_seed(seed).seed, end), None)

    async def guard(self, terms: Terms, stop: Callable[[Reason], None], clock: Callable[[], Instant]) -> None:
        """Keep the links to our hubs, so that they find us when the session is over (`Purse`)."""
        self._start()

    def facts(self, terms: Terms) -> dict[str, str]:
        return {"lock": to_hex(decode_terms(terms.rail_terms).root)}

    def forget(self, payer: PayerEnd) -> Rows:
        return ()  # the supplier gives the lock up: nobody has a tick of it

    async def other(self, terms: Terms) -> bool:
        return False

    async def sign_off(self, terms: Terms, expiry: int) -> AskClose | None:
        return None  # a channel to a hub serves the next supplier, too

    async def finish(self, terms: Terms) -> None:
        """The session is over: pay the rest of a tick, and wait until the hubs have settled (`Purse`).

        What they do not settle now stays locked, and is settled when we meet them again.
        """
        hop = decode_terms(terms.rail_terms)
        row = self._seed(hop.root)
        if row is None:
            return
        self._start()
        place = (row.channel, row.number)
        gone = self._gone.setdefault(place, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await self._pay_rest(row, hop, terms.offer.tick_value)
                await gone.wait()
        if not gone.is_set():
            self._tell("still locked", lock=to_hex(hop.root), until=hop.expiry)

    async def _pay_rest(self, row: SeedRow, hop: HopTerms, tick_value: int) -> None:
        """Ask for the end of a session's lock, where less than a tick is still to be paid."""
        out = None
        while out is None:
            for one in self._neighbours:
                if one.ready.is_set() and one.outgoing is not None and one.outgoing.params.id == row.channel:
                    hub, out = one, one.outgoing
            await asyncio.sleep(0 if out else 0.05)
        if row.number not in out.all:
            self._gone[(row.channel, row.number)].set()
        elif end := book.one(self._journal, END_ROWS + hop.root):
            count, preimage, bill = proof_in(end)
            if bill > count * tick_value:
                hub.ask(row.number, count, preimage, bill - count * tick_value)

    def _seed(self, root: bytes) -> SeedRow | None:
        value = book.one(self._journal, SEED_ROWS + root)
        return decode_seed(value) if value else None

    def costs(self, terms: Terms, ticks: int) -> HopCosts:
        """What a session of so many ticks cost beyond what its supplier got."""
        row = self._seed(decode_terms(terms.rail_terms).root)
        if row is None:
            return HopCosts(0, 0)
        _, locks = book.hops_out(self._journal, row.channel)
        locked = locks[row.number].lock.value if row.number in locks else 0
        return HopCosts((row.tick_value - terms.offer.tick_value) * ticks + row.holding, locked)

    async def close(self) -> None:
        """Let go of the hubs."""
        await self._tasks.cancel()

    # ---- what becomes of locks

    async def placed(self, channel: bytes, number: int, lock: OutLock) -> None:
        self._answer(channel, number, None)

    async def done(self, channel: bytes, told: Told, lock: OutLock) -> bool:
        self._answer(channel, told.number, told)
        return True  # it has shown the preimage: the ledger would pay it as much

    async def settled(self, channel: bytes, number: int) -> None:
        if (event := self._gone.get((channel, number))) is not None:
            event.set()

    async def proven(self, channel: bytes, number: int, lock: OutLock, count: int, preimage: bytes) -> None:
        pass

    async def expired(self, channel: bytes, number: int, lock: OutLock) -> None:
        pass

    def _answer(self, channel: bytes, number: int, told: Told | None) -> None:
        waiter = self._waiting.get((channel, number))
        if waiter is not None and not waiter.done():
            waiter.set_result(told)
