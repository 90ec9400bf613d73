"""A supplier that streams looks at its channel on the ledger now and then, and answers a close behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Domain
from penstock.core.identity import Address, Key
from penstock.core.messages import Reason, Way
from penstock.core.offer import Feed
from penstock.core.ports import ChannelState, Holdings, Mined, SignedClose
from penstock.core.session import Patience
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Duration, Instant
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, lookout
from penstock.node.clock import now
from penstock.node.lookout import Lookout

from .world import PACKAGE, SPEED, Street, Told, until

OpenStreet = Callable[..., AbstractAsyncContextManager[Street]]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LONGEST", 0.1)
    monkeypatch.setattr(lookout, "SHORTEST", 0.1)


@pytest.mark.asyncio
async def test_a_close_behind_the_suppliers_back_ends_the_session_and_is_answered(open_street: OpenStreet) -> None:
    async with open_street(patience=Patience(Duration(1_000), Duration(1_000))) as it:
        thief, _propose, payer = await it.robs()
        await it.ledger.close(it.last_key, payer._params, None)
        await until(lambda: it.told.of("channel closing"))
        thief.leave()
        await until(lambda: it.supplier.shell is None, "the session goes on")
        assert it.sessions[-1].reason is Reason.CHANNEL_CLOSING


@pytest.mark.asyncio
async def test_a_kept_channel_is_answered_long_after_its_session(open_street: OpenStreet) -> None:
    async with open_street() as it:
        async with it.car() as car:
            bought = await car.buy(quantity=30, keep=True)
        paid = bought.paid
        (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        before = (await it.ledger.holdings(it.key.address)).balance
        await it.ledger.close(car.key, row.params, None)
        await until(lambda: it.told.of("filed"), "nothing was filed")
        assert it.told.of("filed")[-1]["worth"] == paid
        await until(lambda: it.told.of("settled for good"), "it was not settled")
        assert (await it.ledger.holdings(it.key.address)).balance == before + paid
        (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        assert row.settled


@pytest.mark.asyncio
async def test_a_close_during_a_session_is_answered_with_all_that_the_session_paid(open_street: OpenStreet) -> None:
    """The answer may be final: it waits until the session that it stops has been squared."""
    async with open_street() as it:
        before = (await it.ledger.holdings(it.key.address)).balance
        async with it.car() as car:
            buying = asyncio.ensure_future(car.buy(keep=True))
            await until(lambda: it.supplier.shell is not None and it.supplier.shell.session.paid > 0)
            (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
            await it.ledger.close(car.key, row.params, None)
            bought = await buying
        assert bought.complete
        await until(lambda: it.told.of("settled for good"), "it was not settled")
        assert (await it.ledger.holdings(it.key.address)).balance == before + bought.paid


@pytest.mark.asyncio
async def test_a_close_that_is_signed_but_overtaken_is_not_called_settled(open_street: OpenStreet) -> None:
    async with open_street() as it:
        async with it.car() as car:
            bought = await car.buy(quantity=30)
        assert it.site.unsettled == 2, "this car's, and the first one's"
        (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        await it.ledger.close(car.key, row.params, None)
        await it.site.settle()
        assert it.told.of("not open any more")[-1]["channel"] == book.name_of(row)
        await until(lambda: it.told.of("filed"), "nothing was filed")
        assert it.told.of("filed")[-1]["worth"] == bought.paid


@pytest.mark.asyncio
async def test_an_opener_quicker_than_the_signed_close_is_answered(
    open_street: OpenStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It adds a unit, so that the signed balances are not the pot, and begins to close alone."""
    async with open_street() as it:
        await it.site.settle()
        async with it.car() as car:
            bought = await car.buy(quantity=30)
        (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        together = it.ledger.close_together

        async def overtaken(key: Key, rows: list[SignedClose]) -> list[Mined]:
            await it.ledger.add(car.key, row.params, Amount(1))
            await it.ledger.close(car.key, row.params, None)
            return await together(key, rows)

        monkeypatch.setattr(it.ledger, "close_together", overtaken)
        await it.site.settle()
        (kept,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        assert not kept.settled
        await until(lambda: it.told.of("filed"), "nothing was filed")
        assert it.told.of("filed")[-1]["worth"] == bought.paid


@pytest.mark.asyncio
async def test_a_ledger_that_is_not_seen_for_half_a_challenge_period_ends_the_session(
    open_street: OpenStreet,
) -> None:
    """Rule 12: what is secured is final, was seen lately, and is bounded in ticks, depth and time."""
    async with open_street() as it:
        params = await it.channel(it.fresh_key(), period=60)
        port = int(it.manifest.url.rpartition(":")[2])
        ends: list[asyncio.StreamWriter] = []
        relay = await asyncio.start_server(lambda *end: _relay(port, ends, *end), "127.0.0.1", 0)
        ours = relay.sockets[0].getsockname()[1]
        ledger = await EvmLedger.connect(f"http://127.0.0.1:{ours}", it.ledger.domain.contract)
        stops: list[Reason] = []
        told, skew = Told(), 0
        looking = Lookout(ledger, it.key, lambda _: None, _nothing, lambda: Instant(now() + skew), told)
        looking.watch(params)
        looking.stream(params.id, stops.append)
        running = asyncio.ensure_future(looking.run())
        relay.close()
        for end in ends:
            end.close()
        await until(lambda: told.of("ledger not seen"))
        assert stops == []
        skew = 31_000
        await until(lambda: stops, "it leans on an old view")
        assert stops[0] is Reason.LEDGER_UNSEEN
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ledger.disconnect()


async def _nothing(_: ChannelParams) -> None:
    """Nobody wants to hear of an end."""


async def _relay(
    port: int, ends: list[asyncio.StreamWriter], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes to the devnet and back, until either side ends."""
    ends.append(writer)
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@pytest.mark.asyncio
async def test_looks_at_many_channels_are_spread_and_keep_nobody_waiting() -> None:
    """A thousand channels in one turn of the event loop would stop every payment for as long as they take."""

    class Slow:
        """A ledger's node that answers at once that a channel is open."""

        def __init__(self) -> None:
            self.asked: list[float] = []
            self.at_once = self.most = 0

        async def channel(self, params: ChannelParams) -> ChannelState:
            self.asked.append(loop.time())
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0)
            self.at_once -= 1
            return ChannelState("open")

        async def holdings(self, owner: Address) -> Holdings:
            return Holdings(Amount(0), Amount(0), 10**24)

        async def gas_price(self) -> int:
            return 1

    async def over(params: ChannelParams, lost: Amount) -> None:
        raise AssertionError("nothing is over")

    loop, slow, key = asyncio.get_running_loop(), Slow(), Key(b"\x07" * 32)
    ledger: Any = slow
    watching = Lookout(ledger, key, lambda channel: None, over, now, Told())
    domain = Domain(1, Address(b"\x11" * 20), Address(b"\x22" * 20))
    for counter in range(1_000):
        opener, payee = Address(b"\x33" * 20), key.address
        watching.watch(ChannelParams(domain, opener, payee, opener, payee, 3_600, False, counter))
    gone = ChannelParams(domain, opener, payee, opener, payee, 7_200, False, 1_000)
    watching.watch(gone)  # the last in order
    looking = asyncio.ensure_future(watching.look(0.4))
    await until(lambda: slow.asked)
    watching.forget(gone.id)
    await looking
    assert len(slow.asked) == 1_000
    assert slow.most <= lookout.AT_ONCE
    assert slow.asked[-1] - slow.asked[0] >= 0.3
    await watching.close()


@pytest.mark.asyncio
async def test_a_close_behind_the_back_of_a_car_that_feeds_in_ends_the_session_and_is_answered(
    open_street: OpenStreet,
) -> None:
    """The pole files what the car paid, and says nothing of what it owes for 300 Wh and more."""
    feed = Feed(Tariff.flat(500_000, 1_000), 800, PACKAGE, 2_400, 50_000)
    async with open_street(feed=feed, speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(feed=20_000, quantity=3_000))
        session = await until(lambda: it.supplier.shell.session if it.supplier.shell else None)
        await until(lambda: session.meter.total > 500)
        car.consumer.direct(Way.FEED)
        await until(lambda: session.meter.export > 300)
        (row,) = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
        await it.ledger.close(it.key, row.params, book.filing_of(it.journal, row))
        bought = await buying
        assert bought.reason is Reason.CHANNEL_CLOSING
        filed = await it.ledger.filed(row.params, partner=False)
        assert filed.present
        assert filed.amount == bought.repaid > 0
