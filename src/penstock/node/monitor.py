"""The page that machines look at: `/metrics` for Prometheus, `/health` for whoever starts and stops nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from penstock.core.errors import JournalError, UsageError
from penstock.core.units import Instant
from penstock.node.metrics import room
from penstock.node.site import Site
from penstock.node.tasks import durable
from penstock.node.watch import Watch

FRESH = 180  # seconds since the ledger was seen: three of the longest pauses between two looks
ROOM = 16 * 2**20  # bytes that a journal's disk should have: its write-ahead log may grow to some 4 MB at once
ANSWER = 5.0  # seconds for the journal to answer: it takes milliseconds

Check = Callable[[], Awaitable[list[str]]]
"""What is wrong, each in a line; nothing where all is well."""


class Monitor:
    """An HTTP server for a node's figures and its health. Made by `monitor`; close it when done."""

    def __init__(self, registry: CollectorRegistry, check: Check) -> None:
        self._registry, self._check = registry, check
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self.port = 0

    async def listen(self, host: str, port: int) -> None:
        """Answer at `host`:`port`; 0 takes a free one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)[:120]
            raise UsageError(
                f"cannot show metrics at {host}:{port} ({why})", "choose another port, or 0 for a free one"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": kind})

    async def _health(self, _: web.Request) -> web.Response:
        problems = await self._check()
        return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)


def site_check(site: Site, journal: Path) -> Check:
    """The health of a supplier: its journal (the file is named) can be written, and its ledger was seen lately."""

    async def check() -> list[str]:
        wrong = [await _journal(site), _disk(journal), _ledger(site.seen, site.clock)]
        return [line for line in wrong if line]

    return check


def watch_check(watch: Watch, clock: Callable[[], Instant], every: float | None) -> Check:
    """The health of a watcher that looks `every` so many seconds: the ledgers of what it watches were seen lately."""

    async def check() -> list[str]:
        if watch.seen is None:
            return ["ledger: not seen yet"] if watch.left else []
        wrong = _ledger(watch.seen, clock, max(FRESH, 3 * (every or 0)))
        return [wrong] if wrong else []

    return check


async def _journal(site: Site) -> str:
    """Whether the journal's thread takes writes and is not stuck on its disk. Nothing is written."""
    if site.fault is not None:
        return f"journal: {site.fault.line()}"
    try:
        async with asyncio.timeout(ANSWER):
            await durable(site.journal, ())
    except TimeoutError:
        return f"journal: no commit within {ANSWER:g} s"
    except JournalError as error:
        return f"journal: {error.line()}"
    return ""


def _disk(journal: Path) -> str:
    free = room(journal)
    return f"journal: {free:,} bytes are free on its disk, fewer than {ROOM:,}" if free < ROOM else ""


def _ledger(seen: Instant, clock: Callable[[], Instant], fresh: float = FRESH) -> str:
    age = max(0, clock() - seen) // 1000
    return f"ledger: not seen for {age} s" if age > fresh else ""
