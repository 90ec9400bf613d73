"""Many poles behind one listening server: each link finds its pole, and no pole is in another's way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from penstock.core.errors import PeerRefused, UsageError
from penstock.core.identity import Address, Key
from penstock.core.messages import (
    Accepted,
    AskOffer,
    AskPole,
    Final,
    Metered,
    Offered,
    Paid,
    Propose,
    Receipted,
    Refused,
    Resume,
    Resumed,
    Stop,
    Way,
)
from penstock.core.messages import Reason as Because
from penstock.core.offer import Offer
from penstock.core.session import Patience, Session
from penstock.core.tariff import Tariff
from penstock.core.units import Duration, Price, Quantity
from penstock.node import clock
from penstock.node.channel_purse import ChannelPurse
from penstock.node.consumer import Consumer, Wish
from penstock.node.gateway import Gateway
from penstock.node.supplier import Goods, Pole
from penstock.rails.stream import StreamPayer
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Limits, Server, connect, serve

from .test_supplier import squares
from .world import HOST, LIMIT, PACKAGE, PRICE, SPEED, TICK, Street, Thief, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

SOLD = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, PACKAGE, LIMIT)
PATIENT = Patience(Duration(20_000), Duration(20_000))


class Yard:
    """A gateway of some poles beside a street's own pole, for the same site."""

    def __init__(self, it: Street, names: tuple[str, ...]) -> None:
        self.street = it
        self.lines = {name: LineSupply(it.directory / name, 6_600, SPEED, package=Quantity(2)) for name in names}
        self.sessions: list[Session] = []
        self.keys: dict[Address, Key] = {}
        self.gateway: Gateway
        self.server: Server

    async def open(self, limits: Limits, patience: Patience) -> None:
        poles = [Pole(name, line, line) for name, line in self.lines.items()]
        self.gateway = Gateway(self.street.site, poles, SOLD, patience, self.sessions.append)
        await self.gateway.restore()
        links, room = self.gateway.on_link, self.gateway.visits.make_room
        self.server = await serve(HOST, 0, self.street.key, links, on_full=room, limits=limits)

    async def close(self) -> None:
        await self.gateway.close()
        await self.server.close()
        for line in self.lines.values():
            line.detach()

    async def peer(self, key: Key | None = None) -> Thief:
        thief = Thief(await connect(HOST, self.server.port, key or self.street.fresh_key()))
        self.street.thieves.append(thief)
        return thief

    async def draws(self, name: str) -> tuple[Thief, Propose, StreamPayer]:
        """A consumer whose session at that pole has begun."""
        it = self.street
        key = it.last_key = it.fresh_key()
        self.keys[key.address] = key
        peer = await self.peer(key)
        offered: Offered = await peer.ask(AskPole(name), Offered)
        propose, payer = it.proposal(key, offered.offer, await it.channel(key))
        await peer.ask(propose, Accepted)
        return peer, propose, payer


@asynccontextmanager
async def yard(
    open_street: Open, *names: str, limits: Limits | None = None, patience: Patience = PATIENT
) -> AsyncIterator[Yard]:
    async with open_street() as it:
        made = Yard(it, names or ("left", "right"))
        await made.open(limits or Limits(), patience)
        try:
            yield made
        finally:
            for supplier in made.gateway.poles.values():
                if supplier.shell is not None:
                    supplier.shell.abandon()
            await made.close()


async def pays(peer: Thief, payer: StreamPayer, upto: int) -> None:
    for one in payer.pay(upto):
        peer.send(Paid(Quantity(0), (one.data,)))


async def test_a_link_is_led_to_the_pole_that_it_names(open_street: Open) -> None:
    async with yard(open_street) as it:
        peer = await it.peer()
        for name in ("right", "left"):
            assert (await peer.ask(AskPole(name), Offered)).offer.name == name
        assert "no pole 'middle'" in (await peer.ask(AskPole("middle"), Refused)).why
        alone = await it.street.thief(it.street.fresh_key())
        assert (await alone.ask(AskPole("pole"), Offered)).offer.name == "pole"
        assert "no pole 'left'" in (await alone.ask(AskPole("left"), Refused)).why


