"""A session between two honest sides: the way through, the bill, and how it ends."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from penstock.core.channel import Close
from penstock.core.effects import Allow, Ended, Persist, Send, ShutValve
from penstock.core.errors import BadMessage, DeviceError, IllegalEvent, PenstockError
from penstock.core.identity import check_signed
from penstock.core.messages import (
    Accepted,
    AskClose,
    AskOffer,
    Closing,
    Final,
    Metered,
    Offered,
    Paid,
    Propose,
    Reason,
    Receipted,
    Refused,
    Resume,
    Resumed,
    Square,
    Stop,
    Way,
)
from penstock.core.meter import Reading, Tolerance
from penstock.core.session import EMPTY, Role, Session, State
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Amount, Instant, Price, Quantity

from .pair import CONSUMER, DEPOSIT, START, SUPPLIER, Pair, Side, make_offer, make_terms

MODES = ("pay-after", "pay-before")


def agreed(pair: Pair) -> None:
    """Both ended, with one receipt under both signatures, and the payee holds exactly what it says."""
    assert pair.over
    rows = [side.row for side in pair.sides]
    assert rows[0].receipt is not None
    assert rows[0].receipt == rows[1].receipt
    for row in rows:
        check_signed(rows[0].receipt.digest(), row.consumer_signature, CONSUMER.address, "the receipt")
        check_signed(rows[0].receipt.digest(), row.supplier_signature, SUPPLIER.address, "the receipt")
    assert pair.supplier.payee_in_journal().secured == rows[0].receipt.paid
    assert pair.supplier.row.reason == rows[0].receipt.reason == pair.consumer.row.reason
    if rows[0].receipt.reason != Reason.METERS_DISAGREE:
        due = pair.supplier.session.bill.due(rows[0].receipt.supplier_total)
        assert rows[0].receipt.paid + rows[0].receipt.unpaid == due


def turning(*prices: int, every: int = 2_000) -> Tariff:
    return Tariff(1_000, tuple(Step(Instant((START + n * every) if n else 0), p) for n, p in enumerate(prices)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quantity", [1, 2, 3, 7, 500, 1_733])
def test_a_session_ends_at_its_target_and_is_paid_to_the_unit(mode: Any, quantity: int) -> None:
    """Rule 14: a tick counts once it is durable, and no seed is used twice."""
    pair = Pair(make_terms(make_offer(mode=mode, tariff=Tariff.flat(412_345, 1_000)), quantity_limit=quantity))
    pair.stream()
    agreed(pair)
    receipt = pair.supplier.row.receipt
    assert receipt is not None
    assert receipt.reason == Reason.TARGET_REACHED
    assert receipt.supplier_total == receipt.consumer_total == quantity
    assert (receipt.paid, receipt.unpaid) == (quantity * 412_345 // 1_000, 0)
    assert pair.consumer.session.complete
    assert pair.supplier.session.ticks == pair.consumer.session.ticks == receipt.ticks


@pytest.mark.parametrize("mode", MODES)
def test_trust_starts_at_one_package_and_grows_to_the_credit_limit(mode: Any) -> None:
    offer = make_offer(mode=mode, credit_limit=20_000, package=4)  # 1,600 token units to begin with
    pair = Pair(make_terms(offer, quantity_limit=10_000))
    if mode == "pay-after":
        assert pair.supplier.allowed - pair.supplier.base == 4
    else:
        assert pair.consumer.session.paid == 1_000
        assert pair.supplier.allowed == 0
    pair.stream(40)
    assert pair.supplier.session.control.trust == (20_000 if mode == "pay-after" else 0)
    assert pair.consumer.session.control.trust == (0 if mode == "pay-after" else 20_000)


def test_a_supplier_that_must_wait_announces_what_flowed() -> None:
    pair = Pair()
    pair.draws = 1
    assert pair.flow()
    assert not [m for m in pair.supplier.sent if isinstance(m, Metered)], "less than a tick is no news"
    pair.draws = 10
    assert pair.flow()
    assert pair.supplier.sent[-1] == Metered(Quantity(3), START, Amount(0), b"", b"", Quantity(0), Way.SUPPLY)


def test_less_than_a_tick_is_announced_within_a_second_and_once() -> None:
    pair = Pair()
    for announced in (1, 2):
        pair.draws = 1
        pair.flow()
        pair.wait(3_000, 100, stream=False)
        assert len([m for m in pair.supplier.sent if isinstance(m, Metered)]) == announced


def test_a_new_price_is_announced_though_nothing_flows() -> None:
    steps = (Step(Instant(0), 400_000), Step(Instant(START + 1_500), 500_000))
    pair = Pair(make_terms(make_offer(tariff=Tariff(1_000, steps))))
    pair.draws = 1
    pair.flow()
    pair.wait(1_400, 100)
    assert pair.consumer.session.bill.turns == ()
    pair.wait(1_200, 100)
    assert pair.consumer.session.bill.turns == pair.supplier.session.bill.turns == (1,)


def test_what_is_secured_is_announced_though_nothing_flows() -> None:
    pair = Pair()
    pair.draws = 3
    pair.stream()
    pair.wait(3_000, 100)
    said = [m for m in pair.supplier.sent if isinstance(m, Metered)]
    assert said[-1].secured == pair.supplier.session.paid == 1_000
    assert len(said) == 2


# ---- the ends


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("budget", [1_400, 10_000, 12_345, 50_399])
def test_the_budget_is_spent_and_not_exceeded(mode: Any, budget: int) -> None:
    """Mistake: the client had no price cap and no budget."""
    pair = Pair(make_terms(make_offer(mode=mode), budget=budget))
    pair.stream()
    agreed(pair)
    receipt = pair.consumer.row.receipt
    assert receipt is not None
    assert receipt.reason == Reason.BUDGET_SPENT
    least = budget - budget % 1_000 if mode == "pay-before" else budget
    assert least - 400 < receipt.paid <= budget
    assert receipt.unpaid == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("deposit", [1_000, 7_777, 30_000])
def test_an_empty_channel_ends_the_session(mode: Any, deposit: int) -> None:
    pair = Pair(make_terms(make_offer(mode=mode)), deposit=deposit)
    pair.stream()
    agreed(pair)
    receipt = pair.consumer.row.receipt
    assert receipt is not None
    assert receipt.reason == Reason.WALLET_EMPTY
    assert deposit - 1_400 < receipt.paid <= deposit


def test_a_price_over_the_private_limit_ends_it_at_the_old_price() -> None:
    offer = make_offer(tariff=turning(400_000, 900_000), credit_limit=4_000)
    pair = Pair(make_terms(offer), max_price=Price(500, 1))
    pair.draws = 20
    pair.stream()
    pair.wait(4_000)
    agreed(pair)
    receipt = pair.consumer.row.receipt
    assert receipt is not None
    assert (receipt.reason, receipt.paid) == (Reason.PRICE_OVER_LIMIT, 8_000)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("reason", [Reason.OPERATOR, Reason.GRID, Reason.DEVICE_FAILED])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 9])
def test_either_side_may_stop_at_any_time(role: Role, reason: Reason, steps: int) -> None:
    pair = Pair()
    pair.stream(steps)
    pair.stop(pair.supplier if role is Role.SUPPLIER else pair.consumer, reason)
    pair.stream()
    agreed(pair)
    assert pair.consumer.row.reason is reason
    assert pair.supplier.session.stop(Reason.GRID, pair.now) == [], "it is over"


def test_both_sides_may_stop_at_once() -> None:
    pair = Pair()
    pair.stream(7)
    pair.stop(pair.supplier, Reason.GRID)
    pair.stop(pair.consumer, Reason.OPERATOR)
    pair.stream()
    assert pair.over
    assert pair.consumer.session.complete
    assert pair.supplier.row.receipt == pair.consumer.row.receipt


def test_supply_that_does_not_come_is_stalled() -> None:
    pair = Pair()
    pair.draws = 0
    pair.wait(12_000)
    agreed(pair)
    assert pair.consumer.row.reason is Reason.SUPPLY_STALLED
    assert pair.consumer.session.paid == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_payment_that_does_not_come_is_stalled(mode: Any) -> None:
    pair = Pair(make_terms(make_offer(mode=mode)))
    pair.stream(20)
    pair.cut = lambda message: None if isinstance(message, Paid) else message
    pair.thief = Role.CONSUMER
    for _ in range(30):
        pair.wait(500)
        pair.consumer.session._moved = pair.now  # a thief has patience
    assert pair.supplier.row.reason is Reason.PAYMENT_STALLED
    assert pair.worst[Role.SUPPLIER] <= 2_000


def test_a_payment_that_has_only_just_become_due_is_not_stalled() -> None:
    pair = Pair()
    pair.draws = 0
    for _ in range(4):
        pair.consumer.session._moved = pair.now  # ours waits for the car
        pair.wait(8_000, 1_000)
    pair.draws = 3
    pair.flow()  # a tick is due, and its announcement is on its way
    pair.run(pair.supplier, pair.supplier.session.on_time(Instant(pair.now + 900)))
    assert pair.supplier.session.state is State.STREAMING


@pytest.mark.parametrize("steps", range(0, 24, 3))
def test_a_peer_that_stays_away_is_given_up(steps: int) -> None:
    pair = Pair()
    pair.stream(steps)
    pair.lose_link()
    secured = pair.supplier.session.paid
    pair.wait(119_000, 1_000)
    assert [side.session.state for side in pair.sides] == [State.STREAMING, State.STREAMING]
    pair.wait(2_000, 1_000)
    for side in pair.sides:
        assert side.ended
        assert side.row.state is State.ENDED
        assert side.row.reason is Reason.PEER_GONE
        assert not side.session.complete
    assert pair.supplier.session.paid == secured
    assert not pair.supplier.open


def test_a_clock_that_is_set_back_does_not_make_us_wait_until_it_has_caught_up() -> None:
    pair = Pair()
    pair.stream(10)
    pair.lose_link()
    pair.wait(1_000, 1_000)
    for side in pair.sides:
        pair.run(side, side.session.on_time(Instant(pair.now - 3_600_000)))
        pair.run(side, side.session.on_time(Instant(pair.now - 3_600_000 + 121_000)))
        assert side.row.reason is Reason.PEER_GONE


def test_what_a_supplier_could_ask_for_and_did_not_get_is_in_its_last_row() -> None:
    pair = Pair()
    pair.stream(10)
    pair.cut = lambda message: None if isinstance(message, Paid) else message
    pair.stream(10)
    pair.lose_link()
    assert pair.supplier.row.unpaid == 0, "it may still be paid"
    pair.wait(122_000, 1_000)
    row, session = pair.supplier.row, pair.supplier.session
    assert row.unpaid == session.bill.due(session.meter.total) - session.paid > 0
    assert pair.consumer.row.unpaid == 0


def test_a_peer_that_is_silent_while_ending_is_given_up() -> None:
    pair = Pair()
    pair.stream(10)
    pair.cut = lambda message: None
    pair.stop(pair.consumer, Reason.OPERATOR)
    pair.stop(pair.supplier, Reason.OPERATOR)
    pair.wait(11_000)
    assert pair.over
    assert not pair.consumer.session.complete
    assert pair.supplier.row.reason is Reason.OPERATOR


@pytest.mark.parametrize("role", list(Role))
def test_a_peer_that_comes_back_again_and_again_but_never_gets_on_is_given_up(role: Role) -> None:
    pair = Pair()
    pair.stream(10)
    thief, honest = (pair.supplier, pair.consumer) if role is Role.SUPPLIER else (pair.consumer, pair.supplier)
    pair.thief = role
    pair.flow()
    pair.cut = lambda message: message if isinstance(message, (Resume, Resumed)) else None
    for _ in range(40):
        pair.lose_link()
        pair.wait(1_000, 1_000)
        pair.relink()
        pair.stream()
        pair.wait(4_000, 1_000)
        thief.session._moved = pair.now
    assert honest.session.state is State.ENDED


def test_a_side_that_the_peer_does_not_know_any_more_ends() -> None:
    pair = Pair()
    pair.stream(10)
    pair.run(pair.consumer, pair.consumer.session.abandon(pair.now))
    assert pair.consumer.row.reason is Reason.PEER_GONE
    assert pair.consumer.session.abandon(pair.now) == []


# ---- the price turns


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prices", [(100_000, 400_000), (400_000, 100_000), (300_000, 10_000, 400_000, 200_000)])
def test_both_sides_turn_at_the_same_total(mode: Any, prices: tuple[int, ...]) -> None:
    pair = Pair(make_terms(make_offer(mode=mode, tariff=turning(*prices), tolerance=Tolerance(0, 0))))
    for _ in range(20):
        pair.draws = 7
        pair.stream()
        pair.wait(500, 250)
    pair.stop(pair.consumer, Reason.OPERATOR)
    pair.stream()
    agreed(pair)
    assert len(pair.supplier.row.turns) == len(prices) - 1
    assert pair.supplier.row.turns == pair.consumer.row.turns


@pytest.mark.parametrize("mode", MODES)
def test_a_rise_of_the_price_does_not_starve_a_small_credit(mode: Any) -> None:
    pair = Pair(
        make_terms(
            make_offer(mode=mode, tariff=turning(10_000, 400_000, every=20_000), credit_limit=1_400),
            quantity_limit=2_000,
        )
    )
    for _ in range(80):
        pair.draws = 20
        pair.stream()
        pair.wait(500)
    pair.stop(pair.supplier, Reason.OPERATOR)
    pair.stream()
    agreed(pair)
    receipt = pair.supplier.row.receipt
    assert receipt is not None
    assert receipt.reason in (Reason.OPERATOR, Reason.TARGET_REACHED)
    assert receipt.paid > 40_000


@pytest.mark.parametrize("jump", [1_000, 10_000])
def test_a_turn_that_makes_the_allowance_too_dear_shuts_the_valve_first(jump: int) -> None:
    """Several steps may take effect at once, after a gap in the readings."""
    steps = (Step(Instant(0), 1_000), Step(Instant(START + 500), 1_000), Step(Instant(START + 600), 900_000))
    pair = Pair(make_terms(make_offer(tariff=Tariff(1_000, steps), credit_limit=2_000)))
    allowed = pair.supplier.allowed
    pair.flow(5)
    pair.now = Instant(pair.now + jump)
    start = len(pair.supplier.trace)
    pair.beat(pair.supplier)
    effects = [type(e) for e in pair.supplier.trace[start:]]
    assert effects.index(ShutValve) < effects.index(Persist) < effects.index(Allow)
    assert pair.supplier.allowed < allowed
    assert pair.supplier.open
    pair.stream()
    assert pair.worst[Role.SUPPLIER] <= 2_000


def test_a_turn_announced_while_the_consumer_stops_reaches_its_bill() -> None:
    pair = Pair(make_terms(make_offer(tariff=turning(400_000, 100_000), credit_limit=10_000)))
    pair.stream(30)
    pair.stop(pair.consumer, Reason.OPERATOR)
    pair.now = Instant(pair.now + 3_000)
    pair.flow(5)  # announced at the new step's time, before the Stop arrives
    assert pair.supplier.row.turns == (pair.supplier.flowed,)
    assert pair.flow(), "and more flows at the new price"
    pair.stream()
    agreed(pair)
    assert pair.consumer.row.turns[: len(pair.supplier.row.turns)] == pair.supplier.row.turns


def test_an_announcement_that_falls_while_the_consumer_stops_turns_nothing() -> None:
    pair = Pair(make_terms(make_offer(tariff=turning(400_000, 100_000))))
    pair.stream(20)
    pair.stop(pair.consumer, Reason.OPERATOR)
    late = Metered(Quantity(1), Instant(START + 5_000), Amount(0), b"", b"", Quantity(0), Way.SUPPLY)
    assert pair.consumer.session.on_message(late, pair.now) == []
    assert pair.consumer.session.bill.turns == ()
    assert pair.consumer.session.reason is Reason.OPERATOR


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("prices", [(400_000, 100_000), (100_000, 400_000)])
def test_a_turn_while_the_sides_are_apart_is_made_once(role: Role, prices: tuple[int, ...]) -> None:
    pair = Pair(make_terms(make_offer(tariff=turning(*prices), credit_limit=10_000), quantity_limit=5_000))
    pair.stream(30)
    pair.crash(pair.supplier if role is Role.SUPPLIER else pair.consumer)
    pair.now = Instant(pair.now + 3_000)
    pair.relink()
    pair.stream(8)
    pair.stop(pair.supplier, Reason.GRID)
    pair.stream()
    agreed(pair)
    assert len(pair.supplier.row.turns) == 1


# ---- the meters


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("error", "reason"), [(1.01, Reason.TARGET_REACHED), (1.2, Reason.METERS_DISAGREE)])
@pytest.mark.parametrize("side", list(Role))
def test_meters_may_differ_within_the_tolerance_and_no_further(
    mode: Any, error: float, reason: Reason, side: Role
) -> None:
    pair = Pair(make_terms(make_offer(mode=mode)))
    pair.thief = side
    faulty = pair.supplier if side is Role.SUPPLIER else pair.consumer
    faulty.reads = lambda flowed: int(flowed * error)
    pair.stream()
    pair.wait(15_000)
    agreed(pair)
    receipt = pair.supplier.row.receipt
    assert receipt is not None
    assert receipt.reason == reason
    if side is Role.CONSUMER:
        assert receipt.unpaid <= pair.limit[Role.SUPPLIER]


def test_what_the_register_counts_after_the_last_reading_is_no_part_of_the_session() -> None:
    pair = Pair()
    pair.stream(20)
    pair.stop(pair.supplier, Reason.OPERATOR)
    billed = pair.supplier.session.meter.total
    pair.supplier.register += 2  # the relay was slow
    assert pair.supplier.session.on_reading(pair.supplier.read(pair.now), pair.now) == []
    pair.limit[Role.SUPPLIER] += 800  # those two are lost
    pair.crash(pair.supplier)
    pair.relink()
    pair.stream()
    agreed(pair)
    assert pair.supplier.row.receipt is not None
    assert pair.supplier.row.receipt.supplier_total == billed


def test_a_register_that_goes_back_is_refused_and_changes_nothing() -> None:
    pair = Pair()
    pair.stream(10)
    for side in pair.sides:
        before = snapshot(side)
        with pytest.raises(DeviceError):
            side.session.on_reading(Reading(Quantity(side.base - 1), pair.now), pair.now)
        assert snapshot(side) == before
    with pytest.raises(DeviceError):
        pair.supplier.session.valve_shut(Reading(Quantity(pair.supplier.base - 1), pair.now), pair.now)


# ---- after a crash


def test_the_exposure_on_record_survives_a_crash_and_is_not_made_up_by_it() -> None:
    pair = Pair(make_terms(quantity_limit=2_000))
    pair.stream(600)
    for side in pair.sides:
        pair.crash(side)
        pair.relink()
        pair.stream(10)
    pair.stream()
    agreed(pair)
    assert 0 < pair.supplier.row.worst <= 2_000
    assert pair.consumer.row.worst == 0


def test_a_session_of_thousands_of_ticks_folds_takes_a_fresh_chain_and_survives_crashes_of_both() -> None:
    offer = make_offer(tick_value=10, credit_limit=4_000, package=10)
    pair = Pair(make_terms(offer, quantity_limit=500))
    for n in range(400):
        pair.stream(3)
        if n % 40 == 19:
            pair.crash(pair.sides[n // 40 % 2])
            pair.relink()
    pair.stream()
    agreed(pair)
    assert pair.supplier.row.receipt is not None
    assert pair.supplier.row.receipt.paid == 200_000
    assert pair.supplier.row.receipt.ticks == 20_000


# ---- what comes together is secured together


def due(pair: Pair, *worths: int) -> list[Paid]:
    """The consumer's payments of so many more ticks each, which do not travel."""
    payer = pair.consumer.session.payer
    assert payer is not None
    tick, total = pair.terms.offer.tick_value, pair.supplier.session.meter.total
    return [Paid(total, tuple(one.data for one in payer.pay(payer.paid + ticks * tick))) for ticks in worths]


