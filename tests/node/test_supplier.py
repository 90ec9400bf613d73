"""A supplier among thieves: nobody takes more than the limit, nothing leaks, and the next car is served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from penstock.core.channel import Close
from penstock.core.errors import PenstockError
from penstock.core.identity import Address, Key
from penstock.core.messages import (
    Accepted,
    AskClose,
    AskOffer,
    Closing,
    Final,
    Message,
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
    Stop,
    Way,
)
from penstock.core.offer import Receipt, propose_digest
from penstock.core.session import State
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Instant, Quantity
from penstock.node import book, clock

from .world import LIMIT, PRICE, SHORT, SPEED, TICK, Street, Thief, until

Open = Callable[..., AbstractAsyncContextManager[Street]]
pytestmark = pytest.mark.asyncio


async def refusal(it: Street, key: Key, propose: Propose) -> str:
    thief = await it.thief(key)
    return str((await thief.ask(propose, Refused)).why)


def taken(it: Street) -> int:
    """What has flowed that was not paid for, in token units, since the pole's last session began."""
    shell = it.supplier.shell
    session = shell.session if shell else it.sessions[-1]
    return (it.line.read().total - session.row.base.total) * PRICE // 1_000 - session.paid


# ---- proposals


async def test_an_altered_offer_is_refused(open_street: Open) -> None:
    altered: list[dict[str, Any]] = [
        {"tariff": Tariff.flat(1, 1_000)},
        {"tick_value": 1},
        {"credit_limit": 10**9},
        {"package": 10**6},
        {"mode": "pay-before"},
        {"name": "another pole"},
        {"expires": Instant(1)},
        {"expires": Instant(2**53 - 1)},
    ]
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        for change in altered:
            offer = msgspec.structs.replace(it.supplier.offer().offer, **change)
            assert "offer" in await refusal(it, key, it.proposal(key, offer, params)[0]), change
            assert it.supplier.shell is None