async def test_who_names_no_pole_is_led_to_a_free_one(open_street: Open) -> None:
    async with yard(open_street, "a", "b", "c") as it:
        peer = await it.peer()
        asked = [(await peer.ask(AskOffer(), Offered)).offer.name for _ in range(6)]
        assert asked == ["a", "b", "c"] * 2, "those who come together must be led to different poles"
        await it.draws("b")
        asked = [(await peer.ask(AskOffer(), Offered)).offer.name for _ in range(4)]
        assert set(asked) == {"a", "c"}
        assert "busy" in (await peer.ask(AskPole("b"), Refused)).why
        await it.draws("a")
        await it.draws("c")
        assert "busy" in (await peer.ask(AskOffer(), Refused)).why


async def test_poles_stream_side_by_side_and_end_alone(open_street: Open) -> None:
    async with yard(open_street) as it:
        running = [await it.draws(name) for name in ("left", "right")]
        for number, (peer, _, payer) in enumerate(running):
            await pays(peer, payer, (3 + number) * TICK)
            while (await peer.hear(Metered)).secured < (3 + number) * TICK:
                pass
        left, right = (it.gateway.poles[name] for name in ("left", "right"))
        assert left.shell is not None
        assert right.shell is not None
        assert (left.shell.session.paid, right.shell.session.paid) == (3 * TICK, 4 * TICK)
        (peer, propose, payer), other = running
        it.street.last_key = it.keys[propose.terms.consumer]
        peer.send(Stop(Because.OPERATOR))
        await squares(it.street, peer, propose, payer, await peer.hear(Final))
        await until(lambda: left.shell is None)
        assert right.shell is not None
        await pays(other[0], other[2], 6 * TICK)
        await until(lambda: right.shell is not None and right.shell.session.paid == 6 * TICK)
        assert [session.terms.offer.name for session in it.sessions] == ["left"]


async def test_a_session_is_taken_up_at_its_own_pole(open_street: Open) -> None:
    async with yard(open_street) as it:
        peer, propose, payer = await it.draws("right")
        await peer.hear(Metered)
        peer.link.abort()
        digest = propose.terms.digest()
        again = await it.peer(it.street.last_key)
        await again.ask(Resume(digest, b"", Way.SUPPLY), Resumed)
        await pays(again, payer, 2 * TICK)
        right = it.gateway.poles["right"]
        await until(lambda: right.shell is not None and right.shell.session.paid == 2 * TICK)
        again.send(Stop(Because.OPERATOR))
        await squares(it.street, again, propose, payer, await again.hear(Final))
        await again.ask(Resume(digest, b"", Way.SUPPLY), Receipted)
        stranger = await it.peer()
        assert "no such session" in (await stranger.ask(Resume(digest, b"", Way.SUPPLY), Refused)).why
        assert "no such session" in (await stranger.ask(Resume(bytes(32), b"", Way.SUPPLY), Refused)).why


async def test_a_gateway_takes_up_all_its_sessions_after_a_crash(open_street: Open) -> None:
    async with yard(open_street, "a", "b", "c") as it:
        begun = {name: await it.draws(name) for name in ("a", "c")}
        for peer, _, payer in begun.values():
            await pays(peer, payer, TICK)
            while (await peer.hear(Metered)).secured < TICK:  # what was acknowledged is durable
                pass
        await it.street.site.tasks.cancel()  # the clock of the old sessions, which must do nothing any more
        await it.server.close()
        for supplier in it.gateway.poles.values():
            supplier.shell = None
        await it.open(Limits(), PATIENT)
        running = {name: pole.shell for name, pole in it.gateway.poles.items() if pole.shell is not None}
        assert {name: shell.session.digest for name, shell in running.items()} == {
            name: propose.terms.digest() for name, (_, propose, _) in begun.items()
        }
        assert all(shell.session.paid == TICK for shell in running.values())
        assert [*it.gateway.free] == ["b"]


async def test_of_two_who_want_one_pole_one_gets_it(open_street: Open) -> None:
    async with yard(open_street) as it:
        peers = []
        for _ in range(2):
            key = it.street.fresh_key()
            peer = await it.peer(key)
            offer: Offer = (await peer.ask(AskPole("left"), Offered)).offer
            peers.append((peer, it.street.proposal(key, offer, await it.street.channel(key))[0]))
        for peer, propose in peers:
            peer.send(propose)
        answers: list[Any] = [await peer.hear((Accepted, Refused)) for peer, _ in peers]
        assert [type(answer) for answer in answers].count(Accepted) == 1


