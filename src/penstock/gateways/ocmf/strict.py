"""JSON objects of signed texts, read so that no two readers can take them differently."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from penstock.core.errors import BadReading

BRACKETS = 4_000  # a record of a thousand readings has one for each


class Number(NamedTuple):
    """A number as it is written: how many digits it has is part of what was signed (OCMF, table 7, RV)."""

    literal: str


def read_object(text: str, what: str) -> dict[str, Any]:
    """The JSON object that `text` is. Numbers in it are `Number`s.

    Raises:
        BadReading: it is none, is nested too deeply, or names something twice; the message says `what` it was to be.
    """
    if text.count("{") + text.count("[") > BRACKETS:  # how deep Python's reader goes, others in the process may raise
        raise BadReading(f"the reading's {what} cannot be read: that is no JSON with at most {BRACKETS} brackets")
    try:
        found = json.loads(
            text, parse_int=Number, parse_float=Number, parse_constant=_constant, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, _Twice) else "that is no JSON"
        raise BadReading(f"the reading's {what} cannot be read: {why}") from None
    if not isinstance(found, dict):
        raise BadReading(f"the reading's {what} is no JSON object")
    return found


class _Twice(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"it says {next(name for name in names if names.count(name) > 1)[:20]!r} twice")
    return found


def _constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


DECIMAL = re.compile(r"([0-9]{1,13})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?")
"""A number that a register can show: 25 digits at most, which `Decimal` holds without rounding."""
