"""Rules and mistakes of the core and of the stream rail, where no test of one function shows them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.core import rail
from penstock.core.channel import MAX_LOCKS, Lock, Voucher, locks_root
from penstock.core.codec import decode_part, encode
from penstock.core.errors import BadSignature, BadVoucher
from penstock.core.identity import Key, check_signed, keccak
from penstock.core.messages import Paid, Reason
from penstock.core.ports import ChannelState, Filed, Filing
from penstock.core.units import Amount
from penstock.core.watcher import Act, Evidence, next_act
from penstock.rails.stream import MAX_WALK, StreamPayee, StreamPayer, StreamTerms, VoucherNote

from ..core.pair import CONSUMER, PARAMS, SECRET, STRANGER, SUPPLIER, Pair, make_offer, make_terms

TICK, DEPOSIT = 10, 100_000


def _note(voucher: Voucher, locks: tuple[Lock, ...] = (), key: Key = CONSUMER, params: Any = PARAMS) -> bytes:
    """A voucher as evidence, signed by the payer."""
    return b"\x02" + encode(VoucherNote(voucher, key.sign(voucher.digest(params)), locks))


def _ends(deposit: int = DEPOSIT) -> tuple[StreamPayer, StreamPayee]:
    """Both ends of a session over a channel with this deposit, its first chain given."""
    terms = StreamTerms(PARAMS, 0, 0, TICK)
    payer, payee = StreamPayer(terms, deposit, CONSUMER, SECRET), StreamPayee(terms, deposit)
    payee.take(payer.open().data)
    return payer, payee


def _give(payee: StreamPayee, evidence: list[rail.Evidence]) -> None:
    for one in evidence:
        payee.take(one.data)


def test_rule_4_vouchers_are_taken_from_the_key_fixed_at_opening_alone() -> None:
    """Rule 4: a voucher that the payer's account signs is none where the channel names another key."""
    params = msgspec.structs.replace(PARAMS, opener_key=STRANGER.address)
    payee, voucher = StreamPayee(StreamTerms(params, 0, 0, TICK), DEPOSIT), Voucher.over(1, 50)
    with pytest.raises(BadSignature, match="not by"):
        payee.take(_note(voucher, key=CONSUMER, params=params))
    payee.take(_note(voucher, key=STRANGER, params=params))
    assert payee.secured == 50


def test_rule_7_nothing_is_taken_that_the_deposit_does_not_cover_with_every_tick() -> None:
    """Rule 7: a voucher is taken only if the contract would pay it in full, its locks to the last tick included."""
    lock = Lock(b"\x11" * 32, TICK, 100)
    for amount, taken in ((DEPOSIT - 1_000, True), (DEPOSIT - 999, False)):
        _, payee = _ends()
        evidence = _note(Voucher.over(2, amount, (lock,)), (lock,))
        if taken:
            payee.take(evidence)
            assert payee.secured == amount
        else:
            with pytest.raises(BadVoucher, match="more than the channel's deposit"):
                payee.take(evidence)
            assert payee.secured == 0