async def test_proposals_that_would_not_be_paid_are_refused(open_street: Open) -> None:
    async with open_street() as it:
        key, other = it.fresh_key(), it.fresh_key()
        offer = it.supplier.offer().offer
        params, others = await it.channel(key), await it.channel(other)
        good, _ = it.proposal(key, offer, params)
        short = await it.channel(key, deposit=LIMIT // 2)
        contract = msgspec.structs.replace(params.domain, contract=Address(b"\x11" * 20))
        elsewhere = msgspec.structs.replace(params, domain=contract)
        gone = msgspec.structs.replace(params, counter=params.counter + 5)
        away = msgspec.structs.replace(params, partner=other.address, partner_key=other.address)
        cases = {
            "no signature": (key, msgspec.structs.replace(good, signature=bytes(65))),
            "another's signature": (
                key,
                msgspec.structs.replace(good, signature=other.sign(propose_digest(good.terms.digest()))),
            ),
            "overheard": (other, good),
            "another's channel": (key, it.proposal(key, offer, others)[0]),
            "promises more than the deposit": (key, it.proposal(key, offer, short)[0]),
            "too small a deposit": (key, it.proposal(key, offer, short, deposit=LIMIT // 2)[0]),
            "a channel that is not there": (key, it.proposal(key, offer, gone)[0]),
            "another contract": (key, it.proposal(key, offer, elsewhere)[0]),
            "leads elsewhere": (key, it.proposal(key, offer, away)[0]),
            "starts above its deposit": (
                key,
                it.proposal(key, offer, params, stream=(0, 2_000_000), deposit=3_000_000)[0],
            ),
            "opens below its start": (
                key,
                msgspec.structs.replace(
                    it.proposal(key, offer, params, stream=(5, 1_000))[0],
                    evidence=it.proposal(key, offer, params, stream=(5, 0))[0].evidence,
                ),
            ),
            "too small a budget": (key, it.proposal(key, offer, params, budget=1)[0]),
            "from the future": (key, it.proposal(key, offer, params, at=Instant(clock.now() + 3_600_000))[0]),
            "no such rail": (key, it.proposal(key, offer, params, rail="cash")[0]),
            "empty rail terms": (key, it.proposal(key, offer, params, rail_terms=b"{}")[0]),
            "deep rail terms": (key, it.proposal(key, offer, params, rail_terms=b"[" * 3_000)[0]),
            "no nonce": (key, it.proposal(key, offer, params, nonce=b"")[0]),
            "no quantity": (key, it.proposal(key, offer, params, quantity_limit=0)[0]),
            "huge quantity": (key, it.proposal(key, offer, params, quantity_limit=2**63)[0]),
            "no evidence": (key, msgspec.structs.replace(good, evidence=b"")),
            "empty evidence": (key, msgspec.structs.replace(good, evidence=b"\x02[]")),
            "another's evidence": (
                key,
                msgspec.structs.replace(good, evidence=it.proposal(other, offer, others)[0].evidence),
            ),
        }
        for name, (who, propose) in cases.items():
            why = await refusal(it, who, propose)
            assert why, name
            assert "fault" not in why, (name, why, it.told.events[-1])
            assert it.supplier.shell is None, name


async def test_an_old_voucher_opens_no_session(open_street: Open) -> None:
    """A channel that has paid before is brought back at its beginning."""
    async with open_street() as it:
        key = it.fresh_key()
        async with it.car(key) as car:
            await car.buy(quantity=100, keep=True)
            (known,) = book.channels(car.journal)
        propose, _ = it.proposal(key, it.supplier.offer().offer, known.params, deposit=known.deposit)
        assert "older voucher" in await refusal(it, key, propose)


async def test_a_proposal_opens_one_session(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, propose, payer = await it.robs()
        again = await it.thief(it.last_key)
        assert "busy" in (await again.ask(propose, Refused)).why
        thief.send(propose)
        assert "does not belong" in await thief.cut_off()
        await again.ask(Resume(propose.terms.digest(), b"", Way.SUPPLY), Resumed)
        again.send(Stop(Reason.OPERATOR))
        final = await again.hear(Final)
        await squares(it, again, propose, payer, final)
        assert "these very terms" in (await again.ask(propose, Refused)).why


async def squares(it: Street, thief: Thief, propose: Propose, payer: Any, final: Final) -> None:
    """End a session as an honest consumer would."""
    due = final.total * PRICE // 1_000
    receipt = Receipt(
        terms=propose.terms.digest(),
        supplier_total=final.total,
        consumer_total=final.total,
        paid=Amount(due),
        unpaid=Amount(0),
        ticks=payer.ticks,
        reason=final.reason,
        at=clock.now(),
    )
    evidence = payer.square(due).data
    await thief.ask(Square(receipt, it.last_key.sign(receipt.digest()), evidence), Receipted)


async def test_of_two_proposals_at_once_one_is_taken(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        keys = [it.fresh_key() for _ in range(4)]
        thieves = [await it.thief(key) for key in keys]
        offers = [await it.offered(thief) for thief in thieves]
        proposals = [it.proposal(key, offer, await it.channel(key))[0] for key, offer in zip(keys, offers, strict=True)]
        for thief, propose in zip(thieves, proposals, strict=True):
            thief.send(propose)
        answers: list[Any] = [await thief.hear((Accepted, Refused)) for thief in thieves]
        assert sum(isinstance(answer, Accepted) for answer in answers) == 1
        assert all("busy" in answer.why for answer in answers if isinstance(answer, Refused))
        for thief in thieves:
            thief.leave()


async def test_whoever_vanishes_before_its_acceptance_leaves_nothing_behind(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        params = await it.channel(key)
        for pause in (0.0, 0.002, 0.01, 0.02):
            thief = await it.thief(key)
            propose, _ = it.proposal(key, await it.offered(thief), params)
            thief.send(propose)
            await asyncio.sleep(pause)
            thief.link.abort()
            await until(lambda: not it.supplier.visits and not it.supplier.shell)
            again = await it.thief(key)
            why = (await again.ask(Resume(propose.terms.digest(), b"", Way.SUPPLY), Refused)).why
            assert "None" not in why
            again.leave()
        assert not book.unfinished(it.journal, it.sessions[0].role)
        assert taken(it) <= 0


async def test_proposals_under_examination_keep_nobody_out(open_street: Open) -> None:
    """Proposals over channels that the ledger does not know cost the pole a look each, not its business."""
    async with open_street(serves=False) as it:
        key = it.fresh_key()
        params = await it.channel(key)
        thieves = [await it.thief(key) for _ in range(20)]
        offer = await it.offered(thieves[0])
        for index, thief in enumerate(thieves):
            gone = msgspec.structs.replace(params, counter=params.counter + 1 + index)
            thief.send(it.proposal(key, offer, gone)[0])
        await it.serves()


# ---- coming back


async def test_a_session_is_resumed_by_its_consumer_alone(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        _, propose, _ = await it.robs()
        stranger = await it.thief(it.fresh_key())
        assert "somebody else" in (await stranger.ask(Resume(propose.terms.digest(), b"", Way.SUPPLY), Refused)).why
        assert "no such session" in (await stranger.ask(Resume(bytes(32), b"", Way.SUPPLY), Refused)).why
        assert "no such session" in (await stranger.ask(Resume(b"", b"", Way.SUPPLY), Refused)).why
        ended = it.sessions[0].digest
        assert "no such session" in (await stranger.ask(Resume(ended, b"", Way.SUPPLY), Refused)).why
        assert it.supplier.visit is not None
        assert it.supplier.visit.link.peer == it.last_key.address


async def test_a_new_link_takes_the_session_over_from_the_old_one(open_street: Open) -> None:
    async with open_street(speed=SPEED, patience=SHORT) as it:
        thief, propose, payer = await it.robs()
        for _ in range(3):
            other = await it.thief(it.last_key)
            resumed = await other.ask(Resume(propose.terms.digest(), b"", Way.SUPPLY), Resumed)
            assert "another link" in await thief.cut_off()
            thief = other
            await pays(thief, payer, resumed.total * PRICE // 1_000)
            assert (await thief.hear(Metered)).total > resumed.total
        assert len(it.supplier.visits) == 1
        assert taken(it) <= LIMIT


async def pays(thief: Thief, payer: Any, upto: int) -> None:
    """Pay ticks up to a sum, and one more."""
    evidence = payer.pay(upto + TICK)
    thief.send(Paid(Quantity(0), tuple(one.data for one in evidence)))


async def test_an_ended_session_is_over_for_its_consumer_too(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, propose, _ = await it.robs()
        thief.leave()
        await until(lambda: it.supplier.shell is None)
        again = await it.thief(it.last_key)
        assert "peer gone" in (await again.ask(Resume(propose.terms.digest(), b"", Way.SUPPLY), Refused)).why
        assert taken(it) <= LIMIT


async def test_a_restarted_pole_ends_what_nobody_comes_back_for(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        await it.robs()
        await it.crash()
        await it.open(patience=SHORT)
        assert it.supplier.shell is not None
        await until(lambda: it.supplier.shell is None)
        assert not book.unfinished(it.journal, it.sessions[0].role)
        assert taken(it) <= LIMIT


# ---- rubbish


def every_message(it: Street, digest: bytes) -> list[Message | bytes]:
    """One of each kind, well formed and out of place, and bytes that are none."""
    receipt = Receipt(digest, Quantity(1), Quantity(1), Amount(0), Amount(0), 0, "operator", Instant(0))
    close = Close(1, 1, 2**40)
    huge = 2**63 - 1
    return [
        Offered(it.supplier.offer().offer, bytes(65)),
        Accepted(bytes(65), b""),
        Refused("\x1b[2J" * 1_000),
        Metered(Quantity(huge), Instant(2**53 - 1), Amount(10**60), b"", b"", Quantity(0), Way.SUPPLY),
        Paid(Quantity(huge), ()),
        Paid(Quantity(0), (b"\x01" * 45,)),
        Paid(Quantity(0), (b"\x02{}",) * 100),
        Final(Quantity(0), Instant(0), Reason.OPERATOR, b"", b"", Quantity(0)),
        Square(receipt, bytes(65), b""),
        Receipted(bytes(65), b""),
        AskClose(digest, close, bytes(65)),
        AskClose(b"", msgspec.structs.replace(close, opener_balance=10**60), b""),
        Closing(digest),
        Resumed(Quantity(0), Instant(0), (), b"", b"", b"", Quantity(0), (), Way.SUPPLY),
        b"",
        b"rubbish",
        b"[" * 60_000,
        b"[99]",
        b'[6,"one",2,3]',
        b'[7,-1,["x"]]',
        b"[7,1e400,[]]",
        b"\xff" * 100,
        b'[8,"because"]',
        os.urandom(500),
    ]


async def test_rubbish_before_a_session_harms_only_its_link(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        for message in every_message(it, bytes(32)):
            if message == b"":
                continue  # a link carries no empty frame
            thief = await it.thief(key)
            thief.send(message)
            ended: asyncio.Future[Any] = asyncio.ensure_future(thief.cut_off())
            heard = asyncio.ensure_future(thief.hear(Refused))
            done, _ = await asyncio.wait([ended, heard], timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert done, message
            heard.cancel()
            ended.cancel()
            await asyncio.gather(heard, ended, return_exceptions=True)
            thief.leave()
            assert it.supplier.shell is None


@pytest.mark.parametrize("state", [State.STREAMING, State.SQUARING])
async def test_rubbish_in_a_session_costs_no_more_than_the_limit(open_street: Open, state: State) -> None:
    async with open_street(patience=SHORT) as it:
        thief, propose, _ = await it.robs()
        if state is State.SQUARING:
            thief.send(Stop(Reason.OPERATOR))
            await thief.hear(Final)
        for message in every_message(it, propose.terms.digest()):
            if message == b"" or it.supplier.shell is None:
                continue
            assert it.supplier.shell.session.state in (state, State.STOPPING, State.SQUARING)
            thief.send(message)
            again = await it.thief(it.last_key)
            answer = await again.resumes(propose.terms.digest())
            thief = again
            if isinstance(answer, Refused):
                break
            assert taken(it) <= LIMIT
        await until(lambda: it.supplier.shell is None)
        assert taken(it) <= LIMIT
        assert it.sessions[-1].paid == 0


async def test_requests_are_answered_one_at_a_time(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        thief = await it.thief(key)
        propose, _ = it.proposal(key, await it.offered(thief), await it.channel(key))
        thief.send(propose)
        thief.send(AskOffer())
        assert "one request" in await thief.cut_off()
        await until(lambda: it.supplier.shell is None)


async def test_two_hundred_links_ask_at_once(open_street: Open) -> None:
    async with open_street() as it:
        key = it.fresh_key()
        thieves = await asyncio.gather(*(it.thief(key) for _ in range(200)))
        for _ in range(3):
            for thief in thieves:
                thief.send(AskOffer())
        for thief in thieves:
            for _ in range(3):
                await thief.hear(Offered)
        await it.serves()
        for thief in thieves:
            thief.leave()


# ---- taking without paying


async def test_whoever_does_not_pay_gets_a_package(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, _, _ = await it.robs()
        await until(lambda: it.supplier.shell is None)
        assert 0 < taken(it) <= LIMIT
        assert it.sessions[-1].reason in (Reason.PAYMENT_STALLED, Reason.PEER_GONE)
        thief.leave()


async def test_a_link_that_flaps_gets_no_more_than_the_limit(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, propose, _ = await it.robs()
        for _ in range(30):
            thief.link.abort()
            thief = await it.thief(it.last_key)
            if isinstance(await thief.resumes(propose.terms.digest()), Refused):
                break
            assert taken(it) <= LIMIT
        await until(lambda: it.supplier.shell is None)
        assert taken(it) <= LIMIT


@pytest.mark.parametrize("skew", [-3_600_000, 3_600_000])
async def test_a_pole_whose_clock_is_wrong_by_an_hour(open_street: Open, skew: int) -> None:
    """Ahead it sells; behind, its offers have expired for everybody, who say so before any money moves."""
    async with open_street(serves=False) as it:
        it.skew = skew
        async with it.car() as car:
            if skew > 0:
                assert (await car.buy(quantity=20)).complete
                return
            with pytest.raises(PenstockError, match="clock"):
                await car.buy(quantity=20)
            assert book.channels(car.journal) == []


async def test_a_journal_that_fails_shuts_the_valve_and_closes_the_business(open_street: Open) -> None:
    async with open_street(serves=False, speed=SPEED, patience=SHORT) as it:
        thief, _, payer = await it.robs()
        heard = await thief.hear(Metered)
        await it.journal.close()
        await pays(thief, payer, heard.total * PRICE // 1_000)
        assert "journal" in await thief.cut_off()
        assert it.site.fault is not None
        assert it.line.power() == 0
        assert taken(it) <= LIMIT


@pytest.mark.asyncio
async def test_a_channel_whose_last_session_left_owing_gets_no_more_credit(open_street: Open) -> None:
    async with open_street(patience=SHORT) as it:
        thief, _propose, payer = await it.robs()
        await until(lambda: it.supplier.shell is None, "the thief still draws")
        assert it.sessions[-1].control.exposure > 0
        thief.leave()
        again = await it.thief(it.last_key)
        stream = (payer._row.note.voucher.nonce, 0)
        once_more, _ = it.proposal(it.last_key, await it.offered(again), payer._params, stream=stream)
        refused = await again.ask(once_more, Refused)
        assert "not paid in full" in refused.why
        await it.crash()
        await it.open()
        again = await it.thief(it.last_key)
        once_more, _ = it.proposal(it.last_key, await it.offered(again), payer._params, stream=stream)
        refused = await again.ask(once_more, Refused)
        assert "not paid in full" in refused.why


async def test_a_receipt_that_leaves_something_unpaid_ends_the_channels_credit_too(open_street: Open) -> None:
    """Or a meter that says too little would draw as much as the limit again and again. An honest car knows it."""
    async with open_street() as it, it.car(error_ppm=-300_000) as car:
        first = await car.buy(quantity=100, keep=True)
        assert first.complete
        assert first.receipt is not None
        assert first.receipt.unpaid > 0
        (row,) = book.channels(car.journal)
        note = book.last_note(car.journal, row)
        assert note is not None
        stream = (note.voucher.nonce, note.voucher.amount)
        once_more, _ = it.proposal(car.key, it.supplier.offer().offer, row.params, stream=stream)
        assert "not paid in full" in await refusal(it, car.key, once_more)
        await car.buy(quantity=100, keep=True)
        assert len(book.channels(car.journal)) == 2, "another channel was opened"
