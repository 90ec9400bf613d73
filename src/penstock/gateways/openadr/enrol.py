"""Being known to the grid's server: the objects that stand for this site there, and its subscription."""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct

from penstock.core.errors import BadSignal, GridRefused
from penstock.gateways.openadr import forms
from penstock.gateways.openadr.client import Client

_NOT_FOUND = 404


class _Subscription(Struct, frozen=True, rename="camel"):
    id: forms.Id
    object_operations: tuple[dict[str, object], ...] = ()


class Enrolment:
    """`stand` makes sure of it after each poll, and asks nothing where all is known to be there."""

    def __init__(self, client: Client, name: str, resources: tuple[str, ...], targets: tuple[str, ...]) -> None:
        self.callback, self.token = "", ""
        self.trouble = ""  # what was said last of why we are not enrolled
        self.id: str | None = None
        self._client, self._name, self._resources, self._targets = client, name, resources, targets
        self._subscription: str | None = None
        self._complete = False

    def forget(self) -> None:
        """The server was away: it may have forgotten us, so make sure again."""
        self._complete = False

    async def stand(self) -> None:
        """Be known by our name, with our resources, and subscribed.

        Raises:
            GridUnreachable: no answer.
            GridRefused: the server does not let us; what is done is done.
        """
        if self._complete and await self._still():
            return
        if self.callback:
            await self._subscribe()
        known = await self._found("/vens", {"venName": self._name})
        self.id = known or await self._client.create("/vens", {"objectType": "VEN_VEN_REQUEST", "venName": self._name})
        for resource in self._resources:
            if not await self._found("/resources", {"resourceName": resource, "venID": self.id}):
                request = {"objectType": "VEN_RESOURCE_REQUEST", "resourceName": resource, "venID": self.id}
                await self._client.create("/resources", request)
        self._complete = True
        self.trouble = ""

    async def _still(self) -> bool:
        """Whether the server has our subscription: one that was started anew may have none."""
        if not self._subscription:
            return True
        try:
            await self._client.one(f"/subscriptions/{quote(self._subscription)}", forms.Named)
        except GridRefused as error:
            if error.status != _NOT_FOUND:
                raise
            return False
        return True

    async def leave(self) -> None:
        """End the subscription, if there is one. Raises as `stand` does."""
        gone, self._subscription = self._subscription, None
        if gone:
            await self._client.delete(f"/subscriptions/{quote(gone)}")

    async def _found(self, path: str, query: dict[str, str]) -> str | None:
        listed = await self._client.short(path, query)
        return forms.identity(listed[0]) if listed else None

    async def _subscribe(self) -> None:
        """One subscription to our callback: what an earlier run of ours left is replaced, with a token of this one."""
        request = {
            "clientName": self._name,
            "objectOperations": [
                {
                    "objects": ["EVENT", "PROGRAM"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "callbackUrl": self.callback,
                    "bearerToken": self.token,
                }
            ],
        } | ({"targets": list(self._targets)} if self._targets else {})
        for raw in await self._client.short("/subscriptions", {"clientName": self._name}):
            try:
                old = forms.decode(raw, _Subscription, "a subscription")
            except BadSignal:
                continue
            if any(one.get("callbackUrl") == self.callback for one in old.object_operations):
                self._subscription = old.id
                await self._client.update(f"/subscriptions/{quote(old.id)}", request)
                return
        self._subscription = await self._client.create("/subscriptions", request)
