"""How money comes out of channels: claims, withdrawals, closes and their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from penstock.core.channel import (
    Answer,
    Release,
    Withdrawal,
)
from penstock.core.errors import LedgerError
from penstock.core.identity import Key
from penstock.core.ports import ProvenTicks
from penstock.core.units import Amount
from penstock.testing.ledger.stand import (
    DEPOSIT,
    FOREVER,
    LOCK,
    OPENER_KEY,
    PARTNER_KEY,
    PERIOD,
    Stand,
    chain_of,
    close_of,
    deep,
    filing_of,
    gaining,
    opened,
    refused,
    voucher_of,
)

# Paying out


async def a_claim_pays_what_is_new_of_a_voucher(stand: Stand) -> None:
    """To the payee, by its own transaction; the channel stays open."""
    params, ledger = await opened(stand), stand.ledger
    by_stranger = ledger.claim(stand.stranger, voucher_of(params, 300))
    await refused(stand, params, "a claim by a stranger", by_stranger)
    forged = ledger.claim(stand.partner, voucher_of(params, 300, stand.stranger))
    await refused(stand, params, "a claim of a stranger's voucher", forged)
    for amount, gain in ((300, 300), (700, 400)):
        async with gaining(stand, 0, gain, 0):
            await ledger.claim(stand.partner, voucher_of(params, amount))
    older = ledger.claim(stand.partner, voucher_of(params, 300))
    await refused(stand, params, "a claim of less than was drawn", older)
    await deep(stand, params, "open", partner_drawn=700)


async def many_claims_skip_what_is_not_taken(stand: Stand) -> None:
    """And say which, and why; the others are paid."""
    ledger = stand.ledger
    channels = [await opened(stand, counter) for counter in range(3)]
    rows = [voucher_of(channel, 100 + 10 * number) for number, channel in enumerate(channels)]
    rows[1] = voucher_of(channels[1], 900, stand.stranger)
    async with gaining(stand, 0, 220, 0):
        batch = await ledger.claim_many(stand.partner, rows)
    assert set(batch.skipped) == {channels[1].id}, "other rows were skipped than the forged one"
    assert batch.skipped[channels[1].id], "a row was skipped without a reason"


async def a_withdrawal_pays_totals_that_both_signed_once(stand: Stand) -> None:
    """Until it expires; mined twice it pays once."""
    params, ledger = await opened(stand), stand.ledger
    withdrawal, late = Withdrawal(400, 900, FOREVER), Withdrawal(400, 900, 1)

    def both(what: Withdrawal, second: Key = PARTNER_KEY) -> tuple[bytes, bytes]:
        return OPENER_KEY.sign(what.digest(params)), second.sign(what.digest(params))

    for said, what, signatures in (
        ("a withdrawal after its time", late, both(late)),
        ("a withdrawal that a stranger signed", withdrawal, both(withdrawal, stand.stranger)),
    ):
        await refused(stand, params, said, ledger.withdraw_together(stand.stranger, params, what, *signatures))
    async with gaining(stand, 400, 900, 0):
        await ledger.withdraw_together(stand.stranger, params, withdrawal, *both(withdrawal))
    await deep(stand, params, "open", opener_drawn=400, partner_drawn=900)
    async with gaining(stand, 0, 0, 0):
        with suppress(LedgerError):
            await ledger.withdraw_together(stand.stranger, params, withdrawal, *both(withdrawal))


# Ending


async def a_close_that_both_signed_pays_at_once(stand: Stand) -> None:
    """And for good: it is final, and nothing more happens to the channel."""
    params, ledger = await opened(stand), stand.ledger
    forged = ledger.close_together(stand.stranger, [close_of(params, 900, stand.stranger)])
    await refused(stand, params, "a close that a stranger signed", forged)
    late = ledger.close_together(stand.stranger, [close_of(params, 900, expiry=1)])
    await refused(stand, params, "a close after its time", late)
    async with gaining(stand, DEPOSIT - 900, 900, 0):
        await ledger.close_together(stand.stranger, [close_of(params, 900)])
    assert (await ledger.channel(params)).status == "settled"
    await stand.wait(PERIOD)
    assert await ledger.final(params), "a channel that ended long ago is not final"
    afterwards: tuple[tuple[str, Callable[[], Awaitable[object]]], ...] = (
        ("a close of a channel that has ended", lambda: ledger.close_together(stand.stranger, [close_of(params, 900)])),
        ("a claim in a channel that has ended", lambda: ledger.claim(stand.partner, voucher_of(params, 2_000))),
        ("an addition to a channel that has ended", lambda: ledger.add(stand.opener, params, Amount(1))),
        ("an opening of a channel that has ended", lambda: ledger.open(stand.opener, params, DEPOSIT)),
    )
    for what, call in afterwards:
        await refused(stand, params, what, call())


async def many_closes_skip_what_is_not_taken(stand: Stand) -> None:
    """The others end."""
    ledger = stand.ledger
    channels = [await opened(stand, counter) for counter in range(3)]
    rows = [close_of(channel, 100) for channel in channels]
    rows[1] = close_of(channels[1], 100, expiry=1)
    async with gaining(stand, 2 * (DEPOSIT - 100), 200, 0):
        await ledger.close_together(stand.partner, rows)
    states = [(await ledger.channel(channel)).status for channel in channels]
    assert states == ["settled", "open", "settled"], f"they are {states}"


async def a_close_waits_for_the_payees_answer(stand: Stand) -> None:
    """The payer's close begins a challenge; what the payee files in it counts, with the ticks that it proves."""
    params, ledger = await opened(stand), stand.ledger
    by_stranger = ledger.close(stand.stranger, params, None)
    await refused(stand, params, "a close by a stranger", by_stranger)
    await ledger.close(stand.opener, params, None)
    state = await ledger.channel(params)
    assert state.status == "closing", f"it is {state}"
    assert PERIOD - 60 <= state.closes_at - await ledger.now() <= PERIOD, "the challenge does not last its period"
    assert not (await ledger.filed(params, True)).present, "something is filed that nobody has filed"
    await refused(stand, params, "a settlement within the challenge", ledger.settle(stand.opener, params))
    by_stranger = ledger.file(stand.stranger, params, filing_of(params, 5, 700))
    await refused(stand, params, "a filing by a stranger", by_stranger)
    async with gaining(stand, DEPOSIT - 1_000, 1_000, 0):
        await ledger.file(stand.partner, params, filing_of(params, 5, 700, ticks=3))
        if (await ledger.channel(params)).status != "settled":
            await stand.wait(PERIOD + 1)
            await ledger.settle(stand.opener, params)
    assert (await ledger.channel(params)).status == "settled"


