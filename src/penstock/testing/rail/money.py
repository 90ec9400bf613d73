"""Properties 1 to 4: conservation, claims that never fall, exposure within the declared bound, replay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import msgspec

from penstock.core.errors import LedgerError
from penstock.core.messages import Final, Message, Metered, Paid, Reason, Square
from penstock.core.session import Role, State
from penstock.core.units import Quantity
from penstock.testing.rail.pair import Pair
from penstock.testing.rail.plays import Play, begin, collected, modes, settle, taken
from penstock.testing.rail.setup import RailSetup

Cut = Callable[[Message], Message | None]


async def conservation(setup: RailSetup) -> None:
    """No token unit appears or disappears: what the receipt says is what the one loses and the other gains.

    Off the ledger, what is secured was given, and what was given is covered by the deposit.
    """
    for mode in modes(setup.capabilities):
        for stop_at in (None, 5, 12):
            play = await begin(setup, mode)
            pair = play.pair
            pair.watch = lambda pair=pair: _covered(pair)  # type: ignore[misc]  # a default, not an argument
            if stop_at is not None:
                pair.stream(stop_at)
                pair.stop(pair.supplier, Reason.GRID)
            pair.play()
            receipt = pair.supplier.row.receipt
            assert receipt is not None, "an honest session ends without a receipt"
            assert receipt == pair.consumer.row.receipt, "the receipts differ"
            assert receipt.unpaid == 0, f"an honest session leaves {receipt.unpaid} unpaid"
            gained = await settle(setup, play, Role.SUPPLIER, pair.supplier.journal)
            told = (play.funds.deposit - receipt.paid, receipt.paid, -play.funds.deposit)
            assert tuple(gained) == told, f"payer, payee and funds gained {tuple(gained)}; the receipt says {told}"


def _covered(pair: Pair) -> None:
    given, secured, deposit = pair.consumer.session.paid, pair.supplier.secured(), pair.ends.deposit
    assert 0 <= given <= deposit, f"the payer has given {given} of {deposit}"
    assert 0 <= secured <= deposit, f"the payee counts {secured} of {deposit} as secured"
    if not pair.capabilities.by_meter:
        assert secured <= pair.revealed, f"the payee counts {secured} as secured of {pair.revealed} given"


async def a_claim_never_falls(setup: RailSetup) -> None:
    """What a payee has secured stays: in the session, under evidence in any order, and on the ledger under an older
    claim. What a payer has given stays given."""
    for mode in modes(setup.capabilities):
        play = await begin(setup, mode)
        pair, older = play.pair, dict[bytes, bytes]()
        low = {Role.SUPPLIER: 0, Role.CONSUMER: 0}

        def watch(pair: Pair = pair, low: dict[Role, int] = low) -> None:
            if pair.consumer.session.state is not State.SQUARING and not pair.over and not pair.supplier.ended:
                for role, worth in (
                    (Role.SUPPLIER, pair.supplier.secured()),
                    (Role.CONSUMER, pair.consumer.session.paid),
                ):
                    assert worth >= low[role], f"the {role}'s sum fell from {low[role]} to {worth}"
                    low[role] = worth

        pair.watch = watch
        while pair.supplier.secured() < 8 * pair.terms.offer.tick_value:
            pair.step()
            older = older or (dict(pair.supplier.journal) if pair.supplier.secured() else {})
        _in_any_order(pair, play)
        secured = pair.supplier.secured()
        await play.funds.leave(Role.SUPPLIER, pair.supplier.journal)
        with suppress(LedgerError):
            await play.funds.leave(Role.SUPPLIER, older)
        with suppress(LedgerError):
            await play.funds.answer(Role.SUPPLIER, older)
        await setup.wait(setup.deadline)
        gained = (await collected(play, Role.SUPPLIER)).payee
        assert gained >= secured, f"the payee had {secured} secured, and got {gained} after an older claim"


def _in_any_order(pair: Pair, play: Play) -> None:
    """Evidence to a fresh end, shuffled and repeated."""
    for seed in range(8):
        rng = Random(seed)  # noqa: S311 - an order of messages
        supplies = not pair.capabilities.by_meter
        end: Any = play.funds.payee({}) if supplies else play.funds.payer({})
        heard = (pair.supplier if supplies else pair.consumer).heard
        low = 0
        for one in rng.choices(heard, k=4 * len(heard)):
            taken(end, one)
            worth = end.secured if supplies else end.paid
            assert worth >= low, f"evidence out of order made {worth} of {low}"
            low = worth


async def exposure_is_bounded(setup: RailSetup) -> None:
    """Neither side loses more than its rail declares, whatever the other does: measured by what the ledger pays out."""
    for mode in modes(setup.capabilities):
        for thief, make, by_meter in CHEATS:
            if by_meter is (not setup.capabilities.by_meter):
                continue
            play = await begin(setup, mode)
            pair, name = play.pair, make.__name__.removeprefix("_").replace("_", " ")
            pair.stream(9)
            assert pair.supplier.session.state is State.STREAMING, "the session is too short to cheat in"
            pair.thief = thief
            make(pair)
            honest = pair.supplier if thief is Role.CONSUMER else pair.consumer
            for _ in range(400):
                if honest.session.state is State.ENDED:
                    break
                if not pair.up:
                    pair.relink()
                pair.stream(60)
                pair.wait(1_000, 1_000, stream=False)
            assert honest.session.state is State.ENDED, f"{mode}: the {honest.role} hangs where the {thief} {name}"
            assert not pair.supplier.open, f"{mode}: the valve stays open where the {thief} {name}"
            books = pair.supplier.journal
            if thief is Role.SUPPLIER and not setup.capabilities.by_meter:
                books = pair.proof  # it keeps the best that it ever heard, whatever it said in the end
            gained = await settle(setup, play, Role.SUPPLIER, books)
            due = honest.session.bill.due(honest.flowed)
            lost = due - gained.payee if thief is Role.CONSUMER else gained.payee - due
            bound = pair.limit[honest.role] + pair.slack(honest.role)
            assert lost <= bound, f"{mode}: the {honest.role} loses {lost}, above {bound}, where the {thief} {name}"


def _stops_paying(pair: Pair) -> None:
    pair.cut = lambda message: None if isinstance(message, (Paid, Square)) else message


def _never_squares(pair: Pair) -> None:
    pair.cut = lambda message: None if isinstance(message, Square) else message


def _repeats_its_first_payment(pair: Pair) -> None:
    first: list[Message] = []

    def cut(message: Message) -> Message | None:
        if not isinstance(message, Paid):
            return message
        first.append(message)
        return first[0]

    pair.cut = cut


def _sends_rubbish(pair: Pair) -> None:
    pair.cut = lambda message: (
        msgspec.structs.replace(message, evidence=(b"\x00" * 45,)) if isinstance(message, Paid) else message
    )


def _goes_away(pair: Pair) -> None:
    pair.cut = lambda message: None
    pair.lose_link()


def _claims_more_than_flowed(pair: Pair) -> None:
    pair.cut = lambda message: (
        msgspec.structs.replace(message, total=Quantity(message.total + 7))
        if isinstance(message, (Metered, Final))
        else message
    )


def _shows_no_evidence(pair: Pair) -> None:
    pair.cut = lambda message: (
        msgspec.structs.replace(message, evidence=b"") if isinstance(message, (Metered, Final)) else message
    )


def _repeats_its_first_evidence(pair: Pair) -> None:
    first: list[bytes] = []

    def cut(message: Message) -> Message | None:
        if not isinstance(message, (Metered, Final)):
            return message
        first.append(message.evidence)
        return msgspec.structs.replace(message, evidence=first[0])

    pair.cut = cut


def _supplies_no_more(pair: Pair) -> None:
    pair.draws = 0


CHEATS: tuple[tuple[Role, Callable[[Pair], None], bool | None], ...] = (
    (Role.CONSUMER, _stops_paying, None),
    (Role.CONSUMER, _never_squares, None),
    (Role.CONSUMER, _repeats_its_first_payment, False),
    (Role.CONSUMER, _sends_rubbish, False),
    (Role.CONSUMER, _goes_away, None),
    (Role.SUPPLIER, _goes_away, None),
    (Role.SUPPLIER, _claims_more_than_flowed, None),
    (Role.SUPPLIER, _shows_no_evidence, True),
    (Role.SUPPLIER, _repeats_its_first_evidence, True),
    (Role.SUPPLIER, _supplies_no_more, None),
)
"""Who cheats and how; and whether that takes a rail that pays by readings (True), by what the payer gives (False)."""


async def replay_yields_nothing(setup: RailSetup) -> None:
    """Evidence that was taken brings nothing when it comes again, in its session, in another, or on the ledger."""
    for mode in modes(setup.capabilities):
        play, other = await begin(setup, mode), await begin(setup, mode, begun=False)
        pair = play.pair
        while not pair.over:
            pair.step()
            for side in pair.sides:
                _again(pair, side.role)
        for side, another in zip(pair.sides, other.pair.sides, strict=True):
            for one in side.heard:
                taken(another.rail.end, one)
            assert another.session.paid == 0, f"evidence of another session is worth {another.session.paid}"
        gained = await settle(setup, play, Role.SUPPLIER, pair.supplier.journal)
        for side in pair.sides:
            for act in (play.funds.leave, play.funds.answer):
                with suppress(LedgerError):
                    await act(side.role, side.journal)
            await setup.wait(setup.deadline)
            again = await collected(play, side.role)
            assert again == gained, f"settled again, payer, payee and funds gain {tuple(again)}, not {tuple(gained)}"
    await _signed_things_count_once(setup)


def _again(pair: Pair, role: Role) -> None:
    side = pair.side(role)
    if side.session.heard:
        return  # payments wait to be made durable together
    before = side.session.paid, dict(side.journal)
    for one in side.heard:
        side.write(taken(side.rail.end, one))
    assert (side.session.paid, side.journal) == before, f"evidence that came again changed what the {role} has"


async def _signed_things_count_once(setup: RailSetup) -> None:
    for name, make in setup.signed.items():
        thing = await make()
        await thing.give(thing.fields, thing.signature)
        done = await thing.state()
        with suppress(LedgerError):
            await thing.give(thing.fields, thing.signature)
        assert await thing.state() == done, f"a {name} counts twice"