def streaming() -> Pair:
    pair = Pair(make_terms(make_offer(credit_limit=20_000), quantity_limit=10_000))
    pair.stream(40)
    while pair.deliver():
        pass
    return pair


def test_payments_that_came_together_share_one_commit_and_one_release() -> None:
    pair = streaming()
    session = pair.supplier.session
    before = session.control.got
    for message in due(pair, 1, 2, 3):
        session.on_paid(message)
        assert session.heard
        assert session.control.got == before, "counted before it was durable"
    effects = session.secure(pair.now)
    assert [type(effect) for effect in effects] == [Persist, Allow]
    assert isinstance(effects[0], Persist)
    assert len(effects[0].rows) == 1
    assert session.control.got == before + 6 * pair.terms.offer.tick_value
    assert session.secure(pair.now) == []


@pytest.mark.parametrize("event", ["stop", "link_lost", "link_back", "on_time", "abandon"])
def test_every_event_secures_first_what_was_taken(event: str) -> None:
    pair = streaming()
    session = pair.supplier.session
    session.on_paid(*due(pair, 2))
    effects = session.stop(Reason.OPERATOR, pair.now) if event == "stop" else getattr(session, event)(pair.now)
    assert isinstance(effects[0], Persist)
    assert effects[0].rows[0][0].startswith(b"ticks/")
    assert not session.heard


