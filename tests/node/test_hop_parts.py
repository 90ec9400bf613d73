"""Parts of payments over hubs on a disk that is slow or full, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.errors import JournalError
from penstock.core.identity import Address, Key
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer
from penstock.core.ports import Link
from penstock.core.tariff import Tariff
from penstock.core.units import Instant
from penstock.node.hop_purse import HopPurse
from penstock.rails.hops import NAME, HopOffer
from penstock.sim.disk import Disk, MemoryJournal
from penstock.sim.life import Life
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


async def _none() -> Any:
    raise AssertionError("nobody asks the ledger")


def _told(event: str, **facts: object) -> None:
    pass
