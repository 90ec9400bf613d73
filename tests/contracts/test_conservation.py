"""Random lives of a channel: the contract does what the model does, no token is made or lost, and all get out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.channel import (
    APART,
    Answer,
    ChannelParams,
    Close,
    Lock,
    Release,
    SignedAddition,
    Voucher,
    Withdrawal,
    compact,
)
from penstock.ledgers.devnet.execute import Reverted

from .model import Filed, Forbidden, Model
from .world import NO_SIGNATURE, PERIOD, START, Chainlet, Receipt, World, abi_voucher, word

NEAR = Chainlet(5, 2, seed=b"near")
SOON = Chainlet(4, 3, expiry=START + PERIOD + 500, seed=b"soon")
LATE = Chainlet(4, 3, expiry=START + 5 * PERIOD, seed=b"late")
CHAINS = {chain.lock.root: chain for chain in (NEAR, SOON, LATE)}
TREES: list[list[Lock]] = [[], [NEAR.lock], [LATE.lock], [NEAR.lock, LATE.lock], [SOON.lock, NEAR.lock, LATE.lock]]
HORIZON = 20 * PERIOD
FOREVER = 2**40

money, party, small = st.integers(0, 25), st.integers(0, 1), st.integers(0, 4)
trees = st.sampled_from(TREES)
file_step = st.tuples(st.just("file"), party, money, trees, small, st.booleans())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), party, money),
        st.tuples(st.just("add_to"), party, money),
        st.tuples(st.just("claim"), money),
        st.tuples(st.just("claim"), money),
        st.tuples(st.just("withdraw"), money, money),
        st.tuples(st.just("close"), party),
        file_step,
        file_step,
        st.tuples(st.just("answer"), party, money, trees, small, small),
        st.tuples(st.just("release"), party, small, money, st.booleans()),
        st.tuples(st.just("prove"), party, st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("prove"), party, st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("expire"), party, st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from([1, PERIOD // 2, PERIOD // 2 + 1, PERIOD, PERIOD + 600])),
        st.tuples(st.just("settle")),
        st.tuples(st.just("finish"), money, small),
        st.tuples(st.just("close_together"), money),
    ),
    max_size=16,
)


class Life:
    """One channel on the chain and its model, moved together. Where keys are accounts, batches are used."""

    def __init__(self, world: World, two_way: bool, plain: bool, apart: bool, deposit: int) -> None:
        self.world, self.parties, self.plain = world, (world.opener, world.partner), plain
        self.model = Model(world.balances(), two_way, PERIOD)
        self.total = world.wallet_of_contract()
        self.others = self.total - sum(world.balances())
        self.trees: list[list[Lock]] = [[], []]
        self.params: ChannelParams = world.params(
            two_way, **({"counter": APART} if apart else {}), **(world.plain if plain else {})
        )
        self.both(lambda m: m.open(deposit), lambda w: w.open_by(w.opener, "open_with_keys", self.params, deposit))

    def both(self, model: Callable[[Model], None], contract: Callable[[World], Any]) -> bool:
        """Do the same in both; they agree on whether it is allowed, and on every sum afterwards."""
        try:
            model(self.model)
            allowed = True
        except Forbidden:
            allowed = False
        try:
            receipt = contract(self.world)
            skipped = isinstance(receipt, Receipt) and self.world.channel.events(receipt, "Skipped")
            reason = f"channel: {skipped[0]['reason']}" if skipped else ""
        except Reverted as error:
            reason = error.reason
        assert not reason or reason.startswith("channel: ")
        assert allowed == (not reason), reason
        assert self.world.balances() == tuple(self.model.balances)
        assert sum(self.model.balances) + self.model.held + self.others == self.total
        assert self.world.wallet_of_contract() == self.total
        if self.model.status in ("open", "closing"):
            assert self.world.drawn(self.params) == tuple(self.model.paid)
            assert self.world.state(self.params)[3] == self.model.closes_at
        return allowed

    def step(self, act: str, *args: Any) -> None:
        getattr(self, f"_{act}")(*args)

    def _wait(self, seconds: int) -> None:
        self.world.wait(seconds)

    def _add(self, who: int, amount: int) -> None:
        self.both(lambda m: m.add(who, amount), lambda w: w.send(self.parties[who], "add", self.params, amount))

    def _add_to(self, who: int, total: int) -> None:
        owner = self.parties[who]
        r, vs = compact(owner.sign(SignedAddition(total, 0, FOREVER).digest(self.params)))
        signature = r.to_bytes(32, "big") + vs.to_bytes(32, "big")
        self.both(
            lambda m: m.add_to(who, total),
            lambda w: w.send(w.stranger, "add_signed", self.params, word(owner.address), total, FOREVER, signature),
        )

    def _claim(self, amount: int) -> None:
        voucher = Voucher.over(1, amount)
        if self.plain:
            rows = self.world.rows([(self.params, voucher)])
            self.both(lambda m: m.claim(amount), lambda w: w.channel.send(w.partner, "claim_many", 0, rows))
        else:
            filing = self.world.filing(self.params, self.world.partner, amount)[:2]
            self.both(lambda m: m.claim(amount), lambda w: w.send(w.partner, "claim", self.params, *filing))

    def _withdraw(self, opener: int, partner: int) -> None:
        consent = self.world.consent(self.params, opener, partner, kind=Withdrawal, expiry=FOREVER)
        self.both(
            lambda m: m.withdraw(opener, partner),
            lambda w: w.channel.send(w.stranger, "withdraw_together", consent),
        )

    def _close(self, who: int) -> None:
        now = self.world.chain.now()
        self.both(lambda m: m.close(now), lambda w: w.send(self.parties[who], "close", self.params))

    def _file(self, who: int, amount: int, locks: list[Lock], nonce: int, begin: bool) -> None:
        filing, now = self.world.filing(self.params, self.parties[who], amount, locks, nonce=nonce), self._now()
        filed = Filed(amount, tuple(locks), nonce)
        if self.both(
            lambda m: m.file(who, filed, now, begin),
            lambda w: w.file(self.parties[who], self.params, *filing, begin=begin),
        ):
            self.trees[who] = locks

    def _answer(self, who: int, amount: int, locks: list[Lock], nonce: int, sequence: int) -> None:
        voucher, filing = (
            Voucher.over(nonce, amount, locks),
            self.world.filing(self.params, self.parties[who], amount, locks, nonce=nonce),
        )
        answer = Answer(voucher.content(self.params), sequence).digest(self.params)
        consent = compact(self.world.key_of(self.params, who == 1).sign(answer))
        arguments = (who == 1, abi_voucher(voucher), filing[1], sequence, consent)
        now, filed = self._now(), Filed(amount, tuple(locks), nonce)
        if self.both(
            lambda m: m.answer(who, filed, sequence, now),
            lambda w: w.send(w.stranger, "answer", self.params, *arguments),
        ):
            self.trees[who] = locks

    def _release(self, who: int, nonce: int, amount: int, answered: bool) -> None:
        release, now, params = Release(nonce, amount), self._now(), self.params
        signature = compact(self.world.key_of(params, who == 1).sign(release.digest(params)))
        consent, sender = NO_SIGNATURE, self.parties[1 - who]
        if answered:
            answer = Answer(release.content(params), 0).digest(params)
            consent, sender = compact(self.world.key_of(params, who == 0).sign(answer)), self.world.stranger
        arguments = (who == 1, nonce, amount, signature, consent)
        self.both(
            lambda m: m.release(who, nonce, amount, now),
            lambda w: w.send(sender, "release", params, *arguments),
        )

    def _prove(self, who: int, at: int, count: int) -> None:
        locks, now = self.trees[who], self._now()
        if at >= len(locks):
            return
        chain = CHAINS[locks[at].root]
        claims = self.world.claims(locks, [(at, count, chain.preimage(min(count, chain.ticks)))])
        self.both(
            lambda m: m.prove(who, at, count, now),
            lambda w: w.send(w.stranger, "prove", self.params, who == 1, claims),
        )

    def _expire(self, who: int, at: int) -> None:
        now = self._now()
        if at < len(self.trees[who]):
            words = self.world.claims(self.trees[who], [(at, 0, b"")])
            self.both(
                lambda m: m.expire(who, at, now),
                lambda w: w.send(w.stranger, "prove", self.params, who == 1, words),
            )

    def _settle(self) -> None:
        now = self._now()
        self.both(lambda m: m.settle(now), lambda w: w.send(w.stranger, "settle", self.params))

    def _finish(self, amount: int, nonce: int) -> None:
        now = self._now()
        filing = self.world.filing(self.params, self.parties[1], amount, nonce=nonce)
        self.both(lambda m: m.finish(amount, nonce, now), lambda w: w.send(w.partner, "finish", self.params, *filing))

    def _close_together(self, share: int) -> None:
        rest = max(0, self.model.pot - share)
        if self.plain:
            rows = self.world.rows([(self.params, Close(share, rest, FOREVER))])
            self.both(lambda m: m.close_together(share), lambda w: w.channel.send(w.partner, "close_mine", 0, rows))
        else:
            row = self.world.consent(self.params, share, rest, expiry=FOREVER)
            self.both(lambda m: m.close_together(share), lambda w: w.channel.send(w.stranger, "close_together", row))

    def _now(self) -> int:
        return self.world.chain.now()

    def leave(self, who: int) -> None:
        """One side alone gets out of whatever state this is, by a deadline."""
        if self.model.status == "open":
            self._close(who)
        self.world.wait(HORIZON)
        if self.model.status != "settled":
            self._settle()
        assert self.model.status == "settled"
        assert self.world.state(self.params) == (3, 0, 0, 0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    two_way=st.booleans(),
    plain=st.booleans(),
    apart=st.booleans(),
    deposit=money,
    moves=steps,
    last=party,
)
def test_the_contract_does_what_the_model_does(
    world: World, two_way: bool, plain: bool, apart: bool, deposit: int, moves: list[tuple[Any, ...]], last: int
) -> None:
    point, counter = world.chain.snapshot(), world._counter
    try:
        life = Life(world, two_way, plain, apart, deposit)
        for act, *args in moves:
            life.step(act, *args)
        life.leave(last)
    finally:
        world.chain.revert(point)
        world._counter = counter
