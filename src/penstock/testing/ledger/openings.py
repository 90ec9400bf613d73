"""How money comes into channels and into balances, and where a ledger is."""

from __future__ import annotations

import msgspec

from penstock.core.channel import (
    SignedAddition,
    SignedOpening,
)
from penstock.core.errors import LedgerError, LedgerUnreachable, OutOfFunds, PenstockError, WrongLedger
from penstock.core.units import Amount
from penstock.testing.ledger.stand import (
    DEPOSIT,
    FOREVER,
    Stand,
    channel_of,
    deep,
    gaining,
    opened,
    refused,
)


async def an_opening_is_there_when_the_call_returns(stand: Stand) -> None:
    """With its deposit, once; from the wallet, or from the balance where that suffices."""
    params, ledger = channel_of(stand), stand.ledger
    assert (await ledger.channel(params)).status == "absent", "a channel is there that nobody has opened"
    async with gaining(stand, -DEPOSIT, 0, 0):
        mined = await ledger.open(stand.opener, params, DEPOSIT)
    assert mined, "an opening names no transaction"
    assert len({one.hash for one in mined}) == len(mined), "two transactions have one hash"
    await deep(stand, params, "open", opener_deposit=DEPOSIT, partner_deposit=0)
    await refused(stand, params, "a second opening of a channel", ledger.open(stand.opener, params, DEPOSIT))
    await ledger.deposit(stand.opener, DEPOSIT)
    counter = await ledger.next_counter(stand.opener.address)
    other = channel_of(stand, counter)
    async with gaining(stand, -DEPOSIT, 0, 0):
        await ledger.open(stand.opener, other, DEPOSIT)
    assert (await ledger.holdings(stand.opener.address)).balance == 0, "it was not opened from the balance"
    rich = (await ledger.holdings(stand.opener.address)).tokens
    beyond = channel_of(stand, ledger.fresh_counter())
    error = await refused(
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
        await refused(stand, params, what, ledger.open_signed(stand.stranger, params, given, by))
    async with gaining(stand, -DEPOSIT - fee, 0, fee):
        await ledger.open_signed(stand.stranger, params, opening, signature)
    again = ledger.open_signed(stand.stranger, params, opening, signature)
    await refused(stand, params, "an opening that was carried out", again)


async def an_authorization_opens_from_the_wallet_once(stand: Stand) -> None:
    """By whoever sends it, for its fee; `authorize` itself sends nothing."""
    ledger, params, fee = stand.ledger, channel_of(stand, stand.ledger.fresh_counter()), Amount(70)
    async with gaining(stand, 0, 0, 0):
        given = await ledger.authorize(stand.opener, params, DEPOSIT, fee, FOREVER)
    for what, changed in (
        ("an authorization of a higher fee", msgspec.structs.replace(given, fee=Amount(fee + 1))),
        ("an authorization of another deposit", msgspec.structs.replace(given, deposit=Amount(DEPOSIT - 1))),
        ("an authorization whose time is over", msgspec.structs.replace(given, valid_before=1)),
    ):
        await refused(stand, params, what, ledger.open_authorized(stand.stranger, params, changed))
    async with gaining(stand, -DEPOSIT - fee, 0, fee):
        await ledger.open_authorized(stand.stranger, params, given)
    await deep(stand, params, "open", opener_deposit=DEPOSIT)
    await refused(stand, params, "an authorization again", ledger.open_authorized(stand.stranger, params, given))
    rich = (await ledger.holdings(stand.opener.address)).wallet
    other = channel_of(stand, params.counter + 1)
    more = ledger.authorize(stand.opener, other, Amount(rich + 1), Amount(0), FOREVER)
    error = await refused(stand, other, "an authorization of more than the wallet has", more)
    assert isinstance(error, OutOfFunds), f"{error!r} is no OutOfFunds"


async def a_deposit_is_raised_by_its_owner_alone(stand: Stand) -> None:
    """By its own transaction, or by anybody with its signature, up to the total that it names."""
    params, ledger = await opened(stand), stand.ledger
    async with gaining(stand, -500, 0, 0):
        await ledger.add(stand.opener, params, Amount(500))
    await ledger.deposit(stand.opener, Amount(1_000))
    addition = SignedAddition(DEPOSIT + 800, 30, FOREVER)
    digest, owner = addition.digest(params), stand.opener.address
    forged = ledger.add_signed(stand.stranger, params, owner, addition, stand.stranger.sign(digest))
    await refused(stand, params, "an addition that a stranger signed", forged)
    async with gaining(stand, -330, 0, 30):
        await ledger.add_signed(stand.stranger, params, owner, addition, stand.opener.sign(digest))
    await deep(stand, params, "open", opener_deposit=DEPOSIT + 800)
    again = ledger.add_signed(stand.stranger, params, owner, addition, stand.opener.sign(digest))
    await refused(stand, params, "an addition that was carried out", again)


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
    await refused(stand, params, "a withdrawal of more than there is", ledger.withdraw(owner, Amount(251)))
    rich = Amount((await ledger.holdings(stand.stranger.address)).wallet + 1)
    await refused(stand, params, "a deposit of more than there is", ledger.deposit(stand.stranger, rich))


async def another_ledgers_channel_is_refused(stand: Stand) -> None:
    """By WrongLedger, whatever is asked of it; and the contract is what it says."""
    ledger, params = stand.ledger, channel_of(stand)
    assert await ledger.genuine(), "the contract is not this version's"
    assert (await ledger.token()).symbol, "the token has no symbol"
    elsewhere = msgspec.structs.replace(
        params, domain=msgspec.structs.replace(params.domain, chain_id=params.domain.chain_id + 1)
    )
    for call in (
        lambda: ledger.channel(elsewhere),
        lambda: ledger.filed(elsewhere, True),
        lambda: ledger.proven(elsewhere),
        lambda: ledger.open(stand.opener, elsewhere, DEPOSIT),
        lambda: ledger.close(stand.opener, elsewhere, None),
        lambda: ledger.settle(stand.opener, elsewhere),
    ):
        error = await refused(stand, params, "a channel of another chain", call())
        assert isinstance(error, WrongLedger), f"{error!r} is no WrongLedger"


async def a_ledger_out_of_reach_says_so(stand: Stand) -> None:
    """By LedgerUnreachable, with advice, to whatever is asked."""
    params, ledger = await opened(stand), stand.ledger
    await stand.lose()
    for call in (
        lambda: ledger.now(),
        lambda: ledger.channel(params),
        lambda: ledger.close(stand.opener, params, None),
    ):
        error: PenstockError | None = None
        try:
            await call()
        except LedgerUnreachable as raised:
            error = raised
        assert error is not None, "a ledger out of reach answered"
        assert error.advice, "an unreachable ledger gives no advice"
