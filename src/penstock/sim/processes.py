"""Child processes of a demo or a replay: the `penstock` command itself, with its events read from stderr."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.core.errors import LocalError

Event = dict[str, Any]
GRACE = 10.0  # seconds between being asked to end and being killed


class Child:
    """One process. `on_event` gets each JSON line of its stderr; its stdout is collected, or read by line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_event: Callable[[str, Event], None]) -> None:
        self.name = name
        self.process = process
        self.said: list[str] = []  # what stderr said that was no event
        self._on_event = on_event
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Future[Any] = asyncio.ensure_future(self._read())

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: list[str],
        home: Path,
        on_event: Callable[[str, Event], None],
        module: str = "penstock",
        within: Sequence[str] = (),
    ) -> Child:
        """Start `python -m MODULE ARGUMENTS` with `home` as its PENSTOCK_HOME; the command begins with `within`."""
        process = await asyncio.create_subprocess_exec(
            *within,
            sys.executable,
            "-m",
            module,
            *arguments,
            env={**os.environ, "PENSTOCK_HOME": str(home)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,  # a line of JSON may be long
        )
        return cls(name, process, on_event)

    async def event(self, event: str) -> Event:
        """Wait for the first event of that name.

        Raises:
            LocalError: the process ended without it.
        """
        waiter = self._waiting.setdefault(event, asyncio.get_running_loop().create_future())
        await asyncio.wait([waiter, self._reader], return_when=asyncio.FIRST_COMPLETED)
        if not waiter.done():
            raise self._failure(await self.process.wait())
        found: Event = waiter.result()
        return found

    async def line(self) -> Event:
        """The next line of stdout, as JSON.

        Raises:
            LocalError: the process ended first.
        """
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            await self._reader
            raise self._failure(await self.process.wait())
        found: Event = json.loads(line)
        return found

    async def answer(self) -> Event:
        """What the process answers with on stdout when it ends.

        Raises:
            LocalError: it failed.
        """
        assert self.process.stdout is not None
        content = await self.process.stdout.read()
        await self._reader
        code = await self.process.wait()
        if code:
            raise self._failure(code)
        found: Event = json.loads(content)
        return found

    async def end(self) -> None:
        """Ask the process to end, and kill it where it does not."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), GRACE)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    def _failure(self, code: int) -> LocalError:
        last = self.said[-1] if self.said else f"it ended with exit code {code} and no word"
        return LocalError(f"the {self.name} failed: {last.removeprefix('penstock: ')}")

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                event = json.loads(line)
                name = event.pop("event")
            except (ValueError, KeyError, TypeError, AttributeError):
                self.said.append(line.decode(errors="replace").strip())
                continue
            waiter = self._waiting.setdefault(name, asyncio.get_running_loop().create_future())
            if not waiter.done():
                waiter.set_result(event)
            self._on_event(name, event)
