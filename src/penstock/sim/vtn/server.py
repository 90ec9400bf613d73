"""A small VTN of OpenADR 3.1 on loopback, for tests and demonstrations: its operations are those of the description.

    request -> who asks, and may it -> parameters and body checked against the description -> objects -> answer

Everything is in memory. There is no MQTT broker: its topics are not found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from penstock.core.errors import BadSignal, UsageError
from penstock.gateways.openadr import forms
from penstock.gateways.openadr.times import instant
from penstock.gateways.openadr.windows import windows
from penstock.sim.vtn.access import Client, Role, Tokens, may
from penstock.sim.vtn.description import BadRequest, Description, Operation
from penstock.sim.vtn.notify import Notifier
from penstock.sim.vtn.objects import EVENT, PRIVATE, Conflict, Missing, Object, Objects, Viewer

HOST = "127.0.0.1"
MAX_BODY = 2**20  # bytes
MAX_LINE = 2**18  # bytes of a request's first line: targets go into it, and the description does not bound them
TOKEN_LIFE = 3600  # seconds
PAGE = 50  # objects at once where no limit is given: the most that may be asked for

_KINDS = {"programs": "PROGRAM", "events": "EVENT", "reports": "REPORT", "subscriptions": "SUBSCRIPTION"} | {
    "vens": "VEN",
    "resources": "RESOURCE",
}
_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}
_FILTERS = ("programID", "eventID", "clientName", "venName", "resourceName", "venID")


class Vtn:
    """The server. `start` it, and `stop` it when done."""

    def __init__(self, clients: Iterable[Client], token_life: int = TOKEN_LIFE) -> None:
        """`clients` may ask for tokens; `token_life` is how long one is good (s)."""
        self._clients = {client.id: client for client in clients}
        self.tokens = Tokens(self._clients, token_life, time.monotonic)
        self.objects = Objects(_now, self._changed)
        self._description = Description()
        self._runner: web.AppRunner | None = None
        self._notifier: Notifier | None = None
        self.url = ""

    async def start(self, port: int = 0) -> str:
        """Listen on loopback, on a free port where it is 0; returns the URL of the API.

        Raises:
            UsageError: the port is taken or not ours to use.
        """
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems])
        for operation in self._description.operations:
            app.router.add_route(operation.method, operation.path, partial(self._answer, operation))
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0, max_line_size=MAX_LINE
        )
        self._notifier = Notifier()
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port, backlog=128).start()
        except (OSError, OverflowError) as error:
            await self.stop()
            raise UsageError(f"cannot listen on {HOST}:{port}: {error}", "choose another port, or 0") from None
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Let go of the port. What was told to it is forgotten with the object."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._notifier is not None:
            await self._notifier.close()

    async def _answer(self, operation: Operation, request: web.Request) -> web.Response:
        client = self.tokens.holder(request.headers.get("Authorization"))
        if operation.secured and client is None:
            return _problem(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        if client is not None and not may(client.role, operation.scope):
            return _problem(403, f"{operation.scope} is not for a {client.role}")
        try:
            path = self._description.path(operation, request.match_info)
            query = self._description.query(operation, request.rel_url.raw_query_string)
            body: Object = {}
            if operation.body is not None:
                body = self._description.body(operation, await request.read(), request.content_type)
            return self._act(operation, client, path, query, body)
        except BadRequest as error:
            return _problem(400, str(error))
        except Missing as error:
            return _problem(404, str(error))
        except Conflict as error:
            return _problem(409, str(error))

    def _act(
        self, operation: Operation, client: Client | None, path: dict[str, str], query: dict[str, Any], body: Object
    ) -> web.Response:
        collection = operation.path.split("/")[1]
        if collection == "auth":
            return self._token(body) if operation.method == "POST" else _json({"tokenURL": f"{self.url}/auth/token"})
        if collection == "notifiers":
            if operation.path != "/notifiers":
                return _problem(404, "there is no MQTT broker here")
            return _json({"WEBHOOK": True})
        assert client is not None
        kind, viewer = _KINDS[collection], Viewer(client, query.get("targets"))
        if operation.method == "POST":
            self._may_give(client, body)
            return _json(self.objects.create(kind, body, client), 201)
        if not path:
            return _json(self._search(kind, viewer, query))
        (name,) = path.values()
        if operation.method == "PUT":
            self._may_give(client, body)
            return _json(self.objects.replace(kind, name, body, viewer))
        act = self.objects.delete if operation.method == "DELETE" else self.objects.get
        return _json(act(kind, name, viewer))

    @staticmethod
    def _may_give(client: Client, body: Object) -> None:
        if client.role is Role.VEN and str(body.get("objectType", "")).startswith("BL_"):
            raise web.HTTPForbidden(text="a VEN sends a VEN's request")

    def _search(self, kind: str, viewer: Viewer, query: dict[str, Any]) -> list[Object]:
        shown = (self.objects.shown(found, viewer) for found in self.objects.all(kind))
        found = [one for one in shown if one is not None and self._matches(one, query)]
        if kind not in PRIVATE and viewer.client.role is Role.VEN and viewer.targets is None:
            found = [one for one in found if not one.get("targets")]  # a site names the targets that it wants to see
        skip = query.get("skip", 0)
        return found[skip : skip + query.get("limit", PAGE)]

    def _matches(self, found: Object, query: dict[str, Any]) -> bool:
        for name in _FILTERS:
            if name in query and self._value(found, name) != query[name]:
                return False
        if "objects" in query:
            heard = {kind for wanted in found["objectOperations"] for kind in wanted["objects"]}
            if not heard & set(query["objects"]):
                return False
        return not (query.get("active") and found["objectType"] == EVENT and _transpired(found))

    def _value(self, found: Object, name: str) -> Any:
        """A property, or that of the event which a report belongs to."""
        if name == "programID" and "eventID" in found:
            events = [one for one in self.objects.all(EVENT) if one["id"] == found["eventID"]]
            return events[0]["programID"] if events else None
        return found.get(name)

    def _token(self, body: Object) -> web.Response:
        token = self.tokens.issue(body["client_id"], body["client_secret"])
        if token is None:
            return _problem(401, "no such client, or not its secret", {"WWW-Authenticate": "Bearer"}, "invalid_client")
        granted = {"access_token": token, "token_type": "Bearer", "expires_in": self.tokens.life}
        return _json(granted, 200, {"Cache-Control": "no-store"})

    def _changed(self, operation: str, changed: Object) -> None:
        if self._notifier is None:
            return
        for subscription in self.objects.all("SUBSCRIPTION"):
            owner = self._clients.get(subscription["clientID"])
            program = subscription.get("programID")
            if owner is None or (program is not None and self._program(changed) != program):
                continue
            targets = subscription.get("targets") or None
            seen = self.objects.shown(changed, Viewer(owner, targets))
            if seen is not None:
                self._notifier.tell(subscription, operation, seen)

    def _program(self, changed: Object) -> Any:
        return changed["id"] if changed["objectType"] == "PROGRAM" else self._value(changed, "programID")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _transpired(event: Object) -> bool:
    """Whether all intervals of an event are over. One that asks nothing, or cannot be read, is not."""
    now = instant(_now())
    assert now is not None
    try:
        said = forms.decode(msgspec.json.encode(event), forms.Dispatched, "an event")
        begun = instant(event["createdDateTime"]) or now
        found = windows(said, begun, b"")
    except BadSignal:
        return False
    return bool(said.intervals) and all((one.stop if one.every else one.end) <= now for one in found)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    content = msgspec.json.encode(value)
    return web.Response(body=content, status=status, content_type="application/json", headers=headers)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None, error: str = "") -> web.Response:
    body = {"title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    return _json(body | ({"error": error} if error else {}), status, headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What aiohttp refuses by itself is said in the description's words, too."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _problem(400, f"body has more than {MAX_BODY:,} bytes")
    except web.HTTPException as refused:
        headers = {"Allow": refused.headers["Allow"]} if "Allow" in refused.headers else None
        return _problem(refused.status, refused.text or refused.reason, headers)


async def serve(clients: Iterable[Client], ready: Callable[[str], None], port: int = 0) -> None:
    """Run a server until cancelled; `ready` gets its URL. Raises as `Vtn.start` does."""
    vtn = Vtn(clients)
    try:
        ready(await vtn.start(port))
        await asyncio.Event().wait()
    finally:
        await vtn.stop()
