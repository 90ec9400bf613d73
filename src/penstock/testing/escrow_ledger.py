"""What every `core.ports.EscrowLedger` must do, as checks against any implementation.

As `penstock.testing.ledger`, whose `Stand` these want with a ledger of escrows: opener and partner are payer and payee.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import msgspec

from penstock.core.errors import LedgerUnreachable, OutOfFunds, PenstockError, WrongLedger
from penstock.core.escrow import EscrowParams, MeterReading, SignedReading, deposit_digest, end_digest, tariff_hash
from penstock.core.identity import Key
from penstock.core.ports import EscrowLedger, EscrowState, SignedEnd
from penstock.core.tariff import Step, Tariff
from penstock.core.units import Amount, Instant, Quantity

DEPOSIT = 10_000
WINDOW, LIFE = 600, 7_200  # seconds
FOREVER = 2**40
DEEP, BLOCKS = 600, 60  # seconds until what was mined must count, and how often we look
PAYER_KEY, PAYEE_KEY, METER = Key(b"\x0c" * 32), Key(b"\x0d" * 32), Key(b"\x0e" * 32)
TURN = Instant(1_000_000)
TARIFF = Tariff(10, (Step(Instant(0), 40), Step(TURN, 100)))  # 4 token units a unit of the medium, and then 10


class Stand(Protocol):
    """A ledger on which nothing has happened yet, and who is on it.

    Payer, payee and stranger have at least `penstock.testing.ledger.WALLET` token units each in their wallets, nothing
    in the contract, and what they need to send transactions.
    """

    opener: Key  # the payer
    partner: Key  # the payee
    stranger: Key

    @property
    def ledger(self) -> EscrowLedger:
        """The ledger."""
        ...

    async def wait(self, seconds: int) -> None:
        """Let so much of the ledger's time pass."""
        ...

    async def lose(self) -> None:
        """From now on the ledger's node does not answer."""
        ...


Check = Callable[[Stand], Awaitable[None]]


# What the checks share


async def escrow_of(stand: Stand, counter: int = 0, window: int = WINDOW, deposit: int = DEPOSIT) -> EscrowParams:
    """An escrow of the payer for the payee that lives for LIFE from now on."""
    return EscrowParams(
        stand.ledger.domain,
        stand.opener.address,
        stand.partner.address,
        PAYER_KEY.address,
        PAYEE_KEY.address,
        METER.address,
        tariff_hash(TARIFF),
        deposit,
        await stand.ledger.now() + LIFE,
        window,
        counter,
    )


async def _funded(stand: Stand, counter: int = 0, window: int = WINDOW) -> EscrowParams:
    params = await escrow_of(stand, counter, window)
    await stand.ledger.fund(stand.opener, params)
    await _deep(stand, params, "open")
    return params


