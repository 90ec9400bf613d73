"""Sessions that are short enough to be broken at every point: what is sold, over how much, and how to begin one."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from penstock.core.errors import LedgerError, PenstockError, RemoteError
from penstock.core.meter import Tolerance
from penstock.core.offer import Mode, Offer, Terms
from penstock.core.rail import Capabilities
from penstock.core.session import Role
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Instant
from penstock.testing.rail.pair import Pair, sides_of
from penstock.testing.rail.setup import Books, Funds, RailSetup, Shares

TICK = 700  # token units
CREDIT = 3 * TICK
DEPOSIT = 100_000
QUANTITY = 40  # units of the medium
HOUR = 3_600_000  # ms


class Play(NamedTuple):
    """A session under way, its funds, and whose the tokens were when these had just been made."""

    pair: Pair
    funds: Funds
    before: Shares

    async def conserved(self) -> Shares:
        """What each has gained since then. Whoever has the tokens, they are as many as they were."""
        now = await self.funds.shares()
        assert sum(now) == sum(self.before), f"{sum(now)} token units where there were {sum(self.before)}"
        return now.since(self.before)


async def begin(
    setup: RailSetup, mode: Mode, *, turning: bool = True, quantity: int = QUANTITY, begun: bool = True
) -> Play:
    """Fund a session and begin it; the price turns twice on its way where `turning`."""
    start = await setup.now()
    steps = [Step(Instant(0), 300_000)]
    if turning:
        steps += [Step(Instant(start + 400), 450_000), Step(Instant(start + 1_200), 90_000)]
    offer = Offer(
        supplier=setup.supplier.address,
        name="conformance",
        medium="electricity",
        tariff=Tariff(1_000, tuple(steps)),
        tick_value=TICK,
        package=3,
        credit_limit=CREDIT,
        mode=mode,
        tolerance=Tolerance(0, 0),
        rails={setup.capabilities.name: setup.details()},
        meter="",
        expires=Instant(start + HOUR),
    )
    offer.check()
    funds = await setup.fund(offer, DEPOSIT)
    terms = Terms(
        offer=offer,
        consumer=setup.consumer.address,
        rail=setup.capabilities.name,
        rail_terms=funds.rail_terms,
        quantity_limit=quantity,
        budget=DEPOSIT,
        at=start,
        nonce=bytes(16),
    )
    terms.check()
    before = await funds.shares()
    sides = sides_of(terms, funds, setup.supplier, setup.consumer)
    return Play(Pair(*sides, setup.capabilities, begin=begun), funds, before)


def modes(capabilities: Capabilities) -> tuple[Mode, ...]:
    """The modes in which the rail serves sessions."""
    assert capabilities.modes, "a rail serves at least one mode"
    return capabilities.modes


async def settle(setup: RailSetup, play: Play, role: Role, books: Books) -> Shares:
    """One side leaves with these books and the other answers nothing; both collect. Returns what each has gained."""
    funds = play.funds
    try:
        await funds.leave(role, books)
    except PenstockError as error:
        raise AssertionError(f"the {role} cannot leave with what its journal has: {error}") from error
    await play.conserved()
    await setup.wait(setup.deadline)
    return await collected(play, role)


async def collected(play: Play, first: Role) -> Shares:
    """Both sides collect what can be paid by now, this one first. Returns what each has gained."""
    for role in (first, Role.CONSUMER if first is Role.SUPPLIER else Role.SUPPLIER):
        with suppress(LedgerError):  # the first may have collected for both
            await play.funds.collect(role)
    return await play.conserved()


def taken(end: object, heard: tuple[object, ...]) -> tuple[tuple[bytes, bytes | None], ...]:
    """What an end makes of evidence that was recorded: its rows; none where it refuses."""
    try:
        if len(heard) == 2:
            return end.take(*heard)  # type: ignore[attr-defined, no-any-return]  # a payee's, recorded as it came
        return end.metered(*heard)  # type: ignore[attr-defined, no-any-return]  # a payer's
    except RemoteError:
        return ()
