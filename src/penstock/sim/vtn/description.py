"""The description of OpenADR 3.1 as the server's programme: its operations, what each takes, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from penstock.sim.vtn.schema import Checker, Schema

_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_FORM = "application/x-www-form-urlencoded"


class BadRequest(Exception):
    """What is sent is not what the description says; the message says why."""


class Operation(NamedTuple):
    """One method of one path. `scope` is None where nobody has to be known, or where whoever is known may ask."""

    name: str
    method: str
    path: str
    scope: str | None
    secured: bool
    parameters: tuple[Mapping[str, Any], ...]
    body: Schema | None
    form: bool


class Description:
    """The operations of the description, and the checks of what is sent to them."""

    def __init__(self) -> None:
        text = (files("penstock") / "data" / "openadr3" / "openadr3.json").read_bytes()
        document = msgspec.json.decode(text)
        self.checker = Checker(document["components"]["schemas"])
        self.operations = [
            _operation(method, path, item)
            for path, item in document["paths"].items()
            for method in item
            if method != "parameters"
        ]

    def path(self, operation: Operation, given: Mapping[str, str]) -> dict[str, str]:
        """The parameters in a path, checked.

        Raises:
            BadRequest: one is not what it should be.
        """
        for parameter in operation.parameters:
            if parameter["in"] == "path":
                self._check(given[parameter["name"]], parameter["schema"], parameter["name"])
        return dict(given)

    def query(self, operation: Operation, text: str) -> dict[str, Any]:
        """The parameters in a query, as values; what the description does not name is ignored.

        Raises:
            BadRequest: one is not what it should be, or is there twice.
        """
        given = parse_qs(text, keep_blank_values=True)
        found: dict[str, Any] = {}
        for parameter in operation.parameters:
            name = parameter["name"]
            if parameter["in"] == "query" and name in given:
                schema = self.checker.resolved(parameter["schema"])
                found[name] = _parsed(given[name], schema, name)
                self._check(found[name], schema, name)
        return found

    def body(self, operation: Operation, content: bytes, kind: str) -> dict[str, Any]:
        """What an operation is sent, as an object with what the description knows of it, and no more.

        Raises:
            BadRequest: it is no such object.
        """
        assert operation.body is not None
        wanted = _FORM if operation.form else "application/json"
        if kind != wanted:
            raise BadRequest(f"body must be {wanted}")
        sent = _form(content) if operation.form else _json(content)
        self._check(sent, operation.body, "body")
        known = self.checker.properties(operation.body)
        return {name: value for name, value in sent.items() if name in known}

    def _check(self, value: object, schema: Schema, place: str) -> None:
        if wrong := self.checker.fault(value, schema, place):
            raise BadRequest(wrong[:300])


def _operation(method: str, path: str, item: Mapping[str, Any]) -> Operation:
    said = item[method]
    content = said.get("requestBody", {}).get("content", {})
    secured = said.get("security", [])
    scopes = [scope for way in secured for scope in way.get("oAuth2ClientCredentials", ())]
    # Where no 403 is described everybody who is known may ask: the scope read_all of the notifiers is the BL's alone,
    # and yet they are there for VENs.
    scope = scopes[0] if scopes and "403" in said["responses"] else None
    parameters = (*item.get("parameters", ()), *said.get("parameters", ()))
    body = next((kind["schema"] for kind in content.values()), None)
    name, form = said["operationId"], _FORM in content
    return Operation(name, method.upper(), path, scope, bool(secured), parameters, body, form)


def _parsed(given: list[str], schema: Schema, name: str) -> Any:
    if schema.get("type") == "array":
        return given
    if len(given) != 1:
        raise BadRequest(f"{name} must be given once")
    (text,) = given
    if schema.get("type") == "integer":
        if not _WHOLE.fullmatch(text):
            raise BadRequest(f"{name} must be a whole number")
        return int(text)
    if schema.get("type") == "boolean":
        if text not in ("true", "false"):
            raise BadRequest(f"{name} must be true or false")
        return text == "true"
    return text


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        raise BadRequest("body must be JSON") from None


def _form(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode("ascii")
        given = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=32)
    except ValueError:
        raise BadRequest("body must be a form") from None
    if any(len(values) != 1 for values in given.values()):
        raise BadRequest("body must have each field once")
    return {name: values[0] for name, values in given.items()}
