"""Sessions that are paid over escrows: real links, journals, meters and a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.codec import encode
from penstock.core.errors import BadTerms, OutOfFunds, PeerRefused
from penstock.core.identity import Key, parse_address
from penstock.core.messages import Reason, Refused
from penstock.core.session import Session, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Price, Quantity
from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, clock, escrow_till
from penstock.node.book import EscrowRow
from penstock.node.consumer import Consumer, Wish
from penstock.node.escrow_purse import EscrowPurse
from penstock.node.escrow_till import EscrowTill
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.node.tasks import durable
from penstock.node.upkeep import problems, retire
from penstock.rails.escrow import (
    END_ROWS,
    NAME,
    READING_ROWS,
    EndNote,
    EscrowTerms,
    check_terms,
    decode_terms,
    next_reading,
)
from penstock.sim.line import LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import serve

from .world import HOST, LIMIT, PACKAGE, PRICE, SHORT, SPEED, TICK, Car, Street, until

WINDOW = 1  # second that the payer has to object in


class EscrowStreet(Street):
    """A pole that is paid over escrows alone."""

    escrows: EvmEscrows
    min_life = 1_000

    async def open(self, patience: Any = None, speed: float | None = None, **goods: Any) -> None:
        self.journal = SqliteJournal(self.directory / "pole.db")
        self.line = LineSupply(self.directory / "line", 6_600, speed, package=Quantity(2))
        till = EscrowTill(
            self.key,
            self.journal,
            self.escrows,
            self.pole_clock,
            self.told,
            max_window=WINDOW,
            min_life=self.min_life,
        )
        self.site = Site(self.key, self.journal, self.pole_clock, self.told, [till])
        sold = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, PACKAGE, LIMIT)._replace(**goods)
        self.supplier = Supplier(self.site, Pole("pole", self.line, self.line), sold, patience, self.sessions.append)
        await self.supplier.restore()
        self.server = await serve(HOST, 0, self.key, self.supplier.on_link)

    def car(self, key: Key | None = None, name: str = "car", **changes: Any) -> EscrowCar:
        return EscrowCar(self, key or self.fresh_key(), name, **changes)


class EscrowCar(Car):
    """A consumer that pays from escrows."""

    street: EscrowStreet
    life = 4_000
    least_window = WINDOW

    async def _escrows(self) -> EvmEscrows:
        return self.street.escrows

    async def buy(self, quantity: int | None = 500, keep: bool = False, budget: int = 1_000_000) -> Session:
        wish = Wish(Price(450_000, 1_000), budget, quantity, keep=keep)
        purse = EscrowPurse(self.key, self.journal, self._escrows, self.told, self.life, least_window=self.least_window)
        self.consumer = Consumer(
            self.key, self.journal, self.meter, self._dial, wish, self._clock, self.told, purse, self.patience
        )
        return await self.consumer.buy()

    async def tokens(self) -> int:
        return (await self.street.escrows.holdings(self.key.address)).tokens


Open = Callable[..., Any]


@pytest.fixture
def street(tmp_path: Path, devnet: Manifest, fresh_key: Callable[[], Key]) -> Open:
    @asynccontextmanager
    async def opened(min_life: int = 1_000, **pole: Any) -> AsyncIterator[EscrowStreet]:
        ledger = await EvmLedger.connect(devnet.url, parse_address(devnet.contracts["CryptoEuroChannel"]))
        escrows = await EvmEscrows.connect(devnet.url, parse_address(devnet.contracts["CryptoEuroEscrow"]))
        made = EscrowStreet(tmp_path, devnet, ledger, fresh_key, None)
        made.escrows, made.min_life = escrows, min_life
        try:
            await made.open(**pole)
            yield made
        finally:
            await made.close()
            await ledger.disconnect()
            await escrows.disconnect()

    return opened


async def _refuse(supplier: Supplier, visit: Any, propose: Any) -> None:
    visit.send(Refused("not now"))


async def the_state(it: EscrowStreet, journal: SqliteJournal) -> tuple[str, int]:
    (row,) = book.escrows(journal)
    return await the_state_of(it, row)


async def the_state_of(it: EscrowStreet, row: EscrowRow) -> tuple[str, int]:
    state = await it.escrows.escrow(row.params)
    return state.status, state.drawn


@pytest.mark.asyncio
async def test_a_session_is_paid_to_the_unit_and_ends_in_one_transaction(street: Open) -> None:
    async with street() as it, it.car() as car:
        pole, own = (await it.escrows.holdings(it.key.address)).tokens, await car.tokens()
        session = await car.buy(quantity=501)
        assert session.complete
        assert session.reason is Reason.TARGET_REACHED
        assert it.site.unsettled == 1
        assert [one.what for one in await it.site.settle()] == ["end"]
        assert it.site.unsettled == 0
        paid = 501 * PRICE // 1_000
        assert session.receipt is not None
        assert session.receipt.paid == paid
        assert (await it.escrows.holdings(it.key.address)).tokens - pole == paid
        assert own - await car.tokens() == paid
        assert await the_state(it, it.journal) == ("ended", paid)
        assert session.control.worst == 0
        assert it.sessions[0].control.worst <= LIMIT


@pytest.mark.asyncio
async def test_the_bill_follows_the_tariffs_steps_on_both_sides_and_in_the_contract(street: Open) -> None:
    tariff = Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(clock.now() + 400_000), 300_001)))
    async with street(tariff=tariff, speed=1_500.0) as it, it.car() as car:
        session = await car.buy(quantity=1_500)
        assert session.complete
        assert len(session.bill.turns) == 1
        await it.site.settle()
        assert await the_state(it, it.journal) == ("ended", session.bill.due(session.receipt.supplier_total))


@pytest.mark.asyncio
async def test_a_consumer_that_vanishes_is_paid_for_by_the_meters_last_reading(street: Open) -> None:
    async with street(patience=SHORT, speed=SPEED) as it, it.car() as car:
        pole, own = (await it.escrows.holdings(it.key.address)).tokens, await car.tokens()
        buying = asyncio.ensure_future(car.buy(quantity=5_000))
        await until(lambda: it.supplier.shell is not None and it.supplier.shell.session.meter.total > 300)
        buying.cancel()
        await until(lambda: it.sessions, "the pole still waits")
        secured = it.sessions[0].paid
        assert secured == it.sessions[0].bill.due(it.sessions[0].meter.total)  # to the last unit that flowed
        assert secured > 300 * PRICE // 1_000
        assert not it.sessions[0].complete
        assert [one.what for one in await it.site.settle()] == ["release"]
        assert (await the_state(it, it.journal))[0] == "ending"
        await asyncio.sleep(WINDOW + 1)
        await it.escrows._node.ask("evm_mine")  # a devnet's time stands still between its blocks
        till = it.site.tills[NAME]
        assert isinstance(till, EscrowTill)
        await till._turn()
        assert it.site.unsettled == 1
        assert [one.what for one in await it.site.settle()] == ["settle"]
        assert await the_state(it, it.journal) == ("ended", secured)
        assert (await it.escrows.holdings(it.key.address)).tokens - pole == secured
        assert own - await car.tokens() == secured


@pytest.mark.asyncio
async def test_a_pole_that_crashes_takes_the_session_up_where_its_meter_signed(street: Open) -> None:
    async with street(speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=2_000))
        await until(lambda: it.supplier.shell is not None and it.supplier.shell.session.meter.total > 300)
        port = it.server.port
        await it.crash()
        await it.open(speed=SPEED)
        assert it.server.port != port
        car.port = it.server.port
        assert it.supplier.shell is not None
        session = await asyncio.wait_for(buying, 20)
        assert session.complete
        await it.site.settle()
        assert await the_state(it, it.journal) == ("ended", 2_000 * PRICE // 1_000)


@pytest.mark.asyncio
async def test_a_consumer_that_crashed_takes_its_session_up(street: Open) -> None:
    async with street(speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=2_000))
        await until(lambda: car.told.of("accepted") and car.consumer.session.meter.total > 300)
        buying.cancel()
        for link in car.links:
            link.close()
        session = await car.buy(quantity=1)  # the unfinished one is taken up instead
        assert session.complete
        assert session.meter.total >= 2_000
        await it.site.settle()
        assert await the_state(it, it.journal) == ("ended", session.receipt.paid)


@pytest.mark.asyncio
async def test_an_escrow_that_no_session_used_pays_the_next_one(street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with street() as it, it.car() as car:
        it.supplier._closing = True
        with pytest.raises(PeerRefused):
            await car.buy()
        assert book.escrows(car.journal) == []  # it refused before anything was funded
        it.supplier._closing = False
        with monkeypatch.context() as patched:
            patched.setattr(Supplier, "admit", _refuse)
            with pytest.raises(PeerRefused, match="not now"):
                await car.buy()
        (row,) = book.escrows(car.journal)
        session = await car.buy()
        assert session.complete
        assert [one.params for one in book.escrows(car.journal)] == [row.params]
        assert book.account_in(session.row) == row.params.id


@pytest.mark.asyncio
async def test_an_escrow_pays_one_session_only(street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with street() as it, it.car() as car:
        await car.buy()
        (row,) = book.escrows(car.journal)

        async def the_same(*_: Any) -> Any:
            return row

        monkeypatch.setattr(EscrowPurse, "_unused", the_same)
        with pytest.raises(PeerRefused, match="paid a session already"):
            await car.buy()


@pytest.mark.asyncio
async def test_what_no_session_used_comes_back_after_the_deadline(
    street: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supplier, "admit", _refuse)
    async with street(min_life=1) as it, it.car() as car:
        car.life = 60
        own = await car.tokens()
        with pytest.raises(PeerRefused, match="not now"):
            await car.buy()
        (row,) = book.escrows(car.journal)
        assert own - await car.tokens() == row.params.deposit
        await it.escrows._node.ask("evm_increaseTime", car.life)
        await it.escrows._node.ask("evm_mine")
        await it.escrows.settle(car.key, row.params)
        assert await car.tokens() == own


@pytest.mark.asyncio
async def test_a_session_ends_in_time_before_its_escrows_deadline(
    street: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escrow_till, "PAUSE", 0.05)
    monkeypatch.setattr(escrow_till, "MARGIN", 3_998)
    async with street(speed=1.0) as it, it.car() as car:
        session = await car.buy(quantity=5_000)
        assert session.reason is Reason.CHANNEL_CLOSING
        assert session.complete


@pytest.mark.asyncio
async def test_a_supplier_that_holds_deposits_too_long_is_left(street: Open) -> None:
    async with street(min_life=10_000) as it, it.car() as car:
        with pytest.raises(BadTerms, match="may hold our deposit"):
            await car.buy()
        assert book.escrows(car.journal) == []


@pytest.mark.asyncio
async def test_an_escrow_cannot_pay_before(street: Open) -> None:
    async with street(mode="pay-before") as it, it.car() as car:
        with pytest.raises(BadTerms, match="cannot pay before"):
            await car.buy()
        assert book.escrows(car.journal) == []


@pytest.mark.asyncio
async def test_a_budget_bounds_the_deposit(street: Open) -> None:
    async with street() as it, it.car() as car:
        session = await car.buy(quantity=None, budget=50_000)
        assert session.reason in (Reason.BUDGET_SPENT, Reason.WALLET_EMPTY)
        assert session.receipt.paid <= 50_000
        (row,) = book.escrows(car.journal)
        assert row.params.deposit == 50_000
        with pytest.raises(OutOfFunds):
            await car.buy(quantity=None, budget=10)


@pytest.mark.asyncio
async def test_a_supplier_whose_meter_lies_ends_without_a_receipt_and_gets_what_its_meter_signed(street: Open) -> None:
    """The risk of this rail: the meter's word is money, up to the deposit."""
    async with street(patience=SHORT) as it, it.car(error_ppm=-100_000, patience=SHORT) as car:
        session = await car.buy(quantity=2_000)
        assert session.reason is Reason.METERS_DISAGREE
        assert session.state is State.ENDED
        await until(lambda: it.sessions)
        await it.site.settle()
        status, drawn = await the_state(it, it.journal)
        assert status in ("ending", "ended")
        assert drawn <= session.paid + LIMIT


