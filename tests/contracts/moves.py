"""The moves of the machine: every function of the contract, honest, stale, replayed, scrambled and out of order.

A move takes a few small numbers and makes a call of them that fits the state: a channel that lives, a caller who may, a
voucher that was signed some time ago. Its `noise` spoils some: sent broken first (then as it was), kept back to be sent
later, or sent again. What is right and what is wrong is not known here; that is the law's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from penstock.core.channel import (
    APART,
    Answer,
    ChannelParams,
    Close,
    Lock,
    Release,
    SignedAddition,
    SignedOpening,
    Voucher,
    Withdrawal,
    authorization_nonce,
    proof_words,
)
from penstock.core.identity import Digest, Key

from .ground import ground
from .invariants import Papers
from .law import ENDLESS
from .model import Channel, Filed
from .play import Call, Play
from .spoil import spoil
from .world import NO_SIGNATURE, START, Chainlet, abi_params, abi_place, abi_voucher, word

LONG, SHORT = 3_600, 60  # challenge periods
NEAR = Chainlet(5, 2, seed=b"near")  # its preimages are the payer's alone: no expiry
SOON = Chainlet(4, 3, expiry=START + LONG, seed=b"soon")
LATE = Chainlet(4, 3, expiry=START + 6 * LONG, seed=b"late")
NEAR_ONLY = (NEAR.lock,)
CHAINS = {chain.lock.root: chain for chain in (NEAR, SOON, LATE)}
TREES: tuple[tuple[Lock, ...], ...] = (
    (),
    (),
    (NEAR.lock,),
    (LATE.lock,),
    (NEAR.lock, LATE.lock),
    (SOON.lock, NEAR.lock, LATE.lock),
)
WAITS = (1, SHORT // 2, SHORT, LONG // 2, LONG // 2 + 1, LONG)
OPENINGS = (
    "open",
    "open_with_keys",
    "open_from_token",
    "open_from_token_with_keys",
    "open_with_permit",
    "open_with_authorization",
    "open_signed",
)

small, party, pick = st.integers(0, 4), st.integers(0, 1), st.integers(0, 11)
money, opening, pair = st.integers(0, 30), st.integers(0, 6), st.integers(0, 5)
noise = st.integers(0, 2**20)


class Moves(RuleBasedStateMachine):
    """A life, and what can happen in it."""

    def __init__(self) -> None:
        super().__init__()
        self.play = self.begin()

    def begin(self) -> Play:
        """A new life."""
        return Play()

    def teardown(self) -> None:
        if self.play.sound:
            self.play.end()

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

    def _open(
        self, at: int, how: int, pair: int, two_way: bool, deposit: int, keys: int, skip: int, noise: int
    ) -> None:
        law, name, people, voucher_keys = self.play.laws[at], OPENINGS[how], ground().traders, ground().voucher_keys
        opener = people[pair % 3]
        partner = people[(pair % 3 + 1 + pair // 3) % 3]
        apart = name == "open_from_token" or (name != "open" and skip % 2 == 1)
        counter = APART + skip if apart else max(0, law.accounts.counters[opener.address] + (0, 0, 0, 0, 2, -1)[skip])
        own_keys = name not in ("open", "open_from_token")
        params = ChannelParams(
            law.domain,
            opener.address,
            partner.address,
            voucher_keys[opener.address].address if own_keys and keys & 1 else opener.address,
            voucher_keys[partner.address].address if own_keys and keys & 2 else partner.address,
            SHORT if skip == 3 else LONG,
            two_way,
            counter,
        )
        fee, expiry, words = skip, self.play.now + LONG, abi_params(params)
        caller = opener
        args: tuple[Any, ...] = abi_place(params, deposit) + (words[2:4] if own_keys else ())
        if name == "open_with_permit":
            permit = law.permit(opener.address, deposit, law.accounts.permits[opener.address], expiry)
            args = (*args, expiry, self.play.seals.sign(opener, permit))
        elif name == "open_with_authorization":
            nonce = authorization_nonce(params, deposit, fee)
            digest = law.authorization(opener.address, deposit + fee, 0, expiry, nonce)
            caller = self._anybody(noise)
            args = (words, deposit | fee << 96, 0, expiry, self.play.seals.sign(opener, digest))
        elif name == "open_signed":
            signature = self._packed(opener, SignedOpening(deposit, fee, expiry).digest(params))
            caller, args = self._anybody(noise), (words, deposit | fee << 96, expiry, signature)
        self._send(Call(at, caller, name, args), noise)

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
        addition = SignedAddition(channel.deposits[party] + amount, amount % 3, self.play.now + LONG)
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
        consent = self._consent(papers, Withdrawal(max(0, totals[0]), totals[1], self.play.now + LONG), signers)
        self._send(Call(papers.at, self._sender(papers, signers, noise), "withdraw_together", (consent,)), noise)

    # Ends by consent

    @precondition(lambda self: self._papers)
    @rule(pick=pick, share=money, signers=st.integers(0, 3), noise=noise)
    def close_together(self, pick: int, share: int, signers: int, noise: int) -> None:
        papers, _ = self._channel(pick) if share % 3 else self._contested(pick, over=True)
        consent = self._consent(papers, self._close(papers, share), signers)
        self._send(Call(papers.at, self._sender(papers, signers, noise), "close_together", (consent,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), signers=st.integers(0, 3), noise=noise)
    def close_many(self, pick: int, shares: list[int], signers: int, noise: int) -> None:
        first = self._channel(pick)[0]
        rows = []
        for more, share in enumerate(shares):
            papers = self._channel(pick + more * (noise % 3))[0]
            if papers.at == first.at:
                rows.append(self._consent(papers, self._close(papers, share), signers))
        self._send(Call(first.at, self._sender(first, signers, noise), "close_many", (rows,)), noise)

    @precondition(lambda self: self._papers)
    @rule(pick=pick, shares=st.lists(money, min_size=1, max_size=3), noise=noise)
    def close_mine(self, pick: int, shares: list[int], noise: int) -> None:
        (first, _), rows = self._channel(pick, plain=True), []
        for papers, share in self._group(first, shares):
            close = self._close(papers, share)
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
        args = (abi_params(papers.params), bool(party), proof_words(locks, index, 0, b""))
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

    # How moves are made

    def _send(self, call: Call, noise: int) -> None:
        """Send it, and perhaps something broken before, or something else than it at all."""
        kind, rest = noise % 16, noise // 16
        if kind == 15:
            self.play.sent.append(call)  # somebody will send it later
            return
        if kind > 9:
            broken = spoil(call, kind - 10, rest, self.play)
            if broken is not None:
                self.play.act(broken)
        self.play.act(call)
        self.play.sent.append(call)

    @property
    def _papers(self) -> list[Papers]:
        return [papers for papers in self.play.papers.values() if self.play.knows(papers.params)]

    def _law_of(self, papers: Papers) -> Channel:
        return self.play.laws[papers.at].accounts.channels[papers.params.id]

    def _channel(self, pick: int, one_way: bool = False, plain: bool = False) -> tuple[Papers, Channel]:
        """An open one of a kind, made if there is none; now and then any."""
        some = [
            papers
            for papers in self._papers
            if self._law_of(papers).status == "open"
            and not (one_way and papers.params.two_way)
            and not (plain and papers.params.opener_key != papers.params.opener)
        ]
        if not some:
            two_way, keys = not one_way and pick % 2 == 0, 0 if plain else pick % 4
            self._open(pick // 2 % 2, 1, pick % 6, two_way, 20, keys, 4, 0)
            some = self._papers[-1:]
        if pick > 9:
            some = self._papers
        papers = some[pick % len(some)]
        return papers, self._law_of(papers)

    def _contested(self, pick: int, over: bool = False) -> tuple[Papers, Channel]:
        """One in its challenge (or after it, where that will do), brought there if there is none."""
        states = ("closing", "part paid")
        some = [
            papers
            for papers in self._papers
            if self._law_of(papers).status in states and (over or self._law_of(papers).challenged(self.play.now))
        ]
        if pick == 11:
            return self._channel(pick)
        if some:
            return some[pick % len(some)], self._law_of(some[pick % len(some)])
        papers, channel = self._channel(pick)
        if channel.status == "open":
            close = Call(papers.at, self._side(papers, pick % 2), "close", (abi_params(papers.params),))
            self._send(close, 0)
        return papers, self._law_of(papers)

    def _filed(self, pick: int, party: int) -> tuple[Papers, Filed, int]:
        """One with a filing in favour of a party, with locks; filed if there is none. And that party."""
        for papers in self._papers[pick % 3 :]:
            for side in (party, 1 - party):
                filed = self._law_of(papers).sides[side].filed
                if filed and filed.locks and self._law_of(papers).status != "ended":
                    return papers, filed, side
        papers, channel = self._contested(pick)
        party = party if channel.two_way else 1
        voucher = self._voucher(papers, party, 0, pick, 2 + pick % 4, 4, pick % 9)
        signature = self.play.signature(papers, party, voucher)
        args: tuple[Any, ...] = (abi_params(papers.params), abi_voucher(voucher), signature, [], False)
        self._send(Call(papers.at, self._side(papers, party), "file", args), 0)
        return papers, self._law_of(papers).sides[party].filed or Filed(0, NEAR_ONLY), party

    def _group(self, first: Papers, amounts: Sequence[int]) -> list[tuple[Papers, int]]:
        """Channels with the partner of the first; too few for the amounts, and one stands there twice."""
        same = [first] + [
            papers
            for papers in self._papers
            if (papers.at, papers.params.partner) == (first.at, first.params.partner)
            and self._law_of(papers).status == "open"
        ]
        return [(same[at % len(same)], amount) for at, amount in enumerate(amounts)]

    def _anybody(self, noise: int) -> Key:
        return self.play.people[noise // 16 % 4]

    def _side(self, papers: Papers, party: int) -> Key:
        return self.play.key(papers.parties[party])

    def _sender(self, papers: Papers, signers: int, noise: int) -> Key:
        """Whose signature is missing sends it itself."""
        return self._anybody(noise) if signers in (0, 3) else self._side(papers, 2 - signers)

    def _packed(self, key: Key, digest: Digest) -> bytes:
        return self.play.seals.pack(key, digest)

    def _voucher(self, papers: Papers, party: int, stale: int, amount: int, tree: int, nonce: int, lie: int) -> Voucher:
        """One of those that the party has (stale above 1), or a new one. A lie: it locks less, or not long enough."""
        have = papers.vouchers[party]
        if have and stale > 1:
            return have[-1 - (stale + amount) % len(have)]
        locks = TREES[tree]
        honest = Voucher.over(nonce, amount, locks)
        locked, until = honest.locked, honest.locked_until
        if lie in (7, 8):
            locked = locked // 2
        if lie == 9:
            until = until // 2
        voucher = Voucher(nonce, amount, locked, until, honest.locks_root)
        self.play.promise(papers, party, voucher, locks)
        return voucher

    def _proofs(self, locks: Sequence[Lock], counts: list[int]) -> list[bytes]:
        """Proofs of so many ticks of one lock after the other; of 0, none."""
        words = []
        for index, (lock, count) in enumerate(zip(locks, counts, strict=False)):
            if count:
                words += proof_words(locks, index, count, CHAINS[lock.root].preimage(count))
        return words

    def _consent(self, papers: Papers, what: Close | Withdrawal, signers: int) -> tuple[Any, ...]:
        """What both sign (signers 0 or 3), or the opener (1) or the partner (2) alone."""
        first, second = (
            (what.opener_balance, what.partner_balance)
            if isinstance(what, Close)
            else (what.opener_total, what.partner_total)
        )
        digest = what.digest(papers.params)
        signatures = [
            self.play.seals.sign(self.play.key(key), digest) if signers in (0, 3, 1 + side) else NO_SIGNATURE
            for side, key in enumerate((papers.params.opener_key, papers.params.partner_key))
        ]
        return (abi_params(papers.params), first | second << 96 | what.expiry << 192, *signatures)

    def _close(self, papers: Papers, share: int) -> Close:
        """A split of what is left; now and then a unit more than there is."""
        channel = self._law_of(papers)
        opener = channel.paid[0] + share % (channel.held + 1)
        return Close(opener, channel.pot - opener + (share == 30), self.play.now + LONG)
