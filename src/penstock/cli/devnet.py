"""`penstock devnet`: an EVM chain of one's own, with the contracts on it and funded keys."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.output import AsJson


def devnet(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8545,
    state: Annotated[
        Path | None, typer.Option(help="Keep the chain in this directory, and go on from it.", show_default=False)
    ] = None,
    accounts: Annotated[int, typer.Option(help="How many funded keys, 1 to 2000.")] = 20,
    chain_id: Annotated[int, typer.Option(help="The chain's id.")] = 31337,
    as_json: AsJson = False,
) -> None:
    """Run a development chain on this machine until it is interrupted.

    It speaks Ethereum JSON-RPC, has the channel contract for a test euro (6 decimals) and for wrapped ether, and
    funded keys that everybody knows: nothing on it is worth anything.

    \b
    Example:
        penstock devnet --state chain
        penstock devnet --port 0 --json
    """
    from penstock.cli.node import run
    from penstock.core.errors import UsageError
    from penstock.ledgers.devnet.manifest import Manifest
    from penstock.ledgers.devnet.server import serve

    if not 0 <= port <= 65_535:
        raise UsageError(f"port {port} is outside 0..65535", "give --port 0 for any free one")
    if not 1 <= chain_id < 2**53:
        raise UsageError(f"chain id {chain_id} is outside 1..2**53", "31337 is what development chains use")

    def ready(manifest: Manifest) -> None:
        if as_json:
            typer.echo(manifest.line())
            return
        typer.echo(f"devnet at {manifest.url}, chain {manifest.chain_id}")
        for name, address in manifest.contracts.items():
            typer.echo(f"  {name:20} {address}")
        typer.echo(f"  {len(manifest.accounts)} funded keys, the first {manifest.accounts[0]}")
        typer.echo("Ctrl-C ends it.")

    async def work(asked: asyncio.Event) -> None:
        serving = asyncio.ensure_future(
            serve(ready=ready, directory=state, port=port, chain_id=chain_id, accounts=accounts)
        )
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([serving, asking], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    run(work)
