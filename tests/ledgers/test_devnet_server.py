"""The devnet's JSON-RPC over real sockets: forms, errors, shared blocks, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3

from penstock.core.errors import UsageError
from penstock.core.identity import Key, keccak, parse_address, to_hex
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet import server as server_module
from penstock.ledgers.devnet.chain import Chain
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.devnet.rpc import Rpc
from penstock.ledgers.devnet.server import Server, serve

ETHER = 10**18
STRANGER = to_hex(Key(keccak(b"a stranger")).address)
QUANTITY = re.compile(r"0x(0|[1-9a-f][0-9a-f]*)")
JSON = {"Content-Type": "application/json"}


@contextlib.asynccontextmanager
async def own_server() -> AsyncIterator[tuple[str, Chain]]:
    """A server in this process, on a chain whose first accounts are funded."""
    chain = Chain({dev_key(i).address: 100 * ETHER for i in range(60)})
    server = Server(chain)
    try:
        yield await server.start(0), chain
    finally:
        await server.stop()


async def post(url: str, body: Any, headers: dict[str, str] = JSON) -> tuple[int, Any]:
    """Status and JSON (or text) of the response."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(url, data=raw, headers=headers) as response:
        text = await response.text()
        with contextlib.suppress(ValueError):
            return response.status, json.loads(text)
        return response.status, text


