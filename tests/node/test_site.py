"""A supplier's account: which closes it signs, how it settles them, and that a channel pays once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from penstock.core.channel import ChannelParams, Close
from penstock.core.errors import BadTerms, OutOfFunds, PeerRefused
from penstock.core.identity import Key
from penstock.core.messages import Accepted, AskClose, Closing, Refused
from penstock.core.units import MAX_INSTANT, Amount
from penstock.node import book, clock, lookout
from penstock.node.channel_till import CLOSE_MARGIN

from .world import PRICE, SHORT, Street, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio

HELD = 100 * PRICE // 1_000
DEPOSIT = 1_000_000


def asks(key: Key, params: ChannelParams, mine: int, theirs: int, expiry: int | None = None) -> AskClose:
    close = Close(mine, theirs, clock.now() // 1_000 + 86_400 if expiry is None else expiry)
    return AskClose(params.id, close, key.sign(close.digest(params)))


async def paid(it: Street) -> tuple[Key, ChannelParams]:
    """A consumer's channel that has paid for 100 Wh and is open."""
    async with it.car(name=f"paid{len(it.sessions)}") as car:
        await car.buy(quantity=100, keep=True)
        (row,) = book.channels(car.journal)
    return car.key, row.params


async def test_closes_that_cost_us_are_refused(open_street: Open) -> None:
    """Mistake: the payee's closing signature could be had by anyone."""
    async with open_street() as it:
        await it.site.settle()  # the first car's
        key, params = await paid(it)
        stranger = it.fresh_key()
        far = clock.now() // 1_000 + 86_400
        bad: list[AskClose] = [
            asks(key, params, 1, HELD - 1),
            asks(key, params, HELD, 0),
            asks(key, params, 0, HELD + 1),
            asks(key, params, 2**96, HELD),
            asks(key, params, 0, 2**255),
            msgspec.structs.replace(asks(key, params, 0, HELD), close=Close(2**256, HELD, far)),  # no digest names it
            asks(key, params, 0, HELD, expiry=0),
            asks(key, params, 0, HELD, expiry=clock.now() // 1_000 + CLOSE_MARGIN - 5),
            asks(stranger, params, 0, HELD),
            msgspec.structs.replace(asks(key, params, 0, HELD), signature=bytes(65)),
            msgspec.structs.replace(asks(key, params, 0, HELD), signature=b""),
            msgspec.structs.replace(asks(key, params, 0, HELD), channel=bytes(32)),
            msgspec.structs.replace(asks(key, params, 0, HELD), channel=b""),
            msgspec.structs.replace(asks(key, params, 0, HELD), close=Close(0, HELD, far + 1)),
        ]
        for ask in bad:
            with pytest.raises(PeerRefused):
                await it.site.take_close(ask)
        assert it.site.unsettled == 0
        await it.site.take_close(asks(key, params, 0, HELD, expiry=MAX_INSTANT))
        assert it.site.unsettled == 1


async def test_a_close_is_taken_once(open_street: Open) -> None:
    """The same again is confirmed; another is not, were it at the same time and dearer for the consumer."""
    async with open_street() as it:
        key = it.fresh_key()
        thief, propose, payer = await robbed(it, key)
        params = payer._params
        del propose
        await it.site.settle()  # the first car's
        good, dearer = asks(key, params, DEPOSIT, 0), asks(key, params, DEPOSIT - 5_000, 5_000)
        taken = await asyncio.gather(*map(it.site.take_close, (good, dearer, good)), return_exceptions=True)
        assert [type(one) for one in taken] == [type(None), PeerRefused, PeerRefused]
        await it.site.take_close(good)
        with pytest.raises(PeerRefused, match="closing already"):
            await it.site.take_close(dearer)
        assert it.site.unsettled == 1
        assert await it.site.settle()
        assert it.site.unsettled == 0
        assert (await it.ledger.channel(params)).status in ("settled", "absent")
        thief.leave()


async def robbed(it: Street, key: Key) -> tuple[Any, Any, Any]:
    """A session that has ended without a payment; its channel is known to the site."""
    thief, propose, payer = await it.robs(key)
    assert it.supplier.shell is not None
    it.supplier.shell.abandon()
    for _ in range(1_000):
        if it.supplier.shell is None:
            break
        await asyncio.sleep(0.005)
    return thief, propose, payer


async def test_a_channel_that_pays_a_session_is_not_closed(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, _, payer = await it.robs()
        other = await it.thief(it.last_key)
        refused = await other.ask(asks(it.last_key, payer._params, DEPOSIT, 0), Refused)
        assert "paying a session" in refused.why
        thief.leave()


@pytest.mark.parametrize("close_first", [True, False])
async def test_of_a_close_and_a_session_at_once_one_is_taken(open_street: Open, close_first: bool) -> None:
    """Otherwise the channel would be settled while the session streams over it."""
    async with open_street(patience=SHORT) as it:
        key = it.fresh_key()
        thief, _, payer = await robbed(it, key)
        params = payer._params
        other = await it.thief(key)
        offer = await it.offered(other)
        propose, _ = it.proposal(key, offer, params, stream=(1, 0))
        close = asks(key, params, DEPOSIT, 0)
        if close_first:
            thief.send(close)
            other.send(propose)
        else:
            other.send(propose)
            thief.send(close)
        answers = [await other.hear((Accepted, Refused)), await thief.hear((Closing, Refused))]
        assert sorted(isinstance(answer, Refused) for answer in answers) == [False, True]
        other.leave()
        thief.leave()


async def test_one_channel_does_not_pay_two_poles_at_once(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, _, payer = await it.robs()
        offer = it.supplier.offer().offer
        propose, _ = it.proposal(it.last_key, offer, payer._params, stream=(1, 0))
        with pytest.raises(BadTerms, match="another session"):
            await it.site.admit(propose.terms, propose.evidence)
        thief.leave()


async def test_a_channel_that_is_closing_on_the_ledger_pays_no_session(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        await it.ledger.close(key, params, None)
        propose, _ = it.proposal(key, it.supplier.offer().offer, params)
        with pytest.raises(BadTerms, match="on the ledger"):
            await it.site.admit(propose.terms, propose.evidence)


async def test_a_signed_off_channel_pays_no_session(open_street: Open) -> None:
    """Rule 6: what both signed expires, and binds who signed it until then."""
    async with open_street() as it:
        key, params = await paid(it)
        await it.site.take_close(asks(key, params, 0, HELD))
        propose, _ = it.proposal(key, it.supplier.offer().offer, params, deposit=HELD + 10_000, stream=(9, HELD))
        with pytest.raises(BadTerms, match="closing"):
            await it.site.admit(propose.terms, propose.evidence)


async def test_settling_skips_a_bad_row_and_pays_all(open_street: Open) -> None:
    """One opener adds to its channel after it signed it off: the others are closed together, this one alone."""
    async with open_street() as it:
        await it.site.settle()  # the first car's
        signed = [await paid(it) for _ in range(3)]
        for key, params in signed:
            await it.site.take_close(asks(key, params, 0, HELD))
        key, params = signed[1]
        await it.ledger.add(key, params, Amount(1))
        before = (await it.ledger.holdings(it.key.address)).tokens
        await it.site.settle()
        assert it.site.unsettled == 0
        assert (await it.ledger.holdings(it.key.address)).tokens - before == 3 * HELD
        assert all(row.settled for row in book.channels(it.journal) if row.close)


async def test_a_pole_without_ether_goes_on_looking_and_selling(
    open_street: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistake: no gas money crashes the node."""
    monkeypatch.setattr(lookout, "AGAIN", 0.0)
    monkeypatch.setattr(lookout, "SHORTEST", 0.1)
    monkeypatch.setattr(lookout, "LONGEST", 0.1)
    async with open_street(key=Key(os.urandom(32))) as it:
        key, params = await paid(it)
        with pytest.raises(OutOfFunds, match="gas"):
            await it.site.settle()
        assert it.site.unsettled == 1
        await it.ledger.close(key, params, None)
        await until(lambda: len(it.told.of("not answered")) > 2, "it looks no more")
        assert "ether" in it.told.of("not answered")[0]["error"]


async def test_a_restarted_site_settles_what_was_signed(open_street: Open) -> None:
    async with open_street() as it:
        await it.site.settle()  # the first car's
        key, params = await paid(it)
        await it.site.take_close(asks(key, params, 0, HELD))
        await it.crash()
        await it.open()
        assert it.site.unsettled == 1
        assert [one.what for one in await it.site.settle()] == ["close together"]
        assert it.site.unsettled == 0
