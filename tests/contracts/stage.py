"""What the moves are made of: a life, channels that fit, vouchers, proofs, consents, and the sending of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from penstock.core.channel import (
    APART,
    ChannelParams,
    Close,
    Lock,
    LockTree,
    SignedOpening,
    Voucher,
    Withdrawal,
    authorization_nonce,
    proof_words,
)
from penstock.core.identity import Digest, Key
from penstock.sim.model import Channel, Filed

from .ground import ground
from .invariants import Papers
from .play import Call, Play
from .spoil import spoil
from .world import NO_SIGNATURE, START, Chainlet, abi_params, abi_place, abi_voucher

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
OPENINGS = (
    "open",
    "open_with_keys",
    "open_from_token",
    "open_from_token_with_keys",
    "open_with_permit",
    "open_with_authorization",
    "open_signed",
)


class Stage(RuleBasedStateMachine):
    """A life, and how things are done in it."""

    def __init__(self) -> None:
        super().__init__()
        self.play = self.begin()

    def begin(self) -> Play:
        """A new life."""
        return Play()

    def teardown(self) -> None:
        if self.play.sound:
            self.play.end()

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
        fee, expiry, words = skip, self._until(noise), abi_params(params)
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

    def _until(self, noise: int) -> int:
        """When a signature expires: mostly later, but now and then in this second, or in the one before."""
        return self.play.now + (-1, 0, LONG, LONG, LONG, LONG, LONG)[noise // 16 % 7]

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
                words += proof_words(LockTree(locks), index, count, CHAINS[lock.root].preimage(count))
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

    def _close(self, papers: Papers, share: int, noise: int) -> Close:
        """A split of what is left; now and then a unit more than there is."""
        channel = self._law_of(papers)
        opener = channel.paid[0] + share % (channel.held + 1)
        return Close(opener, channel.pot - opener + (share == 30), self._until(noise))