def test_a_message_before_what_was_taken_is_secured_is_our_own_mistake() -> None:
    pair = streaming()
    session = pair.supplier.session
    session.on_paid(*due(pair, 1))
    with pytest.raises(IllegalEvent):
        session.on_message(Stop(Reason.OPERATOR), pair.now)
    assert session.heard


def test_a_flood_of_payments_that_bring_nothing_is_cut_off() -> None:
    pair = streaming()
    session = pair.supplier.session
    (message,) = due(pair, 1)
    for _ in range(EMPTY + 1):
        session.on_paid(message)
    with pytest.raises(BadMessage, match="bring nothing"):
        session.on_paid(message)
    assert isinstance(session.secure(pair.now)[0], Persist)
    session.on_paid(*due(pair, 1))


def test_a_bad_payment_among_good_ones_costs_none_of_those_before_it() -> None:
    pair = streaming()
    session = pair.supplier.session
    before, tick = session.paid, pair.terms.offer.tick_value
    first, second = due(pair, 2, 3)
    session.on_paid(first)
    session.on_paid(Paid(first.total, (second.evidence[0][:-1] + b"\0",)))
    session.on_paid(second)
    effects = session.secure(pair.now)
    assert isinstance(effects[0], Persist)
    assert session.reason is Reason.PEER_CHEATED
    assert session.paid == before + 2 * tick


