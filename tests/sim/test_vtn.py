"""The grid operator's server: who sees and may write what, what belongs together, pages, filters, notifications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from penstock.core.errors import UsageError
from penstock.sim.vtn import Client, Role, Vtn

pytestmark = pytest.mark.asyncio
OPERATOR, SITE, OTHER = (
    Client("operator", "secret 1", Role.BL),
    Client("site", "secret 2", Role.VEN),
    Client("other", "secret 3", Role.VEN),
)
HOURLY = {"start": "2020-01-01T00:00:00Z", "duration": "PT1H"}


class Asker:
    """Requests with a client's token."""

    def __init__(self, vtn: Vtn, session: aiohttp.ClientSession, client: Client) -> None:
        self._url, self._session = vtn.url, session
        self._headers = {"Authorization": f"Bearer {vtn.tokens.issue(client.id, client.secret)}"}

    async def __call__(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        more = {"json": body} if body is not None else {}
        async with self._session.request(method, self._url + path, headers=self._headers, **more) as answer:
            said = await answer.json()
            assert answer.status == status, said
            if status >= 400:
                assert said["status"] == status
                assert said["detail"]
            return said

    async def create(self, path: str, **body: Any) -> str:
        made: str = (await self("POST", path, body, 201))["id"]
        return made


@contextlib.asynccontextmanager
async def asked(*clients: Client) -> AsyncIterator[tuple[Any, ...]]:
    """A server, and who asks it."""
    vtn = Vtn([OPERATOR, SITE, OTHER])
    await vtn.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield (vtn, *(Asker(vtn, session, client) for client in clients))
    finally:
        await vtn.stop()


def names(found: list[dict[str, Any]], name: str = "eventName") -> list[Any]:
    return [one.get(name) for one in found]


async def test_a_token_needs_the_secret_and_a_request_needs_a_token() -> None:
    async with asked() as (vtn,), aiohttp.ClientSession() as session:
        async with session.get(f"{vtn.url}/auth/server") as answer:
            token_url = (await answer.json())["tokenURL"]
        right = {"grant_type": "client_credentials", "client_id": "site", "client_secret": "secret 2"}
        for wrong, status in (
            ({"client_secret": "secret 1"}, 401), ({"client_id": "nobody"}, 401), ({"grant_type": "password"}, 400),
        ):  # fmt: skip
            async with session.post(token_url, data=right | wrong) as answer:
                assert answer.status == status
        async with session.post(token_url, data=right) as answer:
            granted = await answer.json()
            assert (granted["token_type"], granted["expires_in"]) == ("Bearer", 3600)
        for header, status in ((None, 401), ("Bearer x", 401), (f"Basic {granted['access_token']}", 401)):
            async with session.get(f"{vtn.url}/events", headers={"Authorization": header} if header else {}) as answer:
                assert answer.status == status
        good = {"Authorization": f"Bearer {granted['access_token']}"}
        async with session.get(f"{vtn.url}/events", headers=good) as answer:
            assert (answer.status, await answer.json()) == (200, [])


async def test_a_token_ends() -> None:
    vtn = Vtn([SITE], token_life=0)
    token = vtn.tokens.issue(SITE.id, SITE.secret)
    assert vtn.tokens.holder(f"Bearer {token}") is None


async def test_a_site_may_not_write_what_is_the_operators_nor_the_operator_reports() -> None:
    async with asked(OPERATOR, SITE) as (_, bl, ven):
        await ven("POST", "/programs", {"programName": "x"}, 403)
        await ven("POST", "/events", {"programID": "x"}, 403)
        await ven("POST", "/vens", {"objectType": "BL_VEN_REQUEST", "clientID": "site", "venName": "x"}, 403)
        await bl("POST", "/reports", {"eventID": "x", "clientName": "x", "resources": []}, 403)
        await ven("GET", "/notifiers/mqtt/topics/reports", status=403)
        await bl("GET", "/notifiers/mqtt/topics/reports", status=404)
        assert await ven("GET", "/notifiers") == {"WEBHOOK": True}


async def test_a_site_sees_its_own_objects_and_no_others() -> None:
    async with asked(OPERATOR, SITE, OTHER) as (_, bl, ven, other):
        mine = await ven.create("/vens", objectType="VEN_VEN_REQUEST", venName="mine")
        theirs = await other.create("/vens", objectType="VEN_VEN_REQUEST", venName="theirs")
        assert names(await ven("GET", "/vens"), "venName") == ["mine"]
        assert names(await bl("GET", "/vens"), "venName") == ["mine", "theirs"]
        await ven("GET", f"/vens/{mine}")
        for method in ("GET", "DELETE"):
            await ven(method, f"/vens/{theirs}", status=404)
        await ven("PUT", f"/vens/{theirs}", {"objectType": "VEN_VEN_REQUEST", "venName": "stolen"}, 404)
        assert names(await bl("GET", "/vens"), "venName") == ["mine", "theirs"]


async def test_an_event_with_targets_is_seen_by_those_to_whom_the_operator_gave_them_and_who_ask_for_them() -> None:
    async with asked(OPERATOR, SITE, OTHER) as (_, bl, ven, other):
        program = await bl.create("/programs", programName="p")
        await bl.create("/events", programID=program, eventName="all")
        street = await bl.create("/events", programID=program, eventName="street", targets=["street", "secret"])
        assert names(await ven("GET", "/events")) == ["all"]
        body = {"clientID": "site", "venName": "mine", "targets": ["street", "town"]}
        site = await bl.create("/vens", objectType="BL_VEN_REQUEST", **body)
        assert names(await ven("GET", "/events")) == ["all"]
        found = await ven("GET", "/events?targets=street&targets=secret&targets=town")
        assert (names(found), found[0]["targets"]) == (["street"], ["street"]), "other targets stay hidden"
        assert await ven("GET", "/events?targets=town") == []
        assert await other("GET", "/events?targets=street") == []
        assert (await ven("GET", f"/events/{street}"))["targets"] == ["street"]
        await other("GET", f"/events/{street}", status=404)
        await ven("PUT", f"/vens/{site}", {"objectType": "VEN_VEN_REQUEST", "venName": "mine", "targets": ["secret"]})
        assert (await bl("GET", f"/vens/{site}"))["targets"] == ["street", "town"], "a site gives itself none"


async def test_lists_come_in_pages_and_through_filters() -> None:
    async with asked(OPERATOR) as (_, bl):
        programs = [await bl.create("/programs", programName=f"p{number}") for number in range(2)]
        for number in range(60):
            await bl.create("/events", programID=programs[number % 2], eventName=f"e{number}")
        assert len(await bl("GET", "/events")) == 50
        assert names(await bl("GET", "/events?skip=58")) == ["e58", "e59"]
        assert names(await bl("GET", f"/events?skip=28&limit=1&programID={programs[1]}")) == ["e57"]
        assert await bl("GET", "/events?limit=0") == []
        for wrong in ("limit=51", "limit=-1", "skip=x", "limit=1&limit=2", "active=maybe", "programID=a/b"):
            await bl("GET", f"/events?{wrong}", status=400)


async def test_events_that_have_transpired_are_ignored_where_that_is_asked() -> None:
    async with asked(OPERATOR) as (_, bl):
        program = await bl.create("/programs", programName="p")
        once = [{"id": 0, "payloads": []}]
        await bl.create("/events", programID=program, eventName="past", intervalPeriod=HOURLY, intervals=once)
        await bl.create(
            "/events", programID=program, eventName="again", intervalPeriod=HOURLY, intervals=once, duration="P9999Y"
        )
        assert names(await bl("GET", "/events?active=true")) == ["again"]
        assert names(await bl("GET", "/events?active=false")) == ["past", "again"]


async def test_names_are_unique_references_lead_somewhere_and_what_belongs_to_what_is_deleted_goes_with_it() -> None:
    async with asked(OPERATOR, SITE) as (vtn, bl, ven):
        program = await bl.create("/programs", programName="p")
        await bl("POST", "/programs", {"programName": "p"}, 409)
        await bl("PUT", f"/programs/{program}", {"programName": "p"})
        await bl("POST", "/events", {"programID": "none"}, 409)
        event = await bl.create("/events", programID=program)
        await ven.create("/reports", eventID=event, clientName="c", resources=[])
        assert len(await bl("GET", f"/reports?programID={program}")) == 1
        await bl("DELETE", f"/programs/{program}")
        assert [list(vtn.objects.all(kind)) for kind in ("PROGRAM", "EVENT", "REPORT")] == [[], [], []]
        site = await ven.create("/vens", objectType="VEN_VEN_REQUEST", venName="v")
        request = {"objectType": "VEN_RESOURCE_REQUEST", "venID": site, "resourceName": "r"}
        await ven.create("/resources", **request)
        await ven("POST", "/resources", request, 409)


async def test_metadata_are_the_servers_and_stay_over_a_replacement() -> None:
    async with asked(OPERATOR) as (_, bl):
        sent = {"programName": "p", "id": "mine", "createdDateTime": "1999-01-01T00:00:00Z", "objectType": "EVENT"}
        made = await bl("POST", "/programs", sent, 201)
        assert made["id"] != "mine"
        assert made["objectType"] == "PROGRAM"
        after = await bl("PUT", f"/programs/{made['id']}", {"programName": "q"})
        assert (after["createdDateTime"], after["programName"]) == (made["createdDateTime"], "q")
        assert after["modificationDateTime"] >= made["modificationDateTime"]


async def test_who_has_subscribed_hears_of_what_it_may_see_in_order_with_its_token() -> None:
    heard: list[tuple[str | None, str, str]] = []
    enough = asyncio.Event()

    async def hook(request: web.Request) -> web.Response:
        notice = await request.json()
        name = notice["object"].get("eventName") or notice["object"].get("programName")
        heard.append((request.headers.get("Authorization"), notice["operation"], name))
        if len(heard) == 3:
            enough.set()
        return web.Response(status=503 if len(heard) == 1 else 200)

    app = web.Application()
    app.router.add_post("/", hook)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with asked(OPERATOR, SITE) as (_, bl, ven):
            wanted = {"objects": ["EVENT"], "operations": ["CREATE", "DELETE"], "callbackUrl": url, "bearerToken": "t"}
            await ven.create("/subscriptions", clientName="c", objectOperations=[wanted])
            program = await bl.create("/programs", programName="unheard")
            event = await bl.create("/events", programID=program, eventName="first")
            await bl.create("/events", programID=program, eventName="hidden", targets=["elsewhere"])
            await bl("PUT", f"/events/{event}", {"programID": program, "eventName": "second"})
            await bl("DELETE", f"/events/{event}")
            async with asyncio.timeout(10):
                await enough.wait()
            assert heard == [
                ("Bearer t", "CREATE", "first"),
                ("Bearer t", "CREATE", "first"),  # what was answered with 503 is told again
                ("Bearer t", "DELETE", "second"),
            ]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "body",
    [
        {}, [], None, {"programName": ""}, {"programName": "x" * 129}, {"programName": 1},
        {"programName": "x", "targets": [""]},
        {"programName": "x", "intervalPeriod": {"start": "tomorrow"}}, {"programName": "x", "intervalPeriod": None},
        {"programName": "x", "intervalPeriod": {"duration": "PT"}}, {"programName": "x", "programDescriptions": [{}]},
        {"programName": "x", "programDescriptions": [{"URL": "no uri"}]},
    ],
)  # fmt: skip
async def test_what_is_not_as_described_is_refused(body: Any) -> None:
    async with asked(OPERATOR) as (vtn, bl):
        await bl("POST", "/programs", body, 400)
        assert not list(vtn.objects.all("PROGRAM"))


async def test_a_body_of_another_kind_or_too_many_bytes_is_refused_and_a_taken_port_told() -> None:
    async with asked(OPERATOR) as (vtn, bl), aiohttp.ClientSession() as session:
        token = {"Authorization": f"Bearer {vtn.tokens.issue(OPERATOR.id, OPERATOR.secret)}"}
        for data in (b"{", b"[" * 10_000, b'"\xff"', b" " * (2**20 + 1)):
            headers = token | {"Content-Type": "application/json"}
            async with session.post(f"{vtn.url}/programs", data=data, headers=headers) as answer:
                assert (answer.status, answer.content_type) == (400, "application/json")
        async with session.post(f"{vtn.url}/programs", data=b"{}", headers=token) as answer:
            assert answer.status == 400
        async with session.patch(f"{vtn.url}/programs", headers=token) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,POST")
        with pytest.raises(UsageError, match="cannot listen"):
            await Vtn([]).start(int(vtn.url.rpartition(":")[2]))
        await bl("GET", "/nothing", status=404)
