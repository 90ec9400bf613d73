"""Target: what callers ask of the devnet's node, method by method.

Test controls that make blocks are left out: they change nothing that a parser sees, and fill the memory.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any
from unittest.mock import patch

import msgspec
from eth_account import Account

from penstock.ledgers.devnet import rpc
from penstock.ledgers.devnet.genesis import found
from penstock.ledgers.devnet.manifest import dev_key

_LEFT_OUT = ("evm_",)
TO = "0x" + "11" * 20


class Loud:
    """In the place of the devnet's log, to which what it did not expect goes."""

    @staticmethod
    def exception(words: str, *values: object) -> None:
        raise AssertionError(words % values) from sys.exc_info()[1]


@cache
def _rpc() -> rpc.Rpc:
    return rpc.Rpc(found(accounts=2).chain)


def node(data: bytes) -> object:
    """A request's body; whatever is in it, the answer is a result, or an error that says what is wrong."""
    try:
        asked = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(asked, dict) or not isinstance(method := asked.get("method"), str):
        return "no request"
    if method.startswith(_LEFT_OUT):
        return "left out"
    with patch.object(rpc, "_log", Loud):
        answer = _rpc().answer(method, asked.get("params"))
    msgspec.json.encode(answer)
    error = answer.get("error")
    return method if method in _rpc()._methods else "", error["code"] if error else "result"


def node_seeds() -> list[bytes]:
    """Every method with parameters that it takes."""
    call = {"from": TO, "to": TO, "data": "0x", "value": "0x0", "gas": "0x5208"}
    hash_ = "0x" + "ab" * 32
    block: dict[str, Any] = {"fromBlock": "0x0", "toBlock": "latest", "address": TO, "topics": [hash_, None, [hash_]]}
    cases: list[tuple[str, list[Any]]] = [
        ("web3_sha3", ["0x00"]),
        ("eth_getBlockByNumber", ["0x1", True]),
        ("eth_getBlockByNumber", ["pending"]),
        ("eth_getBlockByHash", [hash_, False]),
        ("eth_getBlockReceipts", ["0x1"]),
        ("eth_getBalance", [TO, "latest"]),
        ("eth_getCode", [TO, {"blockNumber": "0x1"}]),
        ("eth_getStorageAt", [TO, "0x0", {"blockHash": hash_}]),
        ("eth_getTransactionCount", [TO, "pending"]),
        ("eth_sendRawTransaction", [_transaction({"type": 2, "maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1})]),
        ("eth_sendRawTransaction", [_transaction({"gasPrice": 10**10})]),
        ("eth_call", [call, "latest"]),
        ("eth_estimateGas", [call]),
        ("eth_getTransactionByHash", [hash_]),
        ("eth_getTransactionReceipt", [hash_]),
        ("eth_getLogs", [block]),
        ("eth_feeHistory", ["0x2", "latest", [5, 50]]),
    ]
    return [json.dumps({"jsonrpc": "2.0", "id": 1, "method": name, "params": given}).encode() for name, given in cases]


def _transaction(fees: dict[str, int]) -> str:
    about = {"chainId": 31337, "nonce": 0, "to": TO, "value": 1, "data": b"", "gas": 21_000, **fees}
    return "0x" + bytes(Account.sign_transaction(about, dev_key(0).secret).raw_transaction).hex()
