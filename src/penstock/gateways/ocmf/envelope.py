"""OCMF texts out of what carries them: OCPP's JSON in several layers, hexadecimal digits, or nothing at all.

OCPP 2 has an object for a signed value, `{"signedMeterData", "encodingMethod", "publicKey", ...}`, whose data is the
text in base64. OCPP 1.6 has none: there the object stands, as text, in the `value` of a sampled value whose `format` is
`SignedData` (Open Charge Alliance, "Signed Meter Values in OCPP", section 3.2). Some charge points put the text itself
into either place. A public key beside the data is passed over: it proves nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.core.errors import BadReading

MAX_LAYERS = 8  # a frame in a list, four objects down to a sampled value, an object in text: that is all there is
_HEX = re.compile("([0-9A-Fa-f]{2})+")


def texts(said: str) -> list[str]:
    """The OCMF texts in what a charge point said, in its order. They are not verified.

    It said one text, bare or in hexadecimal digits; a signed value; a sampled value; or a message with many of them.

    Raises:
        BadReading: there is none in it, or what should be one is none.
    """
    found = list(_texts(said, MAX_LAYERS))
    if not found:
        raise BadReading("no signed reading is in that", "a text begins with OCMF|, or stands in OCPP's SignedData")
    return found


def _texts(said: str, layers: int) -> Iterator[str]:
    said = said.strip()
    if said.startswith("OCMF|"):
        yield said
    elif _HEX.fullmatch(said):
        yield _ocmf(bytes.fromhex(said))
    elif said[:1] in ("{", "["):
        try:
            tree = msgspec.json.decode(said)
        except (ValueError, RecursionError):  # a lone surrogate, too
            raise BadReading("what carries the reading is no JSON") from None
        yield from _within(tree, layers)
    else:
        raise BadReading("that is no OCMF", "a reading begins with OCMF|")


def _within(tree: Any, layers: int) -> Iterator[str]:
    if not layers:
        raise BadReading("what carries the reading is nested too deeply")
    if isinstance(tree, list):
        for part in tree:
            yield from _within(part, layers - 1)
    elif isinstance(tree, dict):
        data, value = tree.get("signedMeterData"), tree.get("value")
        if isinstance(data, str):
            yield data.strip() if data.strip().startswith("OCMF|") else _ocmf(_base64(data))
        elif tree.get("format") == "SignedData" and isinstance(value, str):
            yield from _texts(value, layers - 1)
        else:
            for part in tree.values():
                yield from _within(part, layers - 1)


def _base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise BadReading("a signed value's data is no base64") from None


def _ocmf(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text.startswith("OCMF|"):
        raise BadReading("a signed value is in another format than OCMF")
    return text
