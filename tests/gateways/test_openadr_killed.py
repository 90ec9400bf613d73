"""The grid's server as a process of its own, killed at any instant and started again: what is in force stays so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.core.errors import GridError
from penstock.gateways.openadr import Client, Credentials, load
from penstock.sim.vtn import Client as Known
from penstock.sim.vtn import Role

from .grid import Operator, site, until

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def process(directory: Path, port: int = 0) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`penstock vtn`, and its URL."""
    arguments = ["vtn", "--credentials", str(directory), "--port", str(port), "--json"]
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        async with asyncio.timeout(30):
            said = json.loads(await running.stdout.readline())
        assert said["clients"] == ["operator", "site-1"]
        yield running, said["url"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


def known(directory: Path, name: str, role: Role) -> Known:
    return Known(*load(directory / name), role)


async def test_orders_outlive_a_server_that_is_killed_and_new_ones_come_when_it_is_back(tmp_path: Path) -> None:
    grid = tmp_path / "grid"
    async with process(grid) as (first, url):
        assert os.stat(grid / "operator").st_mode & 0o077 == 0
        operator = Operator(url, known(grid, "operator", Role.BL))
        await operator.found()
        await operator.ask("ALERT_GRID_EMERGENCY", "failing")
        who = known(grid, "site-1", Role.VEN)
        async with site(url, who=who, listen=("127.0.0.1", 0)) as (ven, watched):
            await until(lambda: ven.orders.supply_limit == 0)
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: watched.of("grid not reached"))
            with pytest.raises(GridError):
                await operator.ask("PRICE", 1)
            assert ven.orders.supply_limit == 0
            async with process(grid, int(url.rpartition(":")[2])):
                await until(lambda: watched.of("grid reached"))
                await until(lambda: ven.orders.emergency is None, "a server that asks nothing is obeyed, too")
                await operator.found()
                await operator.ask("IMPORT_CAPACITY_LIMIT", 3)
                await until(lambda: ven.orders.supply_limit == 3_000)
        await operator.client.close()


async def test_an_interrupted_server_says_nothing_more_and_its_secrets_stay(tmp_path: Path) -> None:
    async with process(tmp_path) as (running, _):
        secret = load(tmp_path / "site-1")
        running.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await running.wait()
    async with process(tmp_path) as (_, url):
        client = Client(url, Credentials(*secret))
        try:
            assert await client.short("/events", {}) == []
        finally:
            await client.close()
