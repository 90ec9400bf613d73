"""Targets: messages, their parts, offers and terms, rows of a journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.core import pair

from penstock.core import codec
from penstock.core.channel import Lock, Voucher
from penstock.core.hops import InLock, InRow, OutLock, OutRow, Place
from penstock.core.messages import Add, Hop, Offered, Propose, Settle
from penstock.core.offer import Offer, Terms
from penstock.core.ports import SignedOpen
from penstock.core.session import SessionRow
from penstock.core.tariff import Bill
from penstock.core.units import MAX_AMOUNT, MAX_QUANTITY, Instant
from penstock.core.watcher import Evidence
from penstock.node.book import ChannelRow
from penstock.rails.hops import HopOffer, HopTerms, SeedRow
from penstock.rails.stream import (
    EARNED_ROWS,
    NAME,
    EarnedRow,
    PaidRow,
    StreamOffer,
    StreamPayee,
    StreamTerms,
    VoucherNote,
    check_terms,
    decode_offer,
    decode_terms,
)

PARTS: tuple[type, ...] = (StreamOffer, StreamTerms, VoucherNote, Evidence, SignedOpen, HopOffer, HopTerms)
ROWS: tuple[type, ...] = (SessionRow, PaidRow, EarnedRow, ChannelRow, OutRow, OutLock, InRow, InLock, SeedRow)
MESSAGES = Path(__file__).parents[1] / "vectors" / "messages.json"


def message(data: bytes) -> object:
    """A message; what was read makes bytes that are read as the same."""
    said = codec.decode(data)
    again = codec.encode(said)
    assert codec.decode(again) == said
    assert codec.encode(codec.decode(again)) == again
    return type(said).__name__


def message_seeds() -> list[bytes]:
    """One of each, as frozen in the vectors, and a session's whole conversation."""
    frozen = [text.encode() for text in json.loads(MESSAGES.read_text()).values()]
    return frozen + [codec.encode(said) for said in conversation()]


