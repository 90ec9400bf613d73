"""What every `core.ports.Ledger` must do, as checks against any implementation.

Give each check of `LEDGER_CHECKS` a fresh `Stand` (or run them all with `check_ledger`):

    @pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
    def test_a_ledger_conforms(check):
        async def run():
            async with my_stand() as stand:
                await check(stand)
        asyncio.run(run())

A check passes, or raises AssertionError with what was not kept. After every check no token unit has appeared or gone.
What reorganisations and lost transactions do must be tested with the real node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from penstock.core.channel import (
    Answer,
    ChannelParams,
    Close,
    Lock,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
)
from penstock.core.errors import LedgerError, LedgerUnreachable, OutOfFunds, PenstockError, WrongLedger
from penstock.core.identity import Key
from penstock.core.ports import ChannelState, Filing, Ledger, SignedClose, SignedVoucher
from penstock.core.units import Amount

WALLET = 1_000_000  # token units that each party has at least, in its wallet
DEPOSIT = Amount(10_000)
PERIOD = 3_600  # seconds
FOREVER = 2**40
DEEP, BLOCKS = 600, 60  # seconds until what was mined must count, and how often we look
OPENER_KEY, PARTNER_KEY = Key(b"\x0c" * 32), Key(b"\x0d" * 32)
SEED = b"\x0e" * 32


class Stand(Protocol):
    """A ledger on which nothing has happened yet, and who is on it.

    Opener, partner and stranger have at least WALLET token units each in their wallets, nothing in the contract, and
    what they need to send transactions.
    """

    ledger: Ledger
    opener: Key
    partner: Key
    stranger: Key

    async def wait(self, seconds: int) -> None:
        """Let so much of the ledger's time pass."""
        ...

    async def lose(self) -> None:
        """From now on the ledger's node does not answer."""
        ...


Check = Callable[[Stand], Awaitable[None]]


# What the checks share


def channel_of(stand: Stand, counter: int = 0) -> ChannelParams:
    """A one-way channel from opener to partner."""
    keys = OPENER_KEY.address, PARTNER_KEY.address
    parties = stand.opener.address, stand.partner.address
    return ChannelParams(stand.ledger.domain, *parties, *keys, PERIOD, False, counter)


