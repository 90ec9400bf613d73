from __future__ import annotations

from typing import Any

import msgspec
import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_hash.auto import keccak as reference_keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.channel import (
    MAX_PERIOD,
    MAX_TICKS,
    ChannelParams,
    Close,
    Domain,
    Lock,
    LockTree,
    Voucher,
    locks_root,
    seconds,
)
from penstock.core.errors import BadVoucher, OutOfRange
from penstock.core.identity import Address
from penstock.core.units import MAX_AMOUNT, Instant

from .pair import DOMAIN, PARAMS

DOMAIN_FIELDS = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]


def typed(primary: str, fields: str, message: dict[str, Any], channel: ChannelParams = PARAMS) -> bytes:
    """The EIP-712 digest as eth-account computes it."""
    split = [field.split() for field in fields.split(",")]
    full = {
        "types": {"EIP712Domain": DOMAIN_FIELDS, primary: [{"name": n, "type": t} for t, n in split]},
        "primaryType": primary,
        "domain": {
            "name": "Penstock Channel",
            "version": "1",
            "chainId": channel.domain.chain_id,
            "verifyingContract": "0x" + channel.domain.contract.hex(),
        },
        "message": message,
    }
    return _hash_eip191_message(encode_typed_data(full_message=full))


VOUCHER_FIELDS = "bytes32 channel,uint64 nonce,uint96 amount,uint96 locked,uint64 lockedUntil,bytes32 locksRoot"
CLOSE_FIELDS = "bytes32 channel,uint96 openerBalance,uint96 partnerBalance,uint64 expiry"
sums, u64 = st.integers(0, MAX_AMOUNT), st.integers(0, 2**64 - 1)


@settings(max_examples=25)
@given(u64, sums, sums, u64, st.binary(min_size=32, max_size=32))
def test_a_vouchers_digest_is_what_any_eip_712_library_makes(
    n: int, a: int, locked: int, until: int, root: bytes
) -> None:
    message = {"channel": PARAMS.id, "nonce": n, "amount": a, "locked": locked, "lockedUntil": until, "locksRoot": root}
    assert Voucher(n, a, locked, until, root).digest(PARAMS) == typed("Voucher", VOUCHER_FIELDS, message)


@settings(max_examples=25)
@given(sums, sums, u64)
def test_a_closes_digest_is_what_any_eip_712_library_makes(opener: int, partner: int, expiry: int) -> None:
    message = {"channel": PARAMS.id, "openerBalance": opener, "partnerBalance": partner, "expiry": expiry}
    assert Close(opener, partner, expiry).digest(PARAMS) == typed("Close", CLOSE_FIELDS, message)


def word(value: int | bytes) -> bytes:
    return int.to_bytes(value, 32, "big") if isinstance(value, int) else b"\0" * (32 - len(value)) + value


def test_the_id_commits_to_every_parameter() -> None:
    seed = reference_keccak(DOMAIN.separator + word(DOMAIN.token))
    fields = (PARAMS.opener, PARAMS.partner, PARAMS.opener_key, PARAMS.partner_key, 1 + (3600 << 65))
    assert PARAMS.id == reference_keccak(seed + b"".join(word(field) for field in fields))
    other = Address(b"\x77" * 20)
    changed = [
        msgspec.structs.replace(PARAMS, **{field: value})
        for field, value in {
            "opener": other,
            "partner": other,
            "opener_key": other,
            "partner_key": other,
            "period": 3601,
            "two_way": True,
            "counter": 2,
        }.items()
    ]
    domains = [
        Domain(1, DOMAIN.contract, DOMAIN.token),
        Domain(31337, other, DOMAIN.token),
        Domain(31337, DOMAIN.contract, other),
    ]
    changed += [msgspec.structs.replace(PARAMS, domain=domain) for domain in domains]
    assert len({PARAMS.id, *(params.id for params in changed)}) == 11
    voucher = Voucher.over(1, 5)
    assert len({voucher.digest(params) for params in (PARAMS, *changed)}) == 11, "no voucher serves two channels"