# ---- what does not belong


def snapshot(side: Side) -> object:
    """Everything that a session knows, the rail's end and its parts included."""

    def of(value: object, depth: int = 0) -> object:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        if (
            slots
            and depth < 4
            and type(value).__module__.startswith("penstock")
            and not isinstance(value, msgspec.Struct)
        ):
            return {name: of(getattr(value, name), depth + 1) for name in slots if hasattr(value, name)}
        return copy.copy(value) if isinstance(value, (dict, list)) else value

    return of(side.session), dict(side.journal)


def sides_in_every_state() -> list[tuple[Pair, Side]]:
    """A pair for every role and state, with the side that is in it."""
    found: dict[tuple[Role, State], tuple[Pair, Side]] = {}
    for steps in range(60):
        pair = Pair(make_terms(quantity_limit=20))
        pair.cut = lambda message: message
        for _ in range(steps):
            for side in pair.sides:
                if (side.role, side.session.state) not in found:
                    found[side.role, side.session.state] = (pair, side)
                    break
            else:
                if not (pair.deliver() or pair.flow()):
                    break
                continue
            break
    stopped = Pair()
    stopped.stream(6)
    stopped.supplier.session.stop(Reason.GRID, stopped.now)
    stopped.stop(stopped.consumer, Reason.GRID)
    found[Role.SUPPLIER, State.STOPPING] = (stopped, stopped.supplier)
    found[Role.CONSUMER, State.STOPPING] = (stopped, stopped.consumer)
    assert len(found) == 8
    return list(found.values())