async def ask(url: str, method: str, *params: object) -> Any:
    """The result of a method; an error fails the test."""
    _, answer = await post(url, {"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
    assert answer["id"] == 7
    assert "error" not in answer, answer
    return answer["result"]


async def refused(url: str, method: str, *params: object) -> dict[str, Any]:
    """The error of a method."""
    status, answer = await post(url, {"jsonrpc": "2.0", "id": "x", "method": method, "params": params})
    assert status == 200
    assert answer["id"] == "x"
    error: dict[str, Any] = answer["error"]
    assert "Traceback" not in error["message"]
    return error


def transfer(key: Key, nonce: int, chain_id: int = 31_337) -> str:
    """A raw transfer of one wei to the stranger."""
    fields = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": STRANGER,
        "gas": 21_000,
        "value": 1,
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    return "0x" + bytes(Account.sign_transaction(fields, key.secret).raw_transaction).hex()


@pytest.mark.asyncio
async def test_web3_deploys_calls_and_reads_events(devnet: Manifest) -> None:
    w3 = AsyncWeb3(AsyncHTTPProvider(devnet.url))
    account = Account.from_key(dev_key(0).secret)
    artifact = load("WrappedEther")
    try:
        assert await w3.eth.chain_id == devnet.chain_id
        fields = {"from": account.address, "nonce": await w3.eth.get_transaction_count(account.address)}
        made = (
            await w3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
            .constructor()
            .build_transaction(fields)
        )
        sent = await w3.eth.send_raw_transaction(account.sign_transaction(made).raw_transaction)
        receipt = await w3.eth.wait_for_transaction_receipt(sent, timeout=10)
        assert receipt["status"] == 1
        weth = w3.eth.contract(address=receipt["contractAddress"], abi=artifact["abi"])
        fields = {**fields, "nonce": fields["nonce"] + 1, "value": 5}
        paid = await weth.functions.deposit().build_transaction(fields)
        sent = await w3.eth.send_raw_transaction(account.sign_transaction(paid).raw_transaction)
        receipt = await w3.eth.wait_for_transaction_receipt(sent, timeout=10)
        assert await weth.functions.balanceOf(account.address).call() == 5
        block = await w3.eth.get_block(receipt["blockNumber"], full_transactions=True)
        assert block["transactions"][0]["hash"] == sent
        assert (await w3.eth.get_transaction(sent))["value"] == 5
        logs = await w3.eth.get_logs({"address": weth.address, "fromBlock": 0, "toBlock": "latest"})
        assert [log["transactionHash"] for log in logs] == [sent]
        history = await w3.eth.fee_history(4, "latest", [10, 90])
        assert len(history["baseFeePerGas"]) == len(history["reward"]) + 1
    finally:
        await w3.provider.disconnect()


@pytest.mark.asyncio
async def test_answers_have_the_forms_of_the_specification(devnet: Manifest) -> None:
    url, key = devnet.url, dev_key(1)
    assert await ask(url, "eth_chainId") == hex(devnet.chain_id)
    assert await ask(url, "net_version") == str(devnet.chain_id)
    assert "penstock" in await ask(url, "web3_clientVersion")
    assert await ask(url, "eth_syncing") is False
    assert await ask(url, "eth_accounts") == []
    for method in ("eth_blockNumber", "eth_gasPrice", "eth_maxPriorityFeePerGas"):
        assert QUANTITY.fullmatch(await ask(url, method))
    tx_hash = await ask(url, "eth_sendRawTransaction", transfer(key, 0))
    receipt = await ask(url, "eth_getTransactionReceipt", tx_hash)
    found = await ask(url, "eth_getTransactionByHash", tx_hash)
    block = await ask(url, "eth_getBlockByHash", receipt["blockHash"], False)
    assert tx_hash in block["transactions"]
    quantities = [
        receipt[n]
        for n in (
            "blockNumber",
            "transactionIndex",
            "gasUsed",
            "cumulativeGasUsed",
            "effectiveGasPrice",
            "status",
            "type",
        )
    ]
    quantities += [
        found[n]
        for n in ("nonce", "gas", "value", "maxFeePerGas", "maxPriorityFeePerGas", "gasPrice", "chainId", "v", "r", "s")
    ]
    quantities += [
        block[n] for n in ("number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "size", "difficulty")
    ]
    assert all(QUANTITY.fullmatch(quantity) for quantity in quantities), quantities
    assert all(len(block[n]) == 66 for n in ("hash", "parentHash", "stateRoot", "mixHash", "receiptsRoot"))
    assert (len(block["nonce"]), len(block["logsBloom"]), len(block["miner"])) == (18, 514, 42)
    assert found["from"] == receipt["from"] == to_hex(key.address).lower()
    assert (found["to"], receipt["contractAddress"]) == (STRANGER.lower(), None)
    number = receipt["blockNumber"]
    assert await ask(url, "eth_getTransactionCount", to_hex(key.address), number) == "0x1"
    assert await ask(url, "eth_getTransactionCount", to_hex(key.address), "pending") == "0x1"
    assert await ask(url, "eth_getBalance", STRANGER, {"blockHash": receipt["blockHash"]}) == "0x1"
    assert await ask(url, "eth_getBalance", STRANGER, "earliest") == "0x0"
    assert await ask(url, "eth_getCode", STRANGER, "latest") == "0x"
    assert len(await ask(url, "eth_getStorageAt", devnet.contracts["CryptoEuro"], "0x0", "finalized")) == 66
    assert (await ask(url, "eth_getBlockReceipts", number))[0] == receipt
    assert (await ask(url, "eth_getBlockByNumber", number, True))["transactions"][0] == found
    pending = await ask(url, "eth_getBlockByNumber", "pending", False)
    assert int(pending["number"], 16) == int(await ask(url, "eth_blockNumber"), 16) + 1
    for absent in ("eth_getTransactionByHash", "eth_getTransactionReceipt"):
        assert await ask(url, absent, "0x" + "00" * 32) is None
    assert await ask(url, "eth_getBlockByNumber", "0xffffff", False) is None
    assert await ask(url, "eth_getBlockByHash", "0x" + "00" * 32, False) is None


@pytest.mark.asyncio
async def test_reverts_carry_code_three_and_what_the_contract_returned(devnet: Manifest) -> None:
    call = {
        "to": devnet.contracts["CryptoEuroChannel"],
        "data": "0x" + keccak(b"withdraw(uint96)")[:4].hex() + "0" * 63 + "1",
    }
    for method in ("eth_call", "eth_estimateGas"):
        error = await refused(devnet.url, method, call)
        assert error["code"] == 3
        assert error["message"].startswith("execution reverted: channel: ")
        assert error["data"].startswith("0x08c379a0")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_nothing", [], -32601),
        ("answer", [], -32601),
        ("eth_getBalance", [], -32602),
        ("eth_getBalance", ["0x12", "latest"], -32602),
        ("eth_getBalance", [STRANGER, "soon"], -32602),
        ("eth_getBalance", [STRANGER, "latest", 1], -32602),
        ("eth_getBalance", [STRANGER, "0x-1"], -32602),
        ("eth_getBalance", [STRANGER, "0xffffff"], -32000),
        ("eth_getBalance", [STRANGER, {}], -32602),
        ("eth_getBalance", [STRANGER, {"blockHash": "0x" + "11" * 32}], -32000),
        ("eth_getBlockByNumber", [None], -32602),
        ("eth_getStorageAt", [STRANGER, 5], -32602),
        ("eth_getTransactionReceipt", ["0xzz"], -32602),
        ("eth_getTransactionReceipt", [{}], -32602),
        ("eth_sendRawTransaction", ["0x"], -32000),
        ("eth_sendRawTransaction", ["0x02c0"], -32000),
        ("eth_sendRawTransaction", ["0x03" + "c0" * 40], -32000),
        ("eth_sendRawTransaction", ["0x" + "ff" * 200_000], -32000),
        ("eth_sendRawTransaction", [5], -32602),
        ("eth_call", ["0x"], -32602),
        ("eth_call", [{"to": STRANGER, "gas": -1}], -32602),
        ("eth_call", [{"to": STRANGER, "colour": "0x1"}], -32602),
        ("eth_call", [{"to": STRANGER, "data": "0x00", "input": "0x01"}], -32602),
        ("eth_call", [{"to": STRANGER, "value": "0x1", "from": "0x" + "99" * 20}], -32000),
        ("eth_estimateGas", [{"data": "0xfe"}], -32000),
        ("eth_estimateGas", [{"to": STRANGER, "gas": "0x1"}], -32000),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x1"}], -32602),
        ("eth_getLogs", [{"blockHash": "0x" + "11" * 32, "fromBlock": "0x0"}], -32602),
        ("eth_getLogs", [{"topics": [None] * 5}], -32602),
        ("eth_getLogs", [{"address": [STRANGER] * 1_001}], -32602),
        ("eth_feeHistory", ["0x4", "latest", [101]], -32602),
        ("evm_setAutomine", [1], -32602),
        ("evm_increaseTime", ["soon"], -32602),
        ("evm_increaseTime", [10**30], -32602),
        ("evm_setNextBlockTimestamp", [1], -32000),
    ],
)
async def test_bad_requests_get_typed_errors(devnet: Manifest, method: str, params: list[Any], code: int) -> None:
    assert (await refused(devnet.url, method, *params))["code"] == code


@pytest.mark.asyncio
async def test_bodies_that_are_no_request_are_answered_as_json_rpc_says(devnet: Manifest) -> None:
    url = devnet.url
    good = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}'):
        assert (await post(url, body))[1]["error"]["code"] == -32700
    for body in (
        [],
        5,
        "x",
        {"jsonrpc": "2.0", "id": 1},
        {**good, "jsonrpc": "1.0"},
        {**good, "id": {}},
        {**good, "method": 5},
    ):
        answer = (await post(url, body))[1]
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
    assert (await post(url, [good] * 1_001))[1]["error"]["code"] == -32600
    assert (await post(url, {**good, "params": {"a": 1}}))[1]["error"]["code"] == -32602
    _, answers = await post(
        url, [good, {**good, "id": 2, "method": "no"}, 5, {k: v for k, v in good.items() if k != "id"}]
    )
    assert [answer.get("id") for answer in answers] == [1, 2, None]
    assert answers[0]["result"] == hex(devnet.chain_id)
    notification = {"jsonrpc": "2.0", "method": "eth_chainId"}
    assert await post(url, notification) == (204, "")
    assert await post(url, [notification]) == (204, "")


