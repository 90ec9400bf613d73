"""Notifications: each change of an object is posted to whoever has subscribed to it, in order, a few times at most.

Nobody's slowness holds up the server or another subscriber: each has a short queue of its own, whose oldest goes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from penstock.sim.vtn.objects import Object

QUEUE = 64  # notifications that wait for one subscriber
TRIES = (0.0, 0.2, 1.0)  # seconds before each
TIMEOUT = 5.0  # seconds for a subscriber's answer


class Notifier:
    """Posts notifications in the background. Must be made inside a running event loop; close it when done."""

    def __init__(self) -> None:
        self._session = ClientSession(timeout=ClientTimeout(total=TIMEOUT), cookie_jar=DummyCookieJar())
        self._waiting: dict[str, deque[tuple[str, str | None, bytes]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def tell(self, subscription: Object, operation: str, changed: Object) -> None:
        """Queue what a subscription asks to hear of a change that its owner may see."""
        for wanted in subscription["objectOperations"]:
            url = wanted["callbackUrl"]
            if changed["objectType"] not in wanted["objects"] or operation not in wanted["operations"]:
                continue
            if not url.startswith(("http://", "https://")):
                continue
            notice = {"objectType": changed["objectType"], "operation": operation, "object": changed}
            self._queue(subscription["id"], url, wanted.get("bearerToken"), msgspec.json.encode(notice))

    def _queue(self, name: str, url: str, token: str | None, body: bytes) -> None:
        self._waiting.setdefault(name, deque(maxlen=QUEUE)).append((url, token, body))
        if name not in self._tasks:
            self._tasks[name] = asyncio.ensure_future(self._serve(name))

    async def _serve(self, name: str) -> None:
        try:
            while self._waiting[name]:
                await self._post(*self._waiting[name].popleft())
        finally:
            del self._waiting[name], self._tasks[name]

    async def _post(self, url: str, token: str | None, body: bytes) -> None:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        for pause in TRIES:
            await asyncio.sleep(pause)
            try:
                request: Any = self._session.post(url, data=body, headers=headers, allow_redirects=False)
                async with request as answer:
                    if answer.status < 500:
                        return
            except (ClientError, OSError, TimeoutError, ValueError):
                continue

    async def close(self) -> None:
        """Drop what waits."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
