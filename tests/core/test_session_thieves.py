"""A thief on either side: whatever it says or leaves out, the other loses no more than its limit, and gets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from penstock.core.channel import Voucher
from penstock.core.codec import encode
from penstock.core.errors import BadMessage, BadSignature, BadTerms, BadVoucher
from penstock.core.messages import Final, Message, Metered, Paid, Reason, Receipted, Resumed, Square, Stop, Way
from penstock.core.offer import Receipt
from penstock.core.session import Role, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails.stream import VoucherNote

from .pair import CONSUMER, PARAMS, START, STRANGER, SUPPLIER, Pair, make_offer, make_terms

MODES = ("pay-after", "pay-before")
Cut = Callable[[Message], Message | None]


def robbed(mode: Any, thief: Role, cut: Cut, warm: int = 12, **changes: Any) -> Pair:
    """A session that goes well for a while, then goes on with a thief until the honest side is out."""
    pair = Pair(make_terms(make_offer(mode=mode, **changes), quantity_limit=100))
    pair.stream(warm)
    pair.thief = thief
    pair.cut = cut
    honest = pair.supplier if thief is Role.CONSUMER else pair.consumer
    for _ in range(400):
        if honest.session.state is State.ENDED:
            break
        if not pair.up:
            pair.relink()
        pair.stream(60)
        pair.wait(1_000, 1_000, stream=False)
    assert honest.session.state is State.ENDED, "the honest side hangs"
    assert honest.row.state is State.ENDED
    assert not pair.supplier.open
    assert pair.supplier.payee_in_journal().secured == pair.supplier.session.paid
    return pair


# ---- a thieving consumer


def _drop(kind: type) -> Cut:
    return lambda message: None if isinstance(message, kind) else message


def _late() -> Cut:
    held: list[Message] = []

    def cut(message: Message) -> Message | None:
        if not isinstance(message, Paid):
            return message
        held.append(message)
        return held[-3] if len(held) > 2 else None

    return cut


def _replay() -> Cut:
    first: list[Message] = []

    def cut(message: Message) -> Message | None:
        if not isinstance(message, Paid):
            return message
        first.append(message)
        return first[0]

    return cut


def _evidence(*evidence: bytes) -> Cut:
    return lambda message: msgspec.structs.replace(message, evidence=evidence) if isinstance(message, Paid) else message


def _note(amount: int, nonce: int = 9, key: Any = CONSUMER) -> bytes:
    voucher = Voucher.over(nonce, amount)
    return b"\x02" + encode(VoucherNote(voucher, key.sign(voucher.digest(PARAMS)), ()))


def _one_more(message: Message) -> Message:
    if not isinstance(message, Paid):
        return message
    last = message.evidence[-1]
    more = int.from_bytes(last[9:13], "big") + 1
    return msgspec.structs.replace(message, evidence=(last[:9] + more.to_bytes(4, "big") + last[13:],))


def _total(change: Callable[[int], int]) -> Cut:
    return lambda message: (
        msgspec.structs.replace(message, total=Quantity(max(0, change(message.total))))
        if isinstance(message, Paid)
        else message
    )


CONSUMERS: dict[str, tuple[Callable[[], Cut], Reason]] = {
    "stops paying": (lambda: _drop(Paid), Reason.PAYMENT_STALLED),
    "pays late": (_late, Reason.TARGET_REACHED),
    "replays its first payment": (_replay, Reason.PAYMENT_STALLED),
    "sends no evidence": (_evidence, Reason.PAYMENT_STALLED),
    "sends empty evidence": (lambda: _evidence(b""), Reason.PEER_CHEATED),
    "sends rubbish for ticks": (lambda: _evidence(b"\x01" * 45), Reason.PEER_CHEATED),
    "sends rubbish for a voucher": (lambda: _evidence(b"\x02[1,2]"), Reason.PEER_CHEATED),
    "claims a tick that it did not reveal": (lambda: _one_more, Reason.PEER_CHEATED),
    "promises less": (lambda: _evidence(_note(1)), Reason.PEER_CHEATED),
    "promises more than its deposit": (lambda: _evidence(_note(10**9)), Reason.PEER_CHEATED),
    "promises under another key": (lambda: _evidence(_note(50_000, key=STRANGER)), Reason.PEER_CHEATED),
    "reads more than could have flowed": (lambda: _total(lambda total: total + 50), Reason.METERS_DISAGREE),
    "reads nothing": (lambda: _total(lambda total: 0), Reason.TARGET_REACHED),
    "sends its last word twice": (lambda: lambda message: message, Reason.TARGET_REACHED),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", CONSUMERS)
def test_a_consumer_that(mode: Any, how: str) -> None:
    make, reason = CONSUMERS[how]
    pair = robbed(mode, Role.CONSUMER, make())
    assert pair.worst[Role.SUPPLIER] <= pair.limit[Role.SUPPLIER]
    if mode == "pay-before" and how == "pays late":
        assert pair.supplier.row.reason in (Reason.TARGET_REACHED, Reason.PAYMENT_STALLED, Reason.SUPPLY_STALLED)
    elif how in ("stops paying", "sends no evidence", "replays its first payment", "pays late"):
        assert pair.supplier.row.reason in (reason, Reason.SUPPLY_STALLED, Reason.METERS_DISAGREE)
    else:
        assert pair.supplier.row.reason is reason


def test_a_consumer_that_never_squares_pays_what_it_had_revealed() -> None:
    pair = robbed("pay-after", Role.CONSUMER, _drop(Square))
    assert not pair.supplier.session.complete
    assert pair.supplier.session.paid == 40_000 - 40_000 % 1_000
    assert pair.worst[Role.SUPPLIER] <= 2_000


LIES: dict[str, Any] = {
    "terms": bytes(32),
    "supplier_total": 1,
    "consumer_total": -1,
    "paid": 1,
    "unpaid": 7,
    "ticks": 10**6,
    "reason": "because",
    "at": -1,
}


def _squared(pair: Pair, **lies: Any) -> tuple[Square, Receipt]:
    honest = next(m for m in pair.consumer.sent if isinstance(m, Square))
    receipt = msgspec.structs.replace(honest.receipt, **lies)
    return msgspec.structs.replace(honest, receipt=receipt, signature=CONSUMER.sign(receipt.digest())), receipt


def _squaring() -> Pair:
    """A pair whose supplier waits for the exact payment of 40,000, of which 39,000 are secured."""
    pair = Pair(make_terms(make_offer(tariff=Tariff.flat(400_100, 1_000)), quantity_limit=98))
    pair.cut = _drop(Square)
    pair.stream()
    assert pair.supplier.session.state is State.SQUARING
    assert pair.supplier.session.paid == 39_000
    return pair


@pytest.mark.parametrize("field", LIES)
def test_a_receipt_that_lies_is_refused_and_nothing_changes(field: str) -> None:
    pair = _squaring()
    square, _ = _squared(pair, **{field: LIES[field]})
    before = dict(pair.supplier.journal)
    pair.wire.append((pair.supplier, encode(square)))
    try:
        pair.deliver()
    except BadMessage:
        assert field in ("consumer_total", "at"), "refused by the codec"
    else:
        assert isinstance(pair.supplier.errors[-1], (BadMessage, BadVoucher))
    assert pair.supplier.journal == before
    assert pair.supplier.session.state is State.SQUARING


@pytest.mark.parametrize("paid", [0, 38_999, 39_209 - 39_209 % 1_000 - 1])
def test_a_square_that_takes_back_what_was_secured_is_refused(paid: int) -> None:
    pair = _squaring()
    due = pair.supplier.session.bill.due(98)
    square, _ = _squared(pair, paid=paid, unpaid=due - paid)
    square = msgspec.structs.replace(square, evidence=_note(paid, nonce=99))
    pair.wire.append((pair.supplier, encode(square)))
    pair.deliver()
    assert isinstance(pair.supplier.errors[-1], BadVoucher)
    assert pair.supplier.payee_in_journal().secured == 39_000


def test_a_square_that_leaves_the_last_part_of_a_tick_unpaid_says_so_on_the_receipt() -> None:
    pair = _squaring()
    due = pair.supplier.session.bill.due(98)
    square, receipt = _squared(pair, paid=39_000, unpaid=due - 39_000)
    square = msgspec.structs.replace(square, evidence=_note(39_000, nonce=99))
    pair.run(pair.supplier, pair.supplier.session.on_message(square, pair.now))
    assert pair.supplier.row.receipt == receipt
    assert receipt.unpaid == due - 39_000 <= 2_000


@pytest.mark.parametrize(("evidence", "error"), [
    (b"\x02[]", BadMessage),
    (_note(39_209, nonce=99, key=STRANGER), BadSignature),
    (_note(39_208, nonce=99), BadVoucher),
    (_note(39_210, nonce=99), BadVoucher),
    (_note(39_209, nonce=0), BadVoucher),
])  # fmt: skip
def test_a_square_whose_evidence_is_not_its_receipt_is_refused(evidence: bytes, error: type) -> None:
    pair = _squaring()
    square, receipt = _squared(pair)
    assert receipt.paid == 39_209
    pair.wire.append((pair.supplier, encode(msgspec.structs.replace(square, evidence=evidence))))
    pair.deliver()
    assert isinstance(pair.supplier.errors[-1], error)
    assert pair.supplier.session.paid == 39_000


def test_a_receipt_under_another_key_is_refused() -> None:
    pair = _squaring()
    square, receipt = _squared(pair)
    forged = msgspec.structs.replace(square, signature=STRANGER.sign(receipt.digest()))
    pair.wire.append((pair.supplier, encode(forged)))
    pair.deliver()
    assert isinstance(pair.supplier.errors[-1], BadSignature)
    pair.relink()
    pair.cut = lambda message: message
    pair.stream()
    assert pair.over
    assert pair.consumer.session.complete, "the honest square still serves"


# ---- a thieving supplier


def _metered(change: Callable[[Metered], Message | None]) -> Cut:
    return lambda message: change(message) if isinstance(message, Metered) else message


def _announces(change: Callable[[int], int]) -> Cut:
    return _metered(lambda m: msgspec.structs.replace(m, total=Quantity(max(0, change(m.total)))))


def _falling() -> Cut:
    totals: Iterator[int] = iter([30, 29, 28, *[27] * 1_000])
    return _metered(lambda m: msgspec.structs.replace(m, total=Quantity(min(m.total, next(totals)))))


def _final(**changes: Any) -> Cut:
    """Ends at once, and says something else than its meter does."""

    def cut(message: Message) -> Message | None:
        if isinstance(message, Metered):
            return Final(message.total, message.at, Reason.GRID, b"", b"", Quantity(0))
        return msgspec.structs.replace(message, **changes) if isinstance(message, Final) else message

    return cut


def _final_of(change: Callable[[int], int]) -> Cut:
    return lambda message: (
        msgspec.structs.replace(message, total=Quantity(max(0, change(message.total))))
        if isinstance(message, Final)
        else message
    )


SUPPLIERS: dict[str, tuple[Callable[[], Cut], set[Reason]]] = {
    "says nothing more": (lambda: _drop(Metered), {Reason.SUPPLY_STALLED, Reason.METERS_DISAGREE}),
    "announces falling totals": (_falling, {Reason.PEER_CHEATED}),
    "announces twice what flowed": (lambda: _announces(lambda t: 2 * t), {Reason.METERS_DISAGREE}),
    "announces the largest total there is": (lambda: _announces(lambda t: 2**63 - 1), {Reason.METERS_DISAGREE}),
    "announces a little more than it ends with": (lambda: _announces(lambda t: t + 2), {Reason.METERS_DISAGREE}),
    "ends early": (lambda: _final(), {Reason.GRID}),
    "ends with more than flowed": (lambda: _final_of(lambda t: t + 50), {Reason.METERS_DISAGREE}),
    "ends with less than it announced": (lambda: _final_of(lambda t: t - 30), {Reason.METERS_DISAGREE}),
    "never ends": (lambda: _drop(Final), {Reason.TARGET_REACHED}),
    "never signs": (lambda: _drop(Receipted), {Reason.TARGET_REACHED}),
    "signs something else": (
        lambda: lambda m: Receipted(SUPPLIER.sign(PARAMS.digest(b"")), b"") if isinstance(m, Receipted) else m,
        {Reason.TARGET_REACHED},
    ),
    "stops for no reason": (
        lambda: lambda m: Stop(Reason.PEER_CHEATED) if isinstance(m, Metered) else m,
        {Reason.PEER_CHEATED},
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", SUPPLIERS)
def test_a_supplier_that(mode: Any, how: str) -> None:
    make, reasons = SUPPLIERS[how]
    pair = robbed(mode, Role.SUPPLIER, make())
    assert pair.consumer.row.reason in reasons
    assert pair.worst[Role.CONSUMER] <= pair.limit[Role.CONSUMER] + pair.slack(Role.CONSUMER)


def test_a_supplier_that_takes_payment_and_supplies_nothing_gets_the_first_package_alone() -> None:
    pair = Pair(make_terms(make_offer(mode="pay-before", credit_limit=50_000)))
    pair.thief = Role.SUPPLIER
    pair.draws = 0
    pair.wait(15_000)
    assert pair.consumer.session.state is State.ENDED
    assert pair.revealed <= make_offer().first_trust


def test_a_supplier_that_supplies_and_announces_less_is_not_overpaid() -> None:
    pair = robbed("pay-after", Role.SUPPLIER, _announces(lambda t: t // 2))
    assert pair.revealed <= pair.supplier.session.bill.due(pair.consumer.flowed)


@pytest.mark.parametrize(
    ("turns", "at"),
    [
        ((10**18,), START + 5_000),  # beyond its own total: makes a fall of the price a rise of the bill
        ((0,), START + 5_000),  # before what it had announced
        ((15,), START),  # before the step's time
        ((15, 15), START + 5_000),  # more turns than the tariff has steps
    ],
)
def test_a_supplier_that_invents_turns_at_resumption_is_refused(turns: tuple[Any, ...], at: int) -> None:
    tariff = Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(START + 4_000), 100_000)))
    pair = Pair(make_terms(make_offer(tariff=tariff)))
    pair.stream(12)
    assert pair.consumer.session.claimed == 15
    pair.thief = Role.SUPPLIER
    pair.lose_link()
    pair.relink()
    pair.cut = lambda m: (
        Resumed(Quantity(15), Instant(at), turns, m.state, b"", b"", Quantity(0), (), Way.SUPPLY)
        if isinstance(m, Resumed)
        else m
    )
    paid = pair.consumer.session.paid
    pair.stream()
    assert isinstance(pair.consumer.errors[-1], BadTerms)
    assert pair.consumer.session.bill.turns == ()
    assert pair.consumer.session.paid == paid


@pytest.mark.parametrize("count", [1, 5, 4096, 2**16 - 1])
def test_a_supplier_that_claims_ticks_at_resumption_must_prove_them(count: int) -> None:
    pair = Pair()
    pair.stream(12)
    pair.crash(pair.consumer)
    pair.thief = Role.SUPPLIER

    def cut(message: Message) -> Message | None:
        if not isinstance(message, Resumed):
            return message
        forged = message.state[:9] + count.to_bytes(4, "big") + bytes(32)
        return msgspec.structs.replace(message, state=forged)

    pair.cut = cut
    pair.relink()
    pair.stream()
    assert isinstance(pair.consumer.errors[-1], BadMessage)
    pair.cut = lambda message: message
    pair.relink()
    pair.stream()
    assert pair.over


def test_a_supplier_that_denies_what_it_was_paid_is_shown_the_same_preimages_again() -> None:
    pair = Pair()
    pair.stream(20)
    revealed = pair.revealed
    pair.crash(pair.consumer)
    pair.thief = Role.SUPPLIER
    pair.cut = lambda m: msgspec.structs.replace(m, state=m.state[:9] + bytes(36)) if isinstance(m, Resumed) else m
    pair.relink()
    pair.stream(2)
    assert pair.revealed == revealed
    pair.cut = lambda message: message
    pair.stream()
    assert pair.over
    assert pair.consumer.session.complete
