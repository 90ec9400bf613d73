"""Sites under their grid, with real processes: the demo's scenario, a server that fails, a pole of the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from tests.gateways.grid_liar import LIES, Handler, Liar, dispatched, listed

from penstock.gateways.openadr import Client, load
from penstock.sim.cast import cast
from penstock.sim.gridscene import event
from penstock.sim.gridyard import ACCOUNTS, POLES, Grid, Yard, audit, read, yard
from penstock.sim.processes import Child, Event

from .world import Process, World

LIMIT = 15_000  # W, for all three poles
SHARE = LIMIT // len(POLES)
ENERGY = dict.fromkeys(POLES, 4_000)  # Wh


def test_a_limit_an_emergency_and_a_setpoint_are_obeyed_within_a_package_at_all_poles(world: World) -> None:
    chart = world.directory / "grid.html"
    done = world.command("car", "demo", "--scenario", "grid", "--speed", "1000", "--json", "--chart", str(chart))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    steps = {step["asked"]: {one["pole"]: one for one in step["poles"]} for step in document["steps"]}
    assert list(steps) == ["limit", "emergency", "setpoint", "none"]
    assert all(set(poles) == set(POLES) for poles in steps.values())
    assert all(one["wh"] <= document["package_wh"] for poles in steps.values() for one in poles.values())
    assert [steps["limit"][pole]["supply"] for pole in POLES] == [5_000, 5_000, 5_000]
    assert [steps["emergency"][pole]["after"] for pole in POLES] == [0, 0, 0]
    assert [steps["emergency"][pole]["kept"] for pole in POLES] == [0, 0, 0]
    assert [steps["setpoint"][pole]["after"] for pole in POLES] == [-4_500, -4_500, 0]
    assert all("emergency 0 W" in one["why"] for one in steps["emergency"].values())
    assert [one["reason"] for one in document["sessions"]] == ["target reached"] * 3
    assert document["sessions"][0]["fed_in_wh"] > 0
    assert "emergency 0 W" in chart.read_text()


class Bell(Liar):
    """A liar that can ring those who have subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[tuple[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/subscriptions" and request.method == "POST":
            operation = (await request.json())["objectOperations"][0]
            self.hooks.append((operation["callbackUrl"], operation["bearerToken"]))
        return await super().handle(request)

    async def ring(self) -> None:
        """Tell the newest subscriber that something has changed."""
        url, token = self.hooks[-1]
        notice = {"objectType": "EVENT", "operation": "UPDATE", "object": {}}
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=notice) as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def lying_at(url: str) -> AsyncIterator[Bell]:
    """A liar in the place of a server that is gone."""
    one = Bell()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", one.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", urlsplit(url).port).start()
    one.url = url
    try:
        yield one
    finally:
        await runner.cleanup()


async def until(true: Any, what: str) -> None:
    for _ in range(3_000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 30 s: {what}")


async def lied(server: Bell, it: Yard, lie: Handler) -> None:
    """Be asked once more, and lie; meanwhile something flows at each pole, and not more than its share."""
    before, server.events, asked = read(it.directory), lie, server.asked
    await server.ring()
    await until(lambda: server.asked > asked, "the site does not ask")
    await until(
        lambda: all(
            now.total > then.total for now, then in zip(read(it.directory).values(), before.values(), strict=True)
        ),
        "nothing flows",
    )
    assert all(one.power <= SHARE for one in read(it.directory).values())


@pytest.mark.asyncio
async def test_a_grids_server_that_is_killed_lies_and_floods_disturbs_no_session(tmp_path: Path) -> None:
    told: list[tuple[str, str, Event]] = []
    truth = dispatched("limit", "IMPORT_CAPACITY_LIMIT", LIMIT // 1_000)
    hours = [{"id": n, "payloads": [{"type": "PRICE", "values": [n]}]} for n in range(24)]
    period = {"start": "2026-01-01T00:00:00Z", "duration": "PT1H"}
    crowd = (dispatched(f"e-{n}", "X", intervalPeriod=period, intervals=hours, duration="P9999Y") for n in range(450))
    async with cast(tmp_path, lambda *one: told.append(one), ACCOUNTS) as players:
        keys = tmp_path / "grid"
        server: Child = await players.start("grid", "vtn", "--credentials", str(keys), "--port", "0", "--json")
        url = (await server.line())["url"]
        client = Client(url, load(keys / "operator"))
        program = await client.create("/programs", {"programName": "peaks"})
        limit = await client.create("/events", event(program, "IMPORT_CAPACITY_LIMIT", LIMIT))
        await client.close()
        async with yard(players, lambda *one: told.append(one), Grid(url, keys / "site-1", 0.2), 200.0, ENERGY) as it:
            await it.told.all_obey(f"event {limit}")
            await it.all_have(50)
            server.process.kill()
            await server.process.wait()
            await it.all_have(300)
            async with lying_at(url) as liar:
                liar.events = listed(truth)
                await until(lambda: liar.hooks, "the site does not come back to its grid")
                for lie in (*LIES.values(), listed(truth, *crowd)):
                    await lied(liar, it, lie)
                liar.events = listed()
                await liar.ring()
                await it.told.all_obey("")
            end = await it.end()
    assert audit(end, ENERGY) == []
    names = [name for _, name, _ in told]
    assert "grid not reached" in names
    assert "grid reached" in names
    assert not {"link lost", "cut off", "fault", "internal error"} & set(names)


def test_a_pole_of_the_command_line_obeys_its_grid_and_outlives_it(world: World) -> None:
    keys = world.directory / "grid"
    grid = Process(world.directory, "vtn", "--credentials", str(keys), "--port", "0", "--json")
    world.processes.append(grid)
    url = grid.line()["url"]

    async def ask(watts: int) -> None:
        client = Client(url, load(keys / "operator"))
        program = await client.create("/programs", {"programName": "peaks"})
        await client.create("/events", event(program, "IMPORT_CAPACITY_LIMIT", watts))
        await client.close()

    asyncio.run(ask(3_300))
    pole = world.pole("--grid", url, "--grid-key", str(keys / "site-1"), "--site-limit", "5000")
    car = world.car(pole.until("listening")["address"], quantity=800)
    while (limited := pole.until("limited"))["supply"] != 3_300:
        assert (limited["supply"], limited["why"]) == (5_000, "the site's own limit")
    assert "supply limit 3,300 W" in limited["why"]
    grid.kill()
    bought, sold = car.answer(), pole.answer()
    assert bought["receipt"]["paid"] == 800 * 400
    assert sold["sessions"][0]["receipt"] == bought["receipt"]


def test_what_a_pole_cannot_ask_its_grid_with_is_said_before_it_sells(world: World) -> None:
    secret = world.directory / "secret"
    secret.write_text("site-1\nsecret\n")
    secret.chmod(0o644)
    for flags, said in (
        (["--grid", "http://127.0.0.1:9", "--grid-key", str(secret)], "chmod 600"),
        (["--grid", "nowhere", "--grid-key", str(secret)], "--grid cannot be"),
    ):
        done = world.command(
            "pole", "supply", *world.common("pole"), "--price", "0.40", "--tick", "0.001",
            "--line", str(world.directory / "line"), *flags,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