@pytest.mark.asyncio
async def test_a_web_page_cannot_reach_the_devnet(devnet: Manifest) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    port = devnet.url.rpartition(":")[2]
    for name in ("localhost", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert (await post(devnet.url, body, {**JSON, "Host": name}))[0] == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"):
        assert (await post(devnet.url, body, {**JSON, "Host": name}))[0] == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert (await post(devnet.url, body, {"Content-Type": kind}))[0] == 415


@pytest.mark.asyncio
async def test_huge_bodies_and_other_verbs_are_refused(devnet: Manifest) -> None:
    assert (await post(devnet.url, b" " * (6 * 1024 * 1024)))[0] == 413
    async with aiohttp.ClientSession() as session:
        async with session.get(devnet.url) as response:
            assert response.status == 405
        async with session.post(devnet.url + "/elsewhere", json={}) as response:
            assert response.status == 404


@pytest.mark.asyncio
async def test_submissions_that_arrive_together_share_blocks_and_are_mined_when_answered() -> None:
    async with own_server() as (url, chain):
        hashes = await asyncio.gather(*(ask(url, "eth_sendRawTransaction", transfer(dev_key(i), 0)) for i in range(60)))
        assert all(chain.receipt(bytes.fromhex(tx_hash[2:])) is not None for tx_hash in hashes)
        assert chain.head.block_number <= 20
        batch = [
            {"jsonrpc": "2.0", "id": i, "method": "eth_sendRawTransaction", "params": [transfer(dev_key(i), 1)]}
            for i in range(60)
        ]
        before = chain.head.block_number
        _, answers = await post(url, batch)
        assert [answer["id"] for answer in answers] == list(range(60))
        assert all(chain.receipt(bytes.fromhex(answer["result"][2:])) for answer in answers)
        assert chain.head.block_number - before <= 3


@pytest.mark.asyncio
async def test_the_test_controls_move_time_blocks_and_snapshots() -> None:
    async with own_server() as (url, chain):
        point = await ask(url, "evm_snapshot")
        began = chain.head.timestamp
        assert await ask(url, "evm_increaseTime", 1_000) == hex(1_000)
        await ask(url, "evm_mine")
        assert chain.head.timestamp >= began + 1_000
        await ask(url, "evm_setNextBlockTimestamp", hex(began + 5_000))
        await ask(url, "evm_mine")
        assert chain.head.timestamp == began + 5_000
        await ask(url, "evm_setAutomine", False)
        tx_hash = await ask(url, "eth_sendRawTransaction", transfer(dev_key(0), 0))
        assert await ask(url, "eth_getTransactionReceipt", tx_hash) is None
        waiting = await ask(url, "eth_getTransactionByHash", tx_hash)
        assert waiting["blockNumber"] is None
        assert await ask(url, "eth_getTransactionCount", to_hex(dev_key(0).address), "pending") == "0x1"
        await ask(url, "evm_setAutomine", True)
        assert (await ask(url, "eth_getTransactionReceipt", tx_hash))["blockNumber"] == "0x3"
        assert await ask(url, "evm_revert", point) is True
        assert await ask(url, "eth_blockNumber") == "0x0"
        assert await ask(url, "evm_revert", point) is False


@pytest.mark.asyncio
async def test_time_passes_on_the_chain_when_nobody_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SLOT", 0.02)
    chain = Chain({})
    server = Server(chain)
    await server.start(0)
    ticking = asyncio.create_task(server.keep_time())
    try:
        async with asyncio.timeout(5):
            while chain.head.block_number < 3:  # noqa: ASYNC110 - the chain has no event to wait for
                await asyncio.sleep(0.01)
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await server.stop()


@pytest.mark.asyncio
async def test_an_internal_failure_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Rpc) -> str:
        raise RuntimeError("secret path /home/somebody")

    monkeypatch.setattr(Rpc, "eth_gasPrice", broken)
    async with own_server() as (url, _):
        error = await refused(url, "eth_gasPrice")
        assert error["code"] == -32603
        assert "secret" not in error["message"]


