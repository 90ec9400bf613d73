from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core import messages
from penstock.core.channel import ChannelParams, Close, Domain, Lock, Voucher
from penstock.core.codec import decode, decode_part, decode_row, encode
from penstock.core.errors import BadMessage, JournalError
from penstock.core.identity import Address
from penstock.core.messages import Reason
from penstock.core.meter import Tolerance
from penstock.core.offer import Offer, Receipt, Terms
from penstock.core.session import SessionRow
from penstock.core.tariff import Step, Tariff
from penstock.core.units import MAX_AMOUNT, MAX_INSTANT, MAX_QUANTITY
from penstock.rails.stream import StreamTerms

totals = st.integers(0, MAX_QUANTITY)
times = st.integers(0, MAX_INSTANT)
sums = st.integers(0, MAX_AMOUNT)
data = st.binary(max_size=80)
text = st.text(max_size=20)
addresses = st.binary(min_size=20, max_size=20).map(Address)
tariffs = st.builds(Tariff, totals, st.lists(st.builds(Step, times, sums), max_size=3).map(tuple))
tolerances = st.builds(Tolerance, totals, totals)
offers = st.builds(
    Offer,
    addresses,
    text,
    text,
    tariffs,
    sums,
    totals,
    sums,
    st.sampled_from(["pay-after", "pay-before"]),
    tolerances,
    st.dictionaries(text, data, max_size=2),
    text,
    times,
)
terms = st.builds(Terms, offers, addresses, text, data, totals, sums, times, data, totals)
receipts = st.builds(Receipt, data, totals, totals, sums, sums, totals, text, times)
reasons = st.sampled_from(list(Reason))
domains = st.builds(Domain, totals, addresses, addresses)
channels = st.builds(ChannelParams, domains, *(addresses for _ in range(4)), totals, st.booleans(), totals)
vouchers = st.builds(Voucher, totals, sums, sums, totals, data)
onward = st.lists(st.builds(messages.Hop, addresses, sums, totals, sums), max_size=3).map(tuple)
changes = st.one_of(
    st.builds(messages.Add, totals, st.builds(Lock, data, sums, totals, totals), sums, onward),
    st.builds(messages.Ask, totals, totals, data, sums),
    st.builds(messages.Settle, totals, sums),
)
edges = st.lists(st.builds(messages.Edge, addresses, sums), max_size=3).map(tuple)
reached = st.builds(messages.Reached, addresses, domains, *(totals for _ in range(4)), edges, times)
MESSAGES: list[st.SearchStrategy[Any]] = [
    st.builds(messages.AskOffer),
    st.builds(messages.Offered, offers, data),
    st.builds(messages.Propose, terms, data, data),
    st.builds(messages.Accepted, data, data),
    st.builds(messages.Refused, text),
    st.builds(messages.Metered, totals, times, sums, data, data, totals, st.sampled_from(messages.Way)),
    st.builds(messages.Paid, totals, st.lists(data, max_size=3).map(tuple)),
    st.builds(messages.Stop, reasons),
    st.builds(messages.Final, totals, times, reasons, data, data, totals),
    st.builds(messages.Square, receipts, data, data),
    st.builds(messages.Receipted, data, data),
    st.builds(messages.AskClose, data, st.builds(Close, sums, sums, times), data),
    st.builds(messages.Closing, data),
    st.builds(messages.Resume, data, data, st.sampled_from(messages.Way)),
    st.builds(
        messages.Resumed,
        totals,
        times,
        st.lists(totals, max_size=3).map(tuple),
        data,
        data,
        data,
        totals,
        st.lists(totals, max_size=3).map(tuple),
        st.sampled_from(messages.Way),
    ),
    st.builds(messages.AskPole, text),
    st.builds(messages.AskWay, st.sampled_from(messages.Way)),
    st.builds(messages.AskReach),
    st.builds(messages.Reach, st.lists(st.builds(messages.SignedReach, reached, data), max_size=2).map(tuple)),
    st.builds(messages.Enter, channels),
    st.builds(messages.Entered, data, totals),
    st.builds(messages.Promise, data, vouchers, data, st.lists(changes, max_size=3).map(tuple)),
    st.builds(messages.Taken, data, totals, data),
    st.builds(messages.Told, data, totals, st.booleans(), totals, data, sums, text),
]
any_message = st.one_of(MESSAGES)


