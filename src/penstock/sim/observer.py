"""An observer of the chain: reads blocks, transactions, receipts and logs over JSON-RPC, and says what it learns.

It has what anybody has: a node to ask, the addresses of the contracts, their public interfaces, and the way in which
they pack words (which their sources say). It knows no party and no journal. Calldata and logs are flattened into named
values (`consent.params.opener`, `reading.total`), and what is learned follows from the names alone, so that the same
code serves every contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from penstock.core.errors import LedgerUnreachable
from penstock.core.identity import keccak
from penstock.ledgers.artifacts import load
from penstock.ledgers.jsonrpc import Node

Fields = dict[str, Any]

_PARTIES = {"opener", "partner", "payer", "payee", "opener_key", "partner_key", "payer_key", "payee_key", "meter"}
_SUMS = (("deposit", 96), ("fee", 96))
_SPLIT = (("opener_balance", 96), ("partner_balance", 96))
_PACKED: dict[tuple[str, str], tuple[tuple[str, int], ...]] = {  # contract, word -> its parts, from the lowest bit up
    ("Channel", "sums"): _SUMS,
    ("Channel", "place"): (("partner", 160), ("deposit", 96)),
    ("Channel", "terms"): (("counter", 64), ("two_way", 1), ("period", 64)),
    ("Channel", "split"): _SPLIT,
    ("Channel", "amounts"): _SPLIT,
    ("Channel", "totals"): _SPLIT,
    ("Channel", "filing"): (("amount", 96), ("nonce", 64), ("for_partner", 1), ("closes_at", 40)),
    ("Channel", "proofs[0]"): (
        ("index", 16), ("ticks", 16), ("count", 16), ("depth", 8), ("expiry", 64), ("tick_value", 96),
    ),
    ("Escrow", "terms"): (("counter", 64), ("deadline", 64), ("window", 32), ("deposit", 96)),
    ("Escrow", "word"): (("claimed", 96), ("drawn", 96), ("since", 40), ("flags", 24)),
    ("Escrow", "tariff.steps[0]"): (("amount", 96), ("start", 64)),
}  # fmt: skip


class Sight(NamedTuple):
    """One transaction to a known contract, as the chain shows it. `at` in seconds, `price` in wei for a unit of gas.

    `limit` is the gas that its sender allowed it. `said` is the flattened calldata, `logged` each event of the contract
    with its flattened values.
    """

    hash: str
    block: int
    at: int
    sender: str
    contract: str
    function: str
    gas: int
    limit: int
    price: int
    calldata: bytes
    said: Fields
    logged: tuple[tuple[str, Fields], ...]


class Observer:
    """Reads the chain at `node`. `contracts` has the address (0x..., lower case) and artifact of each that it knows."""

    def __init__(self, node: Node, contracts: Mapping[str, str]) -> None:
        self._node = node
        self._names = dict(contracts)
        self._readers = {name: _Reader(name) for name in set(contracts.values())}

    async def height(self) -> int:
        """The number of the newest block."""
        return await self._node.quantity("eth_blockNumber")

    async def look(self, first: int, last: int | None = None) -> list[Sight]:
        """All transactions to the known contracts in the blocks `first`..`last` (the newest), in their order.

        Raises:
            LedgerUnreachable: the node does not answer, or not with blocks.
        """
        end = await self.height() if last is None else last
        seen: list[Sight] = []
        for number in range(first, end + 1):
            block = await self._node.record("eth_getBlockByNumber", hex(number), True)
            if block is None:
                raise LedgerUnreachable(f"the node has no block {number}", "ask a node that keeps the whole chain")
            for transaction in block["transactions"]:
                sight = await self._sight(block, transaction)
                if sight is not None:
                    seen.append(sight)
        return seen

    async def _sight(self, block: Fields, transaction: Fields) -> Sight | None:
        name = self._names.get(str(transaction.get("to")).lower())
        if name is None:
            return None
        receipt = await self._node.record("eth_getTransactionReceipt", transaction["hash"])
        if receipt is None:
            raise LedgerUnreachable(f"the node has no receipt of {transaction['hash']}", "ask another node")
        data = bytes.fromhex(transaction["input"][2:])
        function, said = self._readers[name].call(data)
        return Sight(
            transaction["hash"],
            int(block["number"], 16),
            int(block["timestamp"], 16),
            transaction["from"].lower(),
            name,
            function,
            int(receipt["gasUsed"], 16),
            int(transaction["gas"], 16),
            int(receipt["effectiveGasPrice"], 16),
            data,
            said,
            tuple(self._events(receipt["logs"])),
        )

    def _events(self, logs: Iterable[Fields]) -> Iterator[tuple[str, Fields]]:
        for log in logs:
            name = self._names.get(log["address"].lower())
            event = self._readers[name].event(log) if name else None
            if event is not None:
                yield event


class _Reader:
    """One contract's interface, read the other way round: from bytes to names and values."""

    def __init__(self, contract: str) -> None:
        self._contract = contract
        self._functions: dict[bytes, Fields] = {}
        self._events: dict[bytes, Fields] = {}
        for entry in load(contract)["abi"]:
            form = f"{entry.get('name')}({','.join(map(_form, entry.get('inputs', ())))})"
            if entry["type"] == "function":
                self._functions[keccak(form.encode())[:4]] = entry
            elif entry["type"] == "event":
                self._events[keccak(form.encode())] = entry

    def call(self, data: bytes) -> tuple[str, Fields]:
        """A function's name and its arguments; empty where it is none of the contract's."""
        entry = self._functions.get(data[:4])
        return ("", {}) if entry is None else (entry["name"], self._read(entry["inputs"], data[4:]))

    def event(self, log: Fields) -> tuple[str, Fields] | None:
        """An event's name and its values; None where it is none of the contract's."""
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        entry = self._events.get(topics[0]) if topics else None
        if entry is None:
            return None
        plain = [item for item in entry["inputs"] if not item["indexed"]]
        found = self._read(plain, bytes.fromhex(log["data"][2:]))
        named = [item for item in entry["inputs"] if item["indexed"]]
        for item, topic in zip(named, topics[1:], strict=True):
            found |= self._read([item], topic)
        return entry["name"], found

    def _read(self, items: list[Fields], data: bytes) -> Fields:
        try:
            values = decode([_form(item) for item in items], data)
        except DecodingError:
            return {}
        found: Fields = {}
        for item, value in zip(items, values, strict=True):
            self._flatten(str(item["name"]), item, value, found)
        return found

    def _flatten(self, path: str, item: Fields, value: Any, found: Fields) -> None:
        kind = str(item["type"])
        if kind.endswith("]"):
            part = {**item, "type": kind[: kind.rindex("[")]}
            for number, one in enumerate(value):
                self._flatten(f"{path}[{number}]", part, one, found)
        elif kind == "tuple":
            for member, one in zip(item["components"], value, strict=True):
                self._flatten(f"{path}.{member['name']}", member, one, found)
        else:
            found[path] = _shown(path, kind, value)
            self._unpack(path, value, found)

    def _unpack(self, path: str, value: Any, found: Fields) -> None:
        """The parts of a packed word, beside it."""
        tail = path.removeprefix("consent.").removeprefix("row.").removeprefix("params.")
        parts = _PACKED.get((self._contract, tail))
        if parts is None:
            return
        word = int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)
        for name, bits in parts:
            found[f"{path}.{name}"] = _shown(name, "uint256", word & (1 << bits) - 1)
            word >>= bits


def _form(item: Fields) -> str:
    """An ABI type as signatures have it: a struct as the tuple of its members."""
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_form, item['components']))}){kind.removeprefix('tuple')}"


def _shown(path: str, kind: str, value: Any) -> Any:
    """A value as people look at it: bytes and addresses as 0x..., numbers as they are."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if path.rpartition(".")[2] in _PARTIES and kind == "uint256":
        return f"0x{value:040x}"
    return value.lower() if isinstance(value, str) else value
