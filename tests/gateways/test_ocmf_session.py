"""Whole sessions over readings that the supplier's meter signs: honest ones end as ever, and no others are paid."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.core.pair import START, Pair, make_offer, make_terms

from penstock.core.messages import Final, Message, Metered, Reason
from penstock.core.meter import Reading
from penstock.core.session import State
from penstock.core.units import Instant, Quantity
from penstock.gateways.ocmf import OcmfSeal
from penstock.sim.signing_meter import OcmfSigner

QUANTITY = 500


class Signed:
    """A pair whose supplier's meter signs each of its readings, with a seal at the consumer."""

    def __init__(self) -> None:
        self.signer = OcmfSigner(4711)
        self.pair = Pair(make_terms(make_offer(meter=str(self.signer.key))), begin=False)
        supplier = self.pair.supplier
        begin = self._sign(Reading(Quantity(supplier.base), START))
        true = supplier.read
        supplier.read = lambda now: self._sign(true(now))  # type: ignore[method-assign]  # the device signs what it reads
        self.pair.consumer.session.seal = seal = OcmfSeal.named(self.pair.terms.offer.meter)
        seal.check(begin.record, Quantity(0), START)  # what the supplier's acceptance brings
        supplier.session.on_reading(begin, START)

    def _sign(self, reading: Reading) -> Reading:
        return msgspec.structs.replace(reading, record=self.signer.fiscal(reading).encode())

    def run(self) -> Pair:
        """Begin, and stream to the end."""
        for side in self.pair.sides:
            self.pair.run(side, side.session.begin(START))
        self.pair.stream()
        self.pair.heal(60_000)
        return self.pair


def test_a_session_over_signed_readings_ends_with_the_bill_of_the_meter() -> None:
    pair = Signed().run()
    assert pair.over
    receipt = pair.consumer.session.receipt
    assert receipt is not None
    assert receipt == pair.supplier.session.receipt
    assert (pair.consumer.session.reason, receipt.paid) == (Reason.TARGET_REACHED, QUANTITY * 400)
    announced = [one for one in pair.supplier.sent if isinstance(one, (Metered, Final))]
    assert len(announced) > 100
    assert all(one.record for one in announced)


def test_a_lost_link_and_a_repeated_record_change_nothing() -> None:
    signed = Signed()
    pair = signed.pair
    for side in pair.sides:
        pair.run(side, side.session.begin(START))
    for _ in range(3):
        pair.stream(40)
        pair.lose_link()
        pair.relink()
    pair.stream()
    pair.heal(60_000)
    receipt = pair.consumer.session.receipt
    assert pair.over
    assert receipt is not None
    assert receipt.paid == QUANTITY * 400


Lie = Callable[[Message], Message]


def more(message: Message) -> Message:
    """One Wh on top of what the meter signed; well within what two meters may differ by."""
    if isinstance(message, (Metered, Final)) and message.total > 100:
        return msgspec.structs.replace(message, total=Quantity(message.total + 1))
    return message


def unsigned(message: Message) -> Message:
    if isinstance(message, Metered) and message.total > 100:
        return msgspec.structs.replace(message, record=b"")
    return message


def later(message: Message) -> Message:
    """At a time at which another price may hold."""
    if isinstance(message, Metered) and message.total > 100:
        return msgspec.structs.replace(message, at=Instant(message.at + 1))
    return message


def forged(message: Message) -> Message:
    if isinstance(message, Metered) and message.total > 100:
        return msgspec.structs.replace(message, record=message.record.replace(b'"RV":"1.', b'"RV":"2.'))
    return message


@pytest.mark.parametrize("lie", [more, unsigned, later, forged])
def test_a_reading_that_the_meter_did_not_sign_ends_the_session(lie: Lie) -> None:
    signed = Signed()
    signed.pair.cut = lambda message: lie(message)
    pair = signed.run()
    session = pair.consumer.session
    assert session.fault
    assert session.reason is Reason.PEER_CHEATED
    assert 0 < session.control.given <= 110 * 400 + pair.terms.offer.credit_limit


def test_a_reading_of_before_ends_the_session() -> None:
    """A genuine record of a higher total from another day would be as good, if pages did not count."""
    signed, first = Signed(), list[Metered]()

    def replay(message: Message) -> Message:
        if isinstance(message, Metered):
            first.append(message)
            return first[0] if len(first) > 20 else message
        return message

    signed.pair.cut = replay
    pair = signed.run()
    assert pair.consumer.session.reason is Reason.PEER_CHEATED
    assert "replayed or reordered" in pair.consumer.session.fault
    assert pair.supplier.session.state is not State.STREAMING
