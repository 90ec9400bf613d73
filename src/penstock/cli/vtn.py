"""`penstock vtn`: a grid operator's server of one's own, to see how a site obeys it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.output import AsJson


def vtn(
    credentials: Annotated[
        Path, typer.Option(help="Directory for the clients' credentials; made, or read where it is there.")
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8080,
    sites: Annotated[int, typer.Option(help="How many sites may ask, 1 to 100: site-1, site-2, ...")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a grid operator's server (a VTN of OpenADR 3.1) on this machine until it is interrupted.

    It is for tests and demonstrations: what it is told is in memory alone. The files `operator` and `site-1` hold a
    client's id and its secret, a line each.

    \b
    Example:
        penstock vtn --credentials grid
    """
    from penstock.cli.node import run
    from penstock.core.errors import UsageError
    from penstock.sim.vtn import Client, Role, serve

    if not 0 <= port <= 65_535:
        raise UsageError(f"port {port} is outside 0..65535", "give --port 0 for any free one")
    if not 1 <= sites <= 100:
        raise UsageError(f"{sites} sites are outside 1..100", "give --sites 1")
    roles = {"operator": Role.BL} | {f"site-{number}": Role.VEN for number in range(1, sites + 1)}
    clients = [Client(name, _secret(credentials, name), role) for name, role in roles.items()]

    def ready(url: str) -> None:
        if as_json:
            typer.echo(json.dumps({"url": url, "credentials": str(credentials), "clients": list(roles)}))
        else:
            typer.echo(f"grid operator's server at {url}; credentials of {', '.join(roles)} in {credentials}")

    async def work(asked: asyncio.Event) -> None:
        serving = asyncio.ensure_future(serve(clients, ready, port))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([serving, asking], return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    run(work)


def _secret(directory: Path, name: str) -> str:
    """The secret of a client: the one in its file, or a new one that is put there."""
    from penstock.core.errors import UsageError
    from penstock.gateways.openadr import load

    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = secrets.token_urlsafe(32)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{name}\n{fresh}\n")
    except FileExistsError:
        if not path.is_file():
            raise UsageError(f"{path} is no file", "give another --credentials") from None
        return load(path).secret
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot write {path}: {why}", "give another --credentials") from None
    return fresh
