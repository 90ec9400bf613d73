"""Calls with one thing wrong: sent elsewhere, by somebody else, with another signature, or with one bit changed."""

from __future__ import annotations

from typing import Any

from eth_abi.exceptions import EncodingError

from .ground import ground
from .play import Call, Play


def spoil(call: Call, kind: int, rest: int, play: Play) -> Call | None:
    """A call with one thing wrong; None where this kind of wrong cannot be."""
    if kind == 0:
        return Call(1 - call.at, call.caller, call.name, call.args)
    if kind == 1:
        return Call(call.at, play.people[rest % 4], call.name, call.args)
    if kind == 2:
        return _with_another_signature(call, rest, play)
    places = leaves(call.args)
    path = places[rest % len(places)]
    made = Call(call.at, call.caller, call.name, put(call.args, path, flipped(at(call.args, path), rest)))
    try:
        ground().deployments[0].contract.calldata(made.name, made.args)
    except EncodingError:
        return None  # the ABI has no room for that bit
    return made


def _with_another_signature(call: Call, rest: int, play: Play) -> Call | None:
    """A signature that was made for something else, in the place of one in the call."""
    made = play.seals.made
    places = [path for path in leaves(call.args) if at(call.args, path) in made]
    if not places:
        return None
    path, other = places[rest % len(places)], list(made)[rest % len(made)]
    r, vs = made[other]
    if isinstance(at(call.args, path), bytes):
        args = put(call.args, path, r.to_bytes(32, "big") + vs.to_bytes(32, "big"))
    else:
        args = put(put(call.args, path, vs), (*path[:-1], path[-1] - 1), r)
    return Call(call.at, call.caller, call.name, args)


def leaves(value: Any, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Where the single values of arguments are."""
    if isinstance(value, (tuple, list)):
        return [leaf for at, part in enumerate(value) for leaf in leaves(part, (*path, at))]
    return [path]


def at(value: Any, path: tuple[int, ...]) -> Any:
    """The value at a place."""
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """The arguments with another value at a place."""
    if not path:
        return new
    parts = list(value)
    parts[path[0]] = put(parts[path[0]], path[1:], new)
    return tuple(parts)


def flipped(value: Any, bit: int) -> Any:
    """One bit changed: a low one, mostly, because the sums are there, or where a packed word has its next field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1 << (0, 1, 2, 64, 96, 128, 160, 192, bit // 9 % 256)[bit % 9]
    place = bit % (8 * len(value)) if value else 0
    return (int.from_bytes(value, "big") ^ 1 << place).to_bytes(len(value), "big") if value else b"\x01"
