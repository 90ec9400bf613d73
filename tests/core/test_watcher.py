"""What a watcher does next, for every state of the ledger that matters."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from penstock.core.channel import ChannelParams, Domain, Lock, Voucher
from penstock.core.errors import BadSignature, BadVoucher, OutOfRange
from penstock.core.identity import Address, Key
from penstock.core.ports import ChannelState, Filed, Filing
from penstock.core.units import Amount
from penstock.core.watcher import Act, Evidence, at_risk, next_act, worth

PAYER, PAYEE, THIEF = (Key(bytes([number]) * 32) for number in (1, 2, 3))
DOMAIN = Domain(31_337, Address(b"c" * 20), Address(b"t" * 20))
PARAMS = ChannelParams(DOMAIN, PAYER.address, PAYEE.address, PAYER.address, PAYEE.address, 3_600, False, 7)
SEED = b"s" * 32
NOW, CLOSES = 1_000, 4_600


def chain(count: int) -> bytes:
    link = SEED
    for _ in range(count):
        link = sha256(link).digest()
    return link


LOCK = Lock(chain(10), 5, 10)


def evidence(amount: int = 100, ticks: int = 0, locked: bool = True, nonce: int = 3, lock: Lock = LOCK) -> Evidence:
    locks = (lock,) if locked else ()
    voucher = Voucher.over(nonce, amount, locks)
    proofs = ((ticks, chain(10 - ticks)),) if locked else ()
    filing = Filing(voucher, PAYER.sign(voucher.digest(PARAMS)), locks, proofs)
    return Evidence(PARAMS, True, filing)


def entrusted(one: Evidence) -> Evidence:
    return msgspec.structs.replace(one, consent=PAYEE.sign(one.answer.digest(PARAMS)))


HOP = Lock(chain(10), 5, 10, 9_000)
CLOSED_AFTER_A_CLAIM = ChannelState("closing", Amount(1_000), Amount(0), CLOSES, partner_drawn=Amount(60))
CLOSING = ChannelState("closing", Amount(1_000), Amount(0), CLOSES)


def filed(one: Evidence | None, ticks: int = 0, by_payee: bool = False) -> Filed:
    if one is None:
        return Filed(CLOSING)
    voucher = one.filing.voucher
    amount, locked = voucher.amount + 5 * ticks, voucher.locked - 5 * ticks if voucher.locked else 0
    return Filed(CLOSING, True, by_payee, Amount(amount), Amount(locked), 0, voucher.locks_root)


OLD = evidence(amount=40, nonce=1, locked=False)


@pytest.mark.parametrize(
    ("shown", "state", "stands", "now", "act"),
    [
        (evidence(), ChannelState("open"), None, NOW, Act.REST),
        (evidence(), ChannelState("absent"), None, NOW, Act.REST),
        (evidence(), ChannelState("settled"), None, NOW, Act.END),
        (evidence(), CLOSING, filed(None), NOW, Act.FILE),
        (evidence(), CLOSING, filed(None), CLOSES - 1, Act.FILE),
        (evidence(), CLOSING, filed(None), CLOSES, Act.REST),  # too late: what is paid out is the payer's
        (evidence(), CLOSING, filed(OLD), CLOSES, Act.SETTLE),
        (evidence(), CLOSED_AFTER_A_CLAIM, filed(OLD), CLOSES, Act.REST),
        (None, CLOSING, filed(None), NOW, Act.REST),
        (None, CLOSING, filed(None), CLOSES, Act.REST),
        (evidence(), CLOSING, filed(OLD), NOW, Act.FILE),
        (evidence(), CLOSING, filed(evidence()), NOW, Act.REST),
        (evidence(ticks=4), CLOSING, filed(evidence()), NOW, Act.PROVE),
        (evidence(ticks=4), CLOSING, filed(evidence(), ticks=4), NOW, Act.REST),
        (evidence(ticks=4), CLOSING, filed(evidence(), ticks=6), NOW, Act.REST),
        (evidence(amount=0), CLOSING, filed(None), NOW, Act.REST),  # only the payer could prove its lock
        (evidence(amount=0, lock=HOP), CLOSING, filed(None), NOW, Act.FILE),  # a third party could
        (evidence(amount=0, lock=HOP), CLOSING, filed(evidence(amount=0, lock=HOP)), NOW, Act.REST),
        (evidence(amount=40, locked=False), CLOSED_AFTER_A_CLAIM, filed(None), NOW, Act.REST),
        (evidence(amount=0, locked=False), CLOSING, filed(None), NOW, Act.REST),
        (evidence(locked=False), CLOSING, filed(evidence(locked=False)), NOW, Act.REST),
        (evidence(locked=False), CLOSING, filed(evidence(amount=120)), NOW, Act.REST),
        (entrusted(evidence()), CLOSING, filed(OLD), NOW, Act.FILE),
        (entrusted(evidence()), CLOSING, filed(OLD, by_payee=True), NOW, Act.REST),
        (entrusted(evidence(ticks=4)), CLOSING, filed(evidence(), by_payee=True), NOW, Act.PROVE),
    ],
)
def test_the_next_act(shown: Evidence | None, state: ChannelState, stands: Filed | None, now: int, act: Act) -> None:
    assert next_act(shown, state, stands, now) is act


def test_what_is_at_risk_is_what_nobody_has_filed_yet() -> None:
    held = evidence(ticks=4)
    assert worth(held.filing) == 120
    assert at_risk(held, ChannelState("open"), None) == 120
    assert at_risk(held, ChannelState("open", partner_drawn=Amount(30)), None) == 90
    assert at_risk(held, CLOSING, filed(None)) == 120
    assert at_risk(held, CLOSING, filed(OLD)) == 80
    assert at_risk(held, CLOSING, filed(evidence(), ticks=4)) == 0
    assert at_risk(held, ChannelState("settled"), None) == 0
    assert at_risk(None, ChannelState("open"), None) == 0


def test_no_more_is_at_risk_in_a_two_way_channel_than_was_put_in() -> None:
    held = evidence(ticks=4)
    both = msgspec.structs.replace(held, params=msgspec.structs.replace(PARAMS, two_way=True), partner=False)
    state = ChannelState("open", opener_deposit=Amount(70), partner_deposit=Amount(20), opener_drawn=Amount(40))
    assert at_risk(both, state, None) == 80, "what the opener has drawn is safe"
    assert at_risk(both, msgspec.structs.replace(state, opener_drawn=Amount(0)), None) == 90


def test_good_evidence_passes() -> None:
    evidence(ticks=4).check()
    entrusted(evidence(ticks=10)).check()


def test_a_newer_voucher_is_better_and_then_more_ticks() -> None:
    assert evidence(nonce=4).rank > evidence(ticks=9).rank > evidence(ticks=4).rank


def test_evidence_that_the_contract_would_not_take_is_refused() -> None:
    good = entrusted(evidence(ticks=4))
    change = msgspec.structs.replace
    other = evidence(amount=101).filing
    for wrong, error in (
        (
            change(good, filing=change(good.filing, signature=THIEF.sign(good.filing.voucher.digest(PARAMS)))),
            BadSignature,
        ),
        (change(good, filing=change(good.filing, voucher=other.voucher)), BadSignature),
        (change(good, consent=THIEF.sign(good.answer.digest(PARAMS))), BadSignature),
        (change(good, consent=good.filing.signature), BadSignature),
        (change(good, filing=change(good.filing, locks=())), BadVoucher),
        (change(good, filing=change(good.filing, proofs=((5, chain(6)),))), BadVoucher),
        (change(good, filing=change(good.filing, proofs=((11, chain(0)),))), BadVoucher),
        (change(good, filing=change(good.filing, proofs=((-1, chain(0)),))), BadVoucher),
        (change(good, filing=change(good.filing, proofs=good.filing.proofs * 2)), BadVoucher),
        (change(good, partner=False), BadVoucher),
        (change(good, filing=change(good.filing, voucher=change(good.filing.voucher, amount=-1))), BadVoucher),
        (change(good, filing=change(good.filing, voucher=change(good.filing.voucher, nonce=2**64))), BadVoucher),
        (change(good, filing=change(good.filing, locks=(Lock(chain(10), 5, 10**15),))), BadVoucher),
        (change(good, filing=change(good.filing, proofs=((4, chain(6) + b"x"),))), BadVoucher),
        (change(good, params=change(PARAMS, domain=change(DOMAIN, chain_id=-1))), OutOfRange),
    ):
        with pytest.raises(error):
            wrong.check()
