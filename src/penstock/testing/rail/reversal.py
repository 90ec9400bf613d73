"""A flow that turns round: both directions are paid exactly, and each side gets out alone with what it is owed.

Charge, discharge, charge, with prices that step below 0, over funds that pay both ways. It is broken off at many points
of both turns, by a crash of either side; then it is taken up again, or both sides end it on the ledger for good.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.errors import PenstockError
from penstock.core.messages import Reason, Way
from penstock.core.meter import Tolerance
from penstock.core.offer import Feed, Mode, Offer, Terms
from penstock.core.session import Role
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.testing.rail.both import Both, Machine
from penstock.testing.rail.plays import DEPOSIT, HOUR, TICK, modes
from penstock.testing.rail.setup import BothFunds, RailSetup, Shares

FEED_TICK = 500  # token units
EVERY = 9  # effects between two points at which a session is broken: they fall into every part of a turn


class Reversal(NamedTuple):
    """A session under way, its funds, and whose the tokens were when these had just been made."""

    both: Both
    funds: BothFunds
    before: Shares


async def a_flow_turns_round(setup: RailSetup) -> None:
    """Both ways are paid to the unit, exposure stays within both limits, and what is broken off can be ended alone."""
    for mode in modes(setup.capabilities):
        effects = await _whole(setup, mode, Role.SUPPLIER)
        await _whole(setup, mode, Role.CONSUMER)
        for count, point in enumerate(range(3, effects, EVERY)):
            role = (Role.SUPPLIER, Role.CONSUMER)[count % 2]
            await _taken_up(setup, mode, role, point)
            if count % 3 == 0:
                await _left(setup, mode, role, point)


async def _begin(setup: RailSetup, mode: Mode) -> Reversal:
    start = await setup.now()
    supply = (Step(Instant(0), 300_000), Step(Instant(start + 7_000), -150_000), Step(Instant(start + 12_000), 200_000))
    offer = Offer(
        supplier=setup.supplier.address,
        name="conformance",
        medium="electricity",
        tariff=Tariff(1_000, supply),
        tick_value=TICK,
        package=3,
        credit_limit=3 * TICK,
        mode=mode,
        tolerance=Tolerance(0, 0),
        rails={setup.capabilities.name: setup.details()},
        meter="",
        expires=Instant(start + HOUR),
        feed=Feed(Tariff.flat(450_000, 1_000), FEED_TICK, 3, 4 * FEED_TICK, 1_000),
    )
    offer.check()
    funds = await setup.fund_both(offer, DEPOSIT)
    terms = Terms(
        offer=offer,
        consumer=setup.consumer.address,
        rail=setup.capabilities.name,
        rail_terms=funds.rail_terms,
        quantity_limit=1_000,
        budget=DEPOSIT,
        at=start,
        nonce=bytes(16),
        feed_limit=200,
    )
    terms.check()
    return Reversal(Both(funds, terms, setup.supplier, setup.consumer), funds, await funds.shares())


def _play(both: Both) -> None:
    """Charge, discharge, charge, as far as the session lives."""
    for way, steps in ((Way.SUPPLY, 8), (Way.FEED, 8), (Way.SUPPLY, 12)):
        both.direct(both.consumer, way)
        for _ in range(steps):
            both.trickle(9)
            if both.up:
                both.wait(500, most=0)


def _end(both: Both) -> None:
    if not both.up:
        both.relink()
    both.run(both.consumer, both.consumer.session.stop(Reason.OPERATOR, both.now))
    both.heal()
    assert both.over, "the session does not end"
    receipt = both.supplier.row.receipt
    assert receipt is not None, "there is no receipt"
    assert receipt == both.consumer.row.receipt, "two receipts"
    total, export = both.supplier.flowed
    assert (receipt.supplier_total, receipt.supplier_export) == (total, export), "the receipt has other totals"
    net = both.supplier.session.account.net(total, export)
    paid = both.supplier.secured() - both.consumer.secured()
    assert receipt.paid - receipt.repaid == net == paid, f"{paid} was paid, net, for {net}"


async def _whole(setup: RailSetup, mode: Mode, leaver: Role) -> int:
    """All of it, then one side leaves and the other answers. Returns how many effects it took."""
    reversal = await _begin(setup, mode)
    both = reversal.both
    _play(both)
    total, export = both.supplier.flowed
    assert total > 40, "nothing flowed to the consumer"
    assert export > 20, "nothing flowed back"
    effects = both.effects
    _end(both)
    gained = await _leave(setup, reversal, leaver)
    net = both.supplier.secured() - both.consumer.secured()
    assert gained.payee == net, f"the ledger pays {gained.payee}, not {net}"
    assert gained.payer == DEPOSIT - net, f"the ledger returns {gained.payer}, not {DEPOSIT - net}"
    return effects


async def _taken_up(setup: RailSetup, mode: Mode, role: Role, point: int) -> None:
    """A crash at this point changes no result."""
    both = (await _begin(setup, mode)).both
    both.crash_at = (both.supplier if role is Role.SUPPLIER else both.consumer, point // 2)
    _play(both)
    both.crash_at = None
    _end(both)


async def _left(setup: RailSetup, mode: Mode, role: Role, point: int) -> None:
    """After a crash at this point nobody comes back: each side gets at least what it can prove less what it gave."""
    reversal = await _begin(setup, mode)
    both = reversal.both
    both.crash_at = (both.supplier if role is Role.SUPPLIER else both.consumer, point // 2)
    _play(both)
    gained = await _leave(setup, reversal, role)
    _owed(gained.payee, both.supplier, both.given[Role.SUPPLIER], 0)
    _owed(gained.payer, both.consumer, both.given[Role.CONSUMER], DEPOSIT)


def _owed(gained: int, side: Machine, gave: int, deposit: int) -> None:
    least = deposit + side.secured() - gave
    assert gained >= least, f"the {side.role} gets {gained}, and {least} are its own"


async def _leave(setup: RailSetup, reversal: Reversal, leaver: Role) -> Shares:
    """One side leaves, the other answers, both collect. Returns what each has gained."""
    both, funds, before = reversal
    sides = (both.supplier, both.consumer)
    first, second = sides if leaver is Role.SUPPLIER else sides[::-1]
    try:
        await funds.leave(first.role, first.journal)
        await funds.answer(second.role, second.journal)
    except PenstockError as error:
        raise AssertionError(f"the {leaver} cannot leave, or the other not answer: {error}") from error
    await setup.wait(setup.deadline)
    for side in (first, second):
        try:
            await funds.collect(side.role)
        except PenstockError as error:
            raise AssertionError(f"the {side.role} cannot collect: {error}") from error
    now = await funds.shares()
    assert sum(now) == sum(before), f"{sum(now)} token units where there were {sum(before)}"
    return now.since(before)
