"""One channel pays in one way: what a pole holds of it by hop locks is not paid a second time, nor signed away."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.ground import STRANGER
from tests.node.world import Thief

from penstock.core.channel import ChannelParams, Close, Lock
from penstock.core.codec import encode
from penstock.core.hops import NO_VOUCHER, Outgoing, OutRow
from penstock.core.identity import Key
from penstock.core.messages import (
    Accepted,
    AskClose,
    AskOffer,
    Closing,
    Enter,
    Entered,
    Offered,
    Promise,
    Propose,
    Refused,
    Told,
)
from penstock.core.offer import Offer, Terms, propose_digest
from penstock.core.ticks import TickChain
from penstock.core.units import Amount
from penstock.rails.stream import NAME, StreamPayer, StreamTerms

from .street import LIFE, PERIOD, HopStreet

pytestmark = pytest.mark.asyncio
DEPOSIT = 100_000
TICK = 1_000


async def channel(street: HopStreet, key: Key) -> ChannelParams:
    ends = (key.address, street.site.key.address)
    counter = await street.ledger.next_counter(key.address)
    params = ChannelParams(street.ledger.domain, *ends, *ends, PERIOD, False, counter)
    await street.ledger.open(key, params, Amount(DEPOSIT))
    return params


async def entered(street: HopStreet, key: Key, params: ChannelParams) -> tuple[Thief, Outgoing]:
    """A link over which hop locks may come, as from a hub."""
    thief = await street.thief(key)
    await thief.ask(Enter(params), Entered)
    return thief, Outgoing(params, DEPOSIT, key, OutRow(NO_VOUCHER), {})


def promised(street: HopStreet, out: Outgoing, ticks: int = 90) -> Promise:
    """The promise of a lock over most of the channel."""
    lock = Lock(TickChain(b"s" * 32, ticks).root, TICK, ticks, street.clock() // 1_000 + LIFE)
    out.add(lock, 0, ())
    made = out.promise()
    assert made is not None
    return made[1]


def proposal(street: HopStreet, key: Key, offer: Offer, params: ChannelParams) -> Propose:
    """A session that is to be paid over the channel itself."""
    rail = StreamTerms(params, 0, 0, offer.tick_value)
    payer = StreamPayer(rail, DEPOSIT, key, b"\x07" * 32)
    terms = Terms(
        offer=offer, consumer=key.address, rail=NAME, rail_terms=encode(rail), quantity_limit=50_000, budget=1_000_000,
        at=street.clock(), nonce=b"n" * 16,
    )  # fmt: skip
    return Propose(terms, key.sign(propose_digest(terms.digest())), payer.open().data)


async def test_a_channel_with_hop_locks_pays_no_session_beside(street: HopStreet) -> None:
    """Rule 7: the same deposit would back both."""
    params = await channel(street, STRANGER)
    thief, out = await entered(street, STRANGER, params)
    thief.send(promised(street, out))
    await thief.hear(Told)
    other = await street.thief(STRANGER)
    offered = await other.ask(AskOffer(), Offered)
    answer = await other.ask(proposal(street, STRANGER, offered.offer, params), (Accepted, Refused))
    assert isinstance(answer, Refused), "the channel is promised twice"
    assert "hop locks" in answer.why


async def test_a_channel_that_pays_a_session_takes_no_hop_locks(street: HopStreet) -> None:
    """Not even where it was entered before the session began."""
    params = await channel(street, STRANGER)
    thief, out = await entered(street, STRANGER, params)
    other = await street.thief(STRANGER)
    offered = await other.ask(AskOffer(), Offered)
    answer = await other.ask(proposal(street, STRANGER, offered.offer, params), (Accepted, Refused))
    answers = [isinstance(answer, Accepted)]
    thief.send(promised(street, out))
    answers.append(isinstance(await thief.hear((Told, Refused)), Told))
    assert sum(answers) == 1, "the channel is promised twice"


async def test_a_session_and_an_entry_at_once_do_not_both_get_in(street: HopStreet) -> None:
    """Whichever the ledger answers first."""
    params = await channel(street, STRANGER)
    thief, other = await street.thief(STRANGER), await street.thief(STRANGER)
    offered = await other.ask(AskOffer(), Offered)
    other.send(proposal(street, STRANGER, offered.offer, params))
    thief.send(Enter(params))
    got = await asyncio.gather(other.hear((Accepted, Refused)), thief.hear((Entered, Refused)))
    assert sum(isinstance(one, Accepted | Entered) for one in got) == 1, got


async def test_a_close_of_a_channel_with_hop_locks_is_not_signed(street: HopStreet) -> None:
    """Rule 7: it would give away all that its locks are going to prove."""
    params = await channel(street, STRANGER)
    thief, out = await entered(street, STRANGER, params)
    thief.send(promised(street, out))
    await thief.hear(Told)
    close = Close(DEPOSIT, 0, street.clock() // 1_000 + 3_600)
    other = await street.thief(STRANGER)
    asked = AskClose(params.id, close, STRANGER.sign(close.digest(params)))
    answer = await other.ask(asked, (Closing, Refused))
    assert isinstance(answer, Refused), "what the lock proves is signed away"
    assert not street.site.unsettled


async def test_a_channel_with_a_signed_close_takes_no_hop_locks(street: HopStreet) -> None:
    """Its deposit is spoken for."""
    params = await channel(street, STRANGER)
    thief, out = await entered(street, STRANGER, params)
    close = Close(DEPOSIT, 0, street.clock() // 1_000 + 3_600)
    other = await street.thief(STRANGER)
    answer = await other.ask(AskClose(params.id, close, STRANGER.sign(close.digest(params))), (Closing, Refused))
    thief.send(promised(street, out))
    got = await thief.hear((Told, Refused))
    assert isinstance(answer, Refused) or isinstance(got, Refused), "the deposit is given back and promised"