async def _deep(stand: Stand, params: EscrowParams, status: str) -> EscrowState:
    """The escrow's state, once it is that: what it has counts when it is deep enough in the chain to be final."""
    state = await stand.ledger.escrow(params)
    for _ in range(BLOCKS):
        if state.status == status:
            return state
        await stand.wait(DEEP // BLOCKS)
        state = await stand.ledger.escrow(params)
    raise AssertionError(f"the escrow is {state}, and not {status}, after {DEEP} s")


def _reading(
    params: EscrowParams, sequence: int, total: int, *turns: int, last: bool = False, key: Key = METER
) -> SignedReading:
    """What the meter signs; after the tariff's turn where one is given."""
    at = Instant(TURN + sequence) if turns else Instant(sequence)
    reading = MeterReading(sequence, at, Quantity(total), tuple(map(Quantity, turns)), last)
    return SignedReading(reading, key.sign(reading.digest(params)))


def _end(params: EscrowParams, amount: int, payee: Key = PAYEE_KEY) -> SignedEnd:
    digest = end_digest(params, amount)
    return SignedEnd(params, Amount(amount), PAYER_KEY.sign(digest), payee.sign(digest))


async def _wealth(stand: Stand) -> list[int]:
    keys = (stand.opener, stand.partner, stand.stranger)
    return [(await stand.ledger.holdings(key.address)).tokens for key in keys]


async def _refused(stand: Stand, params: EscrowParams, what: str, call: Awaitable[Any]) -> PenstockError:
    """The error of what must be refused, and change nothing."""
    before = await _wealth(stand), await stand.ledger.escrow(params)
    try:
        await call
    except PenstockError as error:
        after = await _wealth(stand), await stand.ledger.escrow(params)
        assert after == before, f"{what} was refused, and has changed something"
        return error
    raise AssertionError(f"{what} was taken")


@asynccontextmanager
async def _gaining(stand: Stand, *gains: int) -> AsyncIterator[None]:
    """What happens in here gives payer, payee and stranger so much, outside escrows."""
    before = await _wealth(stand)
    yield
    got = tuple(now - then for now, then in zip(await _wealth(stand), before, strict=True))
    assert got == gains, f"payer, payee and stranger gained {got}, not {gains}"


# Funding


async def a_deposit_is_there_when_the_call_returns(stand: Stand) -> None:
    """Once; and never one that the wallet does not hold."""
    params, ledger = await escrow_of(stand), stand.ledger
    assert (await ledger.escrow(params)).status == "absent", "an escrow is there that nobody has funded"
    async with _gaining(stand, -DEPOSIT, 0, 0):
        assert await ledger.fund(stand.opener, params), "a deposit names no transaction"
    state = await _deep(stand, params, "open")
    assert state == EscrowState("open"), f"it is {state}"
    await _refused(stand, params, "a second deposit", ledger.fund(stand.opener, params))
    rich = (await ledger.holdings(stand.opener.address)).tokens
    beyond = await escrow_of(stand, 1, deposit=rich + 1)
    error = await _refused(stand, beyond, "a deposit that nobody has", ledger.fund(stand.opener, beyond))
    assert isinstance(error, OutOfFunds), f"{error!r} is no OutOfFunds"
    others = ledger.fund(stand.stranger, await escrow_of(stand, 2))
    await _refused(stand, params, "a deposit in another's name", others)


async def a_deposit_by_signature_is_sent_by_anybody_for_its_fee(stand: Stand) -> None:
    """From the balance; once, before its time, and by nobody's signature but the payer's."""
    ledger, fee = stand.ledger, Amount(70)
    ended = await _funded(stand)
    await ledger.end(stand.opener, [_end(ended, 0)])  # its deposit is the payer's balance now
    params = await escrow_of(stand, 1, deposit=DEPOSIT - fee)
    signature = stand.opener.sign(deposit_digest(params, fee, FOREVER))
    forged = stand.stranger.sign(deposit_digest(params, fee, FOREVER))
    late = stand.opener.sign(deposit_digest(params, fee, 1))
    for what, given in (
        ("a deposit that a stranger signed", (fee, FOREVER, forged)),
        ("a deposit for a lower fee", (Amount(fee - 1), FOREVER, signature)),
        ("a deposit after its time", (fee, 1, late)),
    ):
        await _refused(stand, params, what, ledger.fund_signed(stand.stranger, params, *given))
    async with _gaining(stand, -DEPOSIT, 0, fee):
        await ledger.fund_signed(stand.stranger, params, fee, FOREVER, signature)
    again = ledger.fund_signed(stand.stranger, params, fee, FOREVER, signature)
    await _refused(stand, params, "a deposit that was made", again)


async def an_authorization_makes_the_deposit_once(stand: Stand) -> None:
    """From the wallet, by whoever sends it, for its fee; `authorize` itself sends nothing."""
    ledger, params, fee = stand.ledger, await escrow_of(stand), Amount(70)
    async with _gaining(stand, 0, 0, 0):
        given = await ledger.authorize(stand.opener, params, fee, FOREVER)
    dearer = msgspec.structs.replace(given, fee=Amount(fee + 1))
    await _refused(stand, params, "a higher fee", ledger.fund_authorized(stand.stranger, params, dearer))
    other = await escrow_of(stand, 1)
    await _refused(stand, other, "another escrow", ledger.fund_authorized(stand.stranger, other, given))
    async with _gaining(stand, -DEPOSIT - fee, 0, fee):
        await ledger.fund_authorized(stand.stranger, params, given)
    await _refused(stand, params, "an authorization again", ledger.fund_authorized(stand.stranger, params, given))
    rich = (await ledger.holdings(stand.opener.address)).wallet
    beyond = await escrow_of(stand, 2, deposit=rich)
    more = ledger.authorize(stand.opener, beyond, Amount(1), FOREVER)
    error = await _refused(stand, beyond, "an authorization of more than the wallet has", more)
    assert isinstance(error, OutOfFunds), f"{error!r} is no OutOfFunds"


# Releasing


async def a_reading_releases_what_the_tariff_says(stand: Stand) -> None:
    """Over the price's turn, by the payee alone, once its window is over; never more than the deposit."""
    params, ledger = await _funded(stand), stand.ledger
    for what, key, signed in (
        ("a reading that a stranger files", stand.stranger, _reading(params, 1, 50)),
        ("a reading that the payer files", stand.opener, _reading(params, 1, 50)),
        ("a reading that a stranger signed", stand.partner, _reading(params, 1, 50, key=stand.stranger)),
        ("a reading whose turns are not the tariff's", stand.partner, _reading(params, 1, 50, 20, 30)),
    ):
        await _refused(stand, params, what, ledger.release(key, params, TARIFF, signed))
    async with _gaining(stand, 0, 0, 0):
        await ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 50))
        await ledger.release(stand.partner, params, TARIFF, _reading(params, 2, 80, 60))
    state = await ledger.escrow(params)
    assert (state.status, state.claimed, state.drawn) == ("open", 440, 0), f"it is {state}"
    assert 0 <= state.matures_at - await ledger.now() <= WINDOW, "the claim does not wait for its window"
    older = ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 50))
    await _refused(stand, params, "a reading of less than was claimed", older)
    await _refused(stand, params, "a settlement within the window", ledger.settle(stand.partner, params))
    await stand.wait(WINDOW + 1)
    async with _gaining(stand, 0, 440, 0):
        await ledger.settle(stand.stranger, params)
    await ledger.release(stand.partner, params, TARIFF, _reading(params, 3, 100_000, 60))
    assert (await ledger.escrow(params)).claimed == DEPOSIT, "more or less than the deposit is claimed"


