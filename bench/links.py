"""What an idle TLS link costs a server in memory: ours, uvloop's and asyncio's, over 2,000 of each in one run.

`python -m bench.links`. All three prove certificates of both sides over TLS 1.3. Ours also proves both keys, cuts
frames, and has its timers; the other two are a protocol object that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import uvloop
from bench.sessions_load import memory_of
from bench.sessions_node import SPARE, room

from penstock.core.errors import PenstockError
from penstock.core.identity import Key
from penstock.transports.certificate import contexts
from penstock.transports.tls import TlsLink, connect, serve

COUNT = 2_000
AT_ONCE = 32
WARM = 50  # links until everything is there that is made once
FORMS = ("ours", "uvloop", "asyncio")
KEY = Key(b"\x51" * 32)


class Idle(asyncio.Protocol):
    """A connection that nobody uses."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if sys.argv[1] == "node":
            self.transport.write(b"!")  # type: ignore[attr-defined]  # so that the other side's handshake is known over

    def data_received(self, data: bytes) -> None: ...


class Waiting(asyncio.Protocol):
    """A client's end, until the server has spoken."""

    def __init__(self) -> None:
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.open.set_result(None)


async def node(form: str) -> None:
    """A server that prints its port, and ends when its input does."""
    links: list[TlsLink] = []

    def on_link(link: TlsLink) -> None:
        link.attach(ignore, ignore_end)
        links.append(link)

    if form == "ours":
        port = (await serve("127.0.0.1", 0, KEY, on_link)).port
    else:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Idle, "127.0.0.1", 0, ssl=contexts().server, backlog=1024)
        port = server.sockets[0].getsockname()[1]
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def ignore(frame: bytes) -> None: ...


def ignore_end(error: PenstockError) -> None: ...


async def come(form: str, port: int, count: int, kept: list[Any]) -> None:
    """Open so many links."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            if form == "ours":
                kept.append(await connect("127.0.0.1", port, KEY, timeout=60))
            else:
                create = asyncio.get_running_loop().create_connection
                _, end = await create(Waiting, "127.0.0.1", port, ssl=contexts().client, server_hostname="")
                await end.open
                kept.append(end)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def measure(form: str, server: subprocess.Popen[str]) -> float:
    """Kilobytes a link."""
    assert server.stdout is not None
    port, kept = int(server.stdout.readline()), list[Any]()
    await come(form, port, WARM, kept)
    before = memory_of(server.pid)
    await come(form, port, COUNT, kept)
    await asyncio.sleep(0.5)
    return (memory_of(server.pid) - before) * 1.024 / COUNT


def run() -> dict[str, Any]:
    """Kilobytes an idle link, by form."""
    room(COUNT + SPARE)
    found = {}
    for form in FORMS:
        with subprocess.Popen(
            [sys.executable, "-m", "bench.links", "node", form],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found[form] = round(runner.run(measure(form, server)), 1)
            server.kill()
    return {"link_kb": found}


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        room(COUNT + SPARE)
        factory = asyncio.new_event_loop if sys.argv[2] == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(node(sys.argv[2]))
    else:
        print(json.dumps(run(), indent=1))
