"""The channel commands over what a real session left in the journals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from penstock.core.channel import compact
from penstock.core.identity import parse_address, to_hex
from penstock.ledgers.artifacts import load

from .world import World


@pytest.fixture
def streamed(world: World) -> World:
    """A session of 500 Wh has been streamed; its channel is kept open."""
    pole = world.pole(speed=None)
    car = world.car(pole.until("listening")["address"], "--keep", "--deposit", "1", quantity=500)
    car.answer()
    pole.popen.terminate()
    pole.answer()
    return world


def channel(world: World, name: str) -> dict[str, Any]:
    listed = json.loads(world.command(name, "channel", "list", "--json").stdout)["channels"]
    assert len(listed) == 1
    return dict(listed[0])


def test_both_sides_list_the_same_channel_and_worth(streamed: World) -> None:
    pole, car = channel(streamed, "pole"), channel(streamed, "car")
    assert (pole["role"], car["role"]) == ("supplier", "consumer")
    assert pole["channel"] == car["channel"]
    assert pole["worth"] == car["worth"] == 500 * 400
    assert pole["deposit"] == car["deposit"] == 1_000_000


def test_an_exported_voucher_verifies_with_a_wallet_library_and_the_contract(streamed: World) -> None:
    exported = [
        json.loads(
            streamed.command(name, "channel", "export", channel(streamed, name)["channel"][:12], "--json").stdout
        )
        for name in ("pole", "car")
    ]
    assert exported[0] == exported[1]
    voucher = exported[0]
    signable = encode_typed_data(full_message=voucher["typed_data"])
    signer = Account.recover_message(signable, signature=voucher["signature"])
    assert signer == voucher["signer"] == to_hex(streamed.keys["car"].address)
    shown = json.loads(streamed.command("pole", "channel", "show", voucher["channel"], "--json").stdout)
    assert asyncio.run(claimable(streamed, shown, voucher)) == ""
    forged = {**voucher, "signature": voucher["signature"][:-6] + "0000" + voucher["signature"][-2:]}
    assert "payer has not signed" in asyncio.run(claimable(streamed, shown, forged))


async def claimable(world: World, shown: dict[str, Any], voucher: dict[str, Any]) -> str:
    """Why the contract would not pay the voucher to the channel's partner, as a call that changes nothing."""
    from web3 import AsyncHTTPProvider, AsyncWeb3
    from web3.exceptions import ContractLogicError

    web3 = AsyncWeb3(AsyncHTTPProvider(world.manifest["url"]))
    try:
        contract = web3.eth.contract(address=web3.to_checksum_address(world.contract), abi=load("Channel")["abi"])
        message = voucher["typed_data"]["message"]
        fields = (
            message["nonce"], message["amount"], message["locked"], message["lockedUntil"], message["locksRoot"]
        )  # fmt: skip
        parties = (int(shown[name], 16) for name in ("opener", "partner", "opener_key", "partner_key"))
        terms = int(shown["counter"]) | int(shown["two_way"]) << 64 | shown["period_s"] << 65
        signature = compact(bytes.fromhex(voucher["signature"].removeprefix("0x")))
        call = contract.functions.claim((*parties, terms), fields, signature)
        await call.call({"from": web3.to_checksum_address(shown["partner"])})
    except ContractLogicError as error:
        return str(error)
    finally:
        await web3.provider.disconnect()
    return ""


def test_a_supplier_is_paid_by_closing_alone(streamed: World) -> None:
    name = channel(streamed, "pole")["channel"]
    common = streamed.common("pole")
    closed = json.loads(streamed.command("pole", "channel", "close", name, *common, "--json").stdout)
    assert closed["status"] in ("settled", "absent")
    assert channel(streamed, "pole")["status"] == "settled"
    again = streamed.command("pole", "channel", "close", name, *common)
    assert again.returncode == 2
    assert "nothing to close" in again.stderr