def conversation() -> list[Any]:
    """What both sides say in a session with a break in the middle."""
    both = pair.Pair(pair.make_terms(quantity_limit=40))
    both.stream(20)
    both.lose_link()
    both.relink()
    both.heal()
    assert both.over
    said = both.supplier.sent + both.consumer.sent
    first: dict[tuple[type, int], Any] = {}
    for one in said:
        first.setdefault((type(one), len(codec.encode(one)) // 40), one)  # one of each kind and size is enough
    return list(first.values())


def part(data: bytes) -> None:
    """A part in its own encoding, of the type that the first byte names; read again it is the same."""
    _round_trip(data, PARTS)


def part_seeds() -> list[bytes]:
    """One of each part."""
    both = _paid()
    stream = decode_terms(both.terms.rail_terms)
    offer = decode_offer(both.terms.offer.rails[NAME])
    earned = codec.decode_row(both.supplier.journal[EARNED_ROWS + pair.PARAMS.id], EarnedRow, "row")
    filing = {"voucher": earned.note.voucher, "signature": earned.note.signature, "locks": earned.note.locks}
    shown = [stream.params, True, filing, b""]
    authorization = {"deposit": 1, "fee": 2, "valid_after": 3, "valid_before": 4, "signature": bytes(65)}
    opened = {"params": stream.params, "authorization": authorization}
    hops = HopOffer(pair.DOMAIN, pair.SUPPLIER.address, 900), HopTerms(pair.DOMAIN, bytes(32), 9, 7_000)
    parts = (offer, stream, earned.note, shown, opened, *hops)
    return [bytes((kind,)) + codec.encode(one) for kind, one in enumerate(parts)]


def row(data: bytes) -> None:
    """A row of our journal, of the type that the first byte names; read again it is the same."""
    if not data:
        return
    type_ = ROWS[data[0] % len(ROWS)]
    found: Any = codec.decode_row(data[1:], type_, "row")
    assert codec.decode_row(codec.encode(found), type_, "row") == found


def row_seeds() -> list[bytes]:
    """Rows of both sides in the middle of a session and at its end."""
    seeds = []
    for both in (_paid(), _paid(whole=True)):
        for side in both.sides:
            for key, value in side.journal.items():
                kind = {b"session": 0, b"paid": 1, b"earned": 2}.get(key.split(b"/")[0])
                if kind is not None:
                    seeds.append(bytes((kind,)) + value)
    channel = {"params": pair.PARAMS, "role": "supplier", "deposit": 5, "close": [1, 2, 3]}
    return [*seeds, b"\x03" + codec.encode(channel), *_hop_rows()]


def _hop_rows() -> list[bytes]:
    lock, place = Lock(b"\x11" * 32, 700, 5, 5_000), Place(b"\x44" * 32, 7)
    add, voucher = Add(3, lock, 5, (Hop(pair.SUPPLIER.address, 699, 4_000, 2),)), Voucher.over(3, 50, (lock,))
    rows = (
        OutRow(voucher, bytes(65), (add, Settle(2, 5)), 2, 40, b"\x22" * 32, bytes(65), 3),
        OutLock(lock, place, placed=True),
        InRow(voucher, bytes(65), 3),
        InLock(add, 4, b"\x66" * 32, place, placed=True, ending=5, done=6, why="late", rest=1),
        SeedRow(b"\x55" * 32, 9, b"\x44" * 32, 7, 707, 3),
    )
    return [bytes((kind,)) + codec.encode(one) for kind, one in enumerate(rows, 4)]


def offer(data: bytes) -> None:
    """An offer that passes its check can be computed with: trust, bills, its digest, its rails."""
    asked = codec.decode_part(data, Offer)
    asked.check()
    assert 0 < asked.tick_value <= asked.least_credit <= asked.credit_limit <= MAX_AMOUNT
    assert asked.first_trust >= asked.least_credit
    asked.digest()
    bill = Bill(asked.tariff)
    for sum_ in (0, asked.credit_limit, MAX_AMOUNT):
        total = bill.affords(sum_)
        assert bill.due(total) <= sum_ < bill.due(total + 1)
    bill.turn(bill.affords(asked.credit_limit), asked.expires)
    assert bill.due(MAX_QUANTITY) >= 0
    for details in asked.rails.values():
        decode_offer(details)


def offer_seeds() -> list[bytes]:
    """The vectors' offer with its two steps, and a flat one."""
    said = codec.decode(json.loads(MESSAGES.read_text())["Offered"].encode())
    assert isinstance(said, Offered)
    return [codec.encode(said.offer), codec.encode(pair.make_offer())]


def terms(data: bytes) -> None:
    """Terms that pass both checks are such that a payee's end can be made for them."""
    agreed = codec.decode_part(data, Terms)
    agreed.check()
    agreed.digest()
    stream = decode_terms(agreed.rail_terms)
    asked = decode_offer(agreed.offer.rails[agreed.rail])
    check_terms(asked, stream, (10**9, 10**9), (agreed.offer.tick_value, 0))
    payee = StreamPayee(stream, 10**9)
    assert payee.secured <= 0 <= payee.capacity <= 10**9
    assert payee.ticks == 0
    assert Bill(agreed.offer.tariff).affords(agreed.budget) >= 0
    assert Instant(0) <= agreed.at <= agreed.offer.expires


def terms_seeds() -> list[bytes]:
    """The vectors' terms, and the demo's."""
    said = codec.decode(json.loads(MESSAGES.read_text())["Propose"].encode())
    assert isinstance(said, Propose)
    return [codec.encode(said.terms), codec.encode(pair.make_terms())]


def _round_trip(data: bytes, types: tuple[type, ...]) -> None:
    if not data:
        return
    type_ = types[data[0] % len(types)]
    found: Any = codec.decode_part(data[1:], type_)
    assert codec.decode_part(codec.encode(found), type_) == found


def _paid(whole: bool = False) -> pair.Pair:
    """A session in which some ticks were paid, or all."""
    both = pair.Pair(pair.make_terms(quantity_limit=40))
    both.stream() if whole else both.stream(15)
    return both