async def a_close_that_nobody_answers_ends_with_its_period(stand: Stand) -> None:
    """The payer then has everything back that was never claimed."""
    params, ledger = await opened(stand), stand.ledger
    await ledger.claim(stand.partner, voucher_of(params, 300))
    await ledger.close(stand.opener, params, None)
    await stand.wait(PERIOD + 1)
    late = ledger.file(stand.partner, params, filing_of(params, 5, 700))
    await refused(stand, params, "a filing after the challenge", late)
    async with gaining(stand, DEPOSIT - 300, 0, 0):
        await ledger.settle(stand.stranger, params)
    assert (await ledger.channel(params)).status == "settled"
    await refused(stand, params, "a second settlement", ledger.settle(stand.opener, params))


async def somebody_answers_with_the_payees_leave_alone(stand: Stand) -> None:
    """By its consent, with its ticks proven later by anybody; `filed` says what counts."""
    params, ledger = await opened(stand), stand.ledger
    await ledger.close(stand.opener, params, None)
    filing = filing_of(params, 5, 700, ticks=0)
    answer = Answer(filing.voucher.content(params), 5)
    own = PARTNER_KEY.sign(answer.digest(params))
    for what, consent, sequence in (
        ("an answer with a stranger's consent", stand.stranger.sign(answer.digest(params)), 5),
        ("an answer out of its order", own, 6),
    ):
        await refused(stand, params, what, ledger.answer(stand.stranger, params, True, filing, sequence, consent))
    await ledger.answer(stand.stranger, params, True, filing, 5, own)
    filed = await ledger.filed(params, True)
    assert (filed.present, filed.by_payee, filed.amount, filed.locked) == (True, False, 700, 1_000), f"it is {filed}"
    assert filed.locks_root == filing.voucher.locks_root, "another tree of locks is filed"
    await ledger.prove(stand.stranger, params, True, filing_of(params, 5, 700, ticks=4))
    assert (await ledger.filed(params, True)).amount == 1_100, "four ticks were not counted"
    assert await ledger.prove(stand.stranger, params, True, filing_of(params, 5, 700, ticks=2)) == [], "ticks again"
    assert (await ledger.filed(params, True)).amount == 1_100
    await stand.wait(PERIOD + 1)
    async with gaining(stand, DEPOSIT - 1_100, 1_100, 0):
        await ledger.settle(stand.stranger, params)


async def ticks_that_were_proven_are_shown_to_everybody(stand: Stand) -> None:
    """With the preimages that prove them, in their order, in the challenge and once the channel is settled."""
    params, ledger = await opened(stand), stand.ledger
    other = await opened(stand, 1)
    assert await ledger.proven(params) == [], "ticks are proven in a channel that is open"
    await ledger.close(stand.opener, params, None)
    filing = filing_of(params, 5, 700, ticks=0)
    consent = PARTNER_KEY.sign(Answer(filing.voucher.content(params), 5).digest(params))
    await ledger.answer(stand.stranger, params, True, filing, 5, consent)
    assert await ledger.proven(params) == [], "ticks are proven that nobody has proven"
    for ticks in (4, 7):
        await ledger.prove(stand.stranger, params, True, filing_of(params, 5, 700, ticks))
    shown = [ProvenTicks(LOCK.root, ticks, chain_of(10 - ticks)) for ticks in (4, 7)]
    assert await ledger.proven(params) == shown, "it is not what was proven"
    await stand.wait(PERIOD + 1)
    await ledger.settle(stand.stranger, params)
    assert await ledger.proven(params) == shown, "what was proven is forgotten with the channel"
    assert await ledger.proven(other) == [], "ticks are proven in another channel"
    await ledger.close(stand.partner, other, filing_of(other, 5, 700, ticks=3))
    last = [ProvenTicks(LOCK.root, 3, chain_of(7))]
    assert await ledger.proven(other) == last, "it is not what the payee proved with its close"


async def a_payee_is_held_to_its_release(stand: Stand) -> None:
    """An older voucher does not count against it; it has at least what the release names."""
    params, ledger = await opened(stand), stand.ledger
    await ledger.close(stand.opener, params, None)
    release = Release(4, 600)
    forged = ledger.release(stand.opener, params, True, release, stand.stranger.sign(release.digest(params)))
    await refused(stand, params, "a release that a stranger signed", forged)
    await ledger.release(stand.opener, params, True, release, PARTNER_KEY.sign(release.digest(params)))
    assert (await ledger.filed(params, True)).amount == 600, "the release's sum does not count"
    older = ledger.file(stand.partner, params, filing_of(params, 3, 900))
    await refused(stand, params, "a voucher that was released", older)
    await stand.wait(PERIOD + 1)
    async with gaining(stand, DEPOSIT - 600, 600, 0):
        await ledger.settle(stand.opener, params)
