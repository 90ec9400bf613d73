"""Servers of the grid that lie: what they answer when they are asked for events."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from .grid import event

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Liar:
    """A server that hands out tokens, and whose list of events is whatever it likes."""

    def __init__(self) -> None:
        self.events: Handler = self._nothing
        self.server_info: dict[str, Any] | None = None
        self.asked = 0
        self.silent = False  # to everything
        self.seen: list[str] = []
        self.url = ""

    async def _nothing(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        if self.silent:
            await silent(request)
        if request.path == "/auth/server":
            return web.json_response(self.server_info or {"tokenURL": f"{self.url}/auth/token"})
        if request.path == "/auth/token":
            return web.json_response({"access_token": "t", "token_type": "Bearer"})
        if request.path == "/events":
            self.asked += 1
            return await self.events(request)
        return web.json_response({"id": "x"} if request.method == "POST" else [])


@contextlib.asynccontextmanager
async def liar() -> AsyncIterator[Liar]:
    """A running liar."""
    one = Liar()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", one.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await runner.cleanup()


def listed(*events: dict[str, Any]) -> Handler:
    """A list of events, as a server hands them out; the second page is empty."""
    whole = [msgspec.json.encode(one) for one in events]

    async def answer(request: web.Request) -> web.StreamResponse:
        skip, limit = int(request.query["skip"]), int(request.query["limit"])
        body = b"[" + b",".join(whole[skip : skip + limit]) + b"]"
        return web.Response(body=body, content_type="application/json")

    return answer


def said(body: bytes, **more: Any) -> Handler:
    """One answer to everything."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, **more)

    return answer


def dispatched(name: str, kind: str, *values: Any, **more: Any) -> dict[str, Any]:
    """An event with what a server adds."""
    return event("p", kind, *values) | {"id": name, "modificationDateTime": "2026-01-01T00:00:00Z"} | more


LIMIT = dispatched("limit", "IMPORT_CAPACITY_LIMIT", 3)


async def endless(request: web.Request) -> web.StreamResponse:
    """100 MB, one after the other."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        await answer.write(b"[")
        for _ in range(1_600):
            await answer.write(b'"' + b"x" * 65_533 + b'",')
    return answer


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def elsewhere(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:9/")


LIES: dict[str, Handler] = {
    "no JSON": said(b"<html>"),
    "half of it": said(b'[{"id": "limit", "programID'),
    "no list": said(b'{"events": []}'),
    "nested without end": said(b"[" * 200_000),
    "bytes that are no text": said(b'["\xff\xfe"'),
    "a hundred megabytes": endless,
    "a hundred megabytes in a few": said(
        gzip.compress(b"[" + b" " * 10**8 + b"]"), headers={"Content-Encoding": "gzip"}
    ),
    "elsewhere": elsewhere,
    "our fault": said(b"no", status=418),
    "its fault": said(b"", status=500),
    "never your token": said(b"", status=401),
}
