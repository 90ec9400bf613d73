"""Two sessions whose flow turns round, under any order of turns, deliveries, losses, crashes and waits, with prices
that step, below 0 too. What must hold, holds after each step:

- exposure: neither side would lose more than its own limit (the harness measures after every effect);
- at the end both have one receipt, and what it pays is the integral, net, to the unit;
- exit: once links hold, both sides end.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from penstock.core.messages import Reason, Way
from penstock.core.offer import Feed
from penstock.core.session import Role, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.rails import stream

from ..core.both_ways import START, Both, Machine, Streams, feed_terms


def steps(*prices: tuple[int, int]) -> Tariff:
    return Tariff(1_000, tuple(Step(Instant(START + at), price) for at, price in prices))


SUPPLY = steps((-1_000_000, 300_000), (3_000, 900_000), (6_000, -200_000), (9_000, 50_000), (14_000, 0))
FEED = steps((-1_000_000, 500_000), (2_000, 100_000), (5_000, -300_000), (11_000, 700_000))


class Reversals(RuleBasedStateMachine):
    both: Both

    @initialize(
        mode=st.sampled_from(["pay-after", "pay-before"]),
        ticks=st.tuples(st.sampled_from([70, 400, 1_000]), st.sampled_from([90, 800])),
        credit=st.tuples(st.sampled_from([1_900, 2_500, 9_000]), st.sampled_from([1_700, 5_000])),
        quantity=st.integers(1, 300),
        feed=st.integers(0, 300),
        budget=st.integers(1_900, 100_000),
        funds=st.tuples(st.integers(2_500, 200_000), st.sampled_from([0, 5_000, 100_000])),
        first=st.integers(0, 60),
    )
    def begin(
        self, mode: Any, ticks: Any, credit: Any, quantity: int, feed: int, budget: int, funds: Any, first: int
    ) -> None:
        rail = Streams(*funds, *ticks)
        terms = feed_terms(
            rail,
            feed_limit=feed,
            feed=Feed(FEED, ticks[1], 3, credit[1], 1_000),
            mode=mode,
            tick_value=ticks[0],
            credit_limit=credit[0],
            tariff=SUPPLY,
        )
        terms = msgspec.structs.replace(terms, quantity_limit=quantity, budget=budget)
        self.both = Both(rail, terms)
        self.go(first, None)

    def side(self, role: Role) -> Machine:
        return self.both.supplier if role is Role.SUPPLIER else self.both.consumer

    @rule(times=st.integers(1, 8))
    def deliver(self, times: int) -> None:
        for _ in range(times):
            self.both.deliver()

    @rule(most=st.integers(1, 40))
    def flow(self, most: int) -> None:
        self.both.flow(most)

    @rule(units=st.integers(1, 60), way=st.sampled_from([*Way, None]))
    @precondition(lambda self: self.both.up)
    def go(self, units: int, way: Way | None) -> None:
        if way is not None:
            self.both.direct(self.both.consumer, way)
        for _ in range(4):
            self.both.wait(500, most=units // 4)

    @rule(ms=st.sampled_from([100, 500, 1_000, 4_000]))
    def wait(self, ms: int) -> None:
        self.both.wait(ms, ms, most=0)

    @rule(role=st.sampled_from(Role), way=st.sampled_from([*Way, None]))
    def direct(self, role: Role, way: Way | None) -> None:
        self.both.direct(self.side(role), way)

    @rule(back=st.booleans())
    @precondition(lambda self: self.both.up)
    def lose_link(self, back: bool) -> None:
        self.both.lose_link()
        if back:
            self.both.relink()

    @rule()
    @precondition(lambda self: not self.both.up)
    def relink(self) -> None:
        self.both.relink()

    @rule(role=st.sampled_from(Role), back=st.booleans())
    def crash(self, role: Role, back: bool) -> None:
        self.both.crash(self.side(role))
        if back:
            self.both.relink()

    @rule(role=st.sampled_from(Role), effects=st.integers(0, 12))
    def crash_soon(self, role: Role, effects: int) -> None:
        self.both.crash_at = (self.side(role), effects)

    @rule(role=st.sampled_from(Role))
    def stop(self, role: Role) -> None:
        side = self.side(role)
        self.both.run(side, side.session.stop(Reason.OPERATOR, self.both.now))

    def teardown(self) -> None:
        if not hasattr(self, "both"):
            return
        both = self.both
        both.crash_at = None
        for side in both.sides:
            both.run(side, side.session.stop(Reason.OPERATOR, both.now))
        both.heal()
        states = [side.session.state for side in both.sides]
        assert states == [State.ENDED, State.ENDED], (states, both.sides[0].errors, both.sides[1].errors)
        pole, car = both.supplier, both.consumer
        receipt = pole.row.receipt
        if pole.row.supplier_signature:
            assert receipt is not None
            assert receipt == car.row.receipt
            assert (receipt.supplier_total, receipt.supplier_export) == pole.flowed
            net = pole.session.account.net(*pole.flowed)
            assert receipt.paid - receipt.repaid + receipt.unpaid == net or receipt.unpaid == 0
            assert pole.secured() == receipt.paid
            assert car.secured() == receipt.repaid
            assert receipt.paid - receipt.repaid <= self.both.terms.budget
        assert both.consumer.session.account.bill.turns == both.supplier.session.account.bill.turns


@pytest.fixture(autouse=True, scope="module")
def _short_chains() -> Any:
    """Folds and fresh chains every few ticks, so that short histories meet them."""
    before = stream.FOLD_EVERY, stream.MAX_WALK
    stream.FOLD_EVERY, stream.MAX_WALK = 3, 7
    yield
    stream.FOLD_EVERY, stream.MAX_WALK = before


Machine_ = Reversals.TestCase
Machine_.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
