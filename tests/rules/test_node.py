"""Rules and mistakes of a whole node: real links, journals and a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import msgspec
import pytest

from penstock.core.channel import ChannelParams, Withdrawal
from penstock.core.codec import decode_part
from penstock.core.errors import BadSignature, BadTerms, PeerRefused
from penstock.core.identity import Key
from penstock.core.messages import (
    Accepted,
    AskOffer,
    Paid,
    Propose,
    Refused,
)
from penstock.core.tariff import Tariff
from penstock.core.units import Amount
from penstock.node import book, lookout
from penstock.node.book import SECRET_ROWS
from penstock.rails.stream import VoucherNote
from penstock.storage.sqlite import SqliteJournal

from ..node.liar import Liar, lying
from ..node.world import SHORT, Car, Street, Thief, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


@contextmanager
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The prefix of each load from any journal meanwhile, once for each row that came of it."""
    rows: list[bytes] = []
    load = SqliteJournal.load

    def counted(journal: SqliteJournal, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for row in load(journal, prefix):
            rows.append(prefix)
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "load", counted)
        yield rows


def to(it: Street, liar: Liar) -> Car:
    """A car that buys from the liar."""
    made = it.car(patience=SHORT, name=f"to-{liar.server.port}")
    made.port, made.expect = liar.server.port, liar.key.address
    return made


# ---- rules


async def test_rule_6_a_signed_close_freezes_the_channel_for_its_consumer(open_street: Open) -> None:
    """Rule 6: whoever signed a close pays nothing more through that channel; the next session opens another."""
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=30)
        (signed,) = book.channels(car.journal)
        assert signed.close is not None
        assert not signed.settled
        assert (await it.ledger.channel(signed.params)).status == "open"
        await car.buy(quantity=30)
        frozen = book.channel_of(car.journal, signed.params.id)
        assert frozen == signed
        assert len(book.channels(car.journal)) == 2


async def test_rule_7_a_deposit_that_was_withdrawn_backs_nothing(open_street: Open) -> None:
    """Rule 7: what both once let the opener take out is not promised again, whatever the deposit says."""
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key, deposit=1_000_000)
        propose, _ = it.proposal(key, it.supplier.offer().offer, params)
        withdrawal = Withdrawal(990_000, 0, await it.ledger.now() + 1_000)
        signatures = [one.sign(withdrawal.digest(params)) for one in (key, it.key)]
        await it.ledger.withdraw_together(key, params, withdrawal, *signatures)
        with pytest.raises(BadTerms, match="withdrawn"):
            await it.site.admit(propose.terms, propose.evidence)


async def test_rule_8_a_retry_takes_a_fresh_chain(open_street: Open) -> None:
    """Rule 8: one root serves one route. What a supplier refused is never offered again."""

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed())
        await liar.proposed(peer)
        peer.send(Refused("not now"))
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        for _ in range(3):
            with pytest.raises(PeerRefused):
                await car.buy(quantity=20, keep=True)
        notes = [decode_part(propose.evidence[1:], VoucherNote) for propose in liar.proposals]
        assert len({note.locks[0].root for note in notes}) == 3
        secrets = [secret for _, secret in car.journal.load(SECRET_ROWS)]
        assert len(set(secrets)) == len(secrets) == 3


async def test_rule_10_no_tick_leaves_before_the_supplier_has_acknowledged_its_lock(open_street: Open) -> None:
    """Rule 10: not even where the consumer pays ahead; an acceptance that another key signed acknowledges nothing."""

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed(mode="pay-before"))
        await liar.proposed(peer)
        peer.send(Accepted(bytes(65), b""))
        liar.takes(await peer.hear(Paid))

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(BadSignature):
            await asyncio.wait_for(car.buy(quantity=20), 10)
        assert len(liar.proposals) == 1
        assert liar.won == 0


# ---- mistakes


