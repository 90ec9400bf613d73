"""The targets themselves: they see what is broken, and mutations keep their inputs in form."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from tests.core.pair import PARAMS
from tests.fuzz import budget, mutate
from tests.fuzz.targets import TARGETS

from penstock.core.channel import Close
from penstock.core.codec import encode
from penstock.core.control import Control
from penstock.core.errors import BadMessage
from penstock.core.hops import Incoming
from penstock.core.messages import AskClose
from penstock.core.session import Role
from penstock.core.units import Amount
from penstock.node import book, channel_till
from penstock.node.book import ChannelRow
from penstock.rails.stream import StreamPayee
from penstock.transports.frames import Decoder

TRIES = 400


def fails(name: str) -> bool:
    """Whether the target's seeds, or a few hundred mutations of them, show that something is wrong."""
    target, random = TARGETS[name], Random(1)
    try:
        seeds = target.seeds()  # made by our own code, under the same eyes
        for data in seeds:
            target.run(data)
        for count in range(TRIES):
            target.run(target.mutation(seeds[count % len(seeds)], random))
    except Exception:
        return True
    return False


def test_a_session_that_gives_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Control, "may_give", property(lambda it: Amount(it.got + it.limit + 3_000)))
    assert fails("talk")


def test_a_payee_that_does_not_ask_for_its_bill_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = StreamPayee.take
    monkeypatch.setattr(StreamPayee, "take", lambda it, evidence, least=None: honest(it, evidence))
    assert fails("voucher")


def test_a_payee_of_hop_locks_that_asks_for_no_deposit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Incoming.__init__
    monkeypatch.setattr(Incoming, "__init__", lambda it, params, _, *rest: honest(it, params, 10**9, *rest))
    assert fails("hops")


def test_a_decoder_that_loses_what_is_unfinished_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Decoder.frames
    monkeypatch.setattr(Decoder, "frames", lambda _, data: honest(Decoder(), data))
    assert fails("frame")


def test_an_undocumented_error_is_seen() -> None:
    target = TARGETS["message"]._replace(errors=())
    with pytest.raises(BadMessage):
        target.run(b"[99]")


def test_what_takes_too_much_memory_or_time_is_seen() -> None:
    budget.within(len, b"")
    with pytest.raises(budget.TooDear):
        budget.within(lambda data: bytearray(data * 600_000_000), b"x")


@pytest.mark.parametrize("name", ["message", "offer", "voucher", "talk", "answer"])
def test_most_mutations_of_json_are_json(name: str) -> None:
    """What no parser reads to its end tries little."""
    target, random = TARGETS[name], Random(2)
    seeds = target.seeds()
    mutated = [target.mutation(seeds[count % len(seeds)], random) for count in range(200)]
    assert sum(map(_reads, mutated)) > 150
    assert len(set(mutated)) > 150


def _reads(data: bytes) -> bool:
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, (list, dict))


def test_mutations_follow_from_their_seed() -> None:
    def some(seed: int) -> list[bytes]:
        random = Random(seed)
        return [mutation(b"[1,2]\n[3]", random) for mutation in (mutate.tree, mutate.lines, mutate.raw) for _ in "abc"]

    assert some(3) == some(3) != some(4)


def test_a_door_that_takes_any_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = encode([AskClose(PARAMS.id, Close(2**256, 0, 2**40), b"")])
    monkeypatch.setattr(book, "channel_of", lambda *_: ChannelRow(PARAMS, Role.SUPPLIER, Amount(1)))
    TARGETS["door"].run(case)
    monkeypatch.setattr(channel_till, "MAX_AMOUNT", 2**300)
    with pytest.raises(OverflowError):
        TARGETS["door"].run(case)
