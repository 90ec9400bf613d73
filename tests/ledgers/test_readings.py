"""Readings are read out of anybody's calldata: what no meter signed is passed over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.escrow import EscrowDomain, EscrowParams, SignedReading, tariff_hash
from penstock.core.identity import Address
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.escrow import params_words, signed_words, tariff_words
from penstock.ledgers.readings import _signed_in

from .escrows import METER, NOON, PAYEE, PAYEE_KEY, TARIFF, payer_key, reading

ESCROW = Interface(load("Escrow")["abi"])
PAYER = dev_key(0)
PARAMS = EscrowParams(
    EscrowDomain(1, Address(b"\x01" * 20), Address(b"\x02" * 20)),
    *(PAYER.address, PAYEE.address, payer_key(PAYER).address, PAYEE_KEY.address, METER.address),
    tariff_hash(TARIFF),
    deposit=10_000,
    deadline=2_000_000_000,
    window=600,
    counter=1,
)
GOOD = reading(PARAMS, 7, 9_000, last=True, at=NOON, turns=(6_000,))


def calldata(signed: SignedReading) -> bytes:
    return ESCROW.encode("release", params_words(PARAMS), tariff_words(TARIFF), *signed_words(signed))


WHOLE = calldata(GOOD)
HEAD = WHOLE[: 4 + 7 * 32]


def found(data: bytes) -> list[SignedReading]:
    return list(_signed_in(ESCROW, PARAMS, HEAD, data))


def test_a_reading_is_found_wherever_it_stands_in_calldata() -> None:
    assert found(WHOLE) == [GOOD]
    assert found(b"\x12" * 37 + WHOLE + b"\x34" * 5 + WHOLE) == [GOOD, GOOD]
    assert found(HEAD * 3 + WHOLE) == [GOOD]


@pytest.mark.parametrize(
    "signed",
    [
        reading(PARAMS, 7, 9_000, meter=PAYEE_KEY),
        SignedReading(GOOD.reading, b"\xff" * 64 + b"\x1b"),
        SignedReading(GOOD.reading, bytes(64) + b"\x1b"),
    ],
)
def test_what_the_meter_did_not_sign_is_passed_over(signed: SignedReading) -> None:
    assert found(calldata(signed)) == []


@given(cut=st.integers(0, len(WHOLE) - 1), junk=st.binary(max_size=200))
def test_what_is_cut_off_and_what_is_junk_is_passed_over(cut: int, junk: bytes) -> None:
    assert found(WHOLE[:cut]) == []
    assert found(HEAD + junk) == []


@given(data=st.data())
def test_a_word_that_says_something_else_brings_nothing_that_was_not_signed(data: Any) -> None:
    at = data.draw(st.integers(7, (len(WHOLE) - 4) // 32 - 1))
    word = data.draw(
        st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 2**10).map(lambda n: n.to_bytes(32)))
    )
    changed = WHOLE[: 4 + 32 * at] + word + WHOLE[4 + 32 * (at + 1) :]
    assert found(changed) in ([], [GOOD])
