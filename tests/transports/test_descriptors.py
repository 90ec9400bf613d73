"""A server that runs out of descriptors: those who are there stay served, and those who come again are."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.core.errors import LinkLost
from penstock.transports.tls import TlsLink, connect

from .support import CONSUMER, HOST

pytestmark = pytest.mark.asyncio

_SERVER = """
import asyncio, resource, sys, uvloop
from penstock.core.identity import Key
from penstock.transports.tls import serve

async def main(before, after):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, max(before, after)))
    links = []
    def on_link(link):
        links.append(link)
        link.attach(link.send, lambda error: links.remove(link))
    server = await serve("127.0.0.1", 0, Key(bytes([1]) * 32), on_link)
    print(server.port, resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    if after < before:
        resource.setrlimit(resource.RLIMIT_NOFILE, (after, after))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

uvloop.run(main(*map(int, sys.argv[1:])))
"""


@contextmanager
def server(before: int, after: int) -> Iterator[tuple[int, int, int]]:
    """A server whose limit of descriptors is `before`, and `after` once it listens (or could be, where it is higher);
    yields its port, its process id and the limit that it made for itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(before), str(after)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port, limit = map(int, process.stdout.readline().split())
        yield port, process.pid, limit
    finally:
        process.communicate("")


@contextmanager
def crowd(port: int, count: int) -> Iterator[None]:
    """So many connections of peers that say nothing."""
    peers = []
    for _ in range(count):
        peer = socket.socket()
        peer.settimeout(5)
        peer.connect((HOST, port))
        peers.append(peer)
    yield
    for peer in peers:
        peer.close()


async def echo(link: TlsLink) -> bytes:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    link.attach(answer.set_result, answer.set_exception)
    link.send(b"still there?")
    return await asyncio.wait_for(answer, 10)


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def once_more(port: int) -> TlsLink:
    """A link, as soon as there is room for it."""
    for _ in range(100):
        try:
            return await connect(HOST, port, CONSUMER)
        except LinkLost:
            await asyncio.sleep(0.05)
    raise AssertionError("nobody is served any more")


async def test_those_who_stall_do_not_take_the_last_descriptors() -> None:
    """Handshakes that stall are dropped before the descriptors run out, so that an honest peer gets in among them."""
    with server(200, 200) as (port, process, _), crowd(port, 400):
        link = await connect(HOST, port, CONSUMER)
        assert await echo(link) == b"still there?"
        assert len(os.listdir(f"/proc/{process}/fd")) < 150, "some are kept for journal and ledger"
        link.close()


async def test_a_server_without_descriptors_serves_on_and_does_not_spin() -> None:
    with server(400, 60) as (port, process, _):
        link = await connect(HOST, port, CONSUMER)
        with crowd(port, 200):
            assert await echo(link) == b"still there?"
            before = cpu_of(process)
            await asyncio.sleep(0.5)  # the time over which CPU is measured
            assert cpu_of(process) - before < 0.25
            assert await echo(link) == b"still there?"
        again = await once_more(port)
        assert await echo(again) == b"still there?"
        for one in (link, again):
            one.close()


async def test_the_soft_limit_is_raised_to_what_the_links_need() -> None:
    """Most machines begin with 1,024 descriptors, and let a process have many more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 2_000:
        pytest.skip(f"no more than {hard} descriptors are allowed here")
    with server(300, 2_000) as (_, _, limit):
        assert limit == 2_000
