"""A consumer among liars: it never pays more than the limit for nothing, keeps no money bound, and gets on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from penstock.core.channel import ChannelParams
from penstock.core.errors import (
    BadMessage,
    BadSignature,
    BadTerms,
    JournalError,
    LinkLost,
    OutOfFunds,
    OutOfGas,
    PeerRefused,
    PenstockError,
)
from penstock.core.identity import Key, to_hex
from penstock.core.messages import (
    Accepted,
    AskClose,
    AskOffer,
    Closing,
    Final,
    Metered,
    Offered,
    Paid,
    Propose,
    Reason,
    Receipted,
    Refused,
    Resume,
    Resumed,
    Square,
    Way,
)
from penstock.core.meter import Tolerance
from penstock.core.offer import sign_offer
from penstock.core.session import Role, State
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.node import book, clock, ending, talk
from penstock.node.book import ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.tasks import durable
from penstock.rails.stream import NAME, decode_offer

from .liar import Liar, lying
from .world import LIMIT, PRICE, SHORT, SPEED, Car, Street, Thief, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


def to(it: Street, liar: Liar, **car: Any) -> Car:
    """A car that buys from the liar."""
    made = it.car(patience=SHORT, name=f"to-{liar.server.port}", **car)
    made.port, made.expect = liar.server.port, liar.key.address
    return made


def unspent(car: Car) -> bool:
    """Whether no channel was opened, and none is half open."""
    return book.channels(car.journal) == []


# ---- offers


async def test_no_money_moves_for_an_offer_that_is_no_good(open_street: Open) -> None:
    changes: list[dict[str, Any]] = [
        {"tariff": Tariff.flat(10**6, 1_000)},
        {"tariff": Tariff(1_000, ())},
        {"tariff": Tariff(0, Tariff.flat(1, 1).steps)},
        {"tariff": Tariff.flat(-5, 1_000)},
        {"tick_value": 0},
        {"tick_value": 10**30},
        {"tick_value": -1},
        {"package": 0},
        {"credit_limit": 1},
        {"credit_limit": -1},
        {"medium": "water"},
        {"medium": "gossip\n"},
        {"name": "x" * 60_000},
        {"rails": {}},
        {"rails": {"stream-channel": b"rubbish"}},
        {"rails": {"stream-channel": b"[" * 4_000}},
        {"expires": Instant(0)},
        {"expires": Instant(-1)},
        {"supplier": b"\x11" * 20},
        {"supplier": b""},
    ]

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed(**changes[liar.links - 1]))
        await liar.proposed(peer)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        for change in changes:
            with pytest.raises(PenstockError) as caught:
                await car.buy(quantity=20)
            assert caught.value.line(), change
            assert unspent(car), change
        assert liar.proposals == []


async def test_other_lies_before_the_agreement_cost_nothing_either(open_street: Open) -> None:
    async with open_street() as it:
        good = it.supplier.offer()
        for answer, error in [
            (lambda liar: good, BadTerms),  # another's, overheard
            (lambda liar: Offered(liar.offer(), bytes(65)), BadSignature),
            (lambda liar: Offered(liar.offer(), sign_offer(it.key, liar.offer())), BadSignature),
            (lambda liar: Refused("no\x1b[2J" + "x" * 60_000), PeerRefused),
            (lambda liar: Metered(Quantity(1), Instant(1), Amount(1), b"", b"", Quantity(0), Way.SUPPLY), BadMessage),
            (lambda liar: b"rubbish", LinkLost),
        ]:

            async def script(liar: Liar, peer: Thief, answer: Any = answer) -> None:
                await peer.hear(AskOffer)
                peer.send(answer(liar))
                await peer.hear(Propose)

            async with lying(it, script) as liar, to(it, liar) as car:
                with pytest.raises(error) as caught:
                    await car.buy(quantity=20)
                assert len(caught.value.line()) < 500
                assert unspent(car)


@pytest.mark.parametrize("tolerance", [Tolerance(11, 0), Tolerance(0, 50_001)])
async def test_a_supplier_whose_meter_is_to_be_believed_far_beyond_ours_is_left(
    open_street: Open, tolerance: Tolerance
) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed(tolerance=tolerance))
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(BadTerms, match="believed"):
            await car.buy(quantity=20)
        assert unspent(car)


async def test_a_supplier_may_not_hold_the_deposit_for_ever(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        rails = {name: details.replace(b",600]", b",2000000]") for name, details in liar.offer().rails.items()}
        assert rails != liar.offer().rails
        peer.send(liar.signed(rails=rails))
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(BadTerms, match="2000000 s"):
            await car.buy(quantity=20)
        assert unspent(car)


async def test_a_supplier_that_says_nothing_is_left(open_street: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "ANSWER", 0.2)

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(LinkLost, match="did not answer"):
            await car.buy(quantity=20)


async def test_a_flood_before_the_agreement_ends_the_link(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        for index in range(5_000):
            peer.send(Metered(Quantity(index), Instant(index), Amount(0), b"", b"", Quantity(0), Way.SUPPLY))
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(PenstockError):
            await car.buy(quantity=20)
        assert unspent(car)


async def test_a_refusal_or_a_false_acceptance_leaves_the_channel_free(open_street: Open) -> None:
    """Nothing was paid, and the next session uses the same channel."""
    answers: list[Any] = [Refused("not\x07 today"), Accepted(bytes(65), b""), Accepted(b"", b""), Closing(b"")]

    async def script(liar: Liar, peer: Thief) -> None:
        if len(liar.proposals) == len(answers):
            await liar.accepts(peer)
            peer.send(Final(Quantity(0), clock.now(), Reason.OPERATOR, b"", b"", Quantity(0)))
            square = await peer.hear(Square)
            peer.send(Receipted(liar.key.sign(square.receipt.digest()), b""))
            await peer.hear(AskClose)
            return
        await peer.hear(AskOffer)
        peer.send(liar.signed())
        await liar.proposed(peer)
        peer.send(answers[len(liar.proposals) - 1])
        await peer.hear(Propose)

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        for _ in answers:
            with pytest.raises(PenstockError):
                await car.buy(quantity=20, keep=True)
        assert {row.state for row in book.sessions(car.journal)} == {State.ENDED}
        assert (await car.buy(quantity=20, keep=True)).complete
        assert len(book.channels(car.journal)) == 1
        assert liar.won == 0


async def test_a_channel_is_doubted_once_its_payee_answered_something_else(open_street: Open) -> None:
    """It may have taken that session, lost its acceptance on the way, and hold the channel for one that owes."""

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed())
        await liar.proposed(peer)
        if len(liar.proposals) == 1:
            peer.send(Closing(b""))
            return
        peer.send(Refused("the last session in this channel was not paid in full"))
        await liar.accepts(peer)
        peer.send(Final(Quantity(0), clock.now(), Reason.OPERATOR, b"", b"", Quantity(0)))
        square = await peer.hear(Square)
        peer.send(Receipted(liar.key.sign(square.receipt.digest()), b""))

    async with open_street(serves=False) as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(PenstockError):
            await car.buy(quantity=20, keep=True)
        assert (await car.buy(quantity=20, keep=True)).complete
        assert len(book.channels(car.journal)) == 2


# ---- streams


async def ends(it: Street, script: Any, **car: Any) -> tuple[Any, Liar]:
    """Buy from a liar until the session has ended; returns it."""
    async with lying(it, script) as liar, to(it, liar, **car) as buyer:
        session = await asyncio.wait_for(buyer.buy(quantity=1_000, keep=True), 15)
        assert session.state is State.ENDED
        await asyncio.sleep(0)
        assert book.unfinished(buyer.journal, session.role) == []
        assert liar.won <= LIMIT
        return session, liar


async def test_supply_that_is_only_said_is_not_paid_for(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await liar.accepts(peer)
        for total in range(0, 2_000):
            peer.send(Metered(Quantity(total), clock.now(), Amount(0), b"", b"", Quantity(0), Way.SUPPLY))
        while True:
            liar.takes(await peer.hear(Paid))

    async with open_street() as it:
        session, _ = await ends(it, script)
        assert session.reason is Reason.METERS_DISAGREE
        assert not session.complete


@pytest.mark.parametrize("mode", ["pay-after", "pay-before"])
async def test_whoever_never_supplies_keeps_no_more_than_the_limit(open_street: Open, mode: str) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await liar.accepts(peer, mode=mode)
        while True:
            liar.takes(await peer.hear(Paid))

    async with open_street() as it:
        session, liar = await ends(it, script)
        assert session.reason in (Reason.SUPPLY_STALLED, Reason.PEER_GONE)
        assert session.control.worst <= LIMIT
        assert (liar.won > 0) == (mode == "pay-before")


@pytest.mark.parametrize("total", [0, 3, 10**6, 2**63 - 1])
async def test_a_final_reading_out_of_the_blue_is_paid_at_our_meter(open_street: Open, total: int) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        await liar.accepts(peer)
        peer.send(Final(Quantity(total), clock.now(), Reason.OPERATOR, b"", b"", Quantity(0)))
        square = await peer.hear(Square)
        assert liar.payee is not None
        liar.payee.take(square.evidence, least=square.receipt.paid)
        await peer.hear(AskClose)

    async with open_street() as it:
        session, _ = await ends(it, script)
        assert not session.complete
        assert session.receipt is not None
        assert session.receipt.paid <= LIMIT


async def test_rubbish_in_a_stream_cuts_the_link_and_costs_nothing(open_street: Open) -> None:
    rubbish: list[Any] = [
        b"rubbish",
        b"[" * 60_000,
        Accepted(bytes(65), b""),
        Refused("x" * 60_000),
        Receipted(bytes(65), b""),
        Propose,
        AskOffer(),
        Closing(b""),
        Metered(Quantity(0), Instant(0), Amount(10**50), b"", b"", Quantity(0), Way.SUPPLY),
        Resumed(
            Quantity(2**63 - 1),
            Instant(2**53 - 1),
            (Quantity(1), Quantity(0)),
            b"\xff" * 1_000,
            b"",
            b"",
            Quantity(0),
            (),
            Way.SUPPLY,
        ),
        Resumed(Quantity(0), Instant(0), (), b"", b"", b"", Quantity(0), (), Way.SUPPLY),
    ]

    async def script(liar: Liar, peer: Thief) -> None:
        if not liar.proposals:
            await liar.accepts(peer)
        else:
            await peer.hear(Resume)
            assert liar.payee is not None
            peer.send(Resumed(Quantity(0), clock.now(), (), liar.payee.state(), b"", b"", Quantity(0), (), Way.SUPPLY))
        message = rubbish[(liar.links - 1) % len(rubbish)]
        peer.send(liar.proposals[0] if message is Propose else message)
        await peer.hear(Square)

    async with open_street() as it:
        session, liar = await ends(it, script)
        assert not session.complete
        assert liar.links > 2
        assert liar.won == 0


async def test_lies_when_it_comes_back_cost_nothing(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        if not liar.proposals:
            await liar.accepts(peer)
            peer.leave()
            return
        await peer.hear(Resume)
        lies: list[Any] = [
            Resumed(Quantity(5), clock.now(), (Quantity(1),) * 2_000, b"", b"", b"", Quantity(0), (), Way.SUPPLY),
            Resumed(Quantity(2**62), clock.now(), (), b"\x01" + bytes(44), b"", b"", Quantity(0), (), Way.SUPPLY),
            Receipted(bytes(65), b""),
            Offered(liar.offer(), bytes(65)),
        ]
        peer.send(lies[liar.links % len(lies)])
        for _ in range(2_000):
            peer.send(Metered(Quantity(1), clock.now(), Amount(0), b"", b"", Quantity(0), Way.SUPPLY))
        await peer.hear(Square)

    async with open_street() as it:
        session, liar = await ends(it, script)
        assert liar.links > 2
        assert session.reason is Reason.PEER_GONE


async def test_an_answer_that_comes_when_patience_has_ended_changes_nothing(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        if not liar.proposals:
            await liar.accepts(peer)
            peer.leave()
            return
        await peer.hear(Resume)
        await asyncio.sleep(2)
        assert liar.payee is not None
        peer.send(Resumed(Quantity(0), clock.now(), (), liar.payee.state(), b"", b"", Quantity(0), (), Way.SUPPLY))
        peer.send(Metered(Quantity(0), clock.now(), Amount(0), b"", b"", Quantity(0), Way.SUPPLY))

    async with open_street() as it:
        started = asyncio.get_running_loop().time()
        session, _ = await ends(it, script)
        assert session.reason is Reason.PEER_GONE
        assert asyncio.get_running_loop().time() - started < 1.9


async def test_a_supplier_that_forgot_the_session_ends_it(open_street: Open) -> None:
    async def script(liar: Liar, peer: Thief) -> None:
        if not liar.proposals:
            await liar.accepts(peer)
            peer.leave()
            return
        await peer.hear(Resume)
        peer.send(Refused("no such session\r\n\x00 here"))
        await peer.hear(Resume)

    async with open_street() as it:
        session, _ = await ends(it, script)
        assert "no such session" in session.fault


# ---- channels


async def test_a_crash_before_the_acceptance_leaves_nothing_bound(open_street: Open) -> None:
    """The proposal was lost on its way: the next run forgets it and buys over the same channel."""
    lost = asyncio.Event()

    async def script(liar: Liar, peer: Thief) -> None:
        await peer.hear(AskOffer)
        peer.send(liar.signed())
        await liar.proposed(peer)
        lost.set()
        peer.link.abort()

    async with open_street() as it, lying(it, script) as liar, to(it, liar) as car:
        with pytest.raises(LinkLost):
            await car.buy(quantity=20, keep=True)
        (row,) = book.unfinished(car.journal, Role.CONSUMER)
        assert row.accepted == b""

        async def honest(liar: Liar, peer: Thief) -> None:
            await peer.hear(Resume)
            peer.send(Refused("no such session here"))
            liar.script = script
            await liar.accepts(peer)
            peer.send(Final(Quantity(0), clock.now(), Reason.OPERATOR, b"", b"", Quantity(0)))
            square = await peer.hear(Square)
            peer.send(Receipted(liar.key.sign(square.receipt.digest()), b""))

        liar.script = honest
        assert (await car.buy(quantity=20, keep=True)).complete
        assert len(book.channels(car.journal)) == 1


async def test_a_session_whose_acceptance_was_lost_is_taken_up(open_street: Open) -> None:
    async with open_street(speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=200))
        await it.until_accepted()
        buying.cancel()
        await asyncio.gather(buying, return_exceptions=True)
        (row,) = book.unfinished(car.journal, Role.CONSUMER)
        assert row.accepted == b""
        session = await car.buy(quantity=200)
        assert session.complete
        assert session.digest == row.terms.digest()
        assert session.row.accepted != b""


async def test_a_channel_that_was_closed_behind_our_back_is_replaced(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        (known,) = book.channels(car.journal)
        own = book.channel_of(it.journal, known.params.id)
        assert own is not None
        await ending.close(it.journal, it.ledger, it.key, own)
        assert (await car.buy(quantity=100, keep=True)).complete
        first, second = book.channels(car.journal)
        assert {first.settled, second.settled} == {True, False}


async def test_a_channel_with_too_little_left_is_added_to(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        await car.buy(quantity=100, keep=True)
        assert (await car.buy(quantity=300, keep=False)).complete
        (known,) = book.channels(car.journal)
        assert known.deposit == 400 * PRICE // 1_000
        await until(lambda: it.site.unsettled)
        before = (await it.ledger.holdings(it.key.address)).tokens
        await it.site.settle()
        assert (await it.ledger.holdings(it.key.address)).tokens - before >= known.deposit


async def test_an_empty_wallet_says_so(open_street: Open) -> None:
    async with open_street() as it, it.car() as car:
        with pytest.raises(OutOfFunds, match="token units"):
            await car.buy(quantity=None, budget=10**15)
        assert book.sessions(car.journal) == []


# ---- our own faults


@pytest.mark.parametrize("skew", [-3_600_000, 3_600_000])
async def test_a_car_whose_clock_is_wrong_by_an_hour(open_street: Open, skew: int) -> None:
    async with open_street() as it, it.car() as car:
        car.skew = skew
        if skew < 0:
            assert (await car.buy(quantity=20)).complete
            return
        with pytest.raises(BadTerms, match="clock"):
            await car.buy(quantity=20)
        assert unspent(car)


def _streams(it: Street, car: Car, links: int) -> bool:
    return len(car.links) >= links and it.supplier.shell is not None and it.supplier.visit is not None


async def test_a_link_that_is_cut_again_and_again_costs_nothing(open_street: Open) -> None:
    async with open_street(speed=SPEED) as it, it.car() as car:
        buying = asyncio.ensure_future(car.buy(quantity=2_000))
        for cuts in range(1, 4):
            await until(partial(_streams, it, car, cuts))
            await asyncio.sleep(0.1)
            transport = car.links[-1]._transport
            assert transport is not None
            transport.abort()
        session = await asyncio.wait_for(buying, 20)
        assert session.complete
        assert session.receipt is not None
        assert session.receipt.paid == 2_000 * PRICE // 1_000
        await until(lambda: it.supplier.shell is None)
        assert it.sessions[-1].control.worst <= LIMIT


async def test_a_journal_that_fails_ends_the_purchase(open_street: Open) -> None:
    async with open_street(speed=SPEED, patience=SHORT) as it:
        async with it.car() as car:
            buying = asyncio.ensure_future(car.buy())
            await until(lambda: it.supplier.shell and it.supplier.shell.session.paid)
            await car.journal.close()
            with pytest.raises(JournalError):
                await asyncio.wait_for(buying, 10)
        await until(lambda: it.supplier.shell is None)
        assert it.sessions[-1].control.exposure <= LIMIT


async def test_a_purchase_that_is_cancelled_leaves_nothing_running(open_street: Open) -> None:
    async with open_street(speed=SPEED, patience=SHORT) as it:
        for moment in (0.0, 0.01, 0.03, 0.06, 0.2):
            async with it.car(name=f"car{moment}") as car:
                buying = asyncio.ensure_future(car.buy())
                await asyncio.sleep(moment)
                buying.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await buying
            await until(lambda: it.supplier.shell is None and not it.supplier.visits)


# ---- the purse


async def opened_for(it: Street, car: Car, deposit: int) -> ChannelParams:
    """A channel that the car has authorized and somebody else has opened."""
    details = decode_offer(it.supplier.offer().offer.rails[NAME])
    counter = it.ledger.fresh_counter()
    here = car.key.address
    params = ChannelParams(details.domain, here, details.payee, here, details.payee_key, 3_600, False, counter)
    await durable(car.journal, ChannelRow(params, Role.CONSUMER, Amount(0)).rows())
    signed = await it.ledger.authorize(car.key, params, Amount(deposit), Amount(0), 2**40)
    await it.ledger.open_authorized(it.fresh_key(), params, signed)
    return params


async def test_a_channel_that_somebody_opened_for_us_is_used_before_another_is_added_to(open_street: Open) -> None:
    async with open_street(serves=False) as it, it.car() as car:
        details = decode_offer(it.supplier.offer().offer.rails[NAME])
        purse = ChannelPurse(car.key, car.journal, car._ledger, car.told)
        small = await purse.channel(details, 1_000, 1_000, 3_600)
        params = await opened_for(it, car, 50_000)
        found = await purse.channel(details, 20_000, 20_000, 3_600)
        assert (found.params, found.deposit) == (params, 50_000)
        assert (await purse.channel(details, 500, 0, 3_600)).deposit >= 500
        assert car.told.of("adding") == []
        raised = await purse.channel(details, 60_000, 0, 3_600)  # now none has enough
        assert raised.params in (small.params, params)
        assert (await it.ledger.channel(raised.params)).opener_deposit == raised.deposit == 60_000


async def test_an_addition_that_cannot_be_paid_for_changes_nothing_and_says_how_to_do_without_ether(
    open_street: Open,
) -> None:
    poor = Key(os.urandom(32))
    async with open_street(serves=False) as it, it.car(key=poor) as car:
        data = it.ledger._token.interface.encode("transfer", to_hex(poor.address), 100_000)
        await it.ledger._sender.send(it.fresh_key(), it.ledger.domain.token, data, "transfer")
        details = decode_offer(it.supplier.offer().offer.rails[NAME])
        purse = ChannelPurse(poor, car.journal, car._ledger, car.told)
        params = await opened_for(it, car, 10_000)
        row = await purse.channel(details, 5_000, 0, 3_600)
        with pytest.raises(OutOfGas) as raised:
            await purse.channel(details, 20_000, 0, 3_600)
        assert "penstock channel authorize" in raised.value.advice
        assert book.channel_of(car.journal, params.id) == row
        assert row.deposit == 10_000
