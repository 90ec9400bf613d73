"""What must hold after every step of the machine: section 7 of the design, as far as it is about money on a ledger.

Sums are the contract's own. What a party is sure of is reckoned from what was signed, by the rules of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.core.channel import APART, ChannelParams, Voucher
from penstock.core.identity import Address
from penstock.sim.model import Channel, Forbidden

from .ground import Deployment, Life, Seen
from .law import Law


@dataclass
class Papers:
    """A channel that somebody wanted to open, and the vouchers that were signed in it, in favour of either party."""

    at: int  # the deployment
    params: ChannelParams
    vouchers: tuple[list[Voucher], list[Voucher]] = field(default_factory=lambda: ([], []))

    @property
    def parties(self) -> tuple[Address, Address]:
        return self.params.opener, self.params.partner


def check_agreement(life: Life, at: Deployment, law: Law) -> None:
    """Model and contract have the same sums; and (conservation) they are all the tokens that the contract holds."""
    accounts = law.accounts
    owners = set(accounts.balances) | set(accounts.wallets) | set(accounts.counters)
    total = 0
    for owner in owners:
        balance, counter = life.account(at, owner)
        assert balance == accounts.balances[owner], "a balance"
        assert counter == accounts.counters[owner], "a counter"
        assert life.wallet(at, owner) == accounts.wallets[owner], "a wallet"
        total += balance
    for id, channel in accounts.channels.items():
        seen = life.channel(at, id, channel.two_way)
        if channel.status == "ended":
            assert seen is None, "a channel has not ended"
            assert life.word(at, id) == (1 if law.known[id].counter >= APART else 0), "a tombstone"
        else:
            assert seen == Seen.of(channel), "a channel"
            total += sum(seen.deposits) - sum(seen.paid)
    assert total == life.wallet(at, at.domain.contract), "conservation"


def check_drawn(before: Mapping[bytes, Channel], after: Mapping[bytes, Channel]) -> None:
    """What a party has drawn from a channel never falls, and an end is an end."""
    for id, channel in before.items():
        assert all(had <= has for had, has in zip(channel.paid, after[id].paid, strict=True)), "drawn fell"
        assert channel.status != "ended" or after[id] == channel, "an ended channel changed"
    assert all(sum(channel.paid) <= channel.pot for channel in after.values())


def sure(channel: Channel, papers: Papers, party: int, now: int) -> int:
    """What a party gets of a channel in all if it files its best voucher in time, whatever the other side does.

    The other side is taken to have its highest voucher and all the ticks under it. The party's own vouchers count where
    it could file them now; locks count for nothing unless they are proven, because what it still has to prove, it has
    to prove in time.
    """
    if channel.status == "ended":
        return channel.paid[party]
    mine, theirs = channel.sides[party], channel.sides[1 - party]
    # In a challenge, what it has not filed itself can still be replaced by another answer of its own.
    stands = mine.itself or not channel.challenged(now)
    received = [mine.filed.least()] if mine.filed and stands else [0]
    spent = [theirs.filed.most(now)] if theirs.filed else [0]
    if channel.status == "open" or channel.challenged(now):
        spent += [theirs.filed.least() + theirs.filed.rest] if theirs.filed else []
        spent += [voucher.amount + voucher.locked for voucher in papers.vouchers[1 - party]]
        best = sorted(papers.vouchers[party], key=lambda voucher: -voucher.amount)
        received += [next((voucher.amount for voucher in best if can_file(channel, party, voucher, now)), 0)]
    if party == 0:
        return channel.total(max(received), max(spent))
    return channel.pot - channel.total(max(spent), max(received))


def can_file(channel: Channel, party: int, voucher: Voucher, now: int) -> bool:
    """Whether the law lets a party file this voucher now, having begun to close where nobody has."""
    trial = channel.copy()
    try:
        if trial.status == "open":
            trial.close(now)
        trial.file(party, voucher, (), now)
    except Forbidden:
        return False
    return True


def worth(law: Law, papers: Iterable[Papers], person: Address, now: int) -> int:
    """What a person has here in all: in its wallet, in its balance, and for sure in its channels."""
    total = law.accounts.wallets[person] + law.accounts.balances[person]
    for paper in papers:
        channel = law.accounts.channels.get(paper.params.id)
        if channel is not None and person in paper.parties:
            party = paper.parties.index(person)
            total += sure(channel, paper, party, now) - channel.paid[party]
    return total
