"""Parts of payments over hubs on a disk that is slow or full, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Domain, Lock
from penstock.core.codec import encode
from penstock.core.errors import JournalError, LinkLost
from penstock.core.hops import IN_ROWS, NO_VOUCHER, Incoming, InLock, InRow, Place, decode_in_lock, lock_key
from penstock.core.identity import Address, Key
from penstock.core.messages import Add, Enter, Message, Reached, SignedReach, Told
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer
from penstock.core.ports import Ledger, Link
from penstock.core.session import Role
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant
from penstock.node.book import REACH_ROWS, ChannelRow
from penstock.node.hop_purse import HopPurse
from penstock.node.hop_till import HopTill
from penstock.node.hub import Hub
from penstock.node.incoming import Incomings
from penstock.node.relay import Fees
from penstock.node.tasks import durable
from penstock.rails.hops import NAME, HopOffer
from penstock.sim.chain import Chain
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger
from penstock.sim.virtual import VirtualLoop

PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
DOMAIN = Domain(31_337, Address(b"\x11" * 20), Address(b"\x22" * 20))
PARAMS = ChannelParams(
    domain=DOMAIN, opener=PAYER.address, partner=PAYEE.address, opener_key=PAYER.address, partner_key=PAYEE.address,
    period=600, two_way=False, counter=1,
)  # fmt: skip


def test_a_consumer_whose_journal_failed_buys_nothing_more() -> None:
    """Its hubs' links write, too: what fails there is not a hub that cannot be reached."""
    loop = VirtualLoop()
    offer = Offer(
        supplier=PAYEE.address, name="pole", medium="electricity", tariff=Tariff.flat(400_000, 1_000), tick_value=100,
        package=3, credit_limit=2_000, mode="pay-after", tolerance=Tolerance(2, 20_000),
        rails={NAME: encode(HopOffer(DOMAIN, PAYEE.address, 900))}, meter="", expires=Instant(10**15),
    )  # fmt: skip

    async def dial() -> Link:
        raise JournalError("the journal cannot be written (no space left)")

    async def fund() -> None:
        purse = HopPurse(PAYER, MemoryJournal(Disk(), Life("car", loop)), _none, [dial], loop.instant, _told, DOMAIN)
        with pytest.raises(JournalError):
            await purse.fund(offer, 1_000)
        await purse.close()

    loop.run(fund())


@pytest.mark.parametrize("enters", [False, True])
def test_nothing_is_told_of_a_lock_that_is_not_durable(enters: bool) -> None:
    """Neither where more becomes known of it meanwhile, nor to a payer that comes back meanwhile."""
    loop = VirtualLoop()
    disk = Disk(lambda: 2.0)
    place = Place(PARAMS.id, 1)

    class Payer:
        gone = False

        def send(self, message: Message) -> None:
            if isinstance(message, Told):
                kept = disk.rows.get(lock_key(IN_ROWS, place))
                told.append(message)
                assert kept is not None
                assert decode_in_lock(kept).told(place) == message

    told: list[Told] = []

    async def tell() -> None:
        life, chain = Life("pole", loop), Chain(loop, None)  # type: ignore[arg-type]  # it makes no block by itself
        chain.fund(PAYER.address, 1_000)
        ledger = SimLedger(chain, DOMAIN, life, lambda: 0.0)
        chain.submit("open", PAYER.address, lambda accounts, _: accounts.open(PARAMS, 1_000))
        for _ in range(5):
            chain.mine()
        incomings = Incomings(PAYEE, MemoryJournal(disk, life), ledger, loop.instant, _told)
        HopTill(incomings)
        lock = InLock(Add(1, Lock(b"r" * 32, 10, 5, 10**10), 0, ()))
        incoming = incomings.channels[PARAMS.id] = Incoming(PARAMS, Amount(1_000), PAYEE, InRow(NO_VOUCHER), {1: lock})
        await incomings.enter(Payer(), PAYER.address, Enter(PARAMS))
        writes = [asyncio.ensure_future(incomings.keep(incoming, 1, incoming.place(1)))]
        await asyncio.sleep(1)
        writes.append(asyncio.ensure_future(incomings.keep(incoming, 1, incoming.done(1, 0, "why"))))
        await asyncio.sleep(0)
        if enters:
            await incomings.enter(Payer(), PAYER.address, Enter(PARAMS))
        await asyncio.gather(*writes)

    loop.run(tell())
    assert told[-1].done


def test_a_consumer_opens_another_channel_where_its_hub_has_closed_the_one_it_had() -> None:
    """A hub closes one to claim a lock in it; the consumer asks the ledger only where the hub does not let it in."""
    loop = VirtualLoop()

    async def dial() -> Link:
        raise LinkLost("nobody there")

    async def close() -> None:
        life, chain = Life("car", loop), Chain(loop, Random(1))
        chain.fund(PAYER.address, 10_000)
        mining = asyncio.ensure_future(chain.run())
        ledger = SimLedger(chain, DOMAIN, life, lambda: 0.0)

        async def at() -> Ledger:
            return ledger

        purse = HopPurse(PAYER, MemoryJournal(Disk(), life), at, [dial], loop.instant, _told, DOMAIN, 1_000, 600)
        reached = Reached(PAYEE.address, DOMAIN, 600, 0, 0, 0, (), loop.instant())
        purse._need = 0  # as where a session is to be paid
        first = await purse._channel(reached)
        await ledger.close(PAYER, first.params, None)
        (hub,) = purse._neighbours
        hub.known = (SignedReach(reached, b""),)
        assert (await purse._channel(reached)).params.id == first.params.id
        hub.refused = True
        assert (await purse._channel(reached)).params.id != first.params.id
        mining.cancel()

    loop.run(close())


def test_a_channel_whose_opening_a_crash_cut_short_is_looked_up_before_anything_is_lent_over_it() -> None:
    """The journal does not know what is in it: what was taken for nothing lent nothing, for ever."""
    loop, disk = VirtualLoop(), Disk()

    async def dial() -> Link:
        raise LinkLost("nobody there")

    async def start() -> None:
        life, chain = Life("hub", loop), Chain(loop, None)  # type: ignore[arg-type]  # it makes no block by itself
        ledger, journal = SimLedger(chain, DOMAIN, life, lambda: 0.0), MemoryJournal(disk, life)
        await durable(
            journal, (*ChannelRow(PARAMS, Role.CONSUMER, Amount(0)).rows(), (REACH_ROWS + b"pole", PAYEE.address))
        )
        hub = Hub(PAYER, journal, ledger, loop.instant, _told, {"pole": dial}, 1_000, Fees())
        await hub.start()
        assert not hub.relay.neighbours
        await hub.close()

    loop.run(start())


async def _none() -> Any:
    raise AssertionError("nobody asks the ledger")


def _told(event: str, **facts: object) -> None:
    pass