async def the_last_reading_ends_it(stand: Stand) -> None:
    """Whoever files it: what is due matures, the rest goes back, and it is final."""
    params, ledger = await _funded(stand), stand.ledger
    await ledger.release(stand.stranger, params, TARIFF, _reading(params, 7, 30, last=True))
    more = ledger.release(stand.partner, params, TARIFF, _reading(params, 8, 90, last=True))
    await _refused(stand, params, "a reading after the last", more)
    await stand.wait(WINDOW + 1)
    async with _gaining(stand, DEPOSIT - 120, 120, 0):
        await ledger.settle(stand.opener, params)
    assert (await ledger.escrow(params)).status == "ended"
    await stand.wait(DEEP)
    assert await ledger.final(params), "an escrow that ended long ago is not final"
    await _refused(stand, params, "a settlement of what has ended", ledger.settle(stand.opener, params))


async def without_a_window_the_last_reading_pays_at_once(stand: Stand) -> None:
    """There is nothing to wait for."""
    params = await _funded(stand, window=0)
    async with _gaining(stand, DEPOSIT - 120, 120, 0):
        await stand.ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 30, last=True))
    assert (await stand.ledger.escrow(params)).status == "ended"


async def a_contradiction_is_shown_within_the_window(stand: Stand) -> None:
    """Then the lesser reading counts, and no other is taken; never less than was drawn."""
    params, ledger = await _funded(stand), stand.ledger
    await ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 10))
    await stand.wait(WINDOW + 1)
    await ledger.settle(stand.partner, params)
    more, less = _reading(params, 5, 900), _reading(params, 5, 60)
    await ledger.release(stand.partner, params, TARIFF, more)
    for what, pair in (
        ("a contest by one reading", (more, more)),
        ("a contest by readings that agree", (_reading(params, 4, 60), more)),
        ("a contest by a forged reading", (_reading(params, 5, 60, key=stand.stranger), more)),
    ):
        await _refused(stand, params, what, ledger.contest(stand.opener, params, TARIFF, *pair))
    await ledger.contest(stand.opener, params, TARIFF, less, more)
    state = await ledger.escrow(params)
    assert (state.claimed, state.drawn, state.contested) == (240, 40, True), f"it is {state}"
    again = ledger.release(stand.partner, params, TARIFF, _reading(params, 6, 950))
    await _refused(stand, params, "a reading of a meter that contradicts itself", again)
    await stand.wait(WINDOW + 1)
    async with _gaining(stand, DEPOSIT - 240, 200, 0):
        await ledger.settle(stand.opener, params)