def test_rule_8_a_lock_holds_its_share_of_the_deposit_until_it_is_used_up() -> None:
    """Rule 8: what is locked and not yet claimed is promised already; a payer never promises it a second time."""
    payer, payee = _ends(deposit := 3 * MAX_WALK * TICK // 2)
    for upto in (500 * TICK, MAX_WALK * TICK, (MAX_WALK + 600) * TICK, 10 * deposit):
        for one in payer.pay(upto):
            payee.take(one.data)
            if one.data[:1] == b"\x02":
                voucher = decode_part(one.data[1:], VoucherNote).voucher
                assert voucher.amount + voucher.locked <= deposit
                assert voucher.amount == payee.secured, "ticks of the lock before it are amount now, and locked no more"
    assert payee.secured == deposit - deposit % TICK


def test_rule_10_a_session_takes_no_lock_that_expires() -> None:
    """Rule 10: a lock with an expiry belongs to a route, which this side has not agreed to."""
    payer, payee = _ends()
    hop = Lock(b"\x11" * 32, TICK, 5, 2**33)
    with pytest.raises(BadVoucher, match="never expire"):
        payee.take(_note(Voucher.over(2, 0, (hop,)), (hop,)))
    _give(payee, payer.pay(50))
    assert payee.secured == 50


def test_rule_11_a_voucher_with_open_locks_is_filed_before_any_tick_is_known() -> None:
    """Rule 11: vouchers with open locks are filed in every challenge; whoever learns a tick later can prove it then."""
    lock = Lock(b"\x11" * 32, TICK, 100, expiry=2_000)
    closing = ChannelState("closing", Amount(DEPOSIT), closes_at=1_000)
    for locks, act in (((lock,), Act.FILE), ((), Act.REST)):
        voucher = Voucher.over(1, 0, locks)
        proofs = tuple((0, b"") for _ in locks)
        shown = Evidence(PARAMS, True, Filing(voucher, CONSUMER.sign(voucher.digest(PARAMS)), locks, proofs))
        assert next_act(shown, closing, Filed(closing), now=999) is act


def test_rule_12_a_tree_holds_no_more_locks_than_the_contract_can_walk() -> None:
    """Rule 12: the number of locks under a voucher is bounded."""
    lock = Lock(b"\x11" * 32, 1, 1)
    assert len(locks_root([lock] * MAX_LOCKS)) == 32
    with pytest.raises(BadVoucher, match="1025 locks"):
        locks_root([lock] * (MAX_LOCKS + 1))


@pytest.mark.parametrize("field", ["locked", "locked_until", "locks_root"])
def test_rule_13_the_payee_recomputes_all_that_it_will_have_to_prove(field: str) -> None:
    """Rule 13: a voucher whose sums or tree do not follow from the locks shown with it is refused, signed or not."""
    lock = Lock(b"\x11" * 32, TICK, 100)
    voucher = Voucher.over(2, 0, (lock,))
    false: dict[str, Any] = {"locked": voucher.locked + TICK, "locked_until": 1, "locks_root": b"\x22" * 32}
    _, payee = _ends()
    with pytest.raises(BadVoucher, match="do not follow"):
        payee.take(_note(msgspec.structs.replace(voucher, **{field: false[field]}), (lock,)))
    payee.take(_note(voucher, (lock,)))


def test_rule_14_no_two_chains_of_a_payer_have_a_seed_in_common() -> None:
    """Rule 14: a payer that crashed again and again, and forgot what it revealed, never uses a seed twice."""
    roots: dict[int, bytes] = {}  # of whole chains, by the voucher that brought them in
    payer, payee = _ends()
    for upto in range(0, DEPOSIT, MAX_WALK * TICK // 4):
        _give(payee, payer.pay(upto))
        payer = StreamPayer(StreamTerms(PARAMS, 0, 0, TICK), DEPOSIT, CONSUMER, SECRET, payer._row)
        _give(payee, payer.resume(payee.state()))
        assert payer.paid == payee.secured
        assert payer._chain is not None
        assert roots.setdefault(payer._row.chain_nonce, payer._chain.root) == payer._chain.root
    assert len(set(roots.values())) == len(roots) == 3


def test_a_session_leaves_no_more_rows_for_more_ticks() -> None:
    """Mistake: restart replayed tens of thousands of state changes for hours. A journal keeps where things stand."""

    def rows_after(quantity: int) -> tuple[int, int, int]:
        pair = Pair(make_terms(make_offer(tick_value=400, package=1), quantity_limit=quantity))
        pair.draws = quantity - 1
        pair.stream()
        assert not pair.over
        sizes = [len(value) for side in pair.sides for value in side.journal.values()]
        return sum(isinstance(message, Paid) for message in pair.consumer.sent), len(sizes), max(sizes)

    few, many = rows_after(20), rows_after(1_500)
    assert many[0] > 10 * few[0], "not enough was paid to tell"
    assert many[1] == few[1]
    assert many[2] < few[2] + 1_000


def test_what_is_only_a_hash_is_no_signature() -> None:
    """Mistake: a "signature" that is only a hash of the text, as a charge point's meter once sent it. In any form."""
    text = b'{"reading": 1234, "unit": "kWh"}'
    digest = PARAMS.digest(keccak(text))
    for fake in (digest, digest + digest + b"\x1b", digest + digest + b"\x1c", digest + bytes(32) + b"\x1b", bytes(65)):
        with pytest.raises(BadSignature):
            check_signed(digest, fake, SUPPLIER.address, "the reading")
    check_signed(digest, SUPPLIER.sign(digest), SUPPLIER.address, "the reading")


def test_a_payment_lost_between_the_processes_is_made_good() -> None:
    """Mistake: a payment lost between two processes left the session unusable after restart. Each is lost once here."""
    pair = Pair(make_terms(quantity_limit=60))
    seen: set[int] = set()

    def cut(message: Any) -> Any:
        if isinstance(message, Paid) and pair.consumer.session.ticks not in seen:
            seen.add(pair.consumer.session.ticks)
            return None
        return message

    pair.cut = cut
    for _ in range(60):
        pair.stream()
        if pair.over:
            break
        if len(seen) % 2:
            pair.lose_link()
        else:
            pair.crash(pair.consumer)
        pair.relink()
    receipt = pair.supplier.row.receipt
    assert receipt is not None
    assert (receipt.reason, receipt.unpaid) == (Reason.TARGET_REACHED, 0)
    assert len(seen) > 5