async def _deep(stand: Stand, params: ChannelParams, *status: str, **sums: int) -> ChannelState:
    """The channel's state, once it is that: what it has counts when it is deep enough in the chain to be final."""
    state = await stand.ledger.channel(params)
    for _ in range(BLOCKS):
        if state.status in status and all(getattr(state, name) == sum_ for name, sum_ in sums.items()):
            return state
        await stand.wait(DEEP // BLOCKS)
        state = await stand.ledger.channel(params)
    raise AssertionError(f"the channel is {state}, and not {' or '.join(status)} with {sums}, after {DEEP} s")


async def _opened(stand: Stand, counter: int = 0) -> ChannelParams:
    params = channel_of(stand, counter)
    await stand.ledger.open(stand.opener, params, DEPOSIT)
    await _deep(stand, params, "open", opener_deposit=DEPOSIT)
    return params


def _chain(ticks: int) -> bytes:
    link = SEED
    for _ in range(ticks):
        link = sha256(link).digest()
    return link


LOCK = Lock(_chain(10), 100, 10)


def _filing(params: ChannelParams, nonce: int, amount: int, ticks: int | None = None) -> Filing:
    """A voucher, with a lock of ten ticks under it where `ticks` says how many of them are proven."""
    locks = () if ticks is None else (LOCK,)
    voucher = Voucher.over(nonce, amount, locks)
    proofs = () if ticks is None else ((ticks, _chain(10 - ticks) if ticks else b""),)
    return Filing(voucher, OPENER_KEY.sign(voucher.digest(params)), locks, proofs)


def _voucher(params: ChannelParams, amount: int, key: Key = OPENER_KEY) -> SignedVoucher:
    voucher = Voucher.over(1, amount)
    return SignedVoucher(params, voucher, key.sign(voucher.digest(params)))


def _close(params: ChannelParams, partner_balance: int, key: Key = PARTNER_KEY, expiry: int = FOREVER) -> SignedClose:
    close = Close(DEPOSIT - partner_balance, partner_balance, expiry)
    digest = close.digest(params)
    return SignedClose(params, close, OPENER_KEY.sign(digest), key.sign(digest))


async def _wealth(stand: Stand) -> list[int]:
    """What opener, partner and stranger have outside channels."""
    keys = (stand.opener, stand.partner, stand.stranger)
    return [(await stand.ledger.holdings(key.address)).tokens for key in keys]


async def _view(stand: Stand, params: ChannelParams) -> object:
    return await _wealth(stand), await stand.ledger.filed(params, True), await stand.ledger.channel(params)


async def _refused(stand: Stand, params: ChannelParams, what: str, call: Awaitable[Any]) -> PenstockError:
    """The error of what must be refused, and change nothing."""
    before = await _view(stand, params)
    try:
        await call
    except PenstockError as error:
        assert await _view(stand, params) == before, f"{what} was refused, and has changed something"
        return error
    raise AssertionError(f"{what} was taken")


@asynccontextmanager
async def _gaining(stand: Stand, *gains: int) -> AsyncIterator[None]:
    """What happens in here gives opener, partner and stranger so much, outside channels."""
    before = await _wealth(stand)
    yield
    got = tuple(now - then for now, then in zip(await _wealth(stand), before, strict=True))
    assert got == gains, f"opener, partner and stranger gained {got}, not {gains}"


# Opening


async def an_opening_is_there_when_the_call_returns(stand: Stand) -> None:
    """With its deposit, once; from the wallet, or from the balance where that suffices."""
    params, ledger = channel_of(stand), stand.ledger
    assert (await ledger.channel(params)).status == "absent", "a channel is there that nobody has opened"
    async with _gaining(stand, -DEPOSIT, 0, 0):
        mined = await ledger.open(stand.opener, params, DEPOSIT)
    assert mined, "an opening names no transaction"
    assert len({one.hash for one in mined}) == len(mined), "two transactions have one hash"
    await _deep(stand, params, "open", opener_deposit=DEPOSIT, partner_deposit=0)
    await _refused(stand, params, "a second opening of a channel", ledger.open(stand.opener, params, DEPOSIT))
    await ledger.deposit(stand.opener, DEPOSIT)
    counter = await ledger.next_counter(stand.opener.address)
    other = channel_of(stand, counter)
    async with _gaining(stand, -DEPOSIT, 0, 0):
        await ledger.open(stand.opener, other, DEPOSIT)
    assert (await ledger.holdings(stand.opener.address)).balance == 0, "it was not opened from the balance"
    rich = (await ledger.holdings(stand.opener.address)).tokens
    beyond = channel_of(stand, ledger.fresh_counter())
    error = await _refused(
        stand, beyond, "a deposit that nobody has", ledger.open(stand.opener, beyond, Amount(rich + 1))
    )
    assert isinstance(error, (OutOfFunds, LedgerError)), f"{error!r} says nothing of funds"


async def an_opening_by_signature_is_sent_by_anybody_for_its_fee(stand: Stand) -> None:
    """From the balance; once, before its time, and by nobody's signature but the opener's."""
    ledger, params, fee = stand.ledger, channel_of(stand), 70
    await ledger.deposit(stand.opener, Amount(2 * DEPOSIT))
    opening = SignedOpening(DEPOSIT, fee, FOREVER)
    late = SignedOpening(DEPOSIT, fee, 1)
    signature = stand.opener.sign(opening.digest(params))
    for what, given, by in (
        ("an opening that a stranger signed", opening, stand.stranger.sign(opening.digest(params))),
        ("an opening for a higher fee", msgspec.structs.replace(opening, fee=fee + 1), signature),
        ("an opening after its time", late, stand.opener.sign(late.digest(params))),
    ):
        await _refused(stand, params, what, ledger.open_signed(stand.stranger, params, given, by))
    async with _gaining(stand, -DEPOSIT - fee, 0, fee):
        await ledger.open_signed(stand.stranger, params, opening, signature)
    again = ledger.open_signed(stand.stranger, params, opening, signature)
    await _refused(stand, params, "an opening that was carried out", again)


async def an_authorization_opens_from_the_wallet_once(stand: Stand) -> None:
    """By whoever sends it, for its fee; `authorize` itself sends nothing."""
    ledger, params, fee = stand.ledger, channel_of(stand, stand.ledger.fresh_counter()), Amount(70)
    async with _gaining(stand, 0, 0, 0):
        given = await ledger.authorize(stand.opener, params, DEPOSIT, fee, FOREVER)
    for what, changed in (
        ("an authorization of a higher fee", msgspec.structs.replace(given, fee=Amount(fee + 1))),
        ("an authorization of another deposit", msgspec.structs.replace(given, deposit=Amount(DEPOSIT - 1))),
        ("an authorization whose time is over", msgspec.structs.replace(given, valid_before=1)),
    ):
        await _refused(stand, params, what, ledger.open_authorized(stand.stranger, params, changed))
    async with _gaining(stand, -DEPOSIT - fee, 0, fee):
        await ledger.open_authorized(stand.stranger, params, given)
    await _deep(stand, params, "open", opener_deposit=DEPOSIT)
    await _refused(stand, params, "an authorization again", ledger.open_authorized(stand.stranger, params, given))
    rich = (await ledger.holdings(stand.opener.address)).wallet
    other = channel_of(stand, params.counter + 1)
    more = ledger.authorize(stand.opener, other, Amount(rich + 1), Amount(0), FOREVER)
    error = await _refused(stand, other, "an authorization of more than the wallet has", more)
    assert isinstance(error, OutOfFunds), f"{error!r} is no OutOfFunds"


async def a_deposit_is_raised_by_its_owner_alone(stand: Stand) -> None:
    """By its own transaction, or by anybody with its signature, up to the total that it names."""
    params, ledger = await _opened(stand), stand.ledger
    async with _gaining(stand, -500, 0, 0):
        await ledger.add(stand.opener, params, Amount(500))
    await ledger.deposit(stand.opener, Amount(1_000))
    addition = SignedAddition(DEPOSIT + 800, 30, FOREVER)
    digest, owner = addition.digest(params), stand.opener.address
    forged = ledger.add_signed(stand.stranger, params, owner, addition, stand.stranger.sign(digest))
    await _refused(stand, params, "an addition that a stranger signed", forged)
    async with _gaining(stand, -330, 0, 30):
        await ledger.add_signed(stand.stranger, params, owner, addition, stand.opener.sign(digest))
    await _deep(stand, params, "open", opener_deposit=DEPOSIT + 800)
    again = ledger.add_signed(stand.stranger, params, owner, addition, stand.opener.sign(digest))
    await _refused(stand, params, "an addition that was carried out", again)


# Paying out


async def a_claim_pays_what_is_new_of_a_voucher(stand: Stand) -> None:
    """To the payee, by its own transaction; the channel stays open."""
    params, ledger = await _opened(stand), stand.ledger
    by_stranger = ledger.claim(stand.stranger, _voucher(params, 300))
    await _refused(stand, params, "a claim by a stranger", by_stranger)
    forged = ledger.claim(stand.partner, _voucher(params, 300, stand.stranger))
    await _refused(stand, params, "a claim of a stranger's voucher", forged)
    for amount, gain in ((300, 300), (700, 400)):
        async with _gaining(stand, 0, gain, 0):
            await ledger.claim(stand.partner, _voucher(params, amount))
    older = ledger.claim(stand.partner, _voucher(params, 300))
    await _refused(stand, params, "a claim of less than was drawn", older)
    await _deep(stand, params, "open", partner_drawn=700)


async def many_claims_skip_what_is_not_taken(stand: Stand) -> None:
    """And say which, and why; the others are paid."""
    ledger = stand.ledger
    channels = [await _opened(stand, counter) for counter in range(3)]
    rows = [_voucher(channel, 100 + 10 * number) for number, channel in enumerate(channels)]
    rows[1] = _voucher(channels[1], 900, stand.stranger)
    async with _gaining(stand, 0, 220, 0):
        batch = await ledger.claim_many(stand.partner, rows)
    assert set(batch.skipped) == {channels[1].id}, "other rows were skipped than the forged one"
    assert batch.skipped[channels[1].id], "a row was skipped without a reason"


async def a_withdrawal_pays_totals_that_both_signed_once(stand: Stand) -> None:
    """Until it expires; mined twice it pays once."""
    params, ledger = await _opened(stand), stand.ledger
    withdrawal, late = Withdrawal(400, 900, FOREVER), Withdrawal(400, 900, 1)

    def both(what: Withdrawal, second: Key = PARTNER_KEY) -> tuple[bytes, bytes]:
        return OPENER_KEY.sign(what.digest(params)), second.sign(what.digest(params))

    for said, what, signatures in (
        ("a withdrawal after its time", late, both(late)),
        ("a withdrawal that a stranger signed", withdrawal, both(withdrawal, stand.stranger)),
    ):
        await _refused(stand, params, said, ledger.withdraw_together(stand.stranger, params, what, *signatures))
    async with _gaining(stand, 400, 900, 0):
        await ledger.withdraw_together(stand.stranger, params, withdrawal, *both(withdrawal))
    await _deep(stand, params, "open", opener_drawn=400, partner_drawn=900)
    async with _gaining(stand, 0, 0, 0):
        with suppress(LedgerError):
            await ledger.withdraw_together(stand.stranger, params, withdrawal, *both(withdrawal))


# Ending


async def a_close_that_both_signed_pays_at_once(stand: Stand) -> None:
    """And for good: it is final, and nothing more happens to the channel."""
    params, ledger = await _opened(stand), stand.ledger
    forged = ledger.close_together(stand.stranger, [_close(params, 900, stand.stranger)])
    await _refused(stand, params, "a close that a stranger signed", forged)
    late = ledger.close_together(stand.stranger, [_close(params, 900, expiry=1)])
    await _refused(stand, params, "a close after its time", late)
    async with _gaining(stand, DEPOSIT - 900, 900, 0):
        await ledger.close_together(stand.stranger, [_close(params, 900)])
    assert (await ledger.channel(params)).status == "settled"
    await stand.wait(PERIOD)
    assert await ledger.final(params), "a channel that ended long ago is not final"
    for what, call in (
        ("a close of a channel that has ended", ledger.close_together(stand.stranger, [_close(params, 900)])),
        ("a claim in a channel that has ended", ledger.claim(stand.partner, _voucher(params, 2_000))),
        ("an addition to a channel that has ended", ledger.add(stand.opener, params, Amount(1))),
        ("an opening of a channel that has ended", ledger.open(stand.opener, params, DEPOSIT)),
    ):
        await _refused(stand, params, what, call)


async def many_closes_skip_what_is_not_taken(stand: Stand) -> None:
    """The others end."""
    ledger = stand.ledger
    channels = [await _opened(stand, counter) for counter in range(3)]
    rows = [_close(channel, 100) for channel in channels]
    rows[1] = _close(channels[1], 100, expiry=1)
    async with _gaining(stand, 2 * (DEPOSIT - 100), 200, 0):
        await ledger.close_together(stand.partner, rows)
    states = [(await ledger.channel(channel)).status for channel in channels]
    assert states == ["settled", "open", "settled"], f"they are {states}"


async def a_close_waits_for_the_payees_answer(stand: Stand) -> None:
    """The payer's close begins a challenge; what the payee files in it counts, with the ticks that it proves."""
    params, ledger = await _opened(stand), stand.ledger
    by_stranger = ledger.close(stand.stranger, params, None)
    await _refused(stand, params, "a close by a stranger", by_stranger)
    await ledger.close(stand.opener, params, None)
    state = await ledger.channel(params)
    assert state.status == "closing", f"it is {state}"
    assert PERIOD - 60 <= state.closes_at - await ledger.now() <= PERIOD, "the challenge does not last its period"
    assert not (await ledger.filed(params, True)).present, "something is filed that nobody has filed"
    await _refused(stand, params, "a settlement within the challenge", ledger.settle(stand.opener, params))
    by_stranger = ledger.file(stand.stranger, params, _filing(params, 5, 700))
    await _refused(stand, params, "a filing by a stranger", by_stranger)
    async with _gaining(stand, DEPOSIT - 1_000, 1_000, 0):
        await ledger.file(stand.partner, params, _filing(params, 5, 700, ticks=3))
        if (await ledger.channel(params)).status != "settled":
            await stand.wait(PERIOD + 1)
            await ledger.settle(stand.opener, params)
    assert (await ledger.channel(params)).status == "settled"


async def a_close_that_nobody_answers_ends_with_its_period(stand: Stand) -> None:
    """The payer then has everything back that was never claimed."""
    params, ledger = await _opened(stand), stand.ledger
    await ledger.claim(stand.partner, _voucher(params, 300))
    await ledger.close(stand.opener, params, None)
    await stand.wait(PERIOD + 1)
    late = ledger.file(stand.partner, params, _filing(params, 5, 700))
    await _refused(stand, params, "a filing after the challenge", late)
    async with _gaining(stand, DEPOSIT - 300, 0, 0):
        await ledger.settle(stand.stranger, params)
    assert (await ledger.channel(params)).status == "settled"
    await _refused(stand, params, "a second settlement", ledger.settle(stand.opener, params))


async def somebody_answers_with_the_payees_leave_alone(stand: Stand) -> None:
    """By its consent, with its ticks proven later by anybody; `filed` says what counts."""
    params, ledger = await _opened(stand), stand.ledger
    await ledger.close(stand.opener, params, None)
    filing = _filing(params, 5, 700, ticks=0)
    answer = Answer(filing.voucher.content(params), 5)
    own = PARTNER_KEY.sign(answer.digest(params))
    for what, consent, sequence in (
        ("an answer with a stranger's consent", stand.stranger.sign(answer.digest(params)), 5),
        ("an answer out of its order", own, 6),
    ):
        await _refused(stand, params, what, ledger.answer(stand.stranger, params, True, filing, sequence, consent))
    await ledger.answer(stand.stranger, params, True, filing, 5, own)
    filed = await ledger.filed(params, True)
    assert (filed.present, filed.by_payee, filed.amount, filed.locked) == (True, False, 700, 1_000), f"it is {filed}"
    assert filed.locks_root == filing.voucher.locks_root, "another tree of locks is filed"
    await ledger.prove(stand.stranger, params, True, _filing(params, 5, 700, ticks=4))
    assert (await ledger.filed(params, True)).amount == 1_100, "four ticks were not counted"
    assert await ledger.prove(stand.stranger, params, True, _filing(params, 5, 700, ticks=2)) == [], "ticks again"
    assert (await ledger.filed(params, True)).amount == 1_100
    await stand.wait(PERIOD + 1)
    async with _gaining(stand, DEPOSIT - 1_100, 1_100, 0):
        await ledger.settle(stand.stranger, params)


async def a_payee_is_held_to_its_release(stand: Stand) -> None:
    """An older voucher does not count against it; it has at least what the release names."""
    params, ledger = await _opened(stand), stand.ledger
    await ledger.close(stand.opener, params, None)
    release = Release(4, 600)
    forged = ledger.release(stand.opener, params, True, release, stand.stranger.sign(release.digest(params)))
    await _refused(stand, params, "a release that a stranger signed", forged)
    await ledger.release(stand.opener, params, True, release, PARTNER_KEY.sign(release.digest(params)))
    assert (await ledger.filed(params, True)).amount == 600, "the release's sum does not count"
    older = ledger.file(stand.partner, params, _filing(params, 3, 900))
    await _refused(stand, params, "a voucher that was released", older)
    await stand.wait(PERIOD + 1)
    async with _gaining(stand, DEPOSIT - 600, 600, 0):
        await ledger.settle(stand.opener, params)


# Balances and places


async def a_balance_is_its_owners(stand: Stand) -> None:
    """Deposited and withdrawn, and never more than there is."""
    ledger, owner = stand.ledger, stand.opener
    await ledger.deposit(owner, Amount(400))
    held = await ledger.holdings(owner.address)
    assert held.balance == 400, f"it holds {held}"
    await ledger.withdraw(owner, Amount(150))
    after = await ledger.holdings(owner.address)
    assert (after.balance, after.wallet) == (250, held.wallet + 150), f"it holds {after}"
    params = channel_of(stand)
    await _refused(stand, params, "a withdrawal of more than there is", ledger.withdraw(owner, Amount(251)))
    rich = Amount((await ledger.holdings(stand.stranger.address)).wallet + 1)
    await _refused(stand, params, "a deposit of more than there is", ledger.deposit(stand.stranger, rich))


async def another_ledgers_channel_is_refused(stand: Stand) -> None:
    """By WrongLedger, whatever is asked of it; and the contract is what it says."""
    ledger, params = stand.ledger, channel_of(stand)
    assert await ledger.genuine(), "the contract is not this version's"
    assert (await ledger.token()).symbol, "the token has no symbol"
    elsewhere = msgspec.structs.replace(
        params, domain=msgspec.structs.replace(params.domain, chain_id=params.domain.chain_id + 1)
    )
    for call in (
        ledger.channel(elsewhere),
        ledger.filed(elsewhere, True),
        ledger.open(stand.opener, elsewhere, DEPOSIT),
        ledger.close(stand.opener, elsewhere, None),
        ledger.settle(stand.opener, elsewhere),
    ):
        error = await _refused(stand, params, "a channel of another chain", call)
        assert isinstance(error, WrongLedger), f"{error!r} is no WrongLedger"


async def a_ledger_out_of_reach_says_so(stand: Stand) -> None:
    """By LedgerUnreachable, with advice, to whatever is asked."""
    params, ledger = await _opened(stand), stand.ledger
    await stand.lose()
    for call in (ledger.now(), ledger.channel(params), ledger.close(stand.opener, params, None)):
        error: PenstockError | None = None
        try:
            await call
        except LedgerUnreachable as raised:
            error = raised
        assert error is not None, "a ledger out of reach answered"
        assert error.advice, "an unreachable ledger gives no advice"


LEDGER_CHECKS: tuple[Check, ...] = (
    an_opening_is_there_when_the_call_returns,
    an_opening_by_signature_is_sent_by_anybody_for_its_fee,
    an_authorization_opens_from_the_wallet_once,
    a_deposit_is_raised_by_its_owner_alone,
    a_claim_pays_what_is_new_of_a_voucher,
    many_claims_skip_what_is_not_taken,
    a_withdrawal_pays_totals_that_both_signed_once,
    a_close_that_both_signed_pays_at_once,
    many_closes_skip_what_is_not_taken,
    a_close_waits_for_the_payees_answer,
    a_close_that_nobody_answers_ends_with_its_period,
    somebody_answers_with_the_payees_leave_alone,
    a_payee_is_held_to_its_release,
    a_balance_is_its_owners,
    another_ledgers_channel_is_refused,
    a_ledger_out_of_reach_says_so,
)


async def check_ledger(new_stand: Callable[[], AbstractAsyncContextManager[Stand]]) -> None:
    """Run every check, each on a fresh ledger."""
    for check in LEDGER_CHECKS:
        async with new_stand() as stand:
            await check(stand)