def a_message_of_each_type() -> list[Any]:
    pair = Pair(make_terms(quantity_limit=20))
    pair.stream()
    sent = {type(m): m for side in pair.sides for m in side.sent}
    offer = make_offer()
    for message in (
        AskOffer(),
        Offered(offer, bytes(65)),
        Propose(make_terms(offer), bytes(65), b""),
        Accepted(bytes(65), b""),
        Refused("no"),
        AskClose(bytes(32), Close(0, DEPOSIT, 0), bytes(65)),
        Closing(bytes(32)),
        Resume(bytes(32), b"", Way.SUPPLY),
        Resumed(Quantity(0), START, (), bytes(45), b"", b"", Quantity(0), (), Way.SUPPLY),
        Stop(Reason.GRID),
    ):
        sent.setdefault(type(message), message)
    assert len(sent) == 15
    return list(sent.values())


BELONGS = {
    (Role.SUPPLIER, State.STREAMING): {Paid, Stop},
    (Role.SUPPLIER, State.STOPPING): {Paid, Stop},
    (Role.SUPPLIER, State.SQUARING): {Paid, Stop, Square},
    (Role.SUPPLIER, State.ENDED): set(),
    (Role.CONSUMER, State.STREAMING): {Metered, Stop, Final, Resumed},
    (Role.CONSUMER, State.STOPPING): {Metered, Stop, Final, Resumed},
    (Role.CONSUMER, State.SQUARING): {Metered, Stop, Final, Receipted, Resumed},
    (Role.CONSUMER, State.ENDED): set(),
}


