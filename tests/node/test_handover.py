"""A supplier hands its channels over, and a watcher with nothing but the file answers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest

from penstock.core.channel import Domain, Voucher
from penstock.core.codec import encode
from penstock.core.errors import UsageError
from penstock.core.identity import Address, Key, to_hex
from penstock.core.ports import Filing, Ledger
from penstock.core.watcher import Evidence
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, handover
from penstock.node.handover import PURPOSE, consented, hand_over, take_over
from penstock.node.watch import Watch
from penstock.storage.keystore import LIGHT
from penstock.storage.sealed import seal

from .world import Street, Told, until

OpenStreet = Callable[..., AbstractAsyncContextManager[Street]]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of scrypt for each file guards nothing here."""
    monkeypatch.setattr(handover, "seal", lambda *arguments: seal(*arguments, cost=LIGHT))


async def sold(it: Street) -> tuple[Key, Evidence]:
    """A car has bought and kept its channel; what the pole can show of it, with its leave."""
    async with it.car() as car:
        await car.buy(quantity=30, keep=True)
    rows = [row for row in book.channels(it.journal) if row.params.opener == car.key.address]
    (shown,) = consented(it.journal, it.key, rows)
    return car.key, shown


@pytest.mark.asyncio
async def test_a_watcher_answers_and_settles_with_the_file_alone(open_street: OpenStreet, tmp_path: Path) -> None:
    async with open_street() as it:
        car, shown = await sold(it)
        it.lookout.forget(shown.params.id)  # the pole itself sleeps
        hand_over(tmp_path / "file", "between us", [shown])
        (taken,) = take_over(tmp_path / "file", "between us")
        assert taken == shown

        await it.ledger.close(car, shown.params, None)
        watcher, told, asked = it.fresh_key(), Told(), asyncio.Event()

        async def connect(domain: Domain) -> Ledger:
            return await EvmLedger.connect(it.manifest.url, domain.contract)

        watch = Watch(watcher, lambda: {taken.params.id: taken}, connect, told)
        running = asyncio.create_task(watch.run(asked, 0.05, once=True))
        await until(lambda: told.of("filed"), "nothing was filed")
        filed = await it.ledger.filed(taken.params, True)
        assert (filed.amount, filed.by_payee) == (taken.filing.voucher.amount, False)

        before = (await it.ledger.holdings(it.key.address)).balance
        await it.ledger._node.ask("evm_increaseTime", taken.params.period + 1)
        await it.ledger._node.ask("evm_mine")
        await asyncio.wait_for(running, 20)
        assert (watch.settled, watch.left) == (1, 0)
        assert (await it.ledger.holdings(it.key.address)).balance == before + taken.filing.voucher.amount
        assert told.of("filed") == told.of("filed")[:1], "filed once"


@pytest.mark.asyncio
async def test_a_watcher_that_starts_again_does_not_file_again(open_street: OpenStreet) -> None:
    async with open_street() as it:
        car, shown = await sold(it)
        it.lookout.forget(shown.params.id)
        await it.ledger.close(car, shown.params, None)
        filing = await it.ledger.answer(
            it.fresh_key(), shown.params, True, shown.filing, shown.answer.sequence, shown.consent
        )
        assert filing
        told, asked = Told(), asyncio.Event()

        async def connect(domain: Domain) -> Ledger:
            return await EvmLedger.connect(it.manifest.url, domain.contract)

        watch = Watch(it.fresh_key(), lambda: {shown.params.id: shown}, connect, told)
        running = asyncio.create_task(watch.run(asked, 0.05))
        await until(lambda: told.of("channel closing"), "it sees nothing")
        await asyncio.sleep(0.5)
        asked.set()
        await running
        assert told.of("channel closing")[-1]["at_risk"] == 0
        assert (watch.left, told.of("filed")) == (1, []), "the ledger has it already"


