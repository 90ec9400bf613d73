"""A pole and a car with hubs between them: honest ways, and what becomes of the two when hubs fail or rob."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.node.world import PRICE, TICK

from penstock.core.channel import Lock
from penstock.core.errors import BadTerms, PeerRefused, PenstockError
from penstock.core.hops import Incoming, InLock
from penstock.core.messages import Add, Hop, Told
from penstock.core.session import Session
from penstock.node import hop_purse

from .street import MARGIN, Car, HopStreet, until

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("hubs", [1, 2, 3])
async def test_a_session_over_hubs_is_paid_to_the_unit_and_leaves_nothing_locked(street: HopStreet, hubs: int) -> None:
    """53 Wh cost 21,200: 21 ticks, and a rest of 200 that goes over the hubs."""
    await street.row(hubs)
    car = street.car()
    session = await car.buy(quantity=53)
    bill = 53 * PRICE // 1_000
    assert session.receipt is not None
    assert session.receipt.paid == bill == 21_200
    assert car.purse.costs(session.terms, session.ticks).locked == 0
    (earned,) = [one.row.voucher.amount for one in street.incomings.channels.values()]
    assert earned - bill in range(100), "the bill, and no more than holding fees"
    paid = [next(iter(one.hub.relay.neighbours.values())).outgoing for one in street.hubs]
    assert all(one is not None and not one.all for one in paid)
    await until(lambda: not street.till._uses)


async def bought(street: HopStreet, **purse: Any) -> tuple[Car, Session, int]:
    """A car that has bought 50 Wh for 20,000, and what it came to."""
    car = street.car(**purse)
    session = await car.buy()
    assert session.receipt is not None
    return car, session, session.receipt.paid


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
async def test_everybody_has_what_is_his_when_all_channels_are_closed(street: HopStreet, mode: str) -> None:
    """The fees are what the car paid beyond the bill."""
    street.supplier.goods = street.supplier.goods._replace(mode=mode)  # type: ignore[arg-type]
    await street.row(2)
    car, session, paid = await bought(street)
    fees = car.purse.costs(session.terms, session.ticks).fees
    gains = await street.ended()
    assert gains["pole"] == paid == 20_000
    assert gains["car"] == -paid - fees
    assert gains["hub1"] + gains["hub2"] == fees
    assert min(gains["hub1"], gains["hub2"]) > 0


# ---- ways that do not lead there


async def test_a_hub_without_capacity_is_no_way(street: HopStreet) -> None:
    await street.row(1, lend=30_000)
    with pytest.raises(PeerRefused, match="know no way"):
        await street.car().buy(quantity=None, budget=100_000)


async def test_fees_above_what_is_allowed_are_not_paid(street: HopStreet) -> None:
    await street.row(1)
    with pytest.raises(BadTerms, match="more than the 20 allowed"):
        await street.car(max_fee_ppm=1_000).buy()


async def test_a_pole_that_wants_locks_for_years_is_passed_by(street: HopStreet) -> None:
    """Its promise would be refused at the hub, and jam our channel for good."""
    street.till.offer = msgspec.json.encode(
        msgspec.structs.replace(hop_purse.decode_offer(street.till.offer), least_life=2**40)
    )
    street.site.rails[street.till.name] = street.till.offer
    (hub,) = await street.row(1)
    with pytest.raises(BadTerms, match="wants a lock for"):
        await street.car().buy()
    assert not hub.hub.incomings.channels


async def test_a_lock_that_nobody_uses_is_given_up_after_a_minute(street: HopStreet) -> None:
    (hub,) = await street.row(1)
    car = street.car()
    offer = street.supplier.offer().offer
    terms = await car.purse.fund(offer, 100_000)
    assert len(street.till._uses) == 1
    street.clock.offset += 61
    await street.till.look()
    await until(lambda: not hub.out.all and not street.till._uses)
    assert terms
    assert next(iter(hub.hub.incomings.channels.values())).row.voucher.locked == 0


async def test_a_refused_route_is_tried_again_under_a_fresh_chain(street: HopStreet) -> None:
    """Rule 8: what the first hub refuses may have been shown to others."""
    (hub,) = await street.row(1)
    roots: list[bytes] = []
    checked = hub.hub.relay._checked

    def refuse_once(incoming: Incoming, held: InLock) -> tuple[Any, Hop]:
        roots.append(held.lock.root)
        if len(roots) == 1:
            raise PeerRefused("not now")
        return checked(incoming, held)

    hub.hub.relay._checked = refuse_once  # type: ignore[method-assign]
    car = street.car()
    with pytest.raises(PeerRefused, match="not now"):
        await car.buy()
    await car.leave()
    await street.car().buy()
    assert len(set(roots)) == len(roots) == 2


# ---- hubs that rob


SMALLER = {
    "smaller": lambda hop: msgspec.structs.replace(hop, tick_value=hop.tick_value - 1),
    "sooner": lambda hop: msgspec.structs.replace(hop, expiry=hop.expiry - 1_000),
    "later": lambda hop: msgspec.structs.replace(hop, expiry=hop.expiry + 100),
}


@pytest.mark.parametrize("how", [*SMALLER, "fewer", "other", "none"])
async def test_another_lock_than_the_terms_name_pays_no_session(
    street: HopStreet, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 10: the pole holds the lock that came against the terms; no tick is revealed before it agrees."""
    (hub,) = await street.row(1)
    relay = hub.hub.relay
    checked, neighbour = relay._checked, next(iter(relay.neighbours.values()))
    add = neighbour.add

    def altered(incoming: Incoming, held: InLock) -> tuple[Any, Hop]:
        found, hop = checked(incoming, held)
        return found, SMALLER[how](hop)

    def other(lock: Any, *rest: Any) -> int:
        change = {"ticks": lock.ticks - 1} if how == "fewer" else {"root": b"\x05" * 32}
        return add(msgspec.structs.replace(lock, **change), *rest)

    async def pretend(incoming: Incoming, one: Add) -> None:
        await relay.incomings.keep(incoming, one.number, incoming.place(one.number))

    if how in SMALLER:
        relay._checked = altered  # type: ignore[method-assign]
    elif how == "none":
        relay._forward = pretend  # type: ignore[method-assign]
    else:
        neighbour.add = other  # type: ignore[method-assign]
    car = street.car()
    with pytest.raises(PenstockError, match=r"lock that arrived|no such lock"):
        await car.buy()
    assert street.sessions == []
    assert all(use.payee is None for use in street.till._uses.values())


