"""The processes of a demo: a devnet, and whoever sells and buys on it, each the `penstock` command with a home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.identity import parse_address
from penstock.core.ports import Holdings, TokenFacts
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.sim.processes import Child, Event
from penstock.storage import keystore

PASSPHRASE = "demo"  # noqa: S105 -- the keys are a devnet's, which everybody knows
STARTING = 60.0  # seconds for a process to come up
CHANNEL, ESCROW = "stream-channel", "escrow"
_LEDGERS: dict[str, tuple[str, str, Callable[..., Awaitable[EvmLedger | EvmEscrows]]]] = {
    CHANNEL: ("CryptoEuroChannel", "--contract", EvmLedger.connect),
    ESCROW: ("CryptoEuroEscrow", "--escrow", EvmEscrows.connect),
}

Watch = Callable[[str, str, Event], None]
"""Told of each event of a process: who, what, and the facts."""


class Demo(NamedTuple):
    """What came of it: the figures as JSON, the token's form, and what did not agree (nothing, if all went well)."""

    document: dict[str, Any]
    token: TokenFacts
    disagreements: list[str]


class Cast:
    """Those who play: each of `names` has a home of that name in `directory`, and the key "demo" in it.

    `common` are the flags that name the key and the ledger, for `supply` and `consume`; `url` is the ledger's node.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        ledger: EvmLedger | EvmEscrows,
        token: TokenFacts,
        common: list[str],
        start: Callable[..., Awaitable[Child]],
        url: str,
    ) -> None:
        self.directory, self.names, self.ledger, self.token, self.common = directory, names, ledger, token, common
        self.url = url
        self._start = start

    def home(self, name: str) -> Path:
        """Where that one keeps its key and its journal."""
        return self.directory / name

    async def start(self, name: str, *arguments: str, **how: Any) -> Child:
        """Start `penstock ARGUMENTS` in the home of that name; `how` as `Child.start`. It is ended with the cast."""
        return await self._start(name, *arguments, **how)

    async def holdings(self) -> list[Holdings]:
        """What each has on the chain now, in the order of their names."""
        return [await self.ledger.holdings(dev_key(index).address) for index in range(len(self.names))]


@asynccontextmanager
async def cast(directory: Path, watch: Watch, names: Sequence[str], rail: str = CHANNEL) -> AsyncIterator[Cast]:
    """A devnet that runs, with an account for each name. In the end all processes are ended, the last one first.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    children: list[Child] = []

    async def start(name: str, *arguments: str, **how: Any) -> Child:
        child = await Child.start(
            name, list(arguments), directory / name, lambda event, facts: watch(name, event, facts), **how
        )
        children.append(child)
        return child

    ledger: EvmLedger | EvmEscrows | None = None
    try:
        devnet = await start("devnet", "devnet", "--port", "0", "--accounts", str(len(names)), "--json")
        common = _prepare(directory, names)
        manifest = await asyncio.wait_for(devnet.line(), STARTING)
        watch("devnet", "ready", manifest)
        contract_name, flag, connect = _LEDGERS[rail]
        contract = manifest["contracts"][contract_name]
        ledger = await connect(manifest["url"], parse_address(contract))
        common += ["--url", manifest["url"], flag, contract, "--rail", rail]
        yield Cast(directory, names, ledger, await ledger.token(), common, start, manifest["url"])
    finally:
        if ledger is not None:
            await ledger.disconnect()
        await asyncio.gather(*(child.end() for child in reversed(children)))


def _prepare(directory: Path, names: Sequence[str]) -> list[str]:
    """A home with a key for each; the flags that all share."""
    passphrase = directory / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    for index, name in enumerate(names):
        home = directory / name
        home.mkdir(mode=0o700)
        keystore.create(home / "keys", "demo", PASSPHRASE, dev_key(index).secret, cost=keystore.LIGHT)
    return ["--key", "demo", "--passphrase-file", str(passphrase), "--log", "json", "--json"]
