"""The flow of a session turns round: charge, discharge, charge, over two directions of payment."""

from __future__ import annotations

import pytest

from penstock.core.errors import Unbacked
from penstock.core.messages import Paid, Reason, Resume, Way
from penstock.core.session import Role, State
from penstock.core.tariff import Tariff
from penstock.core.units import Instant, Quantity
from penstock.rails.stream import StreamPayee, StreamPayer

from .both_ways import Both, Streams, feed_terms


def ended_exactly(both: Both) -> None:
    assert both.over, [(s.session.state, s.errors, s.session.fault) for s in both.sides]
    pole, car = both.supplier.row, both.consumer.row
    receipt = pole.receipt
    assert receipt == car.receipt
    assert receipt is not None
    account = both.supplier.session.account
    net = account.net(receipt.supplier_total, receipt.supplier_export)
    assert receipt.paid - receipt.repaid == net
    assert both.supplier.secured() == receipt.paid
    assert both.consumer.secured() == receipt.repaid
    assert receipt.unpaid == 0
    assert pole.supplier_signature
    assert car.supplier_signature


def test_a_flow_that_turns_twice_is_paid_to_the_unit() -> None:
    both = Both(Streams())
    both.trickle(100)
    both.direct(both.consumer, Way.FEED)
    both.wait(1_000, most=0)
    both.trickle(60)
    both.direct(both.consumer, Way.SUPPLY)
    both.wait(1_000, most=0)
    both.trickle(51)
    assert both.supplier.flowed == both.consumer.flowed == (151, 60)
    both.run(both.consumer, both.consumer.session.stop(Reason.OPERATOR, both.now))
    both.wait(5_000)
    ended_exactly(both)
    assert both.worst[Role.SUPPLIER] > 0 < both.worst[Role.CONSUMER]


def test_a_flow_that_waits_for_a_stake_begins_once_it_is_there() -> None:
    rail = Streams()
    paid = feed_terms(rail, tariff=Tariff.flat(-100_000, 1_000))
    both = Both(rail, paid)
    both.wait(2_000)
    assert both.supplier.flowed == (0, 0)
    for end in (both.supplier.session.payer, both.consumer.session.payee):
        assert isinstance(end, StreamPayer | StreamPayee)
        end.add(1_000_000)
    rail.stake = 1_000_000
    both.wait(2_000, most=3)
    assert both.supplier.flowed[0] > 0
    both.run(both.consumer, both.consumer.session.stop(Reason.OPERATOR, both.now))
    both.wait(5_000)
    ended_exactly(both)


def test_a_stake_that_the_consumer_has_not_seen_yet_makes_no_thief_of_its_supplier() -> None:
    both = Both(Streams())
    supplier, consumer = both.supplier.session, both.consumer.session
    assert supplier.payer is not None
    assert isinstance(consumer.payee, StreamPayee)
    assert isinstance(supplier.payer, StreamPayer)
    supplier.payer.add(50_000)
    voucher = Paid(Quantity(0), (supplier.payer.open().data,))
    with pytest.raises(Unbacked):
        consumer.on_paid(voucher)
    both.run(both.consumer, consumer.secure(both.now))
    assert consumer.state is State.STREAMING
    assert consumer.fault == ""
    consumer.payee.add(50_000)
    consumer.on_paid(voucher)
    both.run(both.consumer, consumer.secure(both.now))
    assert consumer.state is State.STREAMING
    assert consumer.payee.capacity == 50_000


def test_a_valve_is_not_left_open_one_way_when_a_session_is_taken_up_for_the_other() -> None:
    both = Both(Streams())
    both.trickle(20)
    both.direct(both.consumer, Way.FEED)
    both.wait(1_000, most=0)
    both.trickle(5)
    supplier, consumer = both.supplier.session, both.consumer.session
    assert supplier.way is Way.FEED
    asked = Resume(supplier.digest, consumer.request.state, Way.SUPPLY)  # the last link was not missed yet
    both.run(both.supplier, supplier.link_back(both.now, asked))
    total, export = both.supplier.allowed
    assert total > both.supplier.total
    assert export <= both.supplier.export


def test_a_wish_that_did_not_arrive_is_said_again() -> None:
    both = Both(Streams())
    both.trickle(20)
    both.consumer.session.direct(Way.FEED, both.now)  # and what it says is lost
    both.wait(1_000, most=0)
    assert both.supplier.session.way is Way.SUPPLY
    for _ in range(4):
        both.wait(1_000, most=0)
    assert both.supplier.session.way is Way.FEED


def test_a_consumer_that_only_stands_there_is_sent_away_in_the_end() -> None:
    both = Both(Streams())
    both.trickle(20)
    both.direct(both.consumer, Way.HOLD)
    both.wait(1_000, most=0)
    supplier = both.supplier.session
    assert supplier.way is Way.HOLD
    assert supplier.state is State.STREAMING
    both.run(both.supplier, supplier.on_time(Instant(both.now + supplier.patience.rest + 2_000)))
    assert supplier.row.reason is Reason.RESTED
