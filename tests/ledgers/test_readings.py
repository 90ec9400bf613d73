"""Readings are read out of logs: what is no reading is passed over."""

from __future__ import annotations

from typing import Any

from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.escrow import EscrowDomain, EscrowParams, SignedReading, tariff_hash
from penstock.core.identity import Address
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.escrow import signed_words
from penstock.ledgers.readings import signed_in

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


def logged(signed: SignedReading) -> bytes:
    reading, signature = signed_words(signed)
    return encode(["(uint256,uint256,uint256,uint256[],bool)", "uint256[2]"], [reading, signature])


WHOLE = logged(GOOD)


def test_a_reading_is_read_out_of_its_log() -> None:
    assert signed_in(ESCROW, WHOLE) == GOOD


@given(cut=st.integers(0, len(WHOLE) - 1), junk=st.binary(max_size=400))
def test_what_is_cut_off_and_what_is_junk_is_passed_over(cut: int, junk: bytes) -> None:
    assert signed_in(ESCROW, WHOLE[:cut]) is None
    signed_in(ESCROW, junk)


@given(data=st.data())
def test_a_word_that_says_something_else_is_no_error(data: Any) -> None:
    at = data.draw(st.integers(0, len(WHOLE) // 32 - 1))
    word = data.draw(
        st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 2**10).map(lambda n: n.to_bytes(32)))
    )
    changed = WHOLE[: 32 * at] + word + WHOLE[32 * (at + 1) :]
    found = signed_in(ESCROW, changed)
    assert found is None or (found == GOOD) == (changed == WHOLE) or found.reading == GOOD.reading
