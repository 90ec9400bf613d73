"""Properties 5 and 9: what was changed after it was signed is refused, and everything means the same to all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.core.errors import PenstockError, RemoteError
from penstock.core.identity import GROUP_ORDER, Key, recover
from penstock.testing.rail.pair import Pair, Side
from penstock.testing.rail.plays import begin, modes
from penstock.testing.rail.setup import RailSetup, Signed

STRANGER = Key(b"\x5a" * 32)
KINDS = 8  # pieces of evidence of one session, from its first to its last, that are bent


async def a_changed_field_is_refused(setup: RailSetup) -> None:
    """Whatever one field of a signed thing is changed to, nobody takes it, and nothing has changed; nor is it taken
    with another signature, or a stranger's. As it was signed, it is taken."""
    for name, make in setup.signed.items():
        thing = await make()
        before = await thing.state()
        for what, fields, signature in _mutations(thing):
            await _refused(thing, name, what, fields, signature)
        assert await thing.state() == before, f"changed {name}s were refused, but something has changed"
        try:
            await thing.give(thing.fields, thing.signature)
        except PenstockError as error:
            raise AssertionError(f"a {name} is refused as it was signed: {error}") from error
        assert await thing.state() != before, f"a {name} that was taken changes nothing: it shows nothing here"
    for mode in modes(setup.capabilities):
        pair = (await begin(setup, mode)).pair
        pair.play()
        for side in pair.sides:
            _bend_evidence(pair, side)


async def _refused(thing: Signed, name: str, what: str, fields: dict[str, Any], signature: bytes) -> None:
    try:
        await thing.give(fields, signature)
    except PenstockError:
        return
    raise AssertionError(f"a {name} with {what} was taken")


def _mutations(thing: Signed) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    for field, value in thing.fields.items():
        for other in _others(value):
            yield f"another {field} ({other!r})", {**thing.fields, field: other}, thing.signature
    for what, signature in _signatures(thing.signature):
        yield what, thing.fields, signature
    yield "a stranger's signature", thing.fields, STRANGER.sign(thing.digest(thing.fields))


def _others(value: Any) -> Iterator[Any]:
    """What is nearest to a value, and yet another."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value:
            yield value - 1
    elif isinstance(value, bytes):
        for at in (0, len(value) - 1):
            yield value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
    elif isinstance(value, tuple):
        yield (*value, value[-1] if value else 0)
        for at, one in enumerate(value):
            yield value[:at] + value[at + 1 :]
            for other in _others(one):
                yield (*value[:at], other, *value[at + 1 :])
    else:
        raise TypeError(f"a signed field is a number, bytes, a truth or a tuple of those, not {value!r}")


def _signatures(signature: bytes) -> Iterator[tuple[str, bytes]]:
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    yield "another r", bytes((r[0] ^ 1,)) + signature[1:]
    yield "another s", signature[:63] + bytes((signature[63] ^ 1,)) + signature[64:]
    yield "the other recovery bit", signature[:64] + bytes((55 - v,))
    yield "its signature's twin above half the order", r + (GROUP_ORDER - s).to_bytes(32, "big") + bytes((55 - v,))


def _bend_evidence(pair: Pair, side: Side) -> None:
    """A bit of each byte of what an end took, before it takes it: refused, or no more than the evidence itself."""
    supplies = side is pair.supplier
    books: dict[bytes, bytes] = {}
    every = max(1, len(side.heard) // KINDS)
    for number, heard in enumerate(side.heard):
        if number % every == 0 or number == len(side.heard) - 1:
            _bend(pair, books, heard, supplies)
        end: Any = pair.ends.payee(books) if supplies else pair.ends.payer(books)
        for key, value in end.take(*heard) if supplies else end.metered(*heard):
            books.pop(key, None) if value is None else books.__setitem__(key, value)


def _bend(pair: Pair, books: dict[bytes, bytes], heard: tuple[Any, ...], supplies: bool) -> None:
    evidence = heard[0]
    end: Any = pair.ends.payee(books) if supplies else pair.ends.payer(books)
    honest = end.take(*heard) if supplies else end.metered(*heard)
    for at in range(len(evidence)):
        bent = evidence[:at] + bytes((evidence[at] ^ 1 << at % 8,)) + evidence[at + 1 :]
        end = pair.ends.payee(books) if supplies else pair.ends.payer(books)
        before = end.secured if supplies else end.paid
        try:
            rows = end.take(bent, *heard[1:]) if supplies else end.metered(bent, *heard[1:])
        except RemoteError:
            after = end.secured if supplies else end.paid
            assert after == before, "evidence that was refused has changed what is secured"
        else:
            assert rows == honest, f"evidence with a bit changed in byte {at} was taken for something else"


async def everything_means_the_same_everywhere(setup: RailSetup) -> None:
    """What is encoded decodes to itself and nothing else, an end is what its rows say, and a signature's digest is off
    the ledger what it is on it."""
    for name, value, encode, decode in setup.coded:
        data = encode(value)
        assert decode(data) == value, f"a {name} decodes to another"
        assert encode(decode(data)) == data, f"a {name} is other bytes when it is encoded again"
        for broken in (data[:-1], data + b"\0", b"", b"\xff" + data):
            try:
                decode(broken)
            except PenstockError:
                continue
            raise AssertionError(f"{broken[:40]!r} was taken for a {name}")
    for mode in modes(setup.capabilities):
        pair = (await begin(setup, mode)).pair
        pair.watch = lambda pair=pair: _as_kept(pair)  # type: ignore[misc]  # a default, not an argument
        pair.play()
    for name, make in setup.signed.items():
        await _same_digest(setup, name, await make())


def _as_kept(pair: Pair) -> None:
    """An end that is built from its rows stands where the other stands that wrote them."""
    payer, given = pair.ends.payer(pair.consumer.journal), pair.consumer.session.paid
    assert payer.paid <= given, f"the payer's rows say that {payer.paid} was given, of {given}"
    if pair.supplier.session.heard or pair.supplier.session.state.value == "ended":
        return
    payee, live = pair.ends.payee(pair.supplier.journal), pair.supplier.session.payee
    assert live is not None
    assert payee.secured <= live.secured, "the payee's rows are worth more than it holds"
    assert payer.capacity == payee.capacity == pair.ends.deposit, "the ends differ on what the session can pay"


async def _same_digest(setup: RailSetup, name: str, thing: Signed) -> None:
    digest = thing.digest(thing.fields)
    assert recover(digest, thing.signature) == thing.signer, f"a {name} is not signed over its digest"
    for field, value in thing.fields.items():
        for other in _others(value):
            changed = thing.digest({**thing.fields, field: other})
            assert changed != digest, f"a {name}'s digest does not commit to its {field}"
    setup.checked()
    try:
        await thing.give(thing.fields, thing.signature)
    except PenstockError as error:
        raise AssertionError(f"a {name} is refused as it was signed: {error}") from error
    if thing.on_ledger:
        assert digest in setup.checked(), f"the ledger checks a {name} over another digest"
