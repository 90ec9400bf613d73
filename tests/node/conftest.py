from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest

from penstock.core.identity import Key
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.devnet.server import serve
from penstock.node import beat, consumer

from .world import Street, street

ACCOUNTS = 1_000


class _Devnet:
    """A devnet on a thread with an event loop of its own, so that every test can have its own loop."""

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the devnet did not start"

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._serving = asyncio.ensure_future(serve(ready=self._is_ready, accounts=ACCOUNTS))
        with suppress(asyncio.CancelledError):
            await self._serving

    def _is_ready(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._ready.set()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(30)


@pytest.fixture(scope="session")
def devnet() -> Iterator[Manifest]:
    """A real devnet in this process, for all tests; each takes funded keys of its own."""
    running = _Devnet()
    assert running.manifest is not None
    yield running.manifest
    running.end()


_keys = itertools.count()


@pytest.fixture
def fresh_key(devnet: Manifest) -> Callable[[], Key]:
    """Funded keys that no test has used."""
    return lambda: dev_key(next(_keys))


@pytest.fixture(autouse=True)
def _quick_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is looked at often, so that it can be short."""
    monkeypatch.setattr(consumer, "BEAT", 0.05)
    monkeypatch.setattr(beat, "BEAT", 0.05)


@pytest.fixture
def open_street(
    tmp_path: Path, devnet: Manifest, fresh_key: Callable[[], Key]
) -> Callable[..., AbstractAsyncContextManager[Street]]:
    """Opens a pole on a street of its own: `async with open_street(speed=SPEED) as it`."""
    return lambda **pole: street(tmp_path, devnet, fresh_key, **pole)
