"""Targets: what a payer hands to a payee, and a payee to its watcher. The adversary holds the payer's key here.

A signature that is left empty is made good before the evidence is shown, so that hostile sums are met that are signed.
"""

from __future__ import annotations

from typing import Any

import msgspec
from tests.core import pair

from penstock.core.channel import ChannelParams, Lock, Voucher
from penstock.core.codec import decode_part, encode
from penstock.core.errors import BadMessage, RemoteError
from penstock.core.identity import Key
from penstock.core.ports import ChannelState, Filed, Filing
from penstock.core.ticks import TickChain
from penstock.core.units import MAX_AMOUNT, Amount
from penstock.core.watcher import Act, Evidence, at_risk, next_act, worth
from penstock.ledgers import forms
from penstock.rails.stream import (
    EARNED_ROWS,
    TICK_ROWS,
    StreamPayee,
    StreamPayer,
    StreamTerms,
    VoucherNote,
    decode_earned,
    proof_of,
)

MOST = 24  # pieces of evidence in one input
DEPOSIT = 50_000
TERMS = StreamTerms(pair.PARAMS, 0, 0, 1_000)


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of evidence, and the bill that it must be worth, if it is the last."""

    evidence: bytes
    least: int | None = None


def voucher(data: bytes) -> object:
    """Pieces of evidence, one after the other. What is refused changes nothing; what is taken can be filed."""
    payee, journal = StreamPayee(TERMS, DEPOSIT), {}  # type: StreamPayee, dict[bytes, bytes | None]
    outcome = ""
    for piece in decode_part(data, list[Piece])[:MOST]:
        held = payee.secured, payee.ticks, payee.state()
        try:
            rows = payee.take(signed(piece.evidence), piece.least)
        except RemoteError as error:
            outcome = type(error).__name__ + str(error)[:12]
            assert (payee.secured, payee.ticks, payee.state()) == held
            continue
        journal.update(rows)
        assert payee.secured <= payee.capacity
        assert payee.secured == piece.least if piece.least is not None else payee.secured >= held[0]
        if rows:
            _check_kept(payee, journal)
    return outcome, payee.ticks.bit_length()


def signed(evidence: bytes) -> bytes:
    """The evidence, with the payer's signature where there is none."""
    if evidence[:1] != b"\x02":
        return evidence
    try:
        note = decode_part(evidence[1:], VoucherNote)
    except BadMessage:
        return evidence
    if note.signature:
        return evidence
    return b"\x02" + encode(msgspec.structs.replace(note, signature=sign(note.voucher, pair.PARAMS, pair.CONSUMER)))


def sign(said: Any, params: ChannelParams, key: Key) -> bytes:
    """The signature, where what is said has a form that can be signed at all."""
    try:
        return key.sign(said.digest(params))
    except (OverflowError, ValueError):
        return bytes(65)


def _check_kept(payee: StreamPayee, journal: dict[bytes, bytes | None]) -> None:
    """The journal alone gives the same sum, and the contract would take every part of it."""
    earned, ticks = journal[EARNED_ROWS + pair.PARAMS.id], journal.get(TICK_ROWS + pair.PARAMS.id)
    assert earned is not None
    row = decode_earned(earned)
    assert StreamPayee(TERMS, DEPOSIT, row, ticks).secured == payee.secured
    note = row.note
    filing = Filing(note.voucher, note.signature, note.locks, (proof_of(row, ticks),) if note.locks else ())
    Evidence(pair.PARAMS, True, filing).check()
    assert worth(filing) == payee.secured
    assert note.voucher.amount + note.voucher.locked <= DEPOSIT


