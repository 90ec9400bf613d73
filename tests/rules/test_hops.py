"""The rules of the design that speak of hop locks, where core and rails keep them; `tests/hops` has the nodes'."""

from __future__ import annotations

import pytest

from penstock.core.channel import ChannelParams, Domain, Lock
from penstock.core.errors import BadTerms, BadVoucher
from penstock.core.hops import NO_VOUCHER, Incoming, InRow, Outgoing, OutRow, Place
from penstock.core.identity import Address, Key
from penstock.core.messages import Promise
from penstock.core.ticks import TickChain
from penstock.rails.hops import HopTerms, check_lock

PAYER, PAYEE = Key(b"\x01" * 32), Key(b"\x02" * 32)
DOMAIN = Domain(1, Address(b"\x11" * 20), Address(b"\x22" * 20))
ENDS = (PAYER.address, PAYEE.address)
PARAMS = ChannelParams(DOMAIN, *ENDS, *ENDS, 3_600, False, 7)
UNTIL = 10**6
CHAIN = TickChain(bytes(32), 10)
LOCK = Lock(CHAIN.root, 100, 10, 5_000)


def books(deposit: int = 10_000) -> Incoming:
    return Incoming(PARAMS, deposit, PAYEE, InRow(NO_VOUCHER), {})


def promised(*locks: Lock, deposit: int = 10**9) -> tuple[Outgoing, Promise]:
    out = Outgoing(PARAMS, deposit, PAYER, OutRow(NO_VOUCHER), {})
    for lock in locks:
        out.add(lock, 0, ())
    made = out.promise()
    assert made is not None
    return out, made[1]


def test_rule_07_a_promise_beyond_the_deposit_is_refused() -> None:
    """Rule 7: what the contract could not pay in full is not taken."""
    incoming = books(deposit=999)
    with pytest.raises(BadVoucher, match="more than the channel's deposit"):
        incoming.take(promised(LOCK)[1], UNTIL)
    assert not incoming.locks


def test_rule_09_a_lock_that_is_settled_counts_until_the_payee_has_released_it() -> None:
    """Rule 9: the payee still holds the voucher before."""
    out, promise = promised(LOCK)
    incoming = books()
    out.taken(incoming.take(promise, UNTIL).answer)
    incoming.done(1, 0)
    told = incoming.locks[1].told(Place(PARAMS.id, 1))
    assert told is not None
    out.told(told)
    out.settle(1, 0)
    made = out.promise()
    assert made is not None
    assert not out.locks
    assert list(out.all) == [1], "the payee can still claim it on the voucher before"
    assert all(value is not None for key, value in made[0]), "and its row must outlive a crash"
    rows, _ = out.taken(incoming.take(made[1], UNTIL).answer)
    assert not out.all
    assert any(value is None for _, value in rows)


def test_rule_10_a_settlement_below_what_the_payee_said_is_refused() -> None:
    """Rule 10: what was proven of a lock is paid."""
    out, promise = promised(LOCK)
    incoming = books()
    out.taken(incoming.take(promise, UNTIL).answer)
    incoming.prove(1, 4, CHAIN.preimage(4))
    incoming.done(1, 400)
    out.settle(1, 399)
    made = out.promise()
    assert made is not None
    with pytest.raises(BadVoucher, match="settled at 399, not 400"):
        incoming.take(made[1], UNTIL)
    assert incoming.locks[1].worth == 400


@pytest.mark.parametrize(
    "lock",
    [
        Lock(CHAIN.root, 99, 10, 5_000),
        Lock(CHAIN.root, 100, 9, 5_000),
        Lock(CHAIN.root, 100, 10, 4_999),
        Lock(bytes(32), 100, 10, 5_000),
    ],
)
def test_rule_10_a_lock_that_a_hub_made_smaller_is_refused(lock: Lock) -> None:
    """Rule 10: the same root and ticks all the way, and the expiry that was agreed."""
    terms = HopTerms(DOMAIN, CHAIN.root, 10, 5_000)
    check_lock(terms, LOCK, 100)
    with pytest.raises(BadTerms, match="the terms say"):
        check_lock(terms, lock, 100)


def test_rule_12_a_lock_that_the_ledger_would_not_file_is_refused() -> None:
    """Rule 12: expiries are bounded."""
    with pytest.raises(BadVoucher, match="an expiry not after"):
        books().take(promised(Lock(CHAIN.root, 100, 10, UNTIL + 1))[1], UNTIL)
