"""The server's objects, in memory: created, found, replaced and deleted by the rules of OpenADR 3.1.

An object is a dict as it goes over the wire. Names are unique where they are to be searched by (Definition, "Object
names"), what an object refers to has to be there, and what belongs to one that is deleted goes with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from penstock.sim.vtn.access import Client, Role

Object = dict[str, Any]
Told = Callable[[str, Object], None]
"""What is told of each change: the operation (CREATE, UPDATE, DELETE) and the object."""

PROGRAM, EVENT, REPORT = "PROGRAM", "EVENT", "REPORT"
SUBSCRIPTION, VEN, RESOURCE = "SUBSCRIPTION", "VEN", "RESOURCE"
PRIVATE = (REPORT, SUBSCRIPTION, VEN, RESOURCE)  # a site sees its own alone

_UNIQUE = {PROGRAM: ("programName",), VEN: ("venName",), RESOURCE: ("resourceName", "venID")}
_REFERS = {
    EVENT: {"programID": PROGRAM},
    REPORT: {"eventID": EVENT},
    SUBSCRIPTION: {"programID": PROGRAM},
    RESOURCE: {"venID": VEN},
}
MAX_OBJECTS = 10_000  # of a type; above it nothing more is taken


class Conflict(Exception):
    """A name is taken, or what is referred to is not there; the message says which."""


class Missing(Exception):
    """There is no such object, or none that may be seen."""


class Viewer(NamedTuple):
    """Who looks, and with which targets (None: none were asked for)."""

    client: Client
    targets: list[str] | None = None


class Objects:
    """All objects of a server. `now` writes the time (RFC 3339); `told` hears of each change."""

    def __init__(self, now: Callable[[], str], told: Told) -> None:
        self._now, self._told = now, told
        self._all: dict[str, dict[str, Object]] = {kind: {} for kind in (*PRIVATE, PROGRAM, EVENT)}

    def create(self, kind: str, sent: Object, owner: Client) -> Object:
        """A new object of what was sent.

        Raises:
            Conflict: its name is taken, or what it refers to is not there. Nothing was created.
        """
        made = self._owned(kind, sent, owner)
        self._check(kind, made, None)
        if len(self._all[kind]) >= MAX_OBJECTS:
            raise Conflict(f"there are {MAX_OBJECTS} of them already")
        now = self._now()
        made |= {"id": secrets.token_hex(8), "createdDateTime": now, "modificationDateTime": now, "objectType": kind}
        self._all[kind][made["id"]] = made
        self._told("CREATE", made)
        return made

    def replace(self, kind: str, name: str, sent: Object, viewer: Viewer) -> Object:
        """The object `name` with what was sent in place of what it held; raises as `create` and `get` do."""
        old = self._own(kind, name, viewer)
        made = self._owned(kind, sent, viewer.client, old)
        self._check(kind, made, name)
        made |= {key: old[key] for key in ("id", "createdDateTime", "objectType")}
        made["modificationDateTime"] = self._now()
        self._all[kind][name] = made
        self._told("UPDATE", made)
        return made

    def delete(self, kind: str, name: str, viewer: Viewer) -> Object:
        """Delete an object and what belongs to it; returns it.

        Raises:
            Missing: there is none, or none that may be seen.
        """
        gone = self._own(kind, name, viewer)
        for child, fields in _REFERS.items():
            for field, parent in fields.items():
                if parent == kind:
                    for other in [one for one in self._all[child].values() if one.get(field) == name]:
                        self.delete(child, other["id"], Viewer(Client("", "", Role.BL)))
        del self._all[kind][name]
        self._told("DELETE", gone)
        return gone

    def get(self, kind: str, name: str, viewer: Viewer) -> Object:
        """The object `name` as the viewer may see it.

        Raises:
            Missing: there is none, or none that may be seen.
        """
        found = self._all[kind].get(name)
        shown = self.shown(found, viewer) if found is not None else None
        if shown is None:
            raise Missing(f"there is no {kind.lower()} {name}")
        return shown

    def all(self, kind: str) -> Iterable[Object]:
        """Every object of a kind, in the order in which they came."""
        return self._all[kind].values()

    def shown(self, found: Object, viewer: Viewer) -> Object | None:
        """An object as a viewer sees it: None where not at all, and of its targets only those that were asked for."""
        client, asked = viewer
        if client.role is Role.BL:
            return found if asked is None or set(asked) & set(found.get("targets") or ()) else None
        if found["objectType"] in PRIVATE:
            mine = found.get("clientID") == client.id
            return found if mine and (asked is None or set(asked) & set(found.get("targets") or ())) else None
        targets = found.get("targets") or ()
        if not targets:
            return found if asked is None else None
        granted = self._granted(client.id)
        allowed = granted if asked is None else granted & set(asked)
        common = [target for target in targets if target in allowed]
        return found | {"targets": common} if common else None

    def _granted(self, client: str) -> set[str]:
        """The targets that the operator gave to a site's ven and resource objects."""
        mine = [one for kind in (VEN, RESOURCE) for one in self._all[kind].values() if one.get("clientID") == client]
        return {target for one in mine for target in one.get("targets") or ()}

    def _own(self, kind: str, name: str, viewer: Viewer) -> Object:
        self.get(kind, name, viewer)
        return self._all[kind][name]

    def _owned(self, kind: str, sent: Object, owner: Client, old: Object | None = None) -> Object:
        """What was sent with its owner in it; targets of sites and their resources are the operator's to give."""
        made = {key: value for key, value in sent.items() if key != "objectType"}
        if kind not in PRIVATE:
            return made
        site = owner.role is Role.VEN or "clientID" not in made
        made["clientID"] = (old["clientID"] if old else owner.id) if site else made["clientID"]
        if kind in (VEN, RESOURCE) and owner.role is Role.VEN:
            made.pop("targets", None)
            if old and old.get("targets"):
                made["targets"] = old["targets"]
        return made

    def _check(self, kind: str, made: Object, name: str | None) -> None:
        unique = _UNIQUE.get(kind)
        if unique:
            key = [made[field] for field in unique]
            for other in self._all[kind].values():
                if other["id"] != name and [other[field] for field in unique] == key:
                    raise Conflict(f"{unique[0]} {made[unique[0]][:40]!r} is taken")
        for field, parent in _REFERS.get(kind, {}).items():
            if field in made and made[field] not in self._all[parent]:
                raise Conflict(f"there is no {parent.lower()} {made[field]}")
