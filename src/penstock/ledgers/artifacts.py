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
    """The artifact of the contract `name` ("Channel", "CryptoEuro", "WrappedEther").

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
