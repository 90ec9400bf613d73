"""Ways over hubs: which there are, what each costs, and that every hub on a way takes what was reckoned for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.channel import ChannelParams, Domain, Lock
from penstock.core.errors import BadSignature, PenstockError
from penstock.core.hops import NO_VOUCHER, Incoming, InLock, InRow
from penstock.core.identity import Address, Key
from penstock.core.messages import Add, Edge, Hop, Reached, SignedReach
from penstock.core.units import MAX_AMOUNT, Instant
from penstock.node.incoming import Incomings
from penstock.node.ledger_time import LedgerTime
from penstock.node.outgoing import Neighbour
from penstock.node.relay import Fees, Relay
from penstock.node.routes import MAX_DELTA, Route, newest, routes
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.virtual import VirtualLoop

DOMAIN = Domain(31337, Address(b"\xcc" * 20), Address(b"\xee" * 20))
CONSUMER, SUPPLIER, *HUBS = (Key(bytes((n,)) * 32) for n in range(1, 8))
ONE, TWO, THREE, FOUR, FIVE = (hub.address for hub in HUBS)
PAYEE = SUPPLIER.address
NOW, EXPIRY, TICK, TICKS = 1_000_000, 1_010_000, 700, 100
PLENTY = 10**9


def node(hub: Address, *payees: Address, capacity: int = PLENTY, at: int = 5, **change: Any) -> Reached:
    """What a hub says of itself; it takes 1 %, nothing for holding, and an hour between expiries."""
    edges = tuple(Edge(payee, capacity) for payee in payees)
    fees = {"fee_ppm": 10_000, "holding_ppm": 0, "delta": 3_600, **change}
    return Reached(node=hub, domain=DOMAIN, min_period=600, edges=edges, at=Instant(at), **fees)


def ways(*nodes: Reached, first: tuple[Address, ...] = (ONE,), **change: Any) -> list[Route]:
    asked = {"payee": PAYEE, "tick_value": TICK, "ticks": TICKS, "expiry": EXPIRY, "now": NOW, **change}
    return routes({one.node: one for one in nodes}, first, **asked)


def test_over_one_hub() -> None:
    (way,) = ways(node(ONE, PAYEE))
    assert way == Route((ONE,), 707, EXPIRY + 3_600, 0, (Hop(PAYEE, TICK, EXPIRY, 0),))
    assert way.cost(TICKS, TICK) == 7 * TICKS


def test_over_three_hubs_what_each_lock_has_to_be_is_reckoned_back_from_the_payee() -> None:
    (way,) = ways(node(ONE, TWO, delta=10), node(TWO, THREE, fee_ppm=0, delta=20), node(THREE, PAYEE, delta=40))
    assert way.hubs == (ONE, TWO, THREE)
    assert way.onward == (
        Hop(TWO, 707, EXPIRY + 60, 0),
        Hop(THREE, 707, EXPIRY + 40, 0),
        Hop(PAYEE, 700, EXPIRY, 0),
    )
    assert (way.tick_value, way.expiry) == (715, EXPIRY + 70)  # 1 % of 707, rounded up


def test_no_way_has_more_than_three_hubs() -> None:
    assert ways(node(ONE, TWO), node(TWO, THREE), node(THREE, FOUR), node(FOUR, PAYEE)) == []
    assert ways(node(ONE, TWO), node(TWO, THREE), node(THREE, FOUR), node(FOUR, PAYEE), first=(TWO,)) != []


def test_the_cheapest_comes_first_then_the_one_over_fewer_hubs() -> None:
    found = ways(
        node(ONE, PAYEE, TWO, fee_ppm=50_000),
        node(TWO, PAYEE, fee_ppm=0),
        node(THREE, FOUR, fee_ppm=0),
        node(FOUR, PAYEE, fee_ppm=0),
        node(FIVE, PAYEE, fee_ppm=20_000),
        first=(ONE, THREE, FIVE, TWO),
    )
    assert [way.hubs for way in found] == [(TWO,), (THREE, FOUR), (FIVE,), (ONE,), (ONE, TWO)]
    assert [way.cost(TICKS, TICK) for way in found] == [0, 0, 1_400, 3_500, 3_500]


def test_no_way_goes_through_a_hub_twice_or_through_the_payee() -> None:
    found = ways(node(ONE, TWO, PAYEE), node(TWO, ONE, PAYEE), node(PAYEE, ONE), first=(ONE, TWO, PAYEE))
    assert [way.hubs for way in found] == [(ONE,), (TWO,), (ONE, TWO), (TWO, ONE)]


def test_there_is_no_way_where_nobody_knows_one() -> None:
    assert ways() == []
    assert ways(node(ONE, TWO)) == []  # nobody has said anything of the second
    assert ways(node(ONE, PAYEE), first=(TWO,)) == []


@pytest.mark.parametrize(("capacity", "found"), [(TICK * (TICKS + 1), True), (TICK * (TICKS + 1) - 1, False)])
def test_a_channel_has_room_for_the_lock_and_for_the_rest_of_a_tick(capacity: int, found: bool) -> None:
    assert bool(ways(node(ONE, PAYEE, capacity=capacity))) is found


def test_a_channel_between_hubs_has_room_for_the_fees_of_those_after_it_too() -> None:
    """The lock would be refused there, and its holding fee lost."""
    last = node(TWO, PAYEE, holding_ppm=500_000)
    (way,) = ways(node(ONE, TWO), last)
    needed = 707 * (TICKS + 1) + way.onward[0].holding
    assert way.onward[0].holding > 0
    assert ways(node(ONE, TWO, capacity=needed), last) == [way]
    assert ways(node(ONE, TWO, capacity=needed - 1), last) == []


@pytest.mark.parametrize(("delta", "found"), [(MAX_DELTA, True), (MAX_DELTA + 1, False), (2**64 - 1, False)])
def test_no_hub_makes_a_payer_lock_for_longer_than_hubs_themselves_take(delta: int, found: bool) -> None:
    """A promise that locks beyond what a channel takes is never taken: nothing could follow it in that channel."""
    assert bool(ways(node(ONE, TWO), node(TWO, PAYEE, fee_ppm=0, delta=delta))) is found


def test_a_hub_that_is_too_dear_for_any_channel_is_on_no_way() -> None:
    assert ways(node(ONE, PAYEE, fee_ppm=2**64 - 1, capacity=MAX_AMOUNT), tick_value=2**60) == []
    assert ways(node(ONE, PAYEE, holding_ppm=2**64 - 1, capacity=MAX_AMOUNT), tick_value=2**60) == []


# ---- who said what


def test_of_what_a_node_said_the_newest_counts() -> None:
    key, old, new = HUBS[0], node(ONE, PAYEE, at=5), node(ONE, TWO, at=6)
    told = [SignedReach.made(key, new), SignedReach.made(key, old)]
    assert newest(told) == newest(told[::-1]) == {ONE: new}


def test_nobody_speaks_for_another() -> None:
    lie = node(TWO, PAYEE, fee_ppm=0, at=9)
    SignedReach.made(HUBS[1], lie).check()
    with pytest.raises(BadSignature):
        SignedReach.made(HUBS[0], lie).check()
    honest = SignedReach.made(HUBS[1], node(TWO, PAYEE))
    for change in ({"fee_ppm": 0}, {"edges": ()}, {"at": Instant(9)}, {"delta": 0}, {"node": ONE}):
        with pytest.raises(BadSignature):
            SignedReach(msgspec.structs.replace(honest.reached, **change), honest.signature).check()


# ---- every hub takes what was reckoned for it


class Time:
    """A ledger of which only the time is asked."""

    domain = DOMAIN

    async def now(self) -> int:
        return NOW


class OneHub:
    """A hub's heart with the books of one payer, and a channel to whom it pays next."""

    def __init__(self, loop: VirtualLoop, said: Reached, payee: Address, late: int) -> None:
        """Locks reach it `late` seconds after its payer reckoned."""
        journal = MemoryJournal(Disk(), Life("hub", loop))
        ledger: Any = Time()

        def clock() -> Instant:
            return Instant(1_000 * (NOW + late))

        self.time = LedgerTime(ledger, clock)
        incomings = Incomings(HUBS[0], journal, ledger, clock, _untold, None, self.time)
        self.relay = Relay(incomings, Fees(said.fee_ppm, said.holding_ppm, said.delta), _untold)
        self.relay.neighbours[payee] = Neighbour(
            HUBS[0], journal, _nowhere, _nowhere, _nowhere, self.time, _untold, self.relay
        )
        self.params = ChannelParams(DOMAIN, CONSUMER.address, ONE, CONSUMER.address, ONE, 3_600, False, 1)

    def check(self, lock: Lock, holding: int, onward: tuple[Hop, ...]) -> Hop:
        """What the hub makes of a lock: where it goes on. Raises what the hub would."""
        incoming = Incoming(self.params, PLENTY, HUBS[0], InRow(NO_VOUCHER), {})
        return self.relay._checked(incoming, InLock(Add(1, lock, holding, onward)))[1]