def test_a_consumer_that_closes_alone_leaves_the_supplier_time_to_file(streamed: World) -> None:
    name = channel(streamed, "car")["channel"]
    closing = json.loads(streamed.command("car", "channel", "close", name, *streamed.common("car"), "--json").stdout)
    assert closing["status"] == "closing"
    early = streamed.command("car", "channel", "settle", name, *streamed.common("car"))
    assert early.returncode == 1
    assert "to go" in early.stderr
    filed = json.loads(streamed.command("pole", "channel", "close", name, *streamed.common("pole"), "--json").stdout)
    assert filed["status"] == "settled", "nobody else can file anything: it is paid at once"
    assert asyncio.run(balance(streamed, "pole")) == 500 * 400
    assert asyncio.run(balance(streamed, "car")) == 1_000_000 - 500 * 400


def test_what_is_at_risk_is_shown_and_until_when(streamed: World) -> None:
    owed, node = 500 * 400, ["--url", streamed.manifest["url"]]

    def listed(*flags: str) -> dict[str, Any]:
        found = streamed.command("pole", "channel", "list", *flags, "--json")
        return dict(json.loads(found.stdout)["channels"][0])

    at_peace = listed(*node)
    assert (at_peace["at_risk"], at_peace["until"], at_peace["status"]) == (owed, None, "open")
    assert "200,000 to be claimed within 3,600 s of a close" in streamed.command("pole", "channel", "list").stdout
    name = at_peace["channel"]
    closing = json.loads(streamed.command("car", "channel", "close", name, *streamed.common("car"), "--json").stdout)
    in_danger = listed(*node)
    assert (in_danger["at_risk"], in_danger["until"]) == (owed, closing["closes_at"])
    assert in_danger["status"] == "closing"
    assert "AT RISK 200,000 until" in streamed.command("pole", "channel", "list", *node).stdout
    shown = json.loads(streamed.command("pole", "channel", "show", name, *node, "--json").stdout)
    assert (shown["at_risk"], shown["until"]) == (owed, closing["closes_at"])
    deaf = streamed.command("pole", "channel", "list", "--url", "http://127.0.0.1:1")
    assert (deaf.returncode, "the journal alone speaks" in deaf.stderr) == (0, True)
    asyncio.run(pass_time(streamed, closing["closes_at"]))
    assert "200,000 LOST, it seems" in streamed.command("pole", "channel", "list", *node).stdout
    settled = json.loads(streamed.command("car", "channel", "settle", name, *streamed.common("car"), "--json").stdout)
    assert settled["status"] in ("settled", "absent")
    assert listed(*node)["at_risk"] == 0
    assert asyncio.run(balance(streamed, "car")) == 1_000_000, "nobody answered"


def test_what_a_channel_brought_is_withdrawn_to_the_wallet(streamed: World) -> None:
    name = channel(streamed, "pole")["channel"]
    common = streamed.common("pole")
    streamed.command("pole", "channel", "close", name, *common)
    too_much = streamed.command("pole", "channel", "withdraw", "5", *common)
    assert too_much.returncode == 1
    assert "0.2 cEUR" in too_much.stderr
    some = json.loads(streamed.command("pole", "channel", "withdraw", "0.05", *common, "--json").stdout)
    assert (some["withdrawn"], some["balance"]) == (50_000, 150_000)
    rest = json.loads(streamed.command("pole", "channel", "withdraw", *common, "--json").stdout)
    assert (rest["withdrawn"], rest["balance"]) == (150_000, 0)
    assert rest["wallet"] == 100_000 * 10**6 + 200_000
    assert streamed.command("pole", "channel", "withdraw", *common).returncode == 1


async def pass_time(world: World, until: int) -> None:
    from web3 import AsyncHTTPProvider, AsyncWeb3
    from web3.types import RPCEndpoint

    web3 = AsyncWeb3(AsyncHTTPProvider(world.manifest["url"]))
    try:
        now = (await web3.eth.get_block("latest"))["timestamp"]
        await web3.provider.make_request(RPCEndpoint("evm_increaseTime"), [max(0, until - now) + 1])
        await web3.provider.make_request(RPCEndpoint("evm_mine"), [])
    finally:
        await web3.provider.disconnect()


async def balance(world: World, name: str) -> int:
    from penstock.ledgers.evm import EvmLedger

    ledger = await EvmLedger.connect(world.manifest["url"], parse_address(world.contract))
    try:
        return (await ledger.holdings(world.keys[name].address)).balance
    finally:
        await ledger.disconnect()
