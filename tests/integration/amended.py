"""The description of OpenADR 3.1.0 where it contradicts itself, put right, so that a server can be checked against it.

Each amendment says why it is one. Nothing else is changed; links are added, by which a checker finds what it created.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Document = dict[str, Any]


def object_types(document: Document) -> None:
    """A ven and a resource are to be a VEN or RESOURCE (objectMetadata) and a BL_..._REQUEST (allOf) at once.

    The schemas of their requests stand in for the schemas of the objects. No object can be both; a server's is the
    first, as the Definition says ("SHALL populate ... objectType").
    """
    for name, request in (("ven", "BlVenRequest"), ("resource", "BlResourceRequest")):
        schemas = document["components"]["schemas"]
        asked = schemas[request]
        properties = {key: value for key, value in asked["properties"].items() if key != "objectType"}
        required = [key for key in asked["required"] if key != "objectType"]
        schemas[name]["allOf"][1] = {"type": "object", "required": required, "properties": properties}


def bodies(document: Document) -> None:
    """A body that has required properties is itself optional, in nine operations.

    "If a representation sent to the VTN lacks a required property, a VTN SHALL return a 400" (Definition).
    """
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict) and "requestBody" in operation:
                operation["requestBody"]["required"] = True


def conflicts(document: Document) -> None:
    """A venName is unique within a VTN (Definition), and yet creating a second one is no conflict."""
    document["paths"]["/vens"]["post"]["responses"]["409"] = {"$ref": "#/components/responses/conflict"}


def unauthorized(document: Document) -> None:
    """Two operations ask for a token, and have no answer for who has none."""
    for path, method in (("/programs/{programID}", "put"), ("/notifiers", "get")):
        document["paths"][path][method]["responses"]["401"] = {"$ref": "#/components/responses/unauthorized"}


def defaults(document: Document) -> None:
    """The targets of a BlVenRequest default to the string "null          -", which is no list: a slip of the pen."""
    document["components"]["schemas"]["BlVenRequest"]["properties"]["targets"]["default"] = None


AMENDMENTS: tuple[Callable[[Document], None], ...] = (object_types, bodies, conflicts, unauthorized, defaults)

_BY_ID = {
    "/programs": ("programID", "/programs/{programID}"),
    "/events": ("eventID", "/events/{eventID}"),
    "/reports": ("reportID", "/reports/{reportID}"),
    "/subscriptions": ("subscriptionID", "/subscriptions/{subscriptionID}"),
    "/vens": ("venID", "/vens/{venID}"),
    "/resources": ("resourceID", "/resources/{resourceID}"),
}
_CHILDREN = {
    "/programs": (("programID", "/events"), ("programID", "/subscriptions")),
    "/events": (("eventID", "/reports"),),
    "/vens": (("venID", "/resources"),),
}


def linked(document: Document) -> None:
    """Lead a checker from what it created to whatever can be done with that."""
    paths = document["paths"]
    for collection, (name, path) in _BY_ID.items():
        links: dict[str, Mapping[str, Any]] = {}
        for method in ("get", "put", "delete"):
            operation = paths[path][method]["operationId"]
            links[operation] = {"operationId": operation, "parameters": {name: "$response.body#/id"}}
        for field, child in _CHILDREN.get(collection, ()):
            operation = paths[child]["post"]["operationId"]
            links[operation] = {"operationId": operation, "requestBody": {field: "$response.body#/id"}}
        paths[collection]["post"]["responses"]["201"]["links"] = links


def amended(document: Document) -> Document:
    """The description, amended and linked, in place."""
    for amend in AMENDMENTS:
        amend(document)
    linked(document)
    return document