async def deaf(told: Told) -> None:
    """A hub that hears nothing of a lock's end."""


async def test_a_hub_that_never_settles_is_closed_upon_before_the_lock_expires(street: HopStreet) -> None:
    """Rule 11: the pole proves its ticks on the ledger `margin` before."""
    hop_purse.SETTLE, settle = 0.5, hop_purse.SETTLE
    (hub,) = await street.row(1)
    neighbour = next(iter(hub.hub.relay.neighbours.values()))
    neighbour._told = ignore_ends(neighbour)  # type: ignore[method-assign]
    _, session, paid = await bought(street)
    hop_purse.SETTLE = settle
    await until(lambda: all(use.ended for use in street.till._uses.values()))
    for use in list(street.till._uses.values()):
        await street.till._end(use)
    (incoming,) = street.incomings.channels.values()
    (held,) = incoming.locks.values()
    assert held.done == held.worth == paid
    await street.wait(held.lock.expiry - await street.ledger.now() - MARGIN + 5)
    await street.look()
    assert street.told.named("claiming")
    assert (await street.ledger.channel(incoming.params)).status == "closing"
    assert await street.ledger.now() < held.lock.expiry
    gains = await street.ended()
    assert gains["pole"] >= paid
    assert gains["hub1"] >= 0, "it lifts the preimage, and is paid, too"
    assert session.paid == paid


def ignore_ends(neighbour: Any) -> Any:
    heard = neighbour._told

    async def told(message: Told) -> None:
        if not message.done:
            await heard(message)

    return told


async def test_both_ends_are_whole_when_their_hub_is_gone_for_good(street: HopStreet) -> None:
    """It dies while they stream, which they do not notice, and never comes back."""
    hop_purse.SETTLE, settle = 0.5, hop_purse.SETTLE
    (hub,) = await street.row(1)
    car = street.car()
    buying = asyncio.ensure_future(car.buy())
    await until(lambda: street.supplier.shell is not None and street.supplier.shell.session.paid)
    await hub.stop()
    session = await buying
    hop_purse.SETTLE = settle
    assert session.receipt is not None
    paid = session.receipt.paid
    assert paid == 20_000
    await until(lambda: all(use.ended for use in street.till._uses.values()))
    for use in list(street.till._uses.values()):
        await street.till._end(use)
    gains = await street.ended()
    assert paid <= gains["pole"] <= paid + 100, "its ticks, proven on the ledger, and holding fees"
    assert gains["car"] >= -paid - car.purse.costs(session.terms, session.ticks).fees
    assert sum(gains.values()) == 0


async def test_a_hub_that_closed_the_channel_is_paid_over_another(street: HopStreet) -> None:
    """It may do so at any time, and take what it earned."""
    (hub,) = await street.row(1)
    car, _, _ = await bought(street)
    (incoming,) = hub.hub.incomings.channels.values()
    await street.ledger.close(hub.key, incoming.params, None)
    await hub.look()
    await car.leave()
    session = await street.car(name="car").buy()
    assert session.receipt is not None


async def test_a_root_that_has_paid_a_session_pays_no_other(street: HopStreet) -> None:
    """Rule 8: whoever was shown its preimages could claim a second lock under it at once."""
    await street.row(1)
    car, session, _ = await bought(street)
    hop = hop_purse.decode_terms(session.terms.rail_terms)
    (incoming,) = street.incomings.channels.values()
    add = Add(9, Lock(hop.root, TICK, hop.ticks, hop.expiry), 0, ())
    incoming.locks[9] = InLock(add)
    await street.till.changed(incoming, (add,))
    held = incoming.locks.pop(9)
    assert (held.placed, held.done) == (False, 0)
    assert "fresh chain" in held.why
    assert car.purse.costs(session.terms, session.ticks).locked == 0
