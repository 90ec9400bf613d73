"""Random lives of a channel: the contract does what the model does, no token is made or lost, and all get out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.channel import ChannelParams, Lock
from penstock.ledgers.devnet.execute import Reverted

from .model import Forbidden, Model
from .world import PERIOD, START, Chainlet, World

NEAR = Chainlet(5, 2, seed=b"near")
SOON = Chainlet(4, 3, expiry=START + PERIOD + 500, seed=b"soon")
LATE = Chainlet(4, 3, expiry=START + 5 * PERIOD, seed=b"late")
CHAINS = {chain.lock.root: chain for chain in (NEAR, SOON, LATE)}
TREES: list[list[Lock]] = [[], [NEAR.lock], [LATE.lock], [NEAR.lock, LATE.lock], [SOON.lock, NEAR.lock, LATE.lock]]
HORIZON = 20 * PERIOD

money, party = st.integers(0, 25), st.integers(0, 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), party, money),
        st.tuples(st.just("close"), party),
        st.tuples(st.just("close"), party),
        st.tuples(st.just("file"), party, money, st.sampled_from(TREES)),
        st.tuples(st.just("file"), party, money, st.sampled_from(TREES)),
        st.tuples(st.just("prove"), party, st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("prove"), party, st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("expire"), party, st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from([1, PERIOD // 2, PERIOD, PERIOD + 600])),
        st.tuples(st.just("settle")),
        st.tuples(st.just("finish"), money),
        st.tuples(st.just("close_together"), money),
    ),
    max_size=14,
)


class Life:
    """One channel on the chain and its model, moved together."""

    def __init__(self, world: World, two_way: bool, deposit: int) -> None:
        self.world, self.parties = world, (world.opener, world.partner)
        self.model = Model(world.balances(), two_way, PERIOD)
        self.total = world.wallet_of_contract()
        self.others = self.total - sum(world.balances())
        self.trees: list[list[Lock]] = [[], []]
        self.params: ChannelParams = world.params(two_way)
        self.both(lambda m: m.open(deposit), lambda w: w.open_by(w.opener, "open_with_keys", self.params, deposit))

    def both(self, model: Callable[[Model], None], contract: Callable[[World], Any]) -> bool:
        """Do the same in both; they agree on whether it is allowed, and on every balance afterwards."""
        try:
            model(self.model)
            allowed = True
        except Forbidden:
            allowed = False
        try:
            contract(self.world)
            reason = ""
        except Reverted as error:
            reason = error.reason
        assert not reason or reason.startswith("channel: ")
        assert allowed == (not reason)
        assert self.world.balances() == tuple(self.model.balances)
        assert sum(self.model.balances) + self.model.held + self.others == self.total
        assert self.world.wallet_of_contract() == self.total
        return allowed

    def step(self, act: str, *args: Any) -> None:
        now, params, send = self.world.chain.now(), self.params, self.world.send
        if act == "wait":
            self.world.wait(args[0])
        elif act == "add":
            who, amount = args
            self.both(lambda m: m.add(who, amount), lambda w: send(self.parties[who], "add", params, amount))
        elif act == "close":
            self.both(lambda m: m.close(now), lambda w: send(self.parties[args[0]], "close", params))
        elif act == "file":
            who, amount, locks = args
            filing = self.world.filing(params, self.parties[who], amount, locks)
            if self.both(
                lambda m: m.file(who, amount, tuple(locks), now),
                lambda w: w.file(self.parties[who], params, *filing),
            ):
                self.trees[who] = locks
        elif act == "prove":
            self._prove(*args)
        elif act == "expire":
            who, at = args
            if at < len(self.trees[who]):
                words = self.world.claims(self.trees[who], [(at, 0, b"")])
                self.both(
                    lambda m: m.expire(who, at, now), lambda w: send(w.stranger, "prove", params, who == 1, words)
                )
        elif act == "settle":
            self.both(lambda m: m.settle(now), lambda w: send(w.stranger, "settle", params))
        elif act == "finish":
            filing = self.world.filing(params, self.parties[1], args[0])
            self.both(lambda m: m.finish(args[0], now), lambda w: send(w.partner, "finish", params, *filing))
        elif act == "close_together":
            pot = sum(self.model.deposits)
            row = self.world.consent(params, args[0], max(0, pot - args[0]))
            self.both(lambda m: m.close_together(args[0]), lambda w: w.channel.send(w.stranger, "close_together", row))

    def _prove(self, who: int, at: int, count: int) -> None:
        locks, now = self.trees[who], self.world.chain.now()
        if at >= len(locks):
            return
        chain = CHAINS[locks[at].root]
        preimage = chain.preimage(min(count, chain.ticks))
        claims = self.world.claims(locks, [(at, count, preimage)])
        self.both(
            lambda m: m.prove(who, at, count, now),
            lambda w: w.send(self.parties[who], "prove", self.params, who == 1, claims),
        )

    def leave(self, who: int) -> None:
        """One side alone gets out of whatever state this is, by a deadline."""
        if self.model.status == "open":
            self.step("close", who)
        self.world.wait(HORIZON)
        if self.model.status != "settled":
            self.step("settle")
        assert self.model.status == "settled"
        assert self.world.state(self.params) == (3, 0, 0, 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(two_way=st.booleans(), deposit=money, moves=steps, last=party)
def test_the_contract_does_what_the_model_does(
    world: World, two_way: bool, deposit: int, moves: list[tuple[Any, ...]], last: int
) -> None:
    point, counter = world.chain.snapshot(), world._counter
    try:
        life = Life(world, two_way, deposit)
        for act, *args in moves:
            life.step(act, *args)
        life.leave(last)
    finally:
        world.chain.revert(point)
        world._counter = counter
