"""A peer that cheats where the flow may turn round: clocks that lie, and a receipt that asks for too much."""

from __future__ import annotations

import msgspec
import pytest

from penstock.core.effects import ShutValve
from penstock.core.messages import Message, Metered, Reason, Square, Way
from penstock.core.meter import Reading
from penstock.core.offer import Feed
from penstock.core.session import Role
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Amount, Instant, Quantity

from .both_ways import START, Both, Streams, feed_terms

HOUR = 3_600_000


def set_clock(monkeypatch: pytest.MonkeyPatch, both: Both, by: int) -> None:
    """The supplier's clock is `by` ms ahead of the consumer's from now on; it stands still where it would go back."""
    pole = both.supplier

    def read(now: Instant) -> Reading:
        return Reading(Quantity(pole.total), Instant(max(START, now + by)), b"", Quantity(pole.export))

    monkeypatch.setattr(pole, "read", read)


def drip(both: Both) -> None:
    """A hundred seconds in which one unit flows a second."""
    for _ in range(100):
        both.wait(1_000, most=0)
        both.flow(1)


@pytest.mark.parametrize(
    ("steps", "by"), [(((0, 400_000), (HOUR, 900_000)), HOUR), (((0, 900_000), (3_000, 400_000)), -HOUR)]
)
def test_a_supplier_cannot_bill_by_the_price_of_another_hour(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[tuple[int, int], ...], by: int
) -> None:
    rail = Streams()
    tariff = Tariff(1_000, tuple(Step(Instant(START + at), price) for at, price in steps))
    both = Both(rail, feed_terms(rail, tariff=tariff, credit_limit=3_000))
    both.thief = Role.SUPPLIER
    set_clock(monkeypatch, both, by)
    drip(both)
    session = both.consumer.session
    assert session.reason is Reason.PEER_CHEATED, (session.reason, session.bill.price)
    assert "clock" in session.fault


def test_a_clock_that_is_a_minute_wrong_is_no_cheat(monkeypatch: pytest.MonkeyPatch) -> None:
    rail = Streams()
    tariff = Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(START + 20_000), 900_000)))
    both = Both(rail, feed_terms(rail, tariff=tariff, credit_limit=3_000))
    both.thief = Role.SUPPLIER
    set_clock(monkeypatch, both, 50_000)
    drip(both)
    assert both.consumer.session.reason is None


def test_a_receipt_that_asks_for_more_than_the_supplier_has_is_refused_and_changes_nothing() -> None:
    rail = Streams(stake=3_000)
    feed = Feed(Tariff.flat(500_000, 1_000), 800, 3, 2_400, 1_000)
    both = Both(rail, feed_terms(rail, feed=feed))
    both.thief = Role.CONSUMER
    both.worst = {Role.SUPPLIER: 0, Role.CONSUMER: 0}
    both.direct(both.consumer, Way.FEED)
    both.wait(2_000, most=2)
    for side in both.sides:  # the car pushes on, whatever the pole allows
        side.export += 100
        both.run(side, side.session.on_reading(side.read(both.now), both.now))

    def greedy(message: Message) -> Message:
        if not isinstance(message, Square):
            return message
        account, receipt = both.supplier.session.account, message.receipt
        back = receipt.paid - account.net(*both.supplier.flowed)
        receipt = msgspec.structs.replace(receipt, repaid=Amount(back), unpaid=Amount(0))
        return Square(receipt, both.consumer.key.sign(receipt.digest()), message.evidence)

    both.cut = greedy
    both.run(both.consumer, both.consumer.session.stop(Reason.OPERATOR, both.now))
    both.wait(3_000, most=0)
    assert both.supplier.errors, "it was refused"
    assert "more than" in str(both.supplier.errors[-1])
    assert not both.supplier.row.supplier_signature
    both.cut = lambda message: message
    both.heal()
    assert both.over
    assert both.supplier.secured() >= 0


def test_a_supplier_that_turns_with_every_message_does_not_wear_the_consumers_valve() -> None:
    both = Both(Streams())
    both.thief = Role.SUPPLIER
    car, session = both.consumer, both.consumer.session
    both.trickle(10)
    shut = 0
    for turn in range(200):
        both.now = Instant(both.now + 10)
        total, export = both.supplier.flowed
        way = Way.FEED if turn % 2 else Way.SUPPLY
        said = Metered(Quantity(total), both.now, Amount(0), b"", b"", Quantity(export), way)
        effects = session.on_message(said, both.now)
        shut += any(isinstance(effect, ShutValve) for effect in effects)
        both.run(car, effects)
    assert session.reason is Reason.PEER_CHEATED
    assert shut <= 12, f"the valve moved {shut} times in two seconds"


def test_a_supplier_cannot_turn_its_bill_early_while_the_link_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    rail = Streams()
    tariff = Tariff(1_000, (Step(Instant(0), 400_000), Step(Instant(START + HOUR), 900_000)))
    both = Both(rail, feed_terms(rail, tariff=tariff, credit_limit=3_000))
    both.thief = Role.SUPPLIER
    both.trickle(10)
    both.lose_link()
    set_clock(monkeypatch, both, HOUR)
    both.relink()
    both.wait(2_000, most=1)
    assert both.consumer.session.bill.turns == ()
    assert both.consumer.errors
