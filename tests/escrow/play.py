"""Contract and law, moved together: every act is put to both, and then everything is checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from penstock.core.escrow import EscrowParams
from penstock.core.identity import Address, Key
from penstock.ledgers.artifacts import Artifact
from penstock.sim.escrow_model import Escrow
from penstock.sim.model import Forbidden

from ..contracts.world import word
from .ground import FLAT, Life, ground
from .invariants import Papers, check_agreement, check_course, worth
from .words import abi_params

WITH_FEE = ("deposit_with_authorization", "deposit_signed")  # the fee is their second argument


@dataclass(frozen=True)
class Call:
    """A transaction: to the deployment `at`, by `caller`. The same call can be sent any number of times."""

    at: int
    caller: Key
    name: str
    args: tuple[Any, ...]

    @property
    def fee(self) -> int:
        """What its sender may gain by it."""
        return int(self.args[1]) if self.name in WITH_FEE else 0

    def agreed(self) -> set[int]:
        """Whose signed consent this carries out, as words: what it does is their own act, too."""
        if self.name in WITH_FEE:
            return {self.args[0][0]}
        if self.name == "end":
            return set(self.args[0][0][:2])
        if self.name == "end_many":
            return {party for row in self.args[0] for party in row[0][:2]}
        return set()


class Play:
    """One life: two deployments, their laws, and everything that was signed and sent so far."""

    def __init__(self, tally: Counter[tuple[str, str]] | None = None, artifact: Artifact | None = None) -> None:
        """Begin; `artifact` is a contract to play with instead of the real one."""
        self.life, self.people = Life(artifact), ground().people
        self.laws, self.seals = ground().laws()
        self.papers: dict[bytes, Papers] = {}
        self.sent: list[Call] = []  # or kept back, to be sent later
        self.tally = tally if tally is not None else Counter()
        everybody = (*self.people, *ground().end_keys.values(), *ground().meters.values())
        self._keys = {key.address: key for key in everybody}
        self._worth: dict[tuple[int, Address], int] = {}
        self.sound = True  # no check has failed
        self.look()

    @property
    def now(self) -> int:
        return self.life.now  # seconds

    def key(self, address: Address) -> Key:
        """The private key of somebody here."""
        return self._keys[address]

    def knows(self, params: EscrowParams) -> bool:
        """Whether all parties and keys are of people here."""
        return {params.payer, params.payee, params.payer_key, params.payee_key, params.meter} <= set(self._keys)

    def escrow(self, papers: Papers) -> Escrow:
        """The escrow as the law has it."""
        return self.laws[papers.at].accounts.escrows[papers.params.id]

    def wait(self, seconds: int) -> None:
        """Time passes. What a party is sure of can fall by that, where it sleeps."""
        self.tally["wait", "allowed"] += 1
        self.life.wait(seconds)
        self.look()

    def allow(self, at: int, owner: Key, amount: int) -> None:
        """An allowance to the contract, by the token's own function."""
        deployment, law = ground().deployments[at], self.laws[at]
        if law.token_separator is not None:
            done = self.life.send(owner, deployment.token, "approve", (deployment.contract.address, amount))
            assert done.allowed
            law.accounts.allowances[owner.address] = amount

    def act(self, call: Call) -> bool:
        """Send a call. The law and the contract agree on it, and everything holds afterwards. Returns if allowed."""
        self.sound = False
        allowed, skipped = self._both(call)
        rows = len(call.args[0]) if call.name == "end_many" and allowed else 1
        self.tally[call.name, "allowed" if allowed else "refused"] += rows - skipped
        self.tally[call.name, "skipped"] += skipped
        for id, escrow in self.laws[call.at].accounts.escrows.items():
            if id not in self.papers:
                self.papers[id] = Papers(call.at, escrow.params, FLAT)
        before = self._worth
        self.look()
        own = call.agreed() | {word(call.caller.address)}
        for (at, person), had in before.items():
            gain = self._worth[at, person] - had
            if word(person) not in own or at != call.at:
                assert gain >= 0, f"somebody else loses {-gain} by {call}"
            if person == ground().stranger.address:
                limit = call.fee if call.caller.address == person and at == call.at else 0
                assert gain <= limit, f"a stranger gains {gain} by {call}"
        self.sound = True
        return allowed

    def look(self) -> None:
        """See what everybody is sure of now: a meter has signed, or time has passed."""
        self._worth = {
            (at, person.address): worth(law, self._at(at), person.address, self.now)
            for at, law in enumerate(self.laws)
            for person in self.people
        }

    def _both(self, call: Call) -> tuple[bool, int]:
        law, deployment = self.laws[call.at], ground().deployments[call.at]
        before = {id: escrow.copy() for id, escrow in law.accounts.escrows.items()}
        try:
            skipped, allowed = law.call(call.caller.address, call.name, call.args, self.now), True
        except Forbidden:
            skipped, allowed = [], False
        done = self.life.send(call.caller, deployment.contract, call.name, call.args)
        assert done.allowed == allowed, f"the law {'allows' if allowed else 'forbids'} {call}; contract: {done}"
        assert done.skipped == skipped, f"other rows are skipped of {call}: {done.skipped}, not {skipped}"
        check_agreement(self.life, deployment, law)
        check_course(before, law.accounts.escrows, call.name)
        return allowed, len(skipped)

    def _at(self, at: int) -> list[Papers]:
        return [papers for papers in self.papers.values() if papers.at == at]

    # The end

    def end(self) -> None:
        """From here every party gets out by the last deadline and window, by `settle` alone, which anybody can call."""
        for papers in list(self.papers.values())[-2:]:  # what storage says is what the view says, always: two will do
            self.life.check_view(ground().deployments[papers.at], papers.params)
        open_ones = [papers for papers in self.papers.values() if not self.escrow(papers).ended]
        deadlines = [papers.params.deadline + papers.params.window for papers in open_ones]
        self.life.set_time(max([self.now, *deadlines]))
        for papers in open_ones:
            claimed = self.escrow(papers).claimed
            self._must(Call(papers.at, ground().stranger, "settle", (abi_params(papers.params),)))
            assert self.escrow(papers).ended, "stuck"
            assert self.escrow(papers).payee_had == claimed, "a claim was not paid"
        for at, law in enumerate(self.laws):
            for person in self.people:
                self._must(Call(at, person, "withdraw", (law.accounts.balances[person.address],)))
            deployment = ground().deployments[at]
            strange = sum(law.accounts.balances.values())  # of parties that are nobody here: a scrambled deposit's
            assert self.life.tokens(deployment, deployment.contract.address) == strange, "stuck"
            assert not strange or any(not self.knows(papers.params) for papers in self._at(at)), "stuck"

    def _must(self, call: Call) -> None:
        """Somebody who leaves is not refused this."""
        assert self._both(call)[0], f"stuck: {call}"