def give(side: Side, message: Any, now: Instant) -> None:
    if isinstance(message, Paid):
        side.session.on_paid(message)
    else:
        side.session.on_message(message, now)


def test_a_message_that_does_not_belong_raises_and_changes_nothing() -> None:
    messages = a_message_of_each_type()
    for pair, side in sides_in_every_state():
        place = (side.role, side.session.state)
        for message in messages:
            if type(message) in BELONGS[place]:
                assert type(message) is Paid or type(message) in side.session._handlers
                continue
            before = snapshot(side)
            with pytest.raises(BadMessage):
                give(side, message, pair.now)
            assert snapshot(side) == before, (place, message)


def test_a_message_that_belongs_but_lies_changes_nothing_where_it_raises() -> None:
    garbage: list[Any] = [
        Square(msgspec.structs.replace(receipt_of(), paid=1), bytes(65), b"\x02[]"),
        Receipted(bytes(65), b""),
        Receipted(SUPPLIER.sign(receipt_of().digest()), b""),
        Resumed(Quantity(5), START, (Quantity(3), Quantity(2)), bytes(45), b"", b"", Quantity(0), (), Way.SUPPLY),
        Resumed(Quantity(5), START, (), b"\x01", b"", b"", Quantity(0), (), Way.SUPPLY),
        Resumed(
            Quantity(5), START, (), b"\x01" + (9).to_bytes(8, "big") + bytes(36), b"", b"", Quantity(0), (), Way.SUPPLY
        ),
    ]
    raised = 0
    for pair, side in sides_in_every_state():
        for message in garbage:
            if type(message) not in BELONGS[side.role, side.session.state]:
                continue
            before = snapshot(side)
            try:
                give(side, message, pair.now)
            except PenstockError:
                raised += 1
                assert snapshot(side) == before, message
    assert raised >= 10


