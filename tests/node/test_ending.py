"""Ending a channel alone: the supplier is paid at once, the consumer waits, and nobody acts for another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from penstock.core.channel import Close
from penstock.core.errors import TransactionFailed, UsageError
from penstock.node import book, ending

from .world import PRICE, Street

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

HELD = 100 * PRICE // 1_000


async def test_a_supplier_is_paid_at_once_and_a_channel_ends_once(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        (theirs,) = book.channels(car.journal)
        ours = book.channel_of(it.journal, theirs.params.id)
        assert ours is not None
        with pytest.raises(UsageError, match="not our side"):
            await ending.close(it.journal, it.ledger, car.key, ours)
        before = (await it.ledger.holdings(it.key.address)).tokens
        _, state = await ending.close(it.journal, it.ledger, it.key, ours)
        assert state.status in ("settled", "absent")
        assert (await it.ledger.holdings(it.key.address)).tokens - before == HELD
        kept = book.channel_of(it.journal, theirs.params.id)
        assert kept is not None
        assert kept.settled
        for side, key, row in ((it.journal, it.key, kept), (car.journal, car.key, theirs)):
            with pytest.raises(UsageError, match="settled on the ledger"):
                await ending.close(side, it.ledger, key, row)
            with pytest.raises(UsageError, match="settled on the ledger"):
                await ending.settle(side, it.ledger, key, row)


async def test_a_consumer_that_closes_alone_waits_for_the_supplier(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        (theirs,) = book.channels(car.journal)
        _, state = await ending.close(car.journal, it.ledger, car.key, theirs)
        assert state.status == "closing"
        (row,) = book.channels(car.journal)
        assert row.closing
        assert not row.settled
        with pytest.raises(TransactionFailed, match="to go"):
            await ending.settle(car.journal, it.ledger, car.key, row)
        with pytest.raises(UsageError, match="closing on the ledger"):
            await ending.close(car.journal, it.ledger, car.key, row)
        ours = book.channel_of(it.journal, theirs.params.id)
        assert ours is not None
        mined, _ = await ending.close(it.journal, it.ledger, it.key, ours)
        assert mined
        # a closing channel pays no more: the next session opens another
        assert (await car.buy(quantity=100, keep=True)).complete
        assert len(book.channels(car.journal)) == 2


async def test_a_signed_close_that_has_expired_is_replaced_by_the_voucher(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        (theirs,) = book.channels(car.journal)
        ours = book.channel_of(it.journal, theirs.params.id)
        assert ours is not None
        close = Close(0, HELD, 1)
        signatures = [key.sign(close.digest(ours.params)) for key in (car.key, it.key)]
        ours = msgspec.structs.replace(
            ours, close=close, opener_signature=signatures[0], partner_signature=signatures[1]
        )
        before = (await it.ledger.holdings(it.key.address)).tokens
        await ending.close(it.journal, it.ledger, it.key, ours)
        assert (await it.ledger.holdings(it.key.address)).tokens - before == HELD