async def test_idle_links_give_way_to_those_who_come(open_street: Open) -> None:
    async with yard(open_street, limits=Limits(max_links=6, max_pending=8)) as it:
        drawing, _, payer = await it.draws("left")
        idle = [await it.peer() for _ in range(20)]
        newest = idle[-1]
        assert (await newest.ask(AskPole("right"), Offered)).offer.name == "right"
        assert "too many are waiting" in await idle[0].cut_off()
        await pays(drawing, payer, 2 * TICK)  # whoever has a session stays
        left = it.gateway.poles["left"]
        await until(lambda: left.shell is not None and left.shell.session.paid == 2 * TICK)


async def test_a_gateway_full_of_sessions_refuses_the_next_link(open_street: Open) -> None:
    async with yard(open_street, limits=Limits(max_links=2, max_pending=8)) as it:
        await it.draws("left")
        await it.draws("right")
        late = await it.peer()
        assert "no room" in await late.cut_off()


async def test_a_gateway_that_closes_ends_every_session_in_order(open_street: Open) -> None:
    async with yard(open_street) as it:
        peers = [await it.draws(name) for name in ("left", "right")]
        closing = asyncio.ensure_future(it.gateway.close())
        for peer, propose, payer in peers:
            final = await peer.hear(Final)
            assert final.reason is Because.OPERATOR
            it.street.last_key = it.keys[propose.terms.consumer]
            await squares(it.street, peer, propose, payer, final)
        await asyncio.wait_for(closing, 4)
        assert [session.complete for session in it.sessions] == [True, True]
        assert all(line.power() == 0 for line in it.lines.values())
        assert "closing" in (await (await it.peer()).ask(AskPole("left"), Refused)).why


async def test_a_consumer_buys_at_the_pole_that_it_wishes(open_street: Open) -> None:
    async with yard(open_street) as it:
        street, key = it.street, it.street.fresh_key()
        journal = SqliteJournal(street.directory / "wishful.db")
        meter = LineMeter(street.directory / "right")

        async def ledger() -> Any:
            return street.ledger

        def consumer(pole: str) -> Consumer:
            wish = Wish(Price(450_000, 1_000), 1_000_000, 20, pole=pole)
            dial = lambda: connect(HOST, it.server.port, key)  # noqa: E731
            purse = ChannelPurse(key, journal, ledger, street.told)
            return Consumer(key, journal, meter, dial, wish, clock.now, street.told, purse)

        bought = await consumer("right").buy()
        assert bought.complete
        assert bought.terms.offer.name == "right"
        with pytest.raises(PeerRefused, match="no pole 'up'"):
            await consumer("up").buy()
        meter.detach()
        await journal.close()


async def test_a_session_and_its_link_leave_nothing_for_the_collector(open_street: Open) -> None:
    """What ten thousand sessions leave behind is freed at once, and not in a pause for all that still run."""
    async with yard(open_street) as it:
        left = it.gateway.poles["left"]
        for _ in range(2):  # what is made once is made in the first round
            peer, propose, payer = await it.draws("left")
            await pays(peer, payer, 2 * TICK)
            peer.send(Stop(Because.OPERATOR))
            await squares(it.street, peer, propose, payer, await peer.hear(Final))
            gc.collect()
            gc.disable()
            peer.leave()
            await until(lambda: left.shell is None and not it.gateway.visits)
        it.sessions.clear()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            found = {type(one).__qualname__ for one in gc.garbage if "penstock" in type(one).__module__}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert not found & {"Session", "SessionShell", "Visit", "SessionRow", "StreamPayee"}


async def test_a_gateway_of_no_pole_or_of_two_alike_is_refused(open_street: Open) -> None:
    async with open_street() as it:
        with pytest.raises(UsageError, match="needs a pole"):
            Gateway(it.site, [], SOLD)
        with pytest.raises(UsageError, match="'pole'"):
            Gateway(it.site, [it.supplier.pole, it.supplier.pole], SOLD)
