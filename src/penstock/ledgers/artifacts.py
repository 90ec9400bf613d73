"""The compiled contracts, as the build left them beside their Vyper sources."""

from __future__ import annotations

from importlib import resources
from typing import Any, TypedDict

import msgspec

from penstock.core.errors import UsageError


class Artifact(TypedDict):
    """A contract's interface, in the form of the Ethereum ABI specification, and the 0x... bytes that deploy it."""

    abi: list[dict[str, Any]]
    bytecode: str


def load(name: str) -> Artifact:
    """The artifact of the contract `name` ("Channel", "Escrow", "CryptoEuro", "WrappedEther").

    Raises:
        UsageError: it was never built, or what is there cannot be read.
    """
    path = resources.files("penstock") / "contracts" / "artifacts" / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Artifact)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"contract {name} is not built", "reinstall penstock; in a checkout: pip install -e ."
        ) from error


def runtime(artifact: Artifact) -> bytes:
    """The code that a deployment leaves at its address, without the immutables that the constructor puts behind it.

    The init code ends in what Vyper says of itself: a CBOR array of integrity hash (32 bytes), runtime size, sizes of
    data sections, size of immutables and compiler, and then two bytes of how long all that is. The runtime lies before.
    """
    init = bytes.fromhex(artifact["bytecode"].removeprefix("0x"))
    end = len(init) - int.from_bytes(init[-2:], "big")
    head = init[end : end + 38]
    assert head[:3] == b"\x85\x58\x20", "the build pins the compiler, which writes it so"
    assert head[35] == 0x19, "a size of two bytes"
    return init[end - int.from_bytes(head[36:38], "big") : end]
