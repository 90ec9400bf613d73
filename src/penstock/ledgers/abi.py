"""Calldata and return values of a contract, by the names in its ABI.

Source: the Solidity contract ABI specification; the codec is `eth_abi`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError

from penstock.core.errors import OutOfRange, WrongLedger
from penstock.core.identity import keccak

_ERROR_SELECTOR = keccak(b"Error(string)")[:4]
_PANIC_SELECTOR = keccak(b"Panic(uint256)")[:4]
_UNREADABLE = (DecodingError, UnicodeDecodeError, OverflowError)  # the latter two for texts: no UTF-8, absurd lengths


class _Function(NamedTuple):
    selector: bytes
    inputs: list[str]
    outputs: list[str]


class Interface:
    """A contract's functions and events."""

    def __init__(self, abi: Sequence[dict[str, Any]]) -> None:
        self._functions: dict[str, _Function] = {}
        self._events: dict[bytes, tuple[str, list[str]]] = {}
        for entry in abi:
            inputs = [_type(item) for item in entry.get("inputs", ())]
            signature = keccak(f"{entry.get('name')}({','.join(inputs)})".encode())
            if entry["type"] == "function":
                outputs = [_type(item) for item in entry["outputs"]]
                self._functions[entry["name"]] = _Function(signature[:4], inputs, outputs)
            elif entry["type"] == "event":
                plain = [_type(item) for item in entry["inputs"] if not item["indexed"]]
                self._events[signature] = (entry["name"], plain)

    def encode(self, name: str, *values: object) -> bytes:
        """The calldata of function `name`.

        Raises:
            OutOfRange: a value that its type cannot hold.
        """
        function = self._functions[name]
        try:
            return function.selector + encode(function.inputs, values)
        except EncodingError as error:
            raise OutOfRange(f"{name} cannot take these values: {error}") from error

    def decode(self, name: str, data: bytes) -> tuple[Any, ...]:
        """What function `name` returned.

        Raises:
            WrongLedger: that is not what this contract returns.
        """
        try:
            return decode(self._functions[name].outputs, data)
        except _UNREADABLE as error:
            raise WrongLedger(f"{name} is answered by another contract", "check the contract's address") from error

    def topic(self, name: str) -> bytes:
        """The first topic of the logs of event `name`. 32 bytes."""
        return next(topic for topic, (known, _) in self._events.items() if known == name)

    def event(self, topic: bytes, data: bytes) -> tuple[str, tuple[Any, ...]] | None:
        """The name and the values (those not indexed) of a log; None if it is none of this contract's events."""
        known = self._events.get(topic)
        if known is None:
            return None
        try:
            return known[0], decode(known[1], data)
        except _UNREADABLE:
            return None


def revert_reason(data: bytes) -> str:
    """The contract's own word in what it returned when it reverted; empty where it gave none."""
    try:
        if data[:4] == _ERROR_SELECTOR:
            return " ".join(str(decode(["string"], data[4:])[0]).split())[:200]  # anybody's contract may answer
        if data[:4] == _PANIC_SELECTOR:
            return f"panic 0x{decode(['uint256'], data[4:])[0]:02x}"
    except _UNREADABLE:
        return ""
    return ""


def _type(item: dict[str, Any]) -> str:
    """An ABI type in the codec's words: a struct as the tuple of its members."""
    name = str(item["type"])
    if not name.startswith("tuple"):
        return name
    return f"({','.join(_type(member) for member in item['components'])}){name.removeprefix('tuple')}"