def test_every_message_has_its_tag_and_a_strategy() -> None:
    tagged = {kind: kind.__struct_config__.tag for kind in get_args(messages.Message)}
    assert sorted(tagged.values()) == list(range(1, len(MESSAGES) + 1))


@settings(max_examples=300)
@given(any_message)
def test_a_message_that_is_written_reads_the_same(message: Any) -> None:
    frame = encode(message)
    again = decode(frame)
    assert again == message
    assert type(again) is type(message)
    assert encode(again) == frame


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_rubbish_is_no_message(rubbish: bytes) -> None:
    try:
        decode(rubbish)
    except BadMessage:
        return
    assert json.loads(rubbish)[0] in range(1, len(MESSAGES) + 1)


def test_what_a_neighbour_calls_a_change_cannot_break_our_logs_line() -> None:
    promise = encode(messages.Promise(bytes(32), Voucher.over(1, 0), b"", (messages.Settle(1, 2),)))
    for tag in (rb"add\n", rb"\u001b[2J"):
        lie = promise.replace(b"settle", tag)
        for refuse in (lambda lie: decode(lie), lambda lie: decode_part(lie, messages.Promise)):
            with pytest.raises(BadMessage, match="Invalid value") as refused:
                refuse(lie)
            assert refused.value.line().isprintable()


@settings(max_examples=300)
@given(any_message, st.data())
def test_a_message_with_bytes_changed_is_a_message_or_refused(message: Any, draw: st.DataObject) -> None:
    frame = bytearray(encode(message))
    for _ in range(draw.draw(st.integers(1, 4))):
        frame[draw.draw(st.integers(0, len(frame) - 1))] = draw.draw(st.integers(0, 255))
    try:
        again = decode(bytes(frame))
    except BadMessage:
        return
    encode(again)


@settings(max_examples=200)
@given(any_message, st.data())
def test_a_message_with_a_field_more_less_or_of_another_type_is_refused(message: Any, draw: st.DataObject) -> None:
    array = json.loads(encode(message))
    with pytest.raises(BadMessage):
        decode(json.dumps([*array, 0]).encode())
    if len(array) == 1:
        return
    with pytest.raises(BadMessage):
        decode(json.dumps(array[:-1]).encode())
    at = draw.draw(st.integers(1, len(array) - 1))
    array[at] = draw.draw(st.sampled_from([None, True, 1.5, {}, [[]]][isinstance(array[at], bool) * 2 :]))
    with pytest.raises(BadMessage):
        decode(json.dumps(array).encode())


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[16]",
        b"[0]",
        b"[-1]",
        b'["1"]',
        b"[1] [1]",
        b"[1" + b"0" * 10_000 + b"]",
        b"[6," + b"9" * 10_000 + b",0,0]",
        b"[6,-1,0,0]",
        b"[6,9223372036854775808,0,0]",
        b"[6,0,9007199254740992,0]",
        b"[6,0,0,-1]",
        b"[6,1e3,0,0]",
        b"[6,1.0,0,0]",
        b'[6,"1",0,0]',
        b"[6,true,0,0]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[8," + b"[" * 100_000,
        b'[8,"because"]',
        b'[4,"not base64!"]',
        b"\xff\xfe",
        b'[5,"\\ud800"]',
        b'[5,"\xed\xa0\x80"]',
        b'[10,["",0,-1,0,0,0,"",0],"",""]',
        b'[12,"",[0,0,99999999999999999999],""]',
        b'[12,"",[-1,0,0],""]',
    ],
    ids=lambda frame: frame[:20].decode(errors="replace"),
)
def test_a_frame_that_is_nearly_a_message_is_refused(frame: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        decode(frame)
    assert len(caught.value.line()) < 300
    assert "\n" not in caught.value.line()


def test_a_sum_may_be_larger_than_64_bits() -> None:
    said = messages.Metered(1, 2, MAX_AMOUNT, b"", b"", 0, messages.Way.SUPPLY)  # type: ignore[arg-type]  # plain numbers
    assert decode(encode(said)) == said


@given(st.binary(max_size=100))
def test_a_part_or_a_row_that_is_none_is_refused_in_its_own_way(rubbish: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_part(rubbish, StreamTerms)
    with pytest.raises(JournalError) as caught:
        decode_row(rubbish, SessionRow, "session")
    assert caught.value.advice
