"""What a devnet tells those who use it, and the keys that everybody on it knows."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from penstock.core.errors import UsageError
from penstock.core.identity import Key, keccak

MAX_ACCOUNTS = 2_000
FILE = "devnet.json"


class Manifest(msgspec.Struct, frozen=True):
    """Where a devnet listens, its contracts (name -> address) and its funded accounts, in the order of `dev_key`."""

    url: str
    chain_id: int
    contracts: dict[str, str]
    accounts: tuple[str, ...]

    def line(self) -> str:
        """The manifest as one line of JSON."""
        return msgspec.json.encode(self).decode()

    def write(self, directory: Path) -> None:
        """Put the manifest into `directory`/devnet.json, whole or not at all.

        Raises:
            UsageError: the directory cannot be written.
        """
        try:
            fresh = directory / f"{FILE}.{os.getpid()}"
            fresh.write_text(self.line() + "\n")
            fresh.replace(directory / FILE)
        except OSError as error:
            raise UsageError(
                f"cannot write {directory / FILE}: {error.strerror}", "choose another directory"
            ) from error

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of the devnet whose state is in `directory`.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        try:
            return msgspec.json.decode((directory / FILE).read_bytes(), type=cls)
        except OSError as error:
            raise UsageError(
                f"no devnet has been started in {directory}: {error.strerror}", "start one with that directory first"
            ) from error
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or lists in lists in lists
            raise UsageError(
                f"{directory / FILE} is damaged: {error}", "delete it and start the devnet anew"
            ) from error


def dev_key(index: int) -> Key:
    """Funded key number `index` (0..) of every devnet: keccak("penstock devnet key <index>"). Anyone can spend it."""
    return Key(keccak(b"penstock devnet key %d" % index))


def deployer_key() -> Key:
    """The key that deploys a devnet's contracts and mints its test tokens."""
    return Key(keccak(b"penstock devnet deployer"))