async def _nowhere(*_: Any) -> Any:
    raise AssertionError("nobody is dialled")


def _untold(event: str, **_: Any) -> None:
    """Nobody asks."""


def checked(way: Route, told: dict[Address, Reached], ticks: int, late: int, less: int = 0) -> None:
    """Each hub on the way checks the lock that reaches it; `less` is taken from the fee for holding."""
    loop = VirtualLoop()

    async def go() -> None:
        lock, holding = Lock(b"\x11" * 32, way.tick_value, ticks, way.expiry), way.holding - less
        for at, hub in enumerate(way.hubs):
            hop = way.onward[at]
            one = OneHub(loop, told[hub], hop.payee, late)
            await one.time.look()
            assert one.check(lock, holding, way.onward[at:]) == hop
            lock, holding = Lock(lock.root, hop.tick_value, ticks, hop.expiry), hop.holding
        assert holding == 0
        assert (lock.tick_value, lock.expiry) == (TICK, EXPIRY)

    loop.run(go())


FEES = st.fixed_dictionaries({
    "fee_ppm": st.integers(0, 200_000), "holding_ppm": st.integers(0, 100_000), "delta": st.integers(0, 20_000),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(fees=st.lists(FEES, min_size=1, max_size=3), ticks=st.integers(1, 5_000), late=st.integers(0, 60))
def test_every_hub_on_a_way_takes_the_lock_that_was_reckoned_for_it(
    fees: list[dict[str, int]], ticks: int, late: int
) -> None:
    parties = [*(ONE, TWO, THREE)[: len(fees)], PAYEE]
    told = {parties[at]: node(parties[at], parties[at + 1], **fee) for at, fee in enumerate(fees)}
    (way,) = routes(told, [ONE], PAYEE, TICK, ticks, EXPIRY, NOW)
    checked(way, told, ticks, late)


def test_a_hub_that_gets_less_for_holding_refuses() -> None:
    told = {ONE: node(ONE, PAYEE, holding_ppm=100_000)}
    (way,) = routes(told, [ONE], PAYEE, TICK, TICKS, EXPIRY, NOW)
    checked(way, told, TICKS, 60)
    with pytest.raises(PenstockError, match="holding so much"):
        checked(way, told, TICKS, 0, less=way.holding // 2)