@pytest.mark.asyncio
async def test_a_taken_port_is_a_usage_error() -> None:
    async with own_server() as (url, _):
        port = int(url.rpartition(":")[2])
        with pytest.raises(UsageError, match="cannot listen"):
            await serve(ready=lambda manifest: None, port=port)


@pytest.mark.asyncio
async def test_a_devnet_killed_and_started_again_goes_on(start_devnet: Callable[..., Any], tmp_path: Path) -> None:
    first = start_devnet(directory=tmp_path)
    manifest = first.manifest
    assert Manifest.read(tmp_path) == manifest
    tx_hash = await ask(manifest.url, "eth_sendRawTransaction", transfer(dev_key(0), 0))
    head = await ask(manifest.url, "eth_getBlockByNumber", "latest", False)
    first.kill()
    again = start_devnet(directory=tmp_path, port=first.port)
    assert again.manifest == manifest
    assert await ask(manifest.url, "eth_getBlockByNumber", "latest", False) == head
    assert (await ask(manifest.url, "eth_getTransactionReceipt", tx_hash))["status"] == "0x1"
    assert await ask(manifest.url, "eth_getCode", manifest.contracts["CryptoEuro"], "latest") != "0x"
    await ask(manifest.url, "eth_sendRawTransaction", transfer(dev_key(0), 1))
    assert parse_address(manifest.accounts[0]) == dev_key(0).address
