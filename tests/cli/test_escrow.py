"""`penstock escrow`: what each side gets out alone, by its journal and against a real ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from penstock.cli import escrow as command
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.errors import OutOfFunds, UsageError, WrongLedger
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading, end_digest, tariff_hash
from penstock.core.identity import Key, to_hex
from penstock.core.session import Role
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.ledgers.devnet.genesis import ACCOUNT_EUROS
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.escrow import EvmEscrows
from penstock.node.book import METER_ROW, EscrowRow
from penstock.node.tasks import durable
from penstock.rails.escrow import END_ROWS, READING_ROWS, EndNote
from penstock.storage import keystore
from penstock.storage.sqlite import SqliteJournal

from ..ledgers.conftest import devnet  # noqa: F401 - a fixture
from ..ledgers.escrows import escrows_of
from ..ledgers.world import increase_time

TARIFF = Tariff.flat(4, 10)
DEPOSIT, WINDOW, LIFE = 10_000, 600, 86_400
T = TypeVar("T")


class Side:
    """Somebody with a key and a home, and the flags that say so."""

    def __init__(self, home: Path, key: Key, devnet: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        self.key, self.home, self.devnet = key, home, devnet
        keystore.create(home / "keys", "own", "test", key.secret, cost=keystore.LIGHT)
        (home / "passphrase").write_text("test\n")
        self._patch = monkeypatch
        self.signing: dict[str, Any] = {"url": devnet.url, "passphrase_file": home / "passphrase", "as_json": True}

    def says(self, act: Callable[..., None], *names: str, capsys: pytest.CaptureFixture[str], **flags: Any) -> Any:
        """What a command answers this side in JSON."""
        self._patch.setenv("PENSTOCK_HOME", str(self.home))
        capsys.readouterr()
        act(*names, **{"as_json": True, **flags})
        return json.loads(capsys.readouterr().out)

    def keep(self, *rows: Rows) -> None:
        """Put rows into this side's journal."""

        async def write() -> None:
            journal = SqliteJournal(self.home / "journal.db")
            try:
                await durable(journal, sum(rows, ()))
            finally:
                await journal.close()

        asyncio.run(write())


