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
from .stage import BILLED_ANEW, EARLIER, HOUR, LAST, LESS, MINUTE, NOTHING, OTHER_TURNS, SAME_SEQUENCE, Stage
from .words import abi_params

WAITS = (1, MINUTE // 2, MINUTE - 1, MINUTE, HOUR // 2)
small, party, pick = st.integers(0, 4), st.integers(0, 1), st.integers(0, 11)
money, entrance, pair = st.integers(0, 30), st.integers(0, 4), st.integers(0, 5)
kinds = st.sampled_from((0, 0, 1, 1, 1, 2, 3))
terms = st.integers(0, 41)
more, later = st.integers(0, 8), st.sampled_from((0, 1_000, 2_000, 4_000))
lie = st.sampled_from((0, 0, 0, 0, 0, 0, *range(LAST, NOTHING)))
lies = st.sampled_from((SAME_SEQUENCE, LESS, EARLIER, OTHER_TURNS, BILLED_ANEW, NOTHING, NOTHING, NOTHING))
edges = st.sampled_from((0, 1, None, None, None, None, None, None))  # seconds before an edge to wait for
signers = st.sampled_from((0, 0, 0, 1, 2, 3))  # both, the payer alone, the payee alone, both
noise = st.integers(0, 2**20)


class Moves(Stage):
    """What can happen in a life."""

    @initialize(some=st.lists(st.tuples(entrance, pair, kinds, money, terms, noise), min_size=1, max_size=3))
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
    @rule(pick=pick, stale=small, more=more, later=later, lie=lie, edge=edges, noise=noise)
    def release(self, pick: int, stale: int, more: int, later: int, lie: int, edge: int | None, noise: int) -> None:
        papers, _ = self._escrow(pick)
        if edge is not None:
            self._wait_until(papers.params.deadline - edge)
        self._file(papers, self._reading(papers, stale, more, later, lie), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, stale=small, more=more, later=later, noise=noise)
    def release_the_last(self, pick: int, stale: int, more: int, later: int, noise: int) -> None:
        papers, _ = self._escrow(pick)
        self._file(papers, self._reading(papers, stale, more, later, LAST), noise, self._anybody(noise))

    @precondition(lambda self: self._papers)
    @rule(pick=pick, more=more, later=later, lie=lie)
    def sign(self, pick: int, more: int, later: int, lie: int) -> None:
        """A reading that somebody files later, or nobody."""
        self._reading(self._escrow(pick)[0], 0, more, later, lie)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, lie=lies, more=more, later=later, drawn=st.booleans(), edge=edges, noise=noise)
    def contest(self, pick: int, lie: int, more: int, later: int, drawn: bool, edge: int | None, noise: int) -> None:
        papers, escrow = self._escrow(pick, waits=True)
        if drawn and escrow.takes_readings(escrow.matures_at):  # something, while something more waits
            self._wait_until(escrow.matures_at)
            self._file(papers, self._reading(papers, 0, more, later, 0), 0)
        if edge is not None:
            self._wait_until(escrow.matures_at - edge)
        pair = self._liars(papers, noise) if noise % 2 else None
        if pair is None:
            honest = self._newest(papers) or self._reading(papers, 0, more, later, 0)
            pair = honest, self._reading(papers, 0, more, later, lie)
        self._contest(papers, pair if noise % 3 else pair[::-1], noise)

    @rule(at=party, pair=pair, more=st.integers(1, 8), noise=noise)
    def contest_a_turn(self, at: int, pair: int, more: int, noise: int) -> None:
        """What was read before a price step, and then billed as if it had been after."""
        papers = self._deposit(at, 0, pair, 1, 20 + more, 9, 4, 0)
        if papers is not None:
            honest = self._reading(papers, 0, more, 0, 0)
            self._file(papers, honest, 0)
            self._contest(papers, (honest, self._reading(papers, 0, more, 0, BILLED_ANEW)), noise)

    # Ends

    @precondition(lambda self: self._papers)
    @rule(pick=pick, share=money, signers=signers, noise=noise)
    def end(self, pick: int, share: int, signers: int, noise: int) -> None:
        papers, escrow = self._escrow(pick, waits=share % 3 == 0, oldest=True)
        row = self._ends(papers, min(share, escrow.params.deposit + share % 2), signers)
        self._send(Call(papers.at, self._anybody(noise), "end", (row,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), signers=signers, noise=noise)
    def end_many(self, pick: int, shares: list[int], signers: int, noise: int) -> None:
        first, _ = self._escrow(pick, oldest=True)
        rows = []
        for step, share in enumerate(shares):
            papers, escrow = self._escrow(pick + step * (noise % 3), oldest=True)
            if papers.at == first.at:
                rows.append(self._ends(papers, min(share, escrow.params.deposit + share % 2), signers))
        self._send(Call(first.at, self._anybody(noise), "end_many", (tuple(rows),)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, early=st.integers(0, 5), noise=noise)
    def settle(self, pick: int, early: int, noise: int) -> None:
        papers, escrow = self._escrow(pick, waits=pick % 3 > 0)
        if early:
            self._wait_until((escrow.matures_at if escrow.waiting else papers.params.deadline) - (early == 1))
        self._send(Call(papers.at, self._anybody(noise), "settle", (abi_params(papers.params),)), noise)

    # Time, and what was sent before

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.play.wait(seconds)

    @precondition(lambda self: self.play.sent)
    @rule(back=st.integers(0, 30), noise=noise)
    def replay(self, back: int, noise: int) -> None:
        self._send(self.play.sent[-1 - back % len(self.play.sent)], noise)
