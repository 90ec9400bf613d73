from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadPreimage, IllegalEvent
from penstock.core.ticks import TickChain, TickProof

SEED = b"\x05" * 32


def hashed(value: bytes, times: int) -> bytes:
    for _ in range(times):
        value = sha256(value).digest()
    return value


@pytest.mark.parametrize("ticks", [1, 2, 63, 64, 65, 128, 200])
def test_every_preimage_hashes_to_the_root_in_as_many_steps_as_it_proves(ticks: int) -> None:
    chain = TickChain(SEED, ticks)
    assert chain.root == hashed(SEED, ticks)
    for count in (*range(ticks + 1), 0, ticks):
        assert hashed(chain.preimage(count), count) == chain.root


@pytest.mark.parametrize("count", [-1, 6, 10**9])
def test_a_chain_does_not_prove_more_than_it_holds(count: int) -> None:
    with pytest.raises(IllegalEvent):
        TickChain(SEED, 5).preimage(count)


@given(st.lists(st.integers(0, 40), max_size=12).map(sorted))
def test_a_proof_advances_by_any_steps(counts: list[int]) -> None:
    chain = TickChain(SEED, 40)
    proof = TickProof(chain.root, 40)
    reached = 0
    for count in counts:
        assert proof.advance(count, chain.preimage(count)) == count - reached
        reached = proof.count
        assert reached == count
        restored = TickProof(chain.root, 40, proof.count, proof.preimage if proof.count else b"")
        assert (restored.count, restored.preimage) == (proof.count, proof.preimage)


@pytest.mark.parametrize(
    ("count", "preimage"),
    [
        (3, TickChain(SEED, 10).preimage(3)),  # fewer than before
        (11, hashed(SEED, 0)),  # more than the lock holds
        (-1, SEED),
        (6, TickChain(SEED, 10).preimage(5)),
        (6, TickChain(SEED, 10).preimage(7)),
        (5, TickChain(SEED, 10).preimage(6)),
        (6, b""),
        (6, TickChain(SEED, 10).preimage(6) + b"\0"),
        (6, bytes(32)),
    ],
)
def test_a_preimage_that_does_not_prove_its_count_is_refused_and_nothing_changes(count: int, preimage: bytes) -> None:
    chain = TickChain(SEED, 10)
    proof = TickProof(chain.root, 10)
    proof.advance(5, chain.preimage(5))
    with pytest.raises(BadPreimage):
        proof.advance(count, preimage)
    assert (proof.count, proof.preimage) == (5, chain.preimage(5))
    assert proof.advance(5, chain.preimage(5)) == 0