class Pair:
    """A car that funded an escrow for a pole, whose account is its meter's key; both have it in their journals."""

    def __init__(self, devnet: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:  # noqa: F811
        self.devnet = devnet
        self.car = Side(tmp_path / "car", dev_key(first), devnet, monkeypatch)
        self.pole = Side(tmp_path / "pole", dev_key(first + 1), devnet, monkeypatch)
        self.params = self.ask(self._funded)
        self.name = to_hex(self.params.id)
        for side, role in ((self.car, Role.CONSUMER), (self.pole, Role.SUPPLIER)):
            side.keep(EscrowRow(self.params, role, TARIFF, bytes(32), funded=True).rows())
        self.pole.keep(((METER_ROW, self.pole.key.secret),))

    def ask(self, work: Callable[[EvmEscrows], Awaitable[T]]) -> T:
        """Do something on the ledger."""

        async def run() -> T:
            async with escrows_of(self.devnet) as escrows:
                return await work(escrows)

        return asyncio.run(run())

    async def _funded(self, escrows: EvmEscrows) -> EscrowParams:
        car, pole = self.car.key.address, self.pole.key.address
        deadline = await escrows.now() + LIFE
        hash_ = tariff_hash(TARIFF)
        params = EscrowParams(escrows.domain, car, pole, car, pole, pole, hash_, DEPOSIT, deadline, WINDOW, 1)
        await escrows.fund(self.car.key, params)
        return params

    def pass_(self, seconds: int) -> None:
        """Let time pass."""
        self.ask(lambda escrows: increase_time(escrows, seconds))

    def balance(self, side: Side) -> int:
        """What a side has in the contract."""
        return self.ask(lambda escrows: escrows.holdings(side.key.address)).balance

    def reading(self, sequence: int, total: int) -> SignedReading:
        said = MeterReading(sequence, Instant(1_000), Quantity(total))
        return SignedReading(said, self.pole.key.sign(said.digest(self.params)))

    def reading_rows(self, sequence: int, total: int) -> Rows:
        return ((READING_ROWS + self.params.id, encode(self.reading(sequence, total))),)


@pytest.fixture
def pair(
    devnet: Manifest,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Pair:
    first = 2 * [item.name for item in request.session.items if item.path == request.path].index(request.node.name)
    return Pair(devnet, tmp_path, monkeypatch, first)


def test_a_signed_end_is_sent_and_what_it_brought_is_taken_home(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    car, pole = pair.car, pair.pole
    note = EndNote(3_000, car.key.sign(end_digest(pair.params, 3_000)))
    pole.keep(pair.reading_rows(1, 5_000), ((END_ROWS + pair.params.id, encode(note)),))
    [listed] = pole.says(command.list_, capsys=capsys)["escrows"]
    assert (listed["escrow"], listed["role"], listed["worth"]) == (pair.name, "supplier", 3_000)
    assert (listed["evidence"], listed["status"]) == ("end", "funded")
    settled = pole.says(command.settle, pair.name[:12], capsys=capsys, **pole.signing)
    assert (settled["status"], settled["drawn"]) == ("ended", 3_000)
    assert [one["what"] for one in settled["transactions"]] == ["end"]
    [listed] = pole.says(command.list_, capsys=capsys, url=pair.devnet.url)["escrows"]
    assert (listed["status"], listed["drawn"]) == ("settled", 3_000)
    [mined] = pole.says(command.show, pair.name, capsys=capsys)["transactions"]
    assert mined["hash"] == settled["transactions"][0]["hash"]
    flags = pole.signing | {"contract": pair.devnet.contracts["CryptoEuroEscrow"]}
    taken = pole.says(command.withdraw, capsys=capsys, **flags)
    assert (taken["withdrawn"], taken["wallet"], taken["balance"]) == (3_000, ACCOUNT_EUROS + 3_000, 0)
    with pytest.raises(OutOfFunds):
        pole.says(command.withdraw, capsys=capsys, **flags)
    with pytest.raises(UsageError, match="the escrow is ended") as over:
        pole.says(command.settle, pair.name, capsys=capsys, **pole.signing)
    assert "3000" in over.value.advice


def test_without_a_signed_end_the_meters_last_reading_is_filed_and_paid_after_its_window(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    car, pole = pair.car, pair.pole
    pole.keep(pair.reading_rows(1, 5_000))
    filed = pole.says(command.settle, pair.name, capsys=capsys, **pole.signing)
    assert (filed["status"], filed["claimed"], filed["drawn"]) == ("ending", 2_000, 0)
    for side in (pole, car):
        with pytest.raises(UsageError) as early:
            side.says(command.settle, pair.name, capsys=capsys, **side.signing)
        assert "can be paid in" in early.value.advice
    shown = car.says(command.show, pair.name, capsys=capsys, url=pair.devnet.url)
    assert shown["ledger"]["matures_at"] == filed["matures_at"]
    pair.pass_(WINDOW)
    settled = car.says(command.settle, pair.name, capsys=capsys, **car.signing)
    assert (settled["status"], settled["drawn"]) == ("ended", 2_000)
    assert (pair.balance(car), pair.balance(pole)) == (DEPOSIT - 2_000, 2_000)


def test_the_consumer_gets_its_deposit_back_after_the_deadline(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    car = pair.car
    with pytest.raises(UsageError, match="the escrow is open") as early:
        car.says(command.settle, pair.name, capsys=capsys, **car.signing)
    assert "comes back in" in early.value.advice
    with pytest.raises(UsageError, match="the escrow is open"):  # nothing flowed: there is nothing to claim
        pair.pole.says(command.settle, pair.name, capsys=capsys, **pair.pole.signing)
    pair.pass_(LIFE)
    [listed] = car.says(command.list_, capsys=capsys, url=pair.devnet.url)["escrows"]
    assert (listed["status"], listed["over"]) == ("open", True)
    settled = car.says(command.settle, pair.name, capsys=capsys, **car.signing)
    assert (settled["status"], settled["drawn"]) == ("ended", 0)
    assert pair.balance(car) == DEPOSIT


def test_a_claim_by_a_reading_that_contradicts_ours_is_contested(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    car, pole = pair.car, pair.pole
    car.keep(pair.reading_rows(3, 5_000))
    with pytest.raises(UsageError, match="no claim waits"):
        car.says(command.contest, pair.name, capsys=capsys, **car.signing)
    pair.ask(lambda escrows: escrows.release(pole.key, pair.params, TARIFF, pair.reading(3, 20_000)))
    contested = car.says(command.contest, pair.name, capsys=capsys, **car.signing)
    assert (contested["status"], contested["claimed"]) == ("ending", 2_000)
    assert [one["what"] for one in contested["transactions"]] == ["contest"]
    pair.pass_(WINDOW)
    car.says(command.settle, pair.name, capsys=capsys, **car.signing)
    assert pair.balance(car) == DEPOSIT - 2_000


def test_a_claim_that_our_reading_bears_out_is_not_contested(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    car, pole = pair.car, pair.pole
    car.keep(pair.reading_rows(3, 5_000))
    pair.ask(lambda escrows: escrows.release(pole.key, pair.params, TARIFF, pair.reading(4, 20_000)))
    with pytest.raises(UsageError, match="no two of the 2 readings"):
        car.says(command.contest, pair.name, capsys=capsys, **car.signing)


def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    car, pole = pair.car, pair.pole
    for name in ("", "0x", "0xnothing", "zz"):
        with pytest.raises(UsageError, match="no escrow begins"):
            car.says(command.show, name, capsys=capsys)
    keystore.create(car.home / "keys", "other", "test", pole.key.secret, cost=keystore.LIGHT)
    with pytest.raises(UsageError, match="not our side"):
        car.says(command.settle, pair.name, capsys=capsys, **car.signing, key="other")
    with pytest.raises(WrongLedger):
        car.says(command.settle, pair.name, capsys=capsys, **car.signing, key="own", chain_id=5)
    elsewhere = msgspec.structs.replace(pair.params, counter=2)
    car.keep(EscrowRow(elsewhere, Role.CONSUMER, TARIFF).rows())
    with pytest.raises(UsageError, match="the escrow is absent"):
        car.says(command.settle, to_hex(elsewhere.id), capsys=capsys, **car.signing, key="own")
    statuses = {one["status"] for one in car.says(command.list_, capsys=capsys, url=pair.devnet.url)["escrows"]}
    assert statuses == {"open", "waiting for its deposit"}
    away = car.says(command.list_, capsys=capsys, url="http://127.0.0.1:1")
    assert {one["status"] for one in away["escrows"]} == {"funded", "funding"}
    capsys.readouterr()
    command.list_(url=pair.devnet.url)  # for people
    assert pair.name[:14] in capsys.readouterr().out
    assert Amount(pair.balance(car)) == 0