@pytest.mark.parametrize(
    "changes",
    [
        {"opener": bytes(20)},
        {"partner": bytes(20)},
        {"opener_key": bytes(20)},
        {"partner_key": b"\x01" * 19},
        {"partner": PARAMS.opener},
        {"partner_key": PARAMS.opener_key},
        {"period": 59},
        {"period": MAX_PERIOD + 1},
        {"counter": -1},
        {"counter": 2**64},
        {"domain": msgspec.structs.replace(PARAMS.domain, chain_id=-1)},
        {"domain": msgspec.structs.replace(PARAMS.domain, chain_id=2**256)},
        {"domain": msgspec.structs.replace(PARAMS.domain, contract=Address(bytes(21)))},
    ],
)
def test_a_channel_that_the_contract_would_not_open_is_refused(changes: dict[str, Any]) -> None:
    PARAMS.check()
    with pytest.raises(OutOfRange):
        msgspec.structs.replace(PARAMS, **changes).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"root": bytes(31)},
        {"tick_value": 0},
        {"tick_value": MAX_AMOUNT + 1},
        {"tick_value": MAX_AMOUNT, "ticks": 2},
        {"ticks": 0},
        {"ticks": MAX_TICKS + 1},
        {"expiry": -1},
        {"expiry": 2**64},
    ],
)
def test_a_lock_that_the_contract_could_not_pay_is_refused(changes: dict[str, Any]) -> None:
    """Rule 12: what is secured is final, was seen lately, and is bounded in ticks, depth and time."""
    lock = Lock(bytes(32), 7, 3)
    lock.check()
    with pytest.raises(BadVoucher):
        msgspec.structs.replace(lock, **changes).check()


locks = st.lists(
    st.builds(
        Lock,
        st.binary(min_size=32, max_size=32),
        st.integers(1, 10**9),
        st.integers(1, MAX_TICKS),
        st.integers(0, 2**40),
    ),
    min_size=1,
    max_size=20,
)


def leaf(index: int, lock: Lock) -> bytes:
    return reference_keccak(
        b"\0" + word(index) + lock.root + word(lock.tick_value) + word(lock.ticks) + word(lock.expiry)
    )


def tree(leaves: list[bytes]) -> bytes:
    """The root, from the top down: another way round than the source."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    return reference_keccak(b"\x01" + tree(leaves[:half]) + tree(leaves[half:]))


def led_to(lock: Lock, index: int, branch: list[bytes]) -> tuple[bytes, int]:
    """Where a branch leads a lock at `index`, and what is left of the index; 0 where the tree has it."""
    node, place = leaf(index, lock), index
    for sibling in branch:
        node = reference_keccak(b"\x01" + (sibling + node if place & 1 else node + sibling))
        place >>= 1
    return node, place


@settings(max_examples=50)
@given(locks)
def test_a_tree_of_locks_is_canonical_and_every_branch_leads_to_its_root(locks: list[Lock]) -> None:
    """Rule 13: trees are canonical, and the payee recomputes what it will have to prove."""
    size = 1 << (len(locks) - 1).bit_length()
    padded = [leaf(index, lock) for index, lock in enumerate(locks)] + [bytes(32)] * (size - len(locks))
    root, grown = locks_root(locks), LockTree(locks)
    assert root == grown.root == tree(padded)
    for index, lock in enumerate(locks):
        assert led_to(lock, index, grown.branch(index)) == (root, 0)
    if len(locks) > 1 and locks[0] != locks[-1]:
        assert locks_root([locks[-1], *locks[1:-1], locks[0]]) != root, "the order counts"
    assert locks_root([*locks, locks[-1]]) != root, "no leaf is counted twice"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 600), st.lists(st.tuples(st.booleans(), st.integers(0, 2**16)), max_size=30))
def test_a_hubs_hundreds_of_locks_come_and_go_in_any_order(size: int, moves: list[tuple[bool, int]]) -> None:
    """The root tells nothing of how the locks came together; every lock can be proven, and none that has gone."""
    made = [Lock(word(number), 1 + number, 1 + number % 7, number) for number in range(size + len(moves))]
    held, coming, gone = made[:size], made[size:], []
    for comes, where in moves:
        if comes or not held:
            held.insert(where % (len(held) + 1), coming.pop())
        else:
            gone.append(held.pop(where % len(held)))
    grown = LockTree(held)
    assert Voucher.over(1, 0, held).locks_root == grown.root == locks_root(tuple(held))
    padded = [leaf(index, lock) for index, lock in enumerate(held)] or [bytes(32)]
    padded += [bytes(32)] * ((1 << (len(padded) - 1).bit_length()) - len(padded))
    assert grown.root == tree(padded)
    branches = [grown.branch(index) for index in range(len(held))]
    assert all(led_to(lock, index, branches[index]) == (grown.root, 0) for index, lock in enumerate(held))
    for lock in gone:
        assert all(led_to(lock, index, branches[index])[0] != grown.root for index in range(0, len(held), 50))


def test_no_lock_at_all_has_the_root_zero() -> None:
    assert locks_root([]) == bytes(32)
    assert Voucher.over(3, 9) == Voucher(3, 9, 0, 0, bytes(32))


def test_a_vouchers_sums_follow_from_its_locks() -> None:
    pair = (Lock(b"\1" * 32, 5, 10, 100), Lock(b"\2" * 32, 3, 4, 200))
    assert Voucher.over(1, 2, pair) == Voucher(1, 2, 62, 200, locks_root(pair))


def test_the_ledger_counts_whole_seconds() -> None:
    assert seconds(Instant(1_999)) == 1