async def what_was_filed_is_shown_as_long_as_it_can_be_contested(stand: Stand) -> None:
    """With the meter's own signatures, oldest first: who paid finds out what its meter signed."""
    params, ledger = await _funded(stand), stand.ledger
    assert await ledger.filed(params) == [], "readings are shown that nobody has filed"
    rows = [_reading(params, 1, 50), _reading(params, 2, 80, 60)]
    for row in rows:
        await ledger.release(stand.partner, params, TARIFF, row)
    assert await ledger.filed(params) == rows, "other readings are shown than were filed"
    other = await _funded(stand, 1)
    assert await ledger.filed(other) == [], "another escrow's readings are shown"
    await stand.wait(WINDOW + 1)
    assert await ledger.filed(params) == [], "readings are shown that can be contested no more"


async def what_has_matured_is_contested_no_more(stand: Stand) -> None:
    """The payer had its time."""
    params, ledger = await _funded(stand), stand.ledger
    await ledger.release(stand.partner, params, TARIFF, _reading(params, 5, 900))
    await stand.wait(WINDOW + 1)
    pair = _reading(params, 5, 60), _reading(params, 5, 900)
    await _refused(stand, params, "a contest after the window", ledger.contest(stand.opener, params, TARIFF, *pair))
    async with _gaining(stand, 0, 3_600, 0):
        await ledger.settle(stand.partner, params)


# Ending


async def an_end_that_both_signed_pays_at_once(stand: Stand) -> None:
    """Whatever waits, and whoever sends it; once."""
    params, ledger = await _funded(stand), stand.ledger
    await ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 100))
    forged = ledger.end(stand.stranger, [_end(params, 900, stand.stranger)])
    await _refused(stand, params, "an end that a stranger signed", forged)
    beyond = ledger.end(stand.stranger, [_end(params, DEPOSIT + 1)])
    await _refused(stand, params, "an end over more than the deposit", beyond)
    async with _gaining(stand, DEPOSIT - 900, 900, 0):
        await ledger.end(stand.stranger, [_end(params, 900)])
    assert (await ledger.escrow(params)).status == "ended"
    await _refused(stand, params, "an end again", ledger.end(stand.stranger, [_end(params, 900)]))
    await _refused(stand, params, "a deposit of what has ended", ledger.fund(stand.opener, params))


async def many_ends_skip_what_is_not_taken(stand: Stand) -> None:
    """The others end."""
    ledger = stand.ledger
    escrows = [await _funded(stand, counter) for counter in range(3)]
    rows = [_end(escrow, 100) for escrow in escrows]
    rows[1] = _end(escrows[1], 100, stand.stranger)
    async with _gaining(stand, 2 * (DEPOSIT - 100), 200, 0):
        await ledger.end(stand.partner, rows)
    states = [(await ledger.escrow(escrow)).status for escrow in escrows]
    assert states == ["ended", "open", "ended"], f"they are {states}"


