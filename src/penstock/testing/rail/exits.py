"""Properties 6 to 8: a stale close is refuted, each side gets out of every state alone, a crash changes no result."""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.messages import Reason
from penstock.core.offer import Mode
from penstock.core.session import Role, State
from penstock.core.tariff import Bill
from penstock.testing.rail.pair import Pair, sides_of
from penstock.testing.rail.plays import QUANTITY, Play, begin, collected, modes, settle
from penstock.testing.rail.setup import RailSetup, Shares

SHORT = 14  # units of the medium, of a session that is left from each of its states
BREAKS = (5, 13)  # steps before which its link breaks
CRASHES = ((Role.CONSUMER, 8), (Role.SUPPLIER, 15))  # steps before which a side crashes


async def a_stale_close_is_refuted(setup: RailSetup) -> None:
    """Who ends a session with what is out of date or false gains nothing by it, where the other answers in time."""
    for mode in modes(setup.capabilities):
        for steps in (6, 14, 1_000):
            play = await begin(setup, mode)
            pair = play.pair
            _steps(pair, steps)
            owed = _owed(play)
            victim = await play.funds.cheat(pair.supplier.journal, pair.consumer.journal)
            await play.funds.answer(victim, pair.side(victim).journal)
            await setup.wait(setup.deadline)
            gained = await collected(play, victim)
            _out(gained, owed, victim)


async def each_side_gets_out_alone(setup: RailSetup) -> None:
    """From every state of both journals that a session passes through, each side leaves alone, and has what it is owed
    when the deadline has passed: the payee all that it had secured, the payer all that it had not given."""
    for mode in modes(setup.capabilities):
        for count in await _states(setup, mode):
            for role in Role:
                play = await begin(setup, mode, quantity=SHORT)
                _steps(play.pair, count)
                owed = _owed(play)
                gained = await settle(setup, play, role, play.pair.side(role).journal)
                _out(gained, owed, role)
                if role is Role.SUPPLIER:
                    assert gained.held == -play.funds.deposit, f"{gained.held + play.funds.deposit} are stuck"


async def _states(setup: RailSetup, mode: Mode) -> list[int]:
    """After how many steps either journal has something new of the rail's, up to the session's end."""
    pair = (await begin(setup, mode, quantity=SHORT)).pair
    seen, found, count = set[object](), list[int](), 0
    while True:
        state = pair.supplier.kept, pair.consumer.kept
        if state not in seen:
            seen.add(state)
            found.append(count)
        if pair.over:
            return found
        _step(pair, count)
        count += 1


def _steps(pair: Pair, count: int) -> None:
    """The first steps of a session, whose link breaks on its way and whose sides both crash."""
    for number in range(count):
        _step(pair, number)


def _step(pair: Pair, number: int) -> None:
    if pair.over:
        return
    if number in BREAKS:
        pair.lose_link()
    for role, when in CRASHES:
        if number == when:
            pair.crash(pair.side(role))
    if not pair.up and not {number, number - 1} & set(BREAKS):
        pair.relink()
    pair.step()


def _owed(play: Play) -> Shares:
    """The least that the ledger must give: to the payer what never left it, to the payee what is secured."""
    pair, deposit = play.pair, play.funds.deposit
    secured = pair.supplier.secured()
    given = max(secured, pair.consumer.session.paid if pair.capabilities.by_meter else pair.revealed)
    return Shares(deposit - given, secured, 0)


def _out(gained: Shares, owed: Shares, role: Role) -> None:
    got, least = (gained.payee, owed.payee) if role is Role.SUPPLIER else (gained.payer, owed.payer)
    assert got >= least, f"the {role} gets out with {got} of {least}"


class _Result(NamedTuple):
    total: int
    paid: int
    unpaid: int
    reason: str


async def a_crash_changes_no_result(setup: RailSetup) -> None:
    """Either side is killed before each of its effects in turn, and goes on from its journal: the session comes to the
    same end, to the token unit. At a constant price the bill is the same, too."""
    for mode in modes(setup.capabilities):
        for turning in (False, True):
            play = await begin(setup, mode, turning=turning)
            play.pair.play()
            plain, effects = _result(play.pair), play.pair.effects
            assert effects > 30, "the session is too short to show anything"
            for role in Role:
                await _crash_everywhere(setup, play, role, None if turning else plain)


async def _crash_everywhere(setup: RailSetup, whole: Play, role: Role, plain: _Result | None) -> None:
    """One side of the same session again and again, on the same funds: only its journal says what was paid of them."""
    for count in range(400):
        sides = sides_of(whole.pair.terms, whole.funds, setup.supplier, setup.consumer)
        pair = Pair(*sides, setup.capabilities)
        pair.crash_at = (pair.side(role), count)
        try:
            pair.play()
            result = _result(pair)
            assert plain in (None, result), f"{result} instead of {plain}"
        except AssertionError as error:
            raise AssertionError(f"after a crash of the {role} before its effect {count}: {error}") from error
        if pair.crash_at is not None:
            assert count > 10, f"the {role} has {count} effects"
            return
    raise AssertionError(f"the {role} never runs out of effects")


def _result(pair: Pair) -> _Result:
    """How both journals say that it ended."""
    supplier, consumer = pair.supplier.row, pair.consumer.row
    assert supplier.state is consumer.state is State.ENDED, "a journal does not know that the session has ended"
    assert supplier.receipt is not None, "the session ended without a receipt"
    assert supplier.receipt == consumer.receipt, "the receipts differ"
    assert supplier.consumer_signature == consumer.consumer_signature, "the receipts are signed otherwise"
    assert supplier.supplier_signature == consumer.supplier_signature != b"", "the receipts are signed otherwise"
    receipt = supplier.receipt
    assert pair.supplier.secured() == receipt.paid, f"{pair.supplier.secured()} is secured, {receipt.paid} was paid"
    totals = receipt.supplier_total, receipt.consumer_total, pair.supplier.flowed
    assert totals == (QUANTITY,) * 3, f"supplier and consumer metered, and there flowed, {totals}, not {QUANTITY}"
    due = Bill(pair.terms.offer.tariff, supplier.turns).due(QUANTITY)
    assert receipt.paid + receipt.unpaid == due, f"{receipt.paid} was paid, {due} was due"
    assert receipt.reason == Reason.TARGET_REACHED, f"the session ended because {receipt.reason}"
    return _Result(receipt.supplier_total, receipt.paid, receipt.unpaid, receipt.reason)
