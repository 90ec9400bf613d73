"""Contract and law, moved together: every act is put to both, and then everything is checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from penstock.core.channel import ChannelParams, Lock, Voucher
from penstock.core.identity import Address, Key
from penstock.sim.model import Channel, Forbidden

from .ground import Life, ground
from .invariants import Papers, can_file, check_agreement, check_drawn, sure, worth
from .world import abi_params, abi_voucher

WITH_FEE = {"open_with_authorization": 1, "open_signed": 1, "add_signed": 2}  # where the word with the fee stands


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
        return int(self.args[WITH_FEE[self.name]] >> 96) if self.name in WITH_FEE else 0

    def agreed(self) -> set[int]:
        """Whose signed consent this carries out, as words: what it does is their own act, too."""
        name, args = self.name, self.args
        if name in ("withdraw_together", "close_together"):
            return set(args[0][0][:2])
        if name == "close_many":
            return {party for row in args[0] for party in row[0][:2]}
        if name == "close_mine":
            return {row[0] & (2**160 - 1) for row in args[1]}
        if name in ("open_with_authorization", "open_signed"):
            return {args[0][0]}
        if name == "add_signed":
            return {args[1]}
        if name == "release":
            return set(args[0][:2])
        return set()


class Play:
    """One life: two deployments, their laws, and everything that was signed and sent so far."""

    def __init__(self, tally: Counter[tuple[str, str]] | None = None) -> None:
        self.life, self.people = Life(), ground().people
        self.laws, self.seals = ground().laws()
        self.papers: dict[bytes, Papers] = {}
        self.sent: list[Call] = []  # or kept back, to be sent later
        self.tally = tally if tally is not None else Counter()
        self._keys = {key.address: key for key in (*self.people, *ground().voucher_keys.values())}
        self._worth: dict[tuple[int, Address], int] = {}
        self.sound = True  # no check has failed
        self._look()

    @property
    def now(self) -> int:
        return self.life.now  # seconds

    def key(self, address: Address) -> Key:
        """The private key of somebody here."""
        return self._keys[address]

    def knows(self, params: ChannelParams) -> bool:
        """Whether both parties and both voucher keys are of people here."""
        return {params.opener, params.partner, params.opener_key, params.partner_key} <= set(self._keys)

    def wait(self, seconds: int) -> None:
        """Time passes. What a party is sure of can fall by that, where it sleeps."""
        self.tally["wait", "allowed"] += 1
        self.life.wait(seconds)
        self._look()

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
        rows = len(call.args[-1]) if call.name in ("claim_many", "close_mine", "close_many") and allowed else 1
        self.tally[call.name, "allowed" if allowed else "refused"] += rows - skipped
        self.tally[call.name, "skipped"] += skipped
        law = self.laws[call.at]
        for id in law.known.keys() - self.papers.keys():
            self.papers[id] = Papers(call.at, law.known[id])
        before = self._worth
        self._look()
        own = call.agreed() | {int.from_bytes(call.caller.address, "big")}
        for (at, person), had in before.items():
            gain = self._worth[at, person] - had
            if int.from_bytes(person, "big") not in own or at != call.at:
                assert gain >= 0, f"somebody else loses {-gain} by {call}"
            if person == ground().stranger.address:
                limit = call.fee if call.caller.address == person and at == call.at else 0
                assert gain <= limit, f"a stranger gains {gain} by {call}"
        self.sound = True
        return allowed

    def _both(self, call: Call) -> tuple[bool, int]:
        law, deployment = self.laws[call.at], ground().deployments[call.at]
        before = {id: channel.copy() for id, channel in law.accounts.channels.items()}
        try:
            skipped, allowed = law.call(call.caller.address, call.name, call.args, self.now), True
        except Forbidden:
            skipped, allowed = [], False
        done = self.life.send(call.caller, deployment.contract, call.name, call.args)
        assert done.allowed == allowed, f"the law {'allows' if allowed else 'forbids'} {call}; contract: {done}"
        assert done.skipped == skipped, f"other rows are skipped of {call}: {done.skipped}, not {skipped}"
        check_agreement(self.life, deployment, law)
        check_drawn(before, law.accounts.channels)
        return allowed, len(skipped)

    def _look(self) -> None:
        self._worth = {
            (at, person.address): worth(law, self._at(at), person.address, self.now)
            for at, law in enumerate(self.laws)
            for person in self.people
        }

    def _at(self, at: int) -> list[Papers]:
        return [papers for papers in self.papers.values() if papers.at == at]

    # Vouchers

    def signature(self, papers: Papers, party: int, voucher: Voucher) -> tuple[int, int]:
        """The payer's under a voucher in favour of a party."""
        payer = papers.params.partner_key if party == 0 else papers.params.opener_key
        return self.seals.sign(self.key(payer), voucher.digest(papers.params))

    def promise(self, papers: Papers, party: int, voucher: Voucher, locks: tuple[Lock, ...]) -> None:
        """The payer's own act: from now on it is sure of so much less."""
        papers.vouchers[party].append(voucher)
        if locks:
            self.seals.trees[voucher.locks_root] = locks
        self._look()

    # The end

    def end(self) -> None:
        """From here each side gets out alone; then nothing is left in the contract."""
        for papers in list(self.papers.values())[-2:]:  # what storage says is what views say, always: two will do
            self.life.check_views(ground().deployments[papers.at], papers.params)
        for at, law in enumerate(self.laws):
            for party in (0, 1):
                point, accounts = self.life.snapshot(), law.accounts.copy()
                self._leave(at, party)
                self.life.revert(point)
                law.accounts = accounts

    def _leave(self, at: int, party: int) -> None:
        """Every opener, or every partner, gets out of all its channels, and takes its tokens home."""
        begin, law = self.now, self.laws[at]
        left = [papers for papers in self._at(at) if papers.parties[party] in self._keys]
        promised = [sure(self._channel(papers), papers, party, begin) for papers in left]
        for papers in left:
            self._last_word(papers, party)
            assert self._channel(papers).closes_at <= begin + 5 * papers.params.period, "no deadline"
        filed = [side.filed for papers in left for side in self._channel(papers).sides]
        deadlines = [self._channel(papers).closes_at for papers in left], [one.until for one in filed if one]
        for deadline in deadlines:
            self.life.set_time(max(self.now, *deadline, 0))
            for papers in left:
                if self._channel(papers).status != "ended":
                    self._must(self._call(papers, party, "settle"))
        for papers, least in zip(left, promised, strict=True):
            assert self._channel(papers).status == "ended", "stuck"
            assert self._channel(papers).paid[party] >= least, "a party gets less than it was sure of"
        for person in self.people:
            self._must(Call(at, person, "withdraw", (law.accounts.balances[person.address],)))
        deployment = ground().deployments[at]
        strange = sum(law.accounts.balances.values())  # of parties that are nobody here: a scrambled opening made them
        strange += sum(self._channel(papers).held for papers in self._at(at))
        assert self.life.wallet(deployment, deployment.contract.address) == strange, "stuck"
        assert not strange or any(not self.knows(papers.params) for papers in self._at(at)), "stuck"

    def _last_word(self, papers: Papers, party: int) -> None:
        """A side that leaves closes, the other files its highest voucher, and the first its own."""
        if self._channel(papers).status == "open":
            self._must(self._call(papers, party, "close"))
        for payee in (1 - party, party):
            channel = self._channel(papers)
            able = [voucher for voucher in papers.vouchers[payee] if can_file(channel, payee, voucher, self.now)]
            # Who leaves files what is worth most to it even if it proves no tick; the other, what may become most.
            best = max(able, key=lambda v: v.amount if payee == party else v.amount + v.locked, default=None)
            if best is None or papers.parties[payee] not in self._keys or not channel.challenged(self.now):
                continue
            filed = channel.sides[payee].filed
            if filed is None or best.amount > filed.least():
                signature = self.signature(papers, payee, best)
                self._both(self._call(papers, payee, "file", abi_voucher(best), signature, [], False))

    def _must(self, call: Call) -> None:
        """Somebody who leaves is not refused this."""
        assert self._both(call)[0], f"stuck: {call}"

    def _channel(self, papers: Papers) -> Channel:
        return self.laws[papers.at].accounts.channels[papers.params.id]

    def _call(self, papers: Papers, party: int, name: str, *args: Any) -> Call:
        return Call(papers.at, self.key(papers.parties[party]), name, (abi_params(papers.params), *args))
