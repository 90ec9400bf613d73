"""Rules of a channel that carries hop locks: what its payee takes of a payer that signs whatever it likes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.core.channel import Lock, Voucher
from penstock.core.errors import BadMessage, BadSignature, BadVoucher
from penstock.core.hops import NO_VOUCHER, Incoming, InRow, Outgoing, OutRow, Place
from penstock.core.messages import Add, Ask, Change, Hop, Promise, Settle, Taken
from penstock.core.ticks import TickChain

from ..core.pair import CONSUMER, PARAMS, STRANGER, SUPPLIER

TICK, TICKS, DEPOSIT, EXPIRY = 10, 100, 5_000, 9_000
CHAIN = TickChain(b"\x01" * 32, TICKS)
LOCK = Lock(CHAIN.root, TICK, TICKS, EXPIRY)


def payee() -> Incoming:
    return Incoming(PARAMS, DEPOSIT, SUPPLIER, InRow(NO_VOUCHER), {})


def promise(before: Incoming, changes: Sequence[Change], amount: int, locks: Sequence[Lock]) -> Promise:
    """What a thief signs as it likes."""
    voucher = Voucher.over(before.row.voucher.nonce + 1, amount, locks)
    return Promise(PARAMS.id, voucher, CONSUMER.sign(voucher.digest(PARAMS)), tuple(changes))


def locked() -> Incoming:
    """A payee that holds one lock, in place."""
    made = payee()
    made.take(promise(made, [Add(1, LOCK, 0, ())], 0, [LOCK]), EXPIRY)
    made.place(1)
    return made


@pytest.mark.parametrize("ticks", [401, 500, 501])
def test_rule_7_no_lock_is_taken_beyond_the_deposit(ticks: int) -> None:
    """Rule 7: the contract pays what was put in, and no more; what is promised for good counts with what is locked."""
    made, more = locked(), Lock(b"\x02" * 32, TICK, ticks, EXPIRY)
    with pytest.raises(BadVoucher, match="more than the channel's deposit"):
        made.take(promise(made, [Add(2, more, 0, ())], 0, [LOCK, more]), EXPIRY)
    assert list(made.locks) == [1]
    fits = Lock(b"\x02" * 32, TICK, 400, EXPIRY)
    made.take(promise(made, [Add(2, fits, 0, ())], 0, [LOCK, fits]), EXPIRY)
    with pytest.raises(BadVoucher, match="more than the channel's deposit"):
        made.take(promise(made, [Ask(2, 0, b"", 1)], 1, [LOCK, fits]), EXPIRY)


def test_rule_8_a_lock_is_not_settled_below_what_its_payee_said() -> None:
    """Rule 8: a lock is there until it is used up, expired or released. Before its payee is done it stays, and then it
    goes at what its payee said.
    """
    made = locked()
    for total in (0, 70, LOCK.value - 1, LOCK.value):
        with pytest.raises(BadVoucher, match="before its payee was done"):
            made.take(promise(made, [Settle(1, total)], total, []), EXPIRY)
    made.prove(1, 7, CHAIN.preimage(7))
    made.done(1, 70)
    for total in (0, 69, LOCK.value + 1):
        with pytest.raises(BadVoucher, match="settled at"):
            made.take(promise(made, [Settle(1, total)], total, []), EXPIRY)
    made.take(promise(made, [Settle(1, 70)], 70, []), EXPIRY)
    assert (made.row.voucher.amount, made.locks) == (70, {})


def test_rule_9_a_promise_is_answered_for_by_a_release_of_all_before() -> None:
    """Rule 9: the payer counts a lock as gone only with its payee's own signature; another's changes nothing."""
    out, made = Outgoing(PARAMS, DEPOSIT, CONSUMER, OutRow(NO_VOUCHER), {}), payee()
    out.add(LOCK, 0, (), Place(b"\x09" * 32, 4))
    first = out.promise()
    assert first is not None
    out.taken(made.take(first[1], EXPIRY).answer)
    out.settle(1, 0)
    second = out.promise()
    assert second is not None
    assert out.all, "the payee can still claim it"
    made.done(1, 0)
    answer = made.take(second[1], EXPIRY).answer
    forged = STRANGER.sign(b"\x00" * 32)
    for bad in (Taken(PARAMS.id, answer.nonce, forged), Taken(PARAMS.id, 7, answer.release)):
        with pytest.raises((BadSignature, BadMessage)):
            out.taken(bad)
        assert out.all
    out.taken(answer)
    assert not out.all


def test_rule_13_sums_of_a_promise_are_the_payees_own() -> None:
    """Rule 13: what a voucher locks and pays is recomputed from what it is said to change."""
    made = payee()
    for amount, locks in ((1, [LOCK]), (0, []), (0, [LOCK, LOCK]), (0, [Lock(LOCK.root, TICK, TICKS - 1, EXPIRY)])):
        with pytest.raises(BadVoucher, match="do not follow"):
            made.take(promise(made, [Add(1, LOCK, 0, ())], amount, locks), EXPIRY)
    assert made.row.voucher == NO_VOUCHER


def test_rule_7_no_promise_goes_onward_that_would_be_refused_there() -> None:
    """Rule 7: what was promised can never be withdrawn: it would jam the channel onward for good."""
    made, way = payee(), (Hop(STRANGER.address, TICK - 1, EXPIRY, 0), Hop(SUPPLIER.address, TICK - 3, EXPIRY, 0))
    made.take(promise(made, [Add(1, LOCK, 0, way)], 0, [LOCK]), EXPIRY)
    for rest, preimage in ((TICK - 3, b""), (TICK - 1, b""), (0, b"x" * 31), (0, b"x" * 9_999)):
        with pytest.raises(BadVoucher, match="less than a tick and a preimage"):
            made.take(promise(made, [Ask(1, 0, preimage, rest)], rest, [LOCK]), EXPIRY)
    made.take(promise(made, [Ask(1, 0, b"", TICK - 4)], TICK - 4, [LOCK]), EXPIRY)