async def test_no_offer_above_the_price_limit_is_taken(open_street: Open) -> None:
    """Mistake: the client had no price cap and no budget. An offer a unit above the limit gets no proposal."""

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed(tariff=Tariff.flat(450_000 + liar.links - 1, 1_000)))
        await liar.proposed(peer)
        peer.send(Refused("enough"))
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(PeerRefused, match="enough"):
            await car.buy(quantity=20)
        with pytest.raises(BadTerms, match="price over the limit"):
            await car.buy(quantity=20)
        assert len(liar.proposals) == 1


async def test_no_payment_reads_the_journal(open_street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistake: every payment reloaded every channel from the store. However much is paid, as much is loaded."""
    rows_of: dict[int, int] = {}
    ticks: dict[int, int] = {}
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=10, keep=True)
        known = book.channels(it.journal)[0]
        for n in range(300):  # others that have paid here before
            params = msgspec.structs.replace(known.params, counter=n + 10**9)
            row = msgspec.structs.replace(known, params=params, settled=True)
            it.journal.write(row.rows(), lambda _error: None)
            car.journal.write(row.rows(), lambda _error: None)
        await until(lambda: len(book.channels(it.journal)) > 300 and len(book.channels(car.journal)) > 300)
        for quantity in (20, 420):
            with loads(monkeypatch) as rows:
                bought = await car.buy(quantity=quantity, keep=True)
            ticks[quantity], rows_of[quantity] = bought.ticks, len(rows)
    assert ticks[420] > ticks[20] + 100
    assert rows_of[420] - rows_of[20] < 10, "sessions in the journal, not payments"


async def test_a_restart_loads_no_more_after_more_payments(open_street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistake: restart replayed tens of thousands of state changes for hours. Rows say where things stand."""
    rows_of: dict[int, int] = {}
    async with open_street(patience=SHORT) as it:
        for quantity in (20, 420):
            async with it.car(name=f"car{quantity}") as car:
                await car.buy(quantity=quantity)
            await it.crash()
            with loads(monkeypatch) as rows:
                await it.open(patience=SHORT)
            rows_of[quantity] = len(rows)
    assert rows_of[420] - rows_of[20] < 6, "a session and a channel more, and nothing for its ticks"


async def test_after_a_dispute_a_channel_stays_over(open_street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistake: after a dispute the node wrote a stale record back, and payments went on being accepted."""
    monkeypatch.setattr(lookout, "LONGEST", 0.1)
    monkeypatch.setattr(lookout, "SHORTEST", 0.1)
    async with open_street() as it:
        async with it.car() as car:
            await car.buy(quantity=30, keep=True)
            (ours,) = book.channels(car.journal)
        params, deposit = ours.params, ours.deposit + 100_000
        await it.ledger.add(car.key, params, Amount(100_000))
        await it.ledger.close(car.key, params, None)
        await _refused(it, car.key, params, deposit)
        await until(lambda: it.told.of("filed"), "nothing was filed")
        await it.ledger._node.ask("evm_increaseTime", params.period + 1)
        await it.ledger._node.ask("evm_mine")
        await until(lambda: _settled(it, params.id), "it is not known to be settled")
        await _refused(it, car.key, params, deposit)
        await it.crash()
        await it.open()
        await _refused(it, car.key, params, deposit)
        assert _settled(it, params.id)


async def _refused(it: Street, key: Key, params: ChannelParams, deposit: int) -> None:
    """The channel pays no session, though its deposit would cover one."""
    voucher = book.earned_of(it.journal, params.id)[0]
    assert voucher is not None
    stands = voucher.note.voucher.nonce, voucher.note.voucher.amount
    propose, _ = it.proposal(key, it.supplier.offer().offer, params, deposit, stream=stands)
    with pytest.raises(BadTerms, match=r"closing|on the ledger"):
        await it.site.admit(propose.terms, propose.evidence)


def _settled(it: Street, channel: bytes) -> bool:
    row = book.channel_of(it.journal, channel)
    return row is not None and row.settled
