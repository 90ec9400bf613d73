"""Mutations that know the form of an input: JSON trees, lines of text, frames and words of bytes.

Parsers written in C give a fuzzer no coverage to steer by. What is valid must therefore be kept nearly valid: one field
of a message takes a value from a bound, another type, another field's value; bytes that stand in a message as base64
text are mutated in their own form.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

Mutation = Callable[[bytes, Random], bytes]

BOUNDS = (
    *(0, 1, -1, 2, 3, 7, 26, 27, 28, 31, 32, 33, 59, 60, 64, 255, 256, 1000, 4095, 4096, 4097, 65_535, 65_536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(2**96 - 1, 2**96, 2**255, 2**256 - 1, 2**256, -(2**63), -(2**63) - 1, 10**400),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", "0", "0x", "0x0", "0x-1", [], {}, [[]]),
)
TEXTS = ("\x00", "\n", "\ud800", "\u2028", "é", "0", "-", "_", " ", ".", "1e9", "0x", "ff", "=", '"', "\x1b[2J", "٣")
_SIZES = (0, 1, 2, 16, 19, 20, 21, 31, 32, 33, 64, 65, 66, 200, 600)

_decode = msgspec.json.decode
_loose = json.JSONEncoder(separators=(",", ":")).encode  # knows NaN and lone surrogates, and costs ten times as much
_fast = msgspec.json.Encoder().encode


def _encode(root: Any) -> bytes:
    try:
        return _fast(root)
    except (ValueError, TypeError):
        return _loose(root).encode()


def tree(data: bytes, random: Random) -> bytes:
    """JSON, or JSON after one byte (of a kind): one to three nodes changed. Anything else: as `raw`."""
    head = b"" if data[:1] in (b"[", b"{") else data[:1]
    try:
        root = _decode(data[len(head) :])
        for _ in range(_few(random)):
            root = _changed(root, random)
        return head + (_encode(root) if random.random() < 0.95 else _loose(root).encode())
    except (ValueError, RecursionError):
        return raw(data, random)


def lines(data: bytes, random: Random) -> bytes:
    """Lines of text: dropped, repeated, swapped, or one of their words replaced."""
    rows = data.split(b"\n")
    for _ in range(_few(random)):
        at, other = _below(random, len(rows)), _below(random, len(rows))
        match _below(random, 8):
            case 0:
                rows.insert(at, rows[other])
            case 1 if len(rows) > 1:
                del rows[at]
            case 2:
                rows[at], rows[other] = rows[other], rows[at]
            case 3:
                rows[at] = raw(rows[at], random)
            case 4:
                rows[at] += b"\r"
            case _:
                rows[at] = _reworded(rows[at], random)
    return b"\n".join(rows)


def raw(data: bytes, random: Random) -> bytes:
    """Bytes: a bit, a byte, a big-endian number, a run of them."""
    body = bytearray(data)
    for _ in range(_few(random)):
        size = len(body)
        at = _below(random, size + 1)
        match _below(random, 8):
            case 0 if at < size:
                body[at] ^= 1 << _below(random, 8)
            case 1 if at < size:
                body[at] = _below(random, 256)
            case 2:
                body.insert(at, _below(random, 256))
            case 3:
                del body[at : at + 1 + _below(random, 8)]
            case 4:
                width = (1, 2, 3, 4, 8, 12, 32)[_below(random, 7)]
                body[at : at + width] = (_bound(random) % 256**width).to_bytes(width, "big")
            case 5:
                run = body[at : at + 1 + _below(random, 64)]
                into = _below(random, size + 1)
                body[into:into] = run
            case 6:
                del body[at:]
            case _:
                body += bytes(_SIZES[_below(random, len(_SIZES))])
    return bytes(body)


def _few(random: Random) -> int:
    return 1 if random.random() < 0.7 else 1 + _below(random, 3)


def _below(random: Random, end: int) -> int:
    return int(random.random() * end)


def _bound(random: Random) -> int:
    return BOUNDS[_below(random, len(BOUNDS))]


def _changed(root: Any, random: Random) -> Any:
    """The tree with one node changed. The way down is drawn at random, so that what lies high is met more often."""
    parent: Any = None
    key: Any = None
    node = root
    while isinstance(node, (list, dict)) and node and (parent is None or random.random() < 0.8):
        parent, key = node, _key_of(node, random)
        node = node[key]
    if parent is None:
        return _other(node, random)
    if random.random() < 0.2:
        _reshape(parent, key, root, random)
    else:
        parent[key] = _other(node, random)
    return root


def _key_of(node: Any, random: Random) -> Any:
    at = _below(random, len(node))
    return at if isinstance(node, list) else list(node)[at]


def _reshape(parent: Any, key: Any, root: Any, random: Random) -> None:
    """Drop, repeat, swap, rename, or splice in what stands elsewhere."""
    kind = _below(random, 4)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        donor = root
        for _ in range(1 + _below(random, 4)):
            if not (isinstance(donor, (list, dict)) and donor):
                break
            donor = donor[_key_of(donor, random)]
        parent[key] = _decode(_encode(donor))  # a copy: a tree must not hold itself
    elif isinstance(parent, list):
        other = _below(random, len(parent))
        if kind == 2:
            parent[key], parent[other] = parent[other], parent[key]
        else:
            parent.insert(other, parent[key])
    else:
        parent[str(_other(str(key), random))] = parent[key]


def _other(node: Any, random: Random) -> Any:
    """Another value in the place of a node; mostly of its own type."""
    chance = random.random()
    if chance < 0.12:
        return OTHERS[_below(random, len(OTHERS))]
    if chance < 0.121:
        return _deep(random)
    if isinstance(node, bool):
        return not node
    if isinstance(node, int):
        if chance < 0.5:
            return _bound(random)
        return (node + 1, node - 1, node * 2, node // 2, -node, node ^ 1 << _below(random, 64))[_below(random, 6)]
    if isinstance(node, str):
        return _other_text(node, random)
    if isinstance(node, list) and node:
        return node[: _below(random, len(node))] if chance < 0.5 else node * 2
    return _bound(random)


def _other_text(text: str, random: Random) -> str:
    """Base64 is mutated as what it stands for, and so is hexadecimal; other text by its characters."""
    chance = random.random()
    if chance < 0.15:
        return text + TEXTS[_below(random, len(TEXTS))]
    if chance < 0.2:
        return ""  # the targets put a valid signature in the place of an empty one
    if text[:2] == "0x" and chance < 0.9:
        return _other_hex(text, random)
    if chance < 0.85 and len(text) % 4 == 0:
        try:
            inner = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            pass
        else:
            return base64.b64encode(tree(inner, random)).decode()
    return raw(text.encode(errors="replace"), random).decode(errors="replace")


def _other_hex(text: str, random: Random) -> str:
    if random.random() < 0.5 or len(text) % 2:
        return hex(_bound(random)) if random.random() < 0.7 else text[:-1]
    try:
        return "0x" + raw(bytes.fromhex(text[2:]), random).hex()
    except ValueError:
        return "0x"


def _deep(random: Random) -> Any:
    node: Any = 0
    for _ in range((40, 300, 900)[_below(random, 3)]):
        node = [node]
    return node


def _reworded(row: bytes, random: Random) -> bytes:
    """A word of a line (a run without blank, comma, quote or bracket) replaced by a bound, a text or another word."""
    words = _split(row)
    at = _below(random, len(words))
    match _below(random, 4):
        case 0:
            words[at] = str(_bound(random)).encode()
        case 1:
            words[at] = TEXTS[_below(random, len(TEXTS))].encode(errors="surrogatepass")
        case 2:
            words[at] = words[_below(random, len(words))]
        case _:
            words[at] = raw(words[at], random)
    return b"".join(words)


def _split(row: bytes) -> list[bytes]:
    for mark in (b" ", b",", b'"', b"=", b"[", b"]", b"-", b":", b"."):
        row = row.replace(mark, b"\n" + mark + b"\n")
    return row.split(b"\n")
