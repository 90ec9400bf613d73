"""The moves of the machine: every function of the contract, honest, stale, replayed, scrambled and out of order.

A move takes a few small numbers and makes a call of them that fits the state: a channel that lives, a caller who may, a
voucher that was signed some time ago. Its `noise` spoils some: sent broken first (then as it was), kept back to be sent
later, or sent again. What is right and what is wrong is not known here; that is the law's.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from penstock.core.channel import Answer, LockTree, Release, SignedAddition, Withdrawal, proof_words

from .law import ENDLESS
from .play import Call
from .stage import LATE, LONG, NEAR_ONLY, SHORT, SOON, Stage
from .world import NO_SIGNATURE, abi_params, abi_voucher, word

WAITS = (1, SHORT // 2, SHORT, LONG // 2, LONG // 2 + 1, LONG)
small, party, pick = st.integers(0, 4), st.integers(0, 1), st.integers(0, 11)
money, opening, pair = st.integers(0, 30), st.integers(0, 6), st.integers(0, 5)
noise = st.integers(0, 2**20)


class Moves(Stage):
    """What can happen in a life."""

    # Opening

    @initialize(kinds=st.lists(st.tuples(opening, pair, st.booleans(), money, noise), min_size=2, max_size=4))
    def begin_with_some(self, kinds: list[tuple[int, int, bool, int, int]]) -> None:
        for at, (how, pair, two_way, deposit, noise) in enumerate(kinds):
            self._open(at % 2, how, pair, two_way, 10 + deposit, deposit % 4, deposit % 6, noise)

    @rule(
        at=party, how=opening, pair=pair, two_way=st.booleans(), deposit=money, keys=small,
        skip=st.integers(0, 5), noise=noise,
    )  # fmt: skip
    def open(self, at: int, how: int, pair: int, two_way: bool, deposit: int, keys: int, skip: int, noise: int) -> None:
        self._open(at, how, pair, two_way, deposit, keys, skip, noise)

    # Money in and out

    @rule(at=party, who=st.integers(0, 3), amount=money, noise=noise)
    def deposit(self, at: int, who: int, amount: int, noise: int) -> None:
        self._send(Call(at, self.play.people[who], "deposit", (amount,)), noise)

    @rule(at=party, who=st.integers(0, 3), amount=money, noise=noise)
    def withdraw(self, at: int, who: int, amount: int, noise: int) -> None:
        self._send(Call(at, self.play.people[who], "withdraw", (amount,)), noise)

    @rule(who=st.integers(0, 3), amount=st.sampled_from((0, 20, ENDLESS, ENDLESS)))
    def allow(self, who: int, amount: int) -> None:
        self.play.allow(0, self.play.people[who], amount)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, party=party, how=st.integers(0, 2), amount=money, noise=noise)
    def add(self, pick: int, party: int, how: int, amount: int, noise: int) -> None:
        papers, channel = self._channel(pick)
        owner, words = self.play.key(papers.parties[party]), abi_params(papers.params)
        if how < 2:
            self._send(Call(papers.at, owner, ("add", "add_from_token")[how], (words, amount)), noise)
            return
        addition = SignedAddition(channel.deposits[party] + amount, amount % 3, self._until(noise))
        signature = self._packed(owner, addition.digest(papers.params))
        args = (words, word(owner.address), addition.total | addition.fee << 96, addition.expiry, signature)
        self._send(Call(papers.at, self._anybody(noise), "add_signed", args), noise)

    # Without an end

    @precondition(lambda self: self._papers)
    @rule(pick=pick, stale=small, amount=money, tree=small, nonce=small, noise=noise)
    def claim(self, pick: int, stale: int, amount: int, tree: int, nonce: int, noise: int) -> None:
        papers, _ = self._channel(pick, one_way=True)
        voucher = self._voucher(papers, 1, stale, amount, tree, nonce, 0)
        args = (abi_params(papers.params), abi_voucher(voucher), self.play.signature(papers, 1, voucher))
        self._send(Call(papers.at, self._side(papers, 1), "claim", args), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, amounts=st.lists(money, min_size=1, max_size=4), nonce=small, noise=noise)
    def claim_many(self, pick: int, amounts: list[int], nonce: int, noise: int) -> None:
        (first, _), rows = self._channel(pick, one_way=True, plain=True), []
        for papers, amount in self._group(first, amounts):
            voucher = self._voucher(papers, 1, 0, amount, 0, nonce, 0)
            signature = self.play.signature(papers, 1, voucher)
            rows.append((word(papers.params.opener) | amount << 160, papers.params.terms | nonce << 128, *signature))
        args = (abi_params(first.params)[3], rows)
        self._send(Call(first.at, self._side(first, 1), "claim_many", args), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, opener=st.integers(0, 6), partner=st.integers(0, 6), signers=st.integers(0, 3), noise=noise)
    def withdraw_together(self, pick: int, opener: int, partner: int, signers: int, noise: int) -> None:
        papers, channel = self._channel(pick)
        totals = channel.paid[0] + opener - (noise % 8 == 1), channel.paid[1] + partner
        consent = self._consent(papers, Withdrawal(max(0, totals[0]), totals[1], self._until(noise)), signers)
        self._send(Call(papers.at, self._sender(papers, signers, noise), "withdraw_together", (consent,)), noise)

    # Ends by consent

    @precondition(lambda self: self._papers)
    @rule(pick=pick, share=money, signers=st.integers(0, 3), noise=noise)
    def close_together(self, pick: int, share: int, signers: int, noise: int) -> None:
        papers, _ = self._channel(pick) if share % 3 else self._contested(pick, over=True)
        consent = self._consent(papers, self._close(papers, share, noise), signers)
        self._send(Call(papers.at, self._sender(papers, signers, noise), "close_together", (consent,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), signers=st.integers(0, 3), noise=noise)
    def close_many(self, pick: int, shares: list[int], signers: int, noise: int) -> None:
        first = self._channel(pick)[0]
        rows = []
        for more, share in enumerate(shares):
            papers = self._channel(pick + more * (noise % 3))[0]
            if papers.at == first.at:
                rows.append(self._consent(papers, self._close(papers, share, noise), signers))
        self._send(Call(first.at, self._sender(first, signers, noise), "close_many", (rows,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), noise=noise)
    def close_mine(self, pick: int, shares: list[int], noise: int) -> None:
        (first, _), rows = self._channel(pick, plain=True), []
        for papers, share in self._group(first, shares):
            close = self._close(papers, share, noise)
            opener = self.play.key(papers.params.opener_key)
            rows.append(
                (
                    word(papers.params.opener) | close.partner_balance << 160,
                    papers.params.terms | close.expiry << 128,
                    *self.play.seals.sign(opener, close.digest(papers.params)),
                )
            )
        args = (abi_params(first.params)[3], rows)
        self._send(Call(first.at, self._side(first, 1), "close_mine", args), noise)

    # The challenge

    @precondition(lambda self: self._papers)
    @rule(pick=pick, party=party, noise=noise)
    def close(self, pick: int, party: int, noise: int) -> None:
        papers, _ = self._channel(pick)
        self._send(Call(papers.at, self._side(papers, party), "close", (abi_params(papers.params),)), noise)

    @precondition(lambda self: self._papers)
    @rule(
        pick=pick, party=party, stale=small, amount=money, tree=st.integers(0, 5), nonce=small, lie=st.integers(0, 9),
        counts=st.lists(small, max_size=3), noise=noise,
    )  # fmt: skip
    def file(
        self, pick: int, party: int, stale: int, amount: int, tree: int, nonce: int, lie: int, counts: list[int],
        noise: int,
    ) -> None:  # fmt: skip
        papers, channel = self._channel(pick) if nonce % 2 else self._contested(pick)
        party = party if channel.two_way or noise % 16 == 1 else 1
        voucher = self._voucher(papers, party, stale, amount, tree, nonce, lie)
        proofs = self._proofs(self.play.seals.locks(voucher), counts)
        filing = (abi_voucher(voucher), self.play.signature(papers, party, voucher), proofs, channel.status == "open")
        self._send(Call(papers.at, self._side(papers, party), "file", (abi_params(papers.params), *filing)), noise)

    @precondition(lambda self: self._papers)
    @rule(
        pick=pick, party=party, stale=small, amount=money, tree=st.integers(0, 5), nonce=small, sequence=small,
        noise=noise,
    )  # fmt: skip
    def answer(
        self, pick: int, party: int, stale: int, amount: int, tree: int, nonce: int, sequence: int, noise: int
    ) -> None:
        papers, channel = self._contested(pick)
        party = party if channel.two_way else 1
        voucher = self._voucher(papers, party, stale, amount, tree, nonce, 0)
        signature = self.play.signature(papers, party, voucher)
        payee = self.play.key((papers.params.opener_key, papers.params.partner_key)[party])
        digest = Answer(voucher.content(papers.params), sequence).digest(papers.params)
        answer = (bool(party), abi_voucher(voucher), signature, sequence, self.play.seals.sign(payee, digest))
        self._send(Call(papers.at, self._anybody(noise), "answer", (abi_params(papers.params), *answer)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, party=party, counts=st.lists(small, min_size=1, max_size=3), noise=noise)
    def prove(self, pick: int, party: int, counts: list[int], noise: int) -> None:
        papers, filed, party = self._filed(pick, party)
        proofs = self._proofs(filed.locks, counts)
        args = (abi_params(papers.params), bool(party), proofs)
        self._send(Call(papers.at, self._anybody(noise), "prove", args), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, party=party, index=st.integers(0, 2), early=st.integers(0, 3), noise=noise)
    def give_up(self, pick: int, party: int, index: int, early: int, noise: int) -> None:
        papers, filed, party = self._filed(pick, party)
        locks = filed.locks or NEAR_ONLY
        index = index % len(locks)
        end = locks[index].expiry or self._law_of(papers).closes_at
        if early and end > self.play.now:
            self.play.wait(end - self.play.now)
        args = (abi_params(papers.params), bool(party), proof_words(LockTree(locks), index, 0, b""))
        self._send(Call(papers.at, self._anybody(noise), "prove", args), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, party=party, nonce=small, amount=money, answered=st.booleans(), noise=noise)
    def release(self, pick: int, party: int, nonce: int, amount: int, answered: bool, noise: int) -> None:
        papers, channel = self._contested(pick)
        party = party if channel.two_way else 1
        payee, payer = ((papers.params.opener_key, papers.params.partner_key)[side] for side in (party, 1 - party))
        release, consent, caller = Release(nonce, amount), NO_SIGNATURE, self._side(papers, 1 - party)
        signature = self.play.seals.sign(self.play.key(payee), release.digest(papers.params))
        if answered:
            answer = Answer(release.content(papers.params), 0).digest(papers.params)
            consent, caller = self.play.seals.sign(self.play.key(payer), answer), self._anybody(noise)
        args = (abi_params(papers.params), bool(party), nonce, amount, signature, consent)
        self._send(Call(papers.at, caller, "release", args), noise)

    @precondition(lambda self: self._papers)
    @rule(
        pick=pick, stale=small, amount=money, tree=st.integers(0, 5), nonce=small, lie=st.integers(0, 9),
        counts=st.lists(small, max_size=3), noise=noise,
    )  # fmt: skip
    def finish(
        self, pick: int, stale: int, amount: int, tree: int, nonce: int, lie: int, counts: list[int], noise: int
    ) -> None:
        papers, _ = self._contested(pick) if nonce == 3 else self._channel(pick, one_way=True)
        voucher = self._voucher(papers, 1, stale, amount, tree, nonce, lie)
        proofs = self._proofs(self.play.seals.locks(voucher), counts)
        args = (abi_params(papers.params), abi_voucher(voucher), self.play.signature(papers, 1, voucher), proofs)
        self._send(Call(papers.at, self._side(papers, 1), "finish", args), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, early=st.integers(0, 5), noise=noise)
    def settle(self, pick: int, early: int, noise: int) -> None:
        papers, channel = self._contested(pick, over=True)
        if early > 1 and channel.closes_at > self.play.now:
            self.play.wait(channel.closes_at - self.play.now)
        self._send(Call(papers.at, self._anybody(noise), "settle", (abi_params(papers.params),)), noise)

    # Time, and what was sent before

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.play.wait(seconds)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, before=st.integers(0, 1), lock=st.booleans())
    def wait_for_an_edge(self, pick: int, before: int, lock: bool) -> None:
        """To the very second at which a challenge ends, or a lock expires, or to the one before."""
        _, channel = self._contested(pick, over=True)
        edges = [SOON.lock.expiry, LATE.lock.expiry] if lock else [channel.closes_at, channel.closes_at]
        edge = edges[pick % 2] - before
        if edge > self.play.now:
            self.play.wait(edge - self.play.now)

    @precondition(lambda self: self.play.sent)
    @rule(back=st.integers(0, 30), noise=noise)
    def replay(self, back: int, noise: int) -> None:
        self._send(self.play.sent[-1 - back % len(self.play.sent)], noise)