@pytest.mark.asyncio
@pytest.mark.parametrize("strange", ["no contract", "another code"])
async def test_one_clients_channel_harms_no_other(
    open_street: OpenStreet, strange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A contract of a client's own making is not fed with our ether, and the others are answered."""
    async with open_street() as it:
        car, shown = await sold(it)
        it.lookout.forget(shown.params.id)
        await it.ledger.close(car, shown.params, None)
        domain = msgspec.structs.replace(shown.params.domain, contract=Address(b"\x66" * 20))
        params = msgspec.structs.replace(shown.params, domain=domain)
        theirs = msgspec.structs.replace(shown, params=params)

        async def connect(wanted: Domain) -> Ledger:
            if wanted == domain and strange == "no contract":
                return await EvmLedger.connect(it.manifest.url, wanted.contract)
            ledger = await EvmLedger.connect(it.manifest.url, shown.params.domain.contract)
            if wanted == domain:
                monkeypatch.setattr(ledger, "genuine", _no)
            return ledger

        told = Told()
        watch = Watch(it.fresh_key(), lambda: {params.id: theirs, shown.params.id: shown}, connect, told)
        asked = asyncio.Event()
        running = asyncio.create_task(watch.run(asked, 0.05))
        await until(lambda: told.of("filed"), "nothing was filed")
        asked.set()
        await running
        assert [one["contract"] for one in told.of("CANNOT WATCH")] == [to_hex(domain.contract)]


async def _no() -> bool:
    return False


@pytest.mark.asyncio
async def test_an_older_file_takes_nothing_from_a_newer(open_street: OpenStreet) -> None:
    async with open_street() as it:
        car, shown = await sold(it)
        it.lookout.forget(shown.params.id)
        voucher = Voucher.over(shown.filing.voucher.nonce - 1, 1)
        filing = Filing(voucher, car.sign(voucher.digest(shown.params)))
        older = msgspec.structs.replace(shown, filing=filing)
        older = msgspec.structs.replace(older, consent=it.key.sign(older.answer.digest(shown.params)))
        files = [shown, older]

        async def connect(domain: Domain) -> Ledger:
            return await EvmLedger.connect(it.manifest.url, domain.contract)

        told, asked = Told(), asyncio.Event()
        watch = Watch(
            it.fresh_key(), lambda: {shown.params.id: files.pop(0) if len(files) > 1 else files[0]}, connect, told
        )
        running = asyncio.create_task(watch.run(asked, 0.05))
        await until(lambda: len(files) == 1, "it reads no more")
        await it.ledger.close(car, shown.params, None)
        await until(lambda: told.of("filed"), "nothing was filed")
        asked.set()
        await running
        assert told.of("filed")[0]["worth"] == shown.filing.voucher.amount


@pytest.mark.asyncio
async def test_what_the_contract_would_not_take_is_not_taken_over(open_street: OpenStreet, tmp_path: Path) -> None:
    async with open_street() as it:
        _, shown = await sold(it)
        path, thief = tmp_path / "file", it.fresh_key()
        change = msgspec.structs.replace
        for wrong in (
            change(shown, consent=b""),
            change(shown, consent=thief.sign(shown.answer.digest(shown.params))),
            change(shown, partner=False),
            change(shown, filing=change(shown.filing, signature=bytes(65))),
        ):
            hand_over(path, "between us", [wrong])
            with pytest.raises(UsageError):
                take_over(path, "between us")
        seal(path, PURPOSE, "between us", encode({"no": "list"}), cost=LIGHT)
        with pytest.raises(UsageError):
            take_over(path, "between us")


@pytest.mark.asyncio
async def test_only_the_payee_hands_over_and_only_the_payee_watches_without_leave(open_street: OpenStreet) -> None:
    async with open_street() as it:
        _, shown = await sold(it)
        rows = [row for row in book.channels(it.journal) if row.params == shown.params]
        with pytest.raises(UsageError, match="not paid"):
            consented(it.journal, it.fresh_key(), rows)
        bare = msgspec.structs.replace(shown, consent=b"")

        async def never(_: Domain) -> Ledger:
            raise AssertionError("it must not get that far")

        with pytest.raises(UsageError, match="not this key"):
            await Watch(it.fresh_key(), lambda: {shown.params.id: bare}, never, Told()).run(asyncio.Event())
        idle = Watch(it.key, dict, never, Told())
        await asyncio.wait_for(idle.run(asyncio.Event(), once=True), 5)
        assert (idle.settled, idle.left) == (0, 0)
