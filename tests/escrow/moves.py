"""The moves of the machine: every function of the contract, honest, stale, replayed, scrambled and out of order.

A move takes a few small numbers and makes a call of them that fits the state. Its `noise` spoils some: sent broken
first (then as it was), kept back to be sent later, or sent again. What is right and what is wrong is not known here;
that is the law's.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ..contracts.law import ENDLESS
from .play import Call
from .stage import HOUR, MINUTE, Stage
from .words import abi_params, abi_reading, abi_tariff

WAITS = (1, MINUTE // 2, MINUTE, HOUR // 2, HOUR, 2 * HOUR)
small, party, pick = st.integers(0, 4), st.integers(0, 1), st.integers(0, 11)
money, entrance, pair = st.integers(0, 30), st.integers(0, 4), st.integers(0, 5)
kinds = st.sampled_from((0, 0, 1, 1, 1, 2, 3))
terms = st.integers(0, 41)
more, later = st.integers(0, 8), st.sampled_from((0, 1_000, 2_000, 4_000))
lie = st.sampled_from((0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7))
signers = st.sampled_from((0, 0, 0, 1, 2, 3))  # both, the payer alone, the payee alone, both
noise = st.integers(0, 2**20)


class Moves(Stage):
    """What can happen in a life."""

    @initialize(
        some=st.lists(st.tuples(entrance, pair, st.integers(0, 1), money, terms, noise), min_size=2, max_size=4)
    )
    def begin_with_some(self, some: list[tuple[int, int, int, int, int, int]]) -> None:
        for at, (how, pair, kind, sum_, terms, noise) in enumerate(some):
            self._deposit(at % 2, how, pair, kind, 10 + sum_, terms, 2, noise)

    @rule(at=party, how=entrance, pair=pair, kind=kinds, sum_=money, terms=terms, skip=small, noise=noise)
    def deposit(self, at: int, how: int, pair: int, kind: int, sum_: int, terms: int, skip: int, noise: int) -> None:
        self._deposit(at, how, pair, kind, sum_, terms, skip, noise)

    @rule(at=party, who=st.integers(0, 3), amount=money, noise=noise)
    def withdraw(self, at: int, who: int, amount: int, noise: int) -> None:
        self._send(Call(at, self.play.people[who], "withdraw", (amount,)), noise)

    @rule(who=st.integers(0, 3), amount=st.sampled_from((0, 20, ENDLESS, ENDLESS)))
    def allow(self, who: int, amount: int) -> None:
        self.play.allow(0, self.play.people[who], amount)

    # Readings

    @precondition(lambda self: self._papers)
    @rule(pick=pick, stale=small, more=more, later=later, lie=lie, noise=noise)
    def release(self, pick: int, stale: int, more: int, later: int, lie: int, noise: int) -> None:
        papers, _ = self._escrow(pick)
        self._file(papers, self._reading(papers, stale, more, later, lie), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, stale=small, more=more, later=later, noise=noise)
    def release_the_last(self, pick: int, stale: int, more: int, later: int, noise: int) -> None:
        papers, _ = self._escrow(pick)
        self._file(papers, self._reading(papers, stale, more, later, 1), noise, self._anybody(noise))

    @precondition(lambda self: self._papers)
    @rule(pick=pick, more=more, later=later, lie=lie)
    def sign(self, pick: int, more: int, later: int, lie: int) -> None:
        """A reading that somebody files later, or nobody."""
        self._reading(self._escrow(pick)[0], 0, more, later, lie)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, lie=st.sampled_from((2, 2, 3, 3, 3, 4, 5, 5, 6, 7)), more=more, later=later, found=st.integers(0, 3), noise=noise)
    def contest(self, pick: int, lie: int, more: int, later: int, found: int, noise: int) -> None:
        papers, _ = self._escrow(pick, waits=True)
        pair = self._liars(papers) if found else None
        if pair is None:
            honest = self._reading(papers, 3, more, later, 0)
            pair = honest, self._reading(papers, 0, more, later, lie)
        meter, args = self.play.key(papers.params.meter), [abi_params(papers.params), abi_tariff(papers.tariff)]
        for reading in pair if noise % 3 else pair[::-1]:
            signature = self.play.seals.sign(meter, reading.digest(papers.params))
            args += [abi_reading(reading), signature]
        self._send(Call(papers.at, self._anybody(noise), "contest", tuple(args)), noise)

    # Ends

    @precondition(lambda self: self._papers)
    @rule(pick=pick, share=money, signers=signers, noise=noise)
    def end(self, pick: int, share: int, signers: int, noise: int) -> None:
        papers, escrow = self._escrow(pick, waits=share % 3 == 0)
        row = self._ends(papers, min(share, escrow.params.deposit + share % 2), signers)
        self._send(Call(papers.at, self._anybody(noise), "end", (row,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), signers=signers, noise=noise)
    def end_many(self, pick: int, shares: list[int], signers: int, noise: int) -> None:
        first, _ = self._escrow(pick)
        rows = []
        for step, share in enumerate(shares):
            papers, escrow = self._escrow(pick + step * (noise % 3))
            if papers.at == first.at:
                rows.append(self._ends(papers, min(share, escrow.params.deposit + share % 2), signers))
        self._send(Call(first.at, self._anybody(noise), "end_many", (tuple(rows),)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, early=st.integers(0, 5), noise=noise)
    def settle(self, pick: int, early: int, noise: int) -> None:
        papers, escrow = self._escrow(pick, waits=pick % 3 > 0)
        edge = escrow.matures_at if escrow.waiting else papers.params.deadline
        if early > 1 and self.play.now < edge < self.play.now + 2 * HOUR:
            self.play.wait(edge - self.play.now)
        self._send(Call(papers.at, self._anybody(noise), "settle", (abi_params(papers.params),)), noise)

    # Time, and what was sent before

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.play.wait(seconds)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, before=party, deadline=st.booleans())
    def wait_for_an_edge(self, pick: int, before: int, deadline: bool) -> None:
        """To the very second at which a claim matures, or no reading is taken any more, or to the one before."""
        papers, escrow = self._escrow(pick, waits=not deadline)
        edge = (papers.params.deadline if deadline else escrow.matures_at) - before
        if self.play.now < edge < self.play.now + 9 * HOUR:
            self.play.wait(edge - self.play.now)

    @precondition(lambda self: self.play.sent)
    @rule(back=st.integers(0, 30), noise=noise)
    def replay(self, back: int, noise: int) -> None:
        self._send(self.play.sent[-1 - back % len(self.play.sent)], noise)
