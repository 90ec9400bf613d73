"""Servers that are slow, lie or flood: what a site knew stays in force, and nothing else on its loop has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from penstock.core.errors import GridRefused, GridUnreachable, UsageError
from penstock.core.grid import MAX_EVENTS, Orders
from penstock.gateways.openadr import Client, Credentials
from penstock.gateways.openadr import client as client_module
from penstock.gateways.openadr import ven as ven_module
from penstock.gateways.openadr.client import MAX_BODY
from penstock.gateways.openadr.reader import Batch, Reader

from .grid import RATES, clock, site, until
from .grid_liar import LIES, LIMIT, dispatched, liar, listed, said, silent

pytestmark = pytest.mark.asyncio
LONGEST_STALL = 1.0  # seconds of work, while memory is traced; a session is not disturbed: its patience is ten


@contextlib.asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """How long the loop kept anything waiting (s of this thread's own work), measured every 5 ms."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            found.append(time.thread_time() - before)

    task = asyncio.ensure_future(watch())
    try:
        yield found
    finally:
        task.cancel()


@pytest.mark.parametrize("lie", LIES)
async def test_a_list_that_is_none_changes_nothing_and_stalls_nobody(lie: str) -> None:
    async with liar() as server, site(server.url) as (ven, watched):
        server.events = listed(LIMIT)
        await until(lambda: ven.orders.supply_limit == 3_000)
        async with stalls() as waited:
            server.events = LIES[lie]
            await until(lambda: watched.of("grid not reached"))
        assert ven.orders.supply_limit == 3_000
        assert len(watched.orders) == 1
        assert max(waited) < LONGEST_STALL
        server.events = listed()
        await until(lambda: ven.orders.supply_limit is None)


async def test_a_server_that_never_answers_does_not_keep_us_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ven_module, "FAREWELL", 0.1)
    async with liar() as server:
        async with site(server.url, listen=("127.0.0.1", 0)) as (ven, _):
            await until(lambda: "POST /subscriptions" in server.seen)
            server.silent = True
        assert "DELETE /subscriptions/x" in server.seen
        assert ven.orders == Orders()


async def test_a_server_that_never_answers_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER", 0.5)
    async with liar() as server, site(server.url) as (ven, watched):
        server.events = silent
        await until(lambda: watched.of("grid not reached"))
        assert "within 0.5 s" in watched.of("grid not reached")[0]["reason"]
        server.events = listed(LIMIT)
        await until(lambda: ven.orders.supply_limit == 3_000)


MALFORMED: dict[str, dict[str, Any]] = {
    "no program": {"programID": None},
    "an id that is a path": {"id": "../../token"},
    "an id that ends a line": {"id": "e\n"},
    "a priority below all": {"priority": -1},
    "a time that is none": {"intervalPeriod": {"start": "yesterday"}},
    "a time before all": {"intervalPeriod": {"start": "1969-12-31T23:59:59Z"}},
    "a duration that is none": {"intervalPeriod": {"duration": "1 hour"}},
    "a duration that goes back": {"intervalPeriod": {"duration": "-PT1H"}},
    "an interval without payloads": {"intervals": [{"id": 1}]},
    "a power that is a word": {
        "intervals": [{"id": 0, "payloads": [{"type": "DISPATCH_SETPOINT", "values": ["much"]}]}]
    },
    "two powers": {"intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [1, 2]}]}]},
    "no power": {"intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": []}]}]},
    "a power below nothing": {
        "intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [-1]}]}]
    },
    "a power beyond all": {
        "intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [1e300]}]}]
    },
    "too many intervals": {"intervals": [{"id": 0, "payloads": []}] * 1_025},
    "a price in no currency that we know": {
        "payloadDescriptors": [{"payloadType": "PRICE", "currency": "XXX", "objectType": "EVENT_PAYLOAD_DESCRIPTOR"}],
        "intervals": [{"id": 0, "payloads": [{"type": "PRICE", "values": [1]}]}],
    },
    "a limit in amperes": {
        "payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "AMPS"}],
        "intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [16]}]}],
    },
}


async def test_events_that_cannot_be_read_are_dropped_and_told_once_and_the_others_hold() -> None:
    bad = [dispatched(f"bad-{n}", "PRICE", 1) | broken for n, broken in enumerate(MALFORMED.values())]
    async with liar() as server, site(server.url) as (ven, watched):
        server.events = listed(*bad[:8], LIMIT, *bad[8:])
        await until(lambda: ven.orders.supply_limit == 3_000)
        asked = server.asked
        await until(lambda: server.asked > asked + 3)
        told = watched.of("signal not read")
        assert len(told) == 8, "as many as an operator can read"
        assert told[0]["faulty"] == len(MALFORMED)
        assert not watched.of("grid not reached")


@pytest.mark.parametrize("fault", MALFORMED)
async def test_each_of_them_alone_is_dropped(fault: str) -> None:
    reader, batch = Reader(RATES, (), ()), Batch(clock())
    for one in (dispatched("bad", "PRICE", 1) | MALFORMED[fault], LIMIT):
        reader.read(msgspec.Raw(msgspec.json.encode(one)), batch)
    assert list(batch.found) == ["limit"]
    (reason,) = (error.line() for _, error in batch.faults)
    assert "\n" not in reason


async def test_past_events_ask_nothing() -> None:
    past = {"intervalPeriod": {"start": "2020-01-01T00:00:00Z", "duration": "PT1H"}}
    async with liar() as server, site(server.url) as (ven, watched):
        server.events = listed(dispatched("past", "ALERT_GRID_EMERGENCY", "x", **past), LIMIT)
        await until(lambda: ven.orders.supply_limit == 3_000)
        assert ven.orders.emergency is None
        assert len(watched.orders) == 1


