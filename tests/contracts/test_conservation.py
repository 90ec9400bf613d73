"""The checks that every random life goes through, on lives that are written down: they notice what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.core.channel import ChannelParams, Close, Voucher
from penstock.sim.model import Filed

from .ground import ground
from .invariants import Papers
from .play import Call, Play
from .world import PERIOD, START, Chainlet, abi_params, abi_place, abi_voucher

CONSUMER, HUB, SUPPLIER = range(3)
CHAIN = Chainlet(5, 2, expiry=START + 10 * PERIOD)


def opened(play: Play, two_way: bool = True, deposit: int = 40) -> Papers:
    """A channel from the consumer to the supplier."""
    consumer, supplier = play.people[CONSUMER], play.people[SUPPLIER]
    counter = play.laws[0].accounts.counters[consumer.address]
    params = ChannelParams(
        play.laws[0].domain, consumer.address, supplier.address, consumer.address, supplier.address,
        PERIOD, two_way, counter,
    )  # fmt: skip
    assert play.act(Call(0, consumer, "open", abi_place(params, deposit)))
    return play.papers[params.id]


def filed(play: Play, papers: Papers, party: int, amount: int, lock: Chainlet | None = None) -> bool:
    """A voucher is signed, and its payee files it."""
    locks = (lock.lock,) if lock else ()
    voucher = Voucher.over(1, amount, locks)
    play.promise(papers, party, voucher, locks)
    begin = play.laws[0].accounts.channels[papers.params.id].status == "open"
    signature = play.signature(papers, party, voucher)
    args: tuple[Any, ...] = (abi_params(papers.params), abi_voucher(voucher), signature, [], begin)
    return play.act(Call(0, play.key(papers.parties[party]), "file", args))


def test_a_dispute_with_open_locks_conserves_tokens_and_lets_both_out() -> None:
    play = Play()
    papers = opened(play)
    assert filed(play, papers, 1, 15, CHAIN)
    assert filed(play, papers, 0, 5)
    settle = Call(0, play.people[HUB], "settle", (abi_params(papers.params),))
    assert not play.act(settle)
    play.wait(PERIOD)
    assert play.act(settle)
    assert play.laws[0].accounts.channels[papers.params.id].paid == (20, 10)
    play.end()


def test_a_token_that_the_model_does_not_know_of_is_noticed() -> None:
    play = Play()
    play.laws[0].accounts.balances[play.people[CONSUMER].address] -= 1
    with pytest.raises(AssertionError, match="a balance"):
        play.act(Call(0, play.people[HUB], "deposit", (1,)))


def test_a_law_that_forbids_what_the_contract_allows_is_noticed() -> None:
    play = Play()
    play.laws[0].accounts.allowances[play.people[HUB].address] = 0
    with pytest.raises(AssertionError, match="the law forbids"):
        play.act(Call(0, play.people[HUB], "deposit", (1,)))


def test_a_filing_that_the_model_holds_for_higher_is_noticed() -> None:
    play = Play()
    papers = opened(play)
    assert filed(play, papers, 1, 15)
    play.laws[0].accounts.channels[papers.params.id].sides[1].filed = Filed(16, nonce=1)
    with pytest.raises(AssertionError, match="a channel"):
        play.act(Call(0, play.people[HUB], "deposit", (1,)))


def test_what_somebody_else_takes_beyond_what_was_promised_is_noticed() -> None:
    play = Play()
    papers = opened(play, two_way=False)
    consumer, supplier = play.people[CONSUMER], play.people[SUPPLIER]
    voucher = Voucher.over(1, 15)  # signed behind the back of the checks, as a forgery would be
    args = (abi_params(papers.params), abi_voucher(voucher), play.seals.sign(consumer, voucher.digest(papers.params)))
    with pytest.raises(AssertionError, match="somebody else loses 15"):
        play.act(Call(0, supplier, "claim", args))


def test_a_close_by_consent_is_both_sides_own_act() -> None:
    play = Play()
    papers = opened(play)
    close = Close(3, 37, play.now)
    consumer, supplier = play.people[CONSUMER], play.people[SUPPLIER]
    seals = [play.seals.sign(key, close.digest(papers.params)) for key in (consumer, supplier)]
    consent = (abi_params(papers.params), 3 | 37 << 96 | close.expiry << 192, *seals)
    assert play.act(Call(0, ground().stranger, "close_together", (consent,)))
    play.end()