async def past_the_deadline_the_rest_goes_back(stand: Stand) -> None:
    """No reading is taken any more; one that waits still matures."""
    params, ledger = await _funded(stand), stand.ledger
    await _refused(stand, params, "a refund before the deadline", ledger.settle(stand.opener, params))
    await stand.wait(LIFE - WINDOW // 2)
    await ledger.release(stand.partner, params, TARIFF, _reading(params, 1, 50))
    await stand.wait(WINDOW // 2 + 1)
    late = ledger.release(stand.partner, params, TARIFF, _reading(params, 2, 90, last=True))
    await _refused(stand, params, "a reading after the deadline", late)
    await stand.wait(WINDOW)
    async with _gaining(stand, DEPOSIT - 200, 200, 0):
        await ledger.settle(stand.opener, params)
    assert (await ledger.escrow(params)).status == "ended"


# Balances and places


async def a_balance_is_its_owners(stand: Stand) -> None:
    """Withdrawn by it, and never more than there is."""
    params, ledger = await _funded(stand), stand.ledger
    await ledger.end(stand.stranger, [_end(params, 900)])
    before = await ledger.holdings(stand.partner.address)
    assert before.balance == 900, f"the payee holds {before}"
    await _refused(stand, params, "a withdrawal by another", ledger.withdraw(stand.stranger, Amount(900)))
    await _refused(stand, params, "a withdrawal of more than there is", ledger.withdraw(stand.partner, Amount(901)))
    await ledger.withdraw(stand.partner, Amount(900))
    after = await ledger.holdings(stand.partner.address)
    assert (after.balance, after.wallet) == (0, before.wallet + 900), f"the payee holds {after}"


async def another_ledgers_escrow_is_refused(stand: Stand) -> None:
    """By WrongLedger, whatever is asked of it; and the contract is what it says."""
    ledger, params = stand.ledger, await escrow_of(stand)
    assert await ledger.genuine(), "the contract is not this version's"
    assert (await ledger.token()).symbol, "the token has no symbol"
    domain = msgspec.structs.replace(params.domain, chain_id=params.domain.chain_id + 1)
    elsewhere = msgspec.structs.replace(params, domain=domain)
    for call in (
        lambda: ledger.escrow(elsewhere),
        lambda: ledger.fund(stand.opener, elsewhere),
        lambda: ledger.settle(stand.opener, elsewhere),
        lambda: ledger.end(stand.opener, [_end(elsewhere, 1)]),
    ):
        error = await _refused(stand, params, "an escrow of another chain", call())
        assert isinstance(error, WrongLedger), f"{error!r} is no WrongLedger"


async def a_ledger_out_of_reach_says_so(stand: Stand) -> None:
    """By LedgerUnreachable, with advice, to whatever is asked."""
    params, ledger = await _funded(stand), stand.ledger
    await stand.lose()
    for call in (ledger.now, lambda: ledger.escrow(params), lambda: ledger.settle(stand.opener, params)):
        error: PenstockError | None = None
        try:
            await call()
        except LedgerUnreachable as raised:
            error = raised
        assert error is not None, "a ledger out of reach answered"
        assert error.advice, "an unreachable ledger gives no advice"


ESCROW_LEDGER_CHECKS: tuple[Check, ...] = (
    a_deposit_is_there_when_the_call_returns,
    a_deposit_by_signature_is_sent_by_anybody_for_its_fee,
    an_authorization_makes_the_deposit_once,
    a_reading_releases_what_the_tariff_says,
    the_last_reading_ends_it,
    without_a_window_the_last_reading_pays_at_once,
    a_contradiction_is_shown_within_the_window,
    what_was_filed_is_shown_as_long_as_it_can_be_contested,
    what_has_matured_is_contested_no_more,
    an_end_that_both_signed_pays_at_once,
    many_ends_skip_what_is_not_taken,
    past_the_deadline_the_rest_goes_back,
    a_balance_is_its_owners,
    another_ledgers_escrow_is_refused,
    a_ledger_out_of_reach_says_so,
)


async def check_escrow_ledger(new_stand: Callable[[], AbstractAsyncContextManager[Stand]]) -> None:
    """Run every check, each on a fresh ledger."""
    for check in ESCROW_LEDGER_CHECKS:
        async with new_stand() as stand:
            await check(stand)
