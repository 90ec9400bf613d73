"""A car that has tokens and no ether: it signs, somebody else opens its channel for a fee, and it buys."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import pytest

from penstock.core.identity import Key, parse_address, to_hex
from penstock.core.ports import Holdings
from penstock.ledgers.evm import EvmLedger
from penstock.storage import keystore

from .world import World

FEE, DEPOSIT, WALLET = 100_000, 2_000_000, 3_000_000


@pytest.fixture
def poor(world: World) -> World:
    """The car's key has 3 euros and no ether."""
    rich, world.keys["car"] = world.keys["car"], Key(secrets.token_bytes(32))
    (world.home("car") / "keys" / "car.json").unlink()
    keystore.create(world.home("car") / "keys", "car", "test", world.keys["car"].secret, cost=keystore.LIGHT)
    asyncio.run(give(world, rich))
    return world


async def give(world: World, rich: Key) -> None:
    ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
    try:
        data = ledger._token.interface.encode("transfer", to_hex(world.keys["car"].address), WALLET)
        await ledger._sender.send(rich, ledger.domain.token, data, "transfer")
    finally:
        await ledger.disconnect()


def holdings(world: World, key: Key) -> Holdings:
    async def ask() -> Holdings:
        ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
        try:
            return await ledger.holdings(key.address)
        finally:
            await ledger.disconnect()

    return asyncio.run(ask())


def test_a_payer_without_ether_opens_for_a_fee_in_the_token_and_buys(poor: World, tmp_path: Path) -> None:
    pole, file = poor.keys["pole"], tmp_path / "opening.json"
    signed = poor.command(
        "car", "channel", "authorize", to_hex(pole.address), str(file), "--deposit", "2", "--fee", "0.10",
        *poor.common("car"), "--json",
    )  # fmt: skip
    assert signed.returncode == 0, signed.stderr
    assert json.loads(signed.stdout)["fee"] == FEE
    before = holdings(poor, pole)
    sent = poor.command("pole", "channel", "open", str(file), *sender(poor), "--json")  # here the pole earns the fee
    assert sent.returncode == 0, sent.stderr
    again = poor.command("pole", "channel", "open", str(file), *sender(poor))
    assert (again.returncode, "is open already" in again.stderr) == (1, True)
    assert holdings(poor, pole).balance == before.balance + FEE

    selling = poor.pole(speed=None)
    bought = poor.car(selling.until("listening")["address"], quantity=500).answer()
    selling.answer()
    assert bought["complete"]
    assert holdings(poor, pole).balance == before.balance + FEE + 500 * 400
    left = holdings(poor, poor.keys["car"])
    assert (left.wallet, left.balance, left.ether) == (WALLET - DEPOSIT - FEE, DEPOSIT - 500 * 400, 0)


def test_a_file_that_is_no_signed_opening_is_refused_in_one_line(poor: World, tmp_path: Path) -> None:
    file = tmp_path / "opening.json"
    for rubbish in (b"", b"{}", b"[1]", b"\xff" * 100, b'{"params": {}, "authorization": {}}'):
        file.write_bytes(rubbish)
        done = poor.command("pole", "channel", "open", str(file), *sender(poor))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_file_that_is_there_is_kept_and_a_missing_fee_is_hinted_at(poor: World, tmp_path: Path) -> None:
    file = tmp_path / "opening.json"
    arguments = ["channel", "authorize", to_hex(poor.keys["pole"].address), str(file), "--deposit", "1"]
    done = poor.command("car", *arguments, *poor.common("car"))
    assert "no reason to send it" in done.stdout, done.stderr
    kept = file.read_bytes()
    again = poor.command("car", *arguments, *poor.common("car"))
    assert (again.returncode, file.read_bytes()) == (2, kept)
    listed = json.loads(poor.command("car", "channel", "list", "--url", poor.manifest["url"], "--json").stdout)
    assert [one["status"] for one in listed["channels"]] == ["waiting to be opened"]

    signed = json.loads(kept)
    signed["authorization"]["signature"] = "AQID"
    file.write_text(json.dumps(signed))
    done = poor.command("pole", "channel", "open", str(file), *sender(poor))
    assert (done.returncode, "65 bytes" in done.stderr) == (2, True)
    file.write_bytes(kept)
    done = poor.command(
        "pole", "channel", "open", str(file), *sender(poor), "--contract", poor.manifest["contracts"]["CryptoEuro"]
    )
    assert (done.returncode, "is configured" in done.stderr) == (1, True)
    done = poor.command("pole", "channel", "open", str(file), *sender(poor))
    assert done.returncode == 0, done.stderr
    listed = json.loads(poor.command("car", "channel", "list", "--url", poor.manifest["url"], "--json").stdout)
    assert [(one["status"], one["deposit"]) for one in listed["channels"]] == [("open", 1_000_000)]


def sender(world: World) -> list[str]:
    return ["--url", world.manifest["url"], "--key", "pole", "--passphrase-file", str(world.passphrase)]
