"""The devnet behind HTTP on loopback, shared by the processes of one machine.

One worker thread owns the chain, so that the event loop goes on accepting requests while a block is made. A submission
returns when its block is in the chain; those that arrive meanwhile share the next one. When nothing is sent for a slot
of twelve seconds an empty block is made, as time passes on any other chain.

Only JSON is taken, and only under a loopback name: a web page that the user visits can neither post here without asking
(the content type needs consent) nor reach it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from penstock.core.errors import LedgerError, UsageError
from penstock.ledgers.devnet.chain import DEFAULT_CHAIN_ID, Chain
from penstock.ledgers.devnet.forms import Form
from penstock.ledgers.devnet.genesis import DEFAULT_ACCOUNTS, found
from penstock.ledgers.devnet.manifest import Manifest
from penstock.ledgers.devnet.rpc import INTERNAL, Rpc

HOST = "127.0.0.1"
MAX_BODY = 5 * 1024 * 1024  # bytes; geth's limit
MAX_BATCH = 1_000  # requests; geth's limit
SLOT = 12.0  # seconds, the main network's
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
PARSE_ERROR, INVALID_REQUEST = -32700, -32600

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FILLS_POOL = {"eth_sendRawTransaction", "evm_setAutomine"}  # what comes in by these is mined at once


async def serve(
    *,
    ready: Callable[[Manifest], None],
    directory: Path | None = None,
    port: int = 0,
    chain_id: int = DEFAULT_CHAIN_ID,
    accounts: int = DEFAULT_ACCOUNTS,
) -> None:
    """Run a devnet until cancelled: state in `directory`, or in memory; port 0 takes a free one.

    `ready` gets the manifest once requests are answered; it is then in `directory`/devnet.json, too.

    Raises:
        UsageError: the directory or the port cannot be used, or the directory holds another chain.
    """
    founded = await asyncio.to_thread(found, directory, chain_id, accounts)
    server = Server(founded.chain)
    try:
        url = await server.start(port)
        manifest = Manifest(url, chain_id, founded.contracts, founded.accounts)
        if directory is not None:
            manifest.write(directory)
        ready(manifest)
        await server.keep_time()
    finally:
        await server.stop()


class Server:
    """JSON-RPC over HTTP for one chain, which it owns from now on."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._rpc = Rpc(chain)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="devnet")
        self._round: _Round | None = None
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> str:
        """Listen on loopback; returns the URL.

        Raises:
            UsageError: the port is taken or not ours to use.
        """
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_loopback_only])
        app.router.add_post("/", self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, HOST, port, backlog=1024)
            await site.start()
        except (OSError, OverflowError) as error:
            raise UsageError(f"cannot listen on {HOST}:{port}: {error}", "choose another port, or 0") from error
        bound = self._runner.addresses[0][1]
        return f"http://{HOST}:{bound}"

    async def stop(self) -> None:
        """Finish what is under way and let go of the port and the chain."""
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.get_running_loop().run_in_executor(self._worker, self._chain.close)
        self._worker.shutdown()

    async def keep_time(self) -> None:
        """Make an empty block whenever a slot has passed without one; runs until cancelled."""
        while True:
            before = self._chain.head
            await asyncio.sleep(SLOT)
            if self._rpc.automine and self._chain.head is before:
                await self._on_worker(self._chain.mine)

    async def _on_worker(self, run: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(run, *arguments))

    # Mining

    async def _mined(self) -> None:
        """Return once every transaction that is in the pool now, and can be, is in a block."""
        if self._round is None or self._round.begun:
            self._round = _Round()
            self._round.done = asyncio.ensure_future(self._on_worker(self._mine, self._round))
        await asyncio.shield(self._round.done)

    def _mine(self, round_: _Round) -> None:
        round_.begun = True  # what is submitted from here on needs the next round
        self._chain.mine_waiting()

    # Requests

    async def _post(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return web.Response(status=415, text="send JSON-RPC as Content-Type: application/json\n")
        body = await self.reply(await request.read())
        if body is None:
            return web.Response(status=204)
        return web.Response(body=body, content_type="application/json")

    async def reply(self, body: bytes) -> bytes | None:
        """The JSON-RPC response to a request or a batch; None where nothing is to be answered."""
        try:
            asked = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.encode(_failure(None, PARSE_ERROR, "not JSON"))
        if not isinstance(asked, list):
            answer = await self._one(asked)
            return None if answer is None else msgspec.json.encode(answer)
        if not 1 <= len(asked) <= MAX_BATCH:
            return msgspec.json.encode(_failure(None, INVALID_REQUEST, f"a batch has 1..{MAX_BATCH} requests"))
        answers = await asyncio.gather(*map(self._one, asked))
        kept = [answer for answer in answers if answer is not None]
        return msgspec.json.encode(kept) if kept else None

    async def _one(self, asked: Any) -> Form | None:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _failure(None, INVALID_REQUEST, "a request is an object with jsonrpc, id, method and params")
        ident = asked.get("id")
        if asked.get("jsonrpc") != "2.0" or not isinstance(ident, str | int | float | None):
            return _failure(None, INVALID_REQUEST, "a request has jsonrpc 2.0, and an id that is a string or a number")
        method = asked["method"]
        answer = await self._on_worker(self._rpc.answer, method, asked.get("params"))
        if method in _FILLS_POOL and "result" in answer and self._rpc.automine:
            try:
                await self._mined()
            except LedgerError as error:
                answer = {"error": {"code": INTERNAL, "message": error.line()}}
        return {"jsonrpc": "2.0", "id": ident, **answer} if "id" in asked else None


class _Round:
    """One emptying of the pool: `begun` once it takes transactions no more, `done` when its blocks are made."""

    def __init__(self) -> None:
        self.begun = False
        self.done: asyncio.Future[None]


@web.middleware
async def _loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    name = request.host.rsplit(":", 1)[0] if request.host.rpartition(":")[2].isdigit() else request.host
    if name.lower() not in LOOPBACK:
        return web.Response(status=403, text=f"this devnet is reached as {HOST} or localhost only\n")
    return await handler(request)


def _failure(ident: object, code: int, message: str) -> Form:
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message}}
