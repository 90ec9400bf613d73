"""What a reorganisation takes out of the chain is not over: closes that were mined are sent again, until they stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Close, Domain, Voucher
from penstock.core.codec import encode
from penstock.core.errors import TransactionFailed
from penstock.core.identity import Address, Key
from penstock.core.messages import AskClose
from penstock.core.session import Role
from penstock.core.units import Amount
from penstock.node import book, ending
from penstock.node.book import ChannelRow
from penstock.node.site import Site
from penstock.node.tasks import durable
from penstock.rails.stream import EARNED_ROWS, EarnedRow, VoucherNote
from penstock.sim.chain import Chain
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
from penstock.sim.tender import SimLedger
from penstock.sim.virtual import VirtualLoop

DOMAIN = Domain(31_337, Address(b"\x11" * 20), Address(b"\x22" * 20))
PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
PERIOD, DEPOSIT, PAYS = 600, Amount(10_000), Amount(2_400)
PARAMS = ChannelParams(
    domain=DOMAIN,
    opener=PAYER.address,
    partner=PAYEE.address,
    opener_key=PAYER.address,
    partner_key=PAYEE.address,
    period=PERIOD,
    two_way=False,
    counter=0,
)


def test_a_channel_is_watched_while_the_batch_that_it_is_in_settles() -> None:
    """Closes that do not fit keep us busy for longer than a challenge period; the thief closes the last one alone."""

    async def lives(loop: VirtualLoop, chain: Chain, disk: Disk, life: Life) -> None:
        chain.interval = 60.0
        ledger, journal = SimLedger(chain, DOMAIN, life, lambda: 0.01), MemoryJournal(disk, life)
        channels = [msgspec.structs.replace(PARAMS, counter=number) for number in range(12)]
        for params in channels:
            await ledger.open(PAYER, params, Amount(DEPOSIT // 12))
        await asyncio.sleep(600)
        pays = Amount(DEPOSIT // 24)
        for params in channels:
            voucher = Voucher.over(1, pays)
            note = VoucherNote(voucher, PAYER.sign(voucher.digest(params)), ())
            row = ChannelRow(params, Role.SUPPLIER, Amount(DEPOSIT // 12))
            await durable(journal, (*row.rows(), (EARNED_ROWS + params.id, encode(EarnedRow(note)))))
        site = Site.with_channels(PAYEE, journal, ledger, loop.instant, _silent, PERIOD)
        site.start()
        for params in channels:
            await ledger.add(PAYER, params, Amount(1))
            close = Close(Amount(DEPOSIT // 12 - pays), pays, loop.seconds() + 86_400)
            await site.take_close(AskClose(params.id, close, PAYER.sign(close.digest(params))))
        settling = asyncio.ensure_future(site.settle())
        await asyncio.sleep(0.5)
        stolen = channels[-1]
        await ledger.close(PAYER, stolen, None)  # stating nothing
        with suppress(TransactionFailed):  # until its challenge is over, or we have answered
            while True:
                await asyncio.sleep(5)
                if (await ledger.channel(stolen)).status == "settled":
                    break
                with suppress(TransactionFailed):
                    await ledger.settle(PAYER, stolen)
        await settling
        assert chain.head.accounts.channels[stolen.id].paid[1] == pays
        await site.close()

    _live(lives)


def test_a_close_that_a_reorganisation_lost_is_sent_again() -> None:
    async def lives(loop: VirtualLoop, chain: Chain, disk: Disk, life: Life) -> None:
        ledger, journal = SimLedger(chain, DOMAIN, life, lambda: 0.01), MemoryJournal(disk, life)
        await ledger.open(PAYER, PARAMS, DEPOSIT)
        await asyncio.sleep(60)  # deep enough to stay
        await durable(journal, ChannelRow(PARAMS, Role.SUPPLIER, DEPOSIT).rows())
        site = Site.with_channels(PAYEE, journal, ledger, loop.instant, _silent, PERIOD)
        site.start()
        close = Close(Amount(DEPOSIT - PAYS), PAYS, loop.seconds() + 86_400)
        await site.take_close(AskClose(PARAMS.id, close, PAYER.sign(close.digest(PARAMS))))
        await site.settle()
        chain.reorganise(3, lose=1.0)
        assert chain.head.accounts.channels[PARAMS.id].status == "open"
        await _until(lambda: site.unsettled == 1)
        await site.settle()
        assert chain.head.accounts.channels[PARAMS.id].paid == (DEPOSIT - PAYS, PAYS)
        await _until(lambda: all(row.settled for row in book.channels(disk)))
        await site.close()

    _live(lives)


def test_what_a_consumer_ended_is_over_for_it_only_once_it_stays_so() -> None:
    async def lives(loop: VirtualLoop, chain: Chain, disk: Disk, life: Life) -> None:
        ledger, journal = SimLedger(chain, DOMAIN, life, lambda: 0.01), MemoryJournal(disk, life)
        await ledger.open(PAYER, PARAMS, DEPOSIT)
        await asyncio.sleep(60)  # deep enough to stay
        row = ChannelRow(PARAMS, Role.CONSUMER, DEPOSIT)
        await ending.close(journal, ledger, PAYER, row)
        await asyncio.sleep(PERIOD + 30)
        (row,) = book.channels(disk)
        await ending.settle(journal, ledger, PAYER, row)
        (row,) = book.channels(disk)
        assert row.over
        assert not row.settled, "a reorganisation may take it back"
        chain.reorganise(3, lose=1.0)
        await ending.settle(journal, ledger, PAYER, row)
        assert chain.head.accounts.channels[PARAMS.id].status == "ended"

    _live(lives)


def _live(lives: Callable[[VirtualLoop, Chain, Disk, Life], Coroutine[Any, Any, None]]) -> None:
    loop = VirtualLoop()
    chain, disk, life = Chain(loop, Random(1)), Disk(), Life("test", loop)
    chain.fund(PAYER.address, 1_000_000)

    async def main() -> None:
        mining = asyncio.ensure_future(chain.run())
        await lives(loop, chain, disk, life)
        mining.cancel()

    loop.run(main())


async def _until(met: Callable[[], bool]) -> None:
    for _ in range(600):
        if met():
            return
        await asyncio.sleep(1)
    raise AssertionError("it does not come")


def _silent(event: str, **facts: Any) -> None:
    """Nobody listens."""