@pytest.mark.asyncio
async def test_what_the_journals_keep_of_escrows_reads_well_and_faults_in_it_are_seen(street: Open) -> None:
    async with street() as it, it.car() as car:
        await car.buy()
        for journal in (it.journal, car.journal):
            assert list(problems(journal)) == []
        (row,) = book.escrows(car.journal)
        reading = book.reading_of(car.journal, row.params.id)
        assert reading is not None
        forged = msgspec.structs.replace(reading, reading=msgspec.structs.replace(reading.reading, total=Quantity(1)))
        await durable(car.journal, ((READING_ROWS + row.params.id, encode(forged)),))
        await durable(it.journal, ((END_ROWS + row.params.id, encode(EndNote(7, bytes(65)))),))
        assert len(list(problems(car.journal))) == 1
        assert len(list(problems(it.journal))) == 1


@pytest.mark.asyncio
async def test_an_unused_escrow_of_an_old_journal_pays_no_session(
    street: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with street() as it, it.car() as car:
        with monkeypatch.context() as patched:
            patched.setattr(Supplier, "admit", _refuse)
            with pytest.raises(PeerRefused):
                await car.buy()
        assert await retire(car.journal, clock.now()) == 1
        session = await car.buy()
        assert session.complete
        old, new = sorted(book.escrows(car.journal), key=lambda row: row.params.counter)
        assert book.account_in(session.row) == new.params.id != old.params.id


@pytest.mark.asyncio
async def test_an_escrow_pays_for_nobody_but_its_payer(street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with street() as it, it.car() as car, it.car(name="thief") as thief:
        with monkeypatch.context() as patched:
            patched.setattr(Supplier, "admit", _refuse)
            with pytest.raises(PeerRefused):
                await car.buy()
        (row,) = book.escrows(car.journal)  # all that is in it stands in the chain's logs, too
        await durable(thief.journal, row.rows())

        async def another(*_: Any) -> Any:
            return row

        monkeypatch.setattr(EscrowPurse, "_unused", another)
        with pytest.raises(PeerRefused, match="another consumer's"):
            await thief.buy()
        assert await the_state_of(it, row) == ("open", 0)


@pytest.mark.asyncio
async def test_a_supplier_that_claims_and_refuses_gets_one_deposit_and_no_more(
    street: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with street() as it, it.car() as car:

        async def claim(supplier: Supplier, visit: Any, propose: Any) -> None:
            params = decode_terms(propose.terms.rail_terms).params
            till = it.site.tills[NAME]
            assert isinstance(till, EscrowTill)
            signed = next_reading(params, till._meter, None, Quantity(10**9), clock.now(), (), True)
            await it.escrows.release(it.key, params, propose.terms.offer.tariff, signed)
            visit.send(Refused("not now"))

        monkeypatch.setattr(Supplier, "admit", claim)
        own = await car.tokens()
        with pytest.raises(PeerRefused, match="not now"):
            await car.buy(budget=50_000)
        assert own - await car.tokens() <= 50_000
        assert len(book.escrows(car.journal)) == 1


@pytest.mark.asyncio
async def test_a_till_with_an_old_journal_takes_no_escrow_that_it_may_have_served(street: Open) -> None:
    async with street() as it, it.car() as car:
        await car.buy()
        (row,) = book.escrows(car.journal)
        await it.crash()
        (it.directory / "pole.db").rename(it.directory / "away.db")  # a journal that knows nothing of it
        await it.open()
        car.port = it.server.port
        assert it.site.tills[NAME].offer != b""
        await car.buy()  # over another escrow, and another meter's key
        rows = book.escrows(car.journal)
        assert len({one.params.meter for one in rows}) == len(rows) == 2
        till = it.site.tills[NAME]
        assert isinstance(till, EscrowTill)
        with pytest.raises(BadTerms, match="keys"):
            check_terms(till._offer, car.consumer.session.terms.offer, EscrowTerms(row.params), 0)


@pytest.mark.asyncio
async def test_a_restored_journal_has_a_meter_of_its_own(street: Open) -> None:
    async with street() as it, it.car() as car:
        await car.buy()
        assert book.meter_of(it.journal) is not None
        await retire(it.journal, clock.now())
        assert book.meter_of(it.journal) is None
        assert list(problems(it.journal)) == []


@pytest.mark.asyncio
async def test_a_supplier_that_leaves_no_time_to_object_is_left(street: Open) -> None:
    async with street() as it, it.car() as car:
        car.least_window = WINDOW + 1
        with pytest.raises(BadTerms, match="no time to object"):
            await car.buy()
        assert book.escrows(car.journal) == []