def voucher_seeds() -> list[bytes]:
    """A whole session, one with two chains, one that is squared below what was paid; vouchers without signatures."""
    seeds = []
    for deposit, sums, bill in ((50_000, (3_000, 20_000, 20_500), 20_700), (6_000, (5_000,), 5_999), (9_000, (), 0)):
        payer = StreamPayer(TERMS, deposit, pair.CONSUMER, pair.SECRET)
        pieces = [Piece(payer.open().data)]
        for sum_ in sums:
            pieces += [Piece(one.data) for one in payer.pay(sum_)]
        pieces.append(Piece(payer.square(bill).data, bill))
        seeds.append(encode(pieces))
        blank = [Piece(_unsigned(piece.evidence), piece.least) for piece in pieces]
        seeds += [encode(blank), encode(blank[:1] + pieces[1:]), encode(pieces[:1] * 2 + blank[-1:])]
    return seeds


def _unsigned(evidence: bytes) -> bytes:
    if evidence[:1] != b"\x02":
        return evidence
    note = decode_part(evidence[1:], VoucherNote)
    return b"\x02" + encode(msgspec.structs.replace(note, signature=b""))


def watched(data: bytes) -> None:
    """What was handed over to a watcher; what passes its check can be filed, and the next act follows from it."""
    for shown in decode_part(data, list[Evidence])[:MOST]:
        evidence = _countersigned(shown)
        evidence.check()
        filing, value = evidence.filing, worth(evidence.filing)
        assert 0 <= value <= MAX_AMOUNT
        forms.params_words(evidence.params)
        forms.voucher_words(filing.voucher)
        for wave in forms.proof_waves(filing):
            assert all(len(word) == 32 for word in forms.joined(wave))
        state = ChannelState("closing", Amount(1_000), closes_at=100)
        most = 1_000 if evidence.params.two_way else value
        assert at_risk(evidence, state, Filed(state)) == min(value, most)
        act = next_act(evidence, state, Filed(state), 50)
        assert act is Act.FILE if value else act in (Act.FILE, Act.REST)


def _countersigned(shown: Evidence) -> Evidence:
    """The evidence, with the payer's signature and the payee's leave where they are empty."""
    filing = shown.filing
    if not filing.signature:
        payer = pair.CONSUMER if shown.partner else pair.SUPPLIER
        filing = msgspec.structs.replace(filing, signature=sign(filing.voucher, shown.params, payer))
    evidence = msgspec.structs.replace(shown, filing=filing)
    if shown.consent:
        return evidence
    try:
        answer = evidence.answer
    except (OverflowError, ValueError):
        return evidence
    payee = pair.SUPPLIER if shown.partner else pair.CONSUMER
    return msgspec.structs.replace(evidence, consent=sign(answer, shown.params, payee))


def watched_seeds() -> list[bytes]:
    """A voucher without locks, one with a lock and ticks, one of two hop locks; signed, and to be signed."""
    payer = StreamPayer(TERMS, DEPOSIT, pair.CONSUMER, pair.SECRET)
    payee, journal = StreamPayee(TERMS, DEPOSIT), {}  # type: StreamPayee, dict[bytes, bytes | None]
    seeds = []
    for evidence in (payer.open(), *payer.pay(7_000), payer.square(7_300)):
        last = payee.secured + 300 if evidence.data[:1] == b"\x02" and payee.secured else None
        journal.update(payee.take(evidence.data, last))
        row = decode_earned(journal[EARNED_ROWS + pair.PARAMS.id] or b"")
        proofs = (proof_of(row, journal.get(TICK_ROWS + pair.PARAMS.id)),) if row.note.locks else ()
        filing = Filing(row.note.voucher, row.note.signature, row.note.locks, proofs)
        seeds.append(encode([Evidence(pair.PARAMS, True, filing)]))
        seeds.append(encode([Evidence(pair.PARAMS, True, msgspec.structs.replace(filing, signature=b""))]))
    locks = (_hop(1, 4, 10), _hop(2, 2, 20))
    hops = Filing(Voucher.over(9, 100, locks), b"", locks, ((0, b""), (2, b"\x02" * 32)))
    return [*seeds, encode([Evidence(pair.PARAMS, True, hops), Evidence(pair.PARAMS, True, hops)])]


def _hop(mark: int, ticks: int, expiry: int) -> Lock:
    return Lock(TickChain(bytes((mark,)) * 32, ticks).root, 5, ticks, expiry)
