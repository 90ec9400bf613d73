"""Whether a value is what a schema of OpenAPI 3.0 says: as much of the language as the description of OpenADR uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

Schema = Mapping[str, Any]

NOW = ("0001-01-01", "0001-01-01T00:00:00")  # "may indicate 'now'", though the first is no date-time of RFC 3339
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\w\-.~:/?#\[\]@!$&'()*+,;=%]*", re.ASCII)
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


class Checker:
    """Checks values against schemas that refer to `schemas` of one description."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def fault(self, value: object, schema: Schema, place: str = "body") -> str | None:
        """What is wrong with a value, in a line; None where nothing is."""
        schema = self.resolved(schema)
        if value is None and schema.get("nullable"):
            return None
        kind = schema.get("type")
        if kind is not None and not _is(value, kind):
            return f"{place} must be of type {kind}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{place} must be one of {', '.join(map(str, schema['enum']))}"
        return self._composed(value, schema, place) or self._shaped(value, schema, place)

    def resolved(self, schema: Schema) -> Schema:
        """The schema that a reference leads to; another one itself."""
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def properties(self, schema: Schema) -> dict[str, Schema]:
        """The properties that an object of a schema may have, whichever of its alternatives it is."""
        schema = self.resolved(schema)
        found = dict(schema.get("properties", {}))
        for part in (*schema.get("allOf", ()), *schema.get("oneOf", ()), *schema.get("anyOf", ())):
            found |= self.properties(part)
        return found

    def _composed(self, value: object, schema: Schema, place: str) -> str | None:
        for part in schema.get("allOf", ()):
            if wrong := self.fault(value, part, place):
                return wrong
        for word, allowed in (("anyOf", None), ("oneOf", 1)):
            if word in schema:
                wrong_ = [self.fault(value, part, place) for part in schema[word]]
                right = wrong_.count(None)
                if not right or (allowed is not None and right != allowed):
                    return f"{place} is none of what it may be ({next(filter(None, wrong_), 'it is several')})"
        return None

    def _shaped(self, value: object, schema: Schema, place: str) -> str | None:
        if isinstance(value, dict):
            return self._object(value, schema, place)
        if isinstance(value, list):
            items = schema.get("items", {})
            found = (self.fault(item, items, f"{place}[{number}]") for number, item in enumerate(value))
            return next(filter(None, found), None)
        if isinstance(value, str):
            return _string(value, schema, place)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(value, schema, place)
        return None

    def _object(self, value: dict[str, object], schema: Schema, place: str) -> str | None:
        for name in schema.get("required", ()):
            if name not in value:
                return f"{place} must have {name}"
        for name, part in schema.get("properties", {}).items():
            if name in value and (wrong := self.fault(value[name], part, f"{place}.{name}")):
                return wrong
        return None


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float)}
    return kind in kinds and isinstance(value, kinds[kind])


def _string(value: str, schema: Schema, place: str) -> str | None:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"{place} must have {schema.get('minLength', 0)}..{schema.get('maxLength', 'any')} characters"
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        return f"{place} must match {schema['pattern']}"
    if schema.get("format") == "uri" and (not _URI.fullmatch(value) or _ESCAPE.search(value)):
        return f"{place} must be a URI"
    if schema.get("format") == "date-time" and not _date_time(value):
        return f"{place} must be a time of RFC 3339"
    return None


@cache
def _pattern(text: str) -> re.Pattern[str]:
    # ECMA's $ is the very end, Python's goes before a last newline, too.
    return re.compile(text[:-1] + r"\Z" if text.endswith("$") else text, re.ASCII)


def _date_time(value: str) -> bool:
    parts = _TIME.fullmatch(value)
    if parts is None:
        return value in NOW
    year, month, day = map(int, parts.groups()[:3])
    try:
        date(year or 4, month, day)  # the year 0 is a leap year, and none to Python
    except ValueError:
        return False
    return True


def _number(value: float, schema: Schema, place: str) -> str | None:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        return f"{place} must be at least {least}"
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        return f"{place} must be at most {most}"
    if schema.get("format") == "int32" and not -(2**31) <= value < 2**31:
        return f"{place} must be an int32"
    return None