async def test_a_flood_of_events_stalls_nobody_and_drowns_no_emergency() -> None:
    """500 events of as much as may be in one: more than is kept, and far more than any operator sends."""
    intervals = [{"id": n, "payloads": [{"type": "PRICE", "values": [n]}]} for n in range(60)]
    hours = {"intervalPeriod": {"start": "2026-01-01T00:00:00Z", "duration": "P1D"}, "intervals": intervals}
    flood = [dispatched(f"e-{n}", "PRICE", 1, duration="P9999Y", priority=0, **hours) for n in range(499)]
    async with liar() as server, site(server.url) as (ven, watched):
        server.events = listed(*flood, dispatched("last", "ALERT_GRID_EMERGENCY", "x"))
        tracemalloc.start()
        async with stalls() as waited:
            await until(lambda: ven.orders.supply_limit == 0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert max(waited) < LONGEST_STALL
        assert most < 2**26, f"{most:,} bytes"
        assert watched.of("signals left out")[0]["events"] > 499 - MAX_EVENTS


async def test_an_event_cut_into_milliseconds_changes_orders_no_oftener_than_we_look() -> None:
    start = clock()
    period = {"start": "2026-01-01T00:00:00Z", "duration": "PT0.001S"}
    fine = [{"id": n, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": [n + 1]}]} for n in range(200)]
    async with liar() as server, site(server.url) as (_, watched):
        server.events = listed(dispatched("fine", "X", intervalPeriod=period, intervals=fine, duration="P9999Y"))
        await until(lambda: clock() > start + 1_000)
        assert 1 <= len(watched.orders) <= (clock() - start) / 50 + 1


async def test_a_server_that_knows_no_pages_is_not_asked_for_ever() -> None:
    page = b"[" + b",".join([msgspec.json.encode(LIMIT)] * 50) + b"]"
    async with liar() as server, site(server.url, every=60.0) as (ven, _):
        server.events = said(page)
        await until(lambda: ven.orders.supply_limit == 3_000)
        assert server.asked == 2


async def test_a_storm_of_notifications_makes_us_ask_a_few_times() -> None:
    async with liar() as server, site(server.url, every=60.0, listen=("127.0.0.1", 0)) as (ven, _):
        await until(lambda: "POST /subscriptions" in server.seen)
        callback, token = ven._enrolment.callback, ven._enrolment.token
        notice = {"objectType": "EVENT", "operation": "CREATE", "object": {"id": "x" * 10_000}}
        asked, begun = server.asked, clock()
        async with aiohttp.ClientSession() as session, stalls() as waited:
            for _ in range(20):
                posts = [
                    session.post(callback, json=notice, headers={"Authorization": f"Bearer {token}"}) for _ in range(10)
                ]
                for answer in await asyncio.gather(*posts, return_exceptions=True):
                    if isinstance(answer, aiohttp.ClientResponse):
                        answer.release()
        assert server.asked - asked <= (clock() - begun) / 200 + 2
        assert max(waited) < LONGEST_STALL


async def test_connections_that_say_nothing_do_not_use_up_ours() -> None:
    async with liar() as server, site(server.url, every=60.0, listen=("127.0.0.1", 0)) as (ven, _):
        await until(lambda: "POST /subscriptions" in server.seen)
        host, port = ven._enrolment.callback.removeprefix("http://").rstrip("/").split(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(64)]
        ended = 0
        for reader, _ in idle:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.05):
                    ended += await reader.read(1) == b""
        assert ended >= 40
        async with aiohttp.ClientSession() as session, session.post(ven._enrolment.callback) as answer:
            assert answer.status == 401
        for _, writer in idle:
            writer.close()


# Where our secret goes


@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.1:9/token", "http://example.org/token", "ftp://127.0.0.1/", "", "http://[", "https://127.0.0.1/"],
)
async def test_the_secret_is_shown_to_no_host_but_the_server(place: str) -> None:
    async with liar() as server:
        server.server_info = {"tokenURL": place}
        client = Client(server.url, Credentials("me", "secret"))
        try:
            if place:
                with pytest.raises(GridRefused, match="would have us show our secret"):
                    await client.short("/events", {})
                assert server.seen == ["GET /auth/server"]
        finally:
            await client.close()


async def test_another_host_may_hand_out_tokens_where_the_operator_says_so() -> None:
    async with liar() as server, liar() as tokens:
        client = Client(server.url, Credentials("me", "secret"), token_url=f"{tokens.url}/auth/token")
        try:
            assert await client.short("/events", {}) == []
        finally:
            await client.close()
        assert tokens.seen == ["POST /auth/token"]
        assert server.seen == ["GET /events"]


@pytest.mark.parametrize(
    "url",
    ["http://example.org", "ftp://127.0.0.1", "127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://[::1", "x" * 500],
)
async def test_a_url_that_is_none_or_would_tell_the_secret_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Client(url, Credentials("me", "secret"))


async def test_neither_secret_nor_token_is_in_what_is_told() -> None:
    async with liar() as server, site(server.url) as (_, watched):
        server.events = said(b"no", status=403)
        await until(lambda: watched.of("grid not reached"))
        assert "a secret" not in repr(watched.told)
    assert "secret" not in repr(Credentials("me", "secret"))


async def test_an_answer_as_long_as_may_be_is_read() -> None:
    async with liar() as server:
        server.events = said(b"[]" + b" " * (MAX_BODY - 2))
        client = Client(server.url, Credentials("me", "secret"))
        try:
            assert await client.short("/events", {}) == []
            server.events = said(b"[]" + b" " * (MAX_BODY - 1))
            with pytest.raises(GridUnreachable, match="more than"):
                await client.short("/events", {})
        finally:
            await client.close()
