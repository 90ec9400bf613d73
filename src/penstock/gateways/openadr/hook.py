"""Where the grid's server rings when an event has changed: a small HTTP server, and a token that only it was told.

A notification is taken as a bell and no more: what it says is read anew from the server. So whatever is posted here, in
whatever order and number, can at most make us ask sooner than we would have.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import Callable

from aiohttp import web

from penstock.core.errors import BadSignal, UsageError
from penstock.gateways.openadr import forms

MAX_BODY = 2**18  # bytes; a notification of a day of quarter hours has 15 kB
MAX_CONNECTIONS = 16  # one server needs one or two; above it the one that came first goes
_OURS = ("EVENT", "PROGRAM")


class Hook:
    """Calls `ring` whenever the server says that something has changed. Close it when done."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.token = secrets.token_urlsafe(32)
        self._ring = ring
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/", self._post)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Answer at `host`:`port`, 0 for a free one; returns which.

        Raises:
            UsageError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(self._accept, host, port, backlog=16)
        except (OSError, OverflowError) as error:
            await self._runner.cleanup()
            number = error.errno if isinstance(error, OSError) else None
            why = os.strerror(number).lower() if number and number > 0 else str(error)[:120]
            raise UsageError(f"cannot listen for the grid at {host}:{port} ({why})", "choose another port") from None
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        open_ = server.connections
        if len(open_) >= MAX_CONNECTIONS:
            open_[0].force_close()
        return server()

    async def _post(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            notice = forms.decode(await request.read(), forms.Notice, "a notification")
        except BadSignal:
            return web.Response(status=400)
        if notice.object_type in _OURS:
            self._ring()
        return web.Response(status=200)
