"""What the journal knows: rows come back as they were, a channel is found by its name, and damage is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from penstock.core.errors import JournalError, UsageError
from penstock.core.messages import Paid
from penstock.core.session import Role
from penstock.core.units import Quantity
from penstock.core.watcher import worth
from penstock.node import book
from penstock.node.tasks import durable

from .world import PRICE, SHORT, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


async def test_both_sides_know_the_same_channel_and_session(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        session = await car.buy(quantity=100, keep=True)
        theirs = book.channel_named(car.journal, book.name_of(book.channels(car.journal)[0]))
        ours = book.channel_named(it.journal, theirs.params.id.hex()[:20])
        assert (theirs.role, ours.role) == (Role.CONSUMER, Role.SUPPLIER)
        assert (theirs.params, theirs.deposit) == (ours.params, ours.deposit)
        note = book.last_note(it.journal, ours)
        assert note is not None
        assert note == book.last_note(car.journal, theirs)
        assert worth(book.filing_of(it.journal, ours)) == 100 * PRICE // 1_000
        assert book.filing_of(car.journal, theirs) is None
        assert worth(None) == 0
        sold, bought = (book.session_of(side, session.digest) for side in (it.journal, car.journal))
        assert sold is not None
        assert bought is not None
        assert sold.receipt == bought.receipt == session.receipt
        assert sold.accepted == bought.accepted
        assert book.account_in(sold) == theirs.params.id
        assert book.session_of(it.journal, bytes(32)) is None
        assert book.channel_of(it.journal, bytes(32)) is None


async def test_a_filing_proves_the_ticks_that_are_not_folded(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, _, payer = await it.robs()
        (evidence,) = payer.pay(1_000)
        thief.send(Paid(Quantity(0), (evidence.data,)))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid)
        row = book.channel_of(it.journal, payer._params.id)
        assert row is not None
        await until(lambda: worth(book.filing_of(it.journal, row)) == 1_000)
        filing = book.filing_of(it.journal, row)
        assert filing is not None
        assert [count for count, _ in filing.proofs] == [1]
        assert filing.voucher.amount == 0
        thief.leave()


async def test_a_channel_is_named_by_how_its_id_begins(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        for _ in range(2):
            await car.buy(quantity=20)
        both = [book.name_of(row) for row in book.channels(car.journal)]
        assert len(both) == 2
        for name, problem in [("", "no channel"), ("zz", "no channel"), ("0x" + "0" * 64, "no channel")]:
            with pytest.raises(UsageError, match=problem):
                book.channel_named(car.journal, name)
        assert book.name_of(book.channel_named(car.journal, both[0].upper().replace("X", "x")[:30])) == both[0]


async def test_a_damaged_row_is_said_to_be_one(open_street: Open) -> None:
    async with open_street(serves=False) as it:
        await durable(it.journal, ((book.CHANNEL_ROWS + bytes(32), b"rubbish"),))
        with pytest.raises(JournalError, match="channel cannot be read"):
            book.channels(it.journal)
        await durable(it.journal, ((book.CHANNEL_ROWS + bytes(32), None),))
