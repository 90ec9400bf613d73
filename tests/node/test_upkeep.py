"""Looking after a journal: what does not agree is said, and a restored one lets nobody lose or cheat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest

from penstock.core.codec import encode
from penstock.core.errors import UsageError
from penstock.core.messages import Reason
from penstock.core.ports import Journal
from penstock.core.session import SESSION_ROWS, Role, State
from penstock.core.units import Instant
from penstock.core.watcher import worth
from penstock.node import book, clock, ending, upkeep
from penstock.node.tasks import durable
from penstock.rails.stream import EARNED_ROWS, PAID_ROWS, TICK_ROWS
from penstock.storage.copies import back_up, put_back
from penstock.storage.sqlite import SqliteJournal

from .world import PRICE, SHORT, Car, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


async def retire(journal: Journal) -> None:
    await upkeep.retire(journal, clock.now())


async def restored(journal: SqliteJournal, copy: Path) -> SqliteJournal:
    """The journal after its file was lost and a backup put in its place."""
    await journal.close()
    await put_back(copy, journal._path, True, retire)
    return SqliteJournal(journal._path)


def the_channel(car: Car) -> book.ChannelRow:
    (row,) = book.channels(car.journal)
    return row


async def test_journals_of_real_sessions_have_no_problems(open_street: Open) -> None:
    """While a session runs over an open channel, after it was broken off, and when all is settled."""
    async with open_street(speed=600.0) as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        buying = asyncio.ensure_future(car.buy(quantity=2_000))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid > 20_000)
        for journal in (it.journal, car.journal):
            assert list(upkeep.problems(journal)) == []
        await buying
        for journal in (it.journal, car.journal):
            assert list(upkeep.problems(journal)) == []
            assert {key[: key.index(b"/") + 1] for key, _ in journal.load(b"")} > {b"channel/", b"session/"}


async def test_every_disagreement_is_said(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        await retire(car.journal)
        for journal in (it.journal, car.journal):
            rows = dict(journal.load(b""))
            for key, value in rows.items():
                row = value[:-44] + bytes((value[-44] ^ 1,)) + value[-43:] if len(value) > 44 else value[:-1]
                spoilt: list[tuple[bytes, bytes | None]] = [(key, row)]
                if key.startswith((b"channel/", b"session/")):
                    spoilt += [(key[:-1] + bytes((key[-1] ^ 1,)), value)]
                for one in spoilt:
                    await durable(journal, (one,))
                    if one[1] != value or one[0] != key:
                        assert list(upkeep.problems(journal)), one
                    await durable(journal, ((one[0], rows.get(one[0])),))
            assert list(upkeep.problems(journal)) == []
            (channel, *_) = (key[8:] for key in rows if key.startswith(b"channel/"))
            strange: list[tuple[bytes, bytes, str]] = [
                (b"channel/" + bytes(32), b"rubbish", "cannot be read"),
                (b"other/" + bytes(32), b"rubbish", "no kind"),
                (SESSION_ROWS + bytes(32), b"{}", "cannot be read"),
                (PAID_ROWS + bytes(32), rows.get(PAID_ROWS + channel, b"{}"), ""),
                (EARNED_ROWS + bytes(32), rows.get(EARNED_ROWS + channel, b"{}"), ""),
                (TICK_ROWS + bytes(32), bytes(45), "no voucher"),
                (TICK_ROWS + channel, bytes(45), ""),
                (book.SECRET_ROWS + bytes(32), bytes(32), "its session"),
                (upkeep.RESTORED_ROWS + bytes(8), b"1", "cannot be read"),
            ]
            for name, value, said in strange:
                await durable(journal, ((name, value),))
                found = list(upkeep.problems(journal))
                assert found, name
                assert any(said in line for line in found), found
                await durable(journal, ((name, rows.get(name)),))
            lost = ((b"channel/" + channel, None),)
            await durable(journal, lost)
            assert any("is not in the journal" in line for line in upkeep.problems(journal))
            await durable(journal, ((b"channel/" + channel, rows[b"channel/" + channel]),))


async def test_a_consumer_with_an_old_journal_signs_nothing_in_its_old_channels(
    open_street: Open, tmp_path: Path
) -> None:
    """Rule 14, of seeds: it has promised more than it knows; a voucher now would be a second one of its number."""
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        back_up(tmp_path / "car.db", tmp_path / "copy")
        await car.buy(quantity=50, keep=True)
        promised = book.last_note(car.journal, the_channel(car))
        car.journal = await restored(car.journal, tmp_path / "copy")
        old = the_channel(car)
        assert (old.restored, old.over) == (True, True)
        assert list(car.journal.load(book.SECRET_ROWS)) == [], "a chain could be derived again"
        assert list(upkeep.problems(car.journal)) == []
        assert len(upkeep.restored_at(car.journal)) == 1

        session = await car.buy(quantity=70)
        assert session.complete
        assert book.account_in(session.row) != old.params.id, "an old channel was paid through"
        assert book.last_note(car.journal, old) != promised, "the test needs an old journal"

        # The supplier, which knows all, is paid in full; the consumer gets the rest, by a close that states no sum.
        before = (await it.ledger.holdings(it.key.address)).tokens
        _, state = await ending.close(car.journal, it.ledger, car.key, old)
        assert state.status == "closing"
        ours = book.channel_of(it.journal, old.params.id)
        assert ours is not None
        await ending.close(it.journal, it.ledger, it.key, ours)
        assert (await it.ledger.holdings(it.key.address)).tokens - before == 150 * PRICE // 1_000


async def test_a_consumers_unfinished_session_is_over_in_a_restored_journal(open_street: Open, tmp_path: Path) -> None:
    async with open_street(speed=600.0) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=50_000))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid > 20_000)
        back_up(tmp_path / "car.db", tmp_path / "copy")
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid > 60_000)
        buying.cancel()  # as a kill does, as far as one process can
        await asyncio.gather(buying, return_exceptions=True)
        car.journal = await restored(car.journal, tmp_path / "copy")
        (row,) = book.sessions(car.journal)
        assert (row.state, row.reason) == (State.ENDED, Reason.OPERATOR)
        assert book.unfinished(car.journal, Role.CONSUMER) == []
        paid = it.supplier.shell.session.paid if it.supplier.shell else 0
        assert paid > 60_000
        if it.supplier.shell is not None:
            it.supplier.shell.abandon()
        await until(lambda: it.supplier.shell is None)
        held = book.channel_of(it.journal, book.account_in(row))
        assert held is not None
        assert worth(book.filing_of(it.journal, held)) == paid, "the supplier lost what was paid"


async def test_a_supplier_with_an_old_journal_is_made_whole_by_the_next_session(
    open_street: Open, tmp_path: Path
) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        back_up(tmp_path / "pole.db", tmp_path / "copy")
        await car.buy(quantity=50, keep=True)
        await it.crash()
        await put_back(tmp_path / "copy", tmp_path / "pole.db", True, retire)
        await it.open()
        car.port = it.server.port
        ours = book.channel_of(it.journal, the_channel(car).params.id)
        assert ours is not None
        assert ours.restored
        assert worth(book.filing_of(it.journal, ours)) == 100 * PRICE // 1_000
        with pytest.raises(UsageError, match="backup") as caught:
            await ending.close(it.journal, it.ledger, it.key, ours)
        assert "--anyway" in caught.value.advice

        session = await car.buy(quantity=70, keep=True)
        assert book.account_in(session.row) == ours.params.id, "the channel goes on"
        ours = book.channel_of(it.journal, ours.params.id)
        assert ours is not None
        assert not ours.restored
        assert worth(book.filing_of(it.journal, ours)) == 220 * PRICE // 1_000
        before = (await it.ledger.holdings(it.key.address)).tokens
        await ending.close(it.journal, it.ledger, it.key, ours)
        assert (await it.ledger.holdings(it.key.address)).tokens - before == 220 * PRICE // 1_000


async def test_a_supplier_with_an_old_journal_takes_a_close_for_more_than_it_knows(
    open_street: Open, tmp_path: Path
) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        back_up(tmp_path / "pole.db", tmp_path / "copy")
        session = await car.buy(quantity=50, keep=True)
        await it.crash()
        await put_back(tmp_path / "copy", tmp_path / "pole.db", True, retire)
        await it.open()
        ask = await car.consumer._purse.sign_off(session.terms, int(clock.now()) // 1_000 + 86_400)
        await it.site.take_close(ask)
        before = (await it.ledger.holdings(it.key.address)).tokens
        await it.site.settle()
        first = 10 * PRICE // 1_000  # the car that opens every street
        assert (await it.ledger.holdings(it.key.address)).tokens - before in (
            150 * PRICE // 1_000,
            150 * PRICE // 1_000 + first,
        )


async def test_retiring_says_how_many_channels_pay_no_more(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        assert await upkeep.retire(car.journal, clock.now()) == 1
        assert await upkeep.retire(it.journal, Instant(0)) == 0
        settled = msgspec.structs.replace(the_channel(car), settled=True, restored=False)
        await durable(car.journal, ((b"channel/" + settled.params.id, encode(settled)),))
        assert await upkeep.retire(car.journal, clock.now()) == 0
        assert not the_channel(car).restored


async def test_a_session_that_was_under_way_at_the_backup_costs_an_honest_consumer_no_credit(
    open_street: Open, tmp_path: Path
) -> None:
    """It looks unpaid in the restored journal, for all that flowed since; the next session brings the newer voucher."""
    async with open_street(speed=600.0) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=1_000, keep=True))
        await until(lambda: it.supplier.shell and it.supplier.shell.session.paid > 20_000)
        back_up(tmp_path / "pole.db", tmp_path / "copy")
        assert (await buying).complete
        await it.crash()
        await put_back(tmp_path / "copy", tmp_path / "pole.db", True, retire)
        await it.open(patience=SHORT)
        car.port = it.server.port
        await until(lambda: it.supplier.shell is None)  # nobody came back to it
        assert sum(row.unpaid > 0 for row in book.sessions(it.journal)) == 1
        for _ in range(2):
            assert (await car.buy(quantity=70, keep=True)).complete
        assert not any(row.unpaid for row in book.sessions(it.journal))
        ours = book.channel_of(it.journal, the_channel(car).params.id)
        note = book.last_note(car.journal, the_channel(car))
        assert note is not None
        assert worth(book.filing_of(it.journal, ours)) == note.voucher.amount