def receipt_of() -> Any:
    pair = Pair(make_terms(quantity_limit=10))
    pair.stream()
    return pair.supplier.row.receipt


def test_an_event_of_ours_that_does_not_belong_raises_and_changes_nothing() -> None:
    for pair, side in sides_in_every_state():
        before = snapshot(side)
        with pytest.raises(IllegalEvent):
            side.session.begin(pair.now)
        if side.role is Role.CONSUMER:
            with pytest.raises(IllegalEvent):
                side.session.valve_shut(side.read(pair.now), pair.now)
        assert snapshot(side) == before


def test_an_ended_session_wants_nothing_more() -> None:
    pair = Pair(make_terms(quantity_limit=10))
    pair.stream()
    for side in pair.sides:
        session: Session = side.session
        later = Instant(pair.now + 10**7)
        assert session.on_time(later) == session.stop(Reason.GRID, later) == session.abandon(later) == []
        assert session.link_lost(later) == session.link_back(later) == []
        assert session.on_reading(side.read(later), later) == []
        assert isinstance(side.trace[-1], Ended)
    assert pair.supplier.session.valve_shut(pair.supplier.read(pair.now), pair.now) == []


def test_effects_are_in_the_order_in_which_they_must_happen() -> None:
    pair = Pair()
    pair.stream(2)
    effects = pair.supplier.trace
    kinds = [type(effect) for effect in effects]
    assert kinds[:2] == [Allow, Send]
    stop = pair.supplier.session.stop(Reason.OPERATOR, pair.now)
    assert [type(effect) for effect in stop] == [ShutValve, Persist, Send]
    shut = pair.supplier.session.valve_shut(pair.supplier.read(pair.now), pair.now)
    assert [type(effect) for effect in shut] == [Persist, Send]
