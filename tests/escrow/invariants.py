"""What must hold after every step of the machine: section 7 of the design, as far as it is about money on a ledger.

Sums are the contract's own. What a party is sure of is reckoned from what the meter has signed, by the model's rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from penstock.core.escrow import EscrowParams, MeterReading
from penstock.core.identity import Address
from penstock.core.tariff import Tariff
from penstock.sim.escrow_model import Escrow
from penstock.sim.model import Forbidden

from .ground import Deployment, Life
from .law import Law
from .words import CONTESTED, ENDED, EXISTS, LAST, UINT40, UINT96


@dataclass
class Papers:
    """An escrow that somebody wanted to make, its tariff, and the readings that its meter has signed."""

    at: int  # the deployment
    params: EscrowParams
    tariff: Tariff
    readings: list[MeterReading] = field(default_factory=list)


def check_agreement(life: Life, at: Deployment, law: Law) -> None:
    """Model and contract have the same sums; and (conservation) they are all the tokens that the contract holds."""
    accounts = law.accounts
    total = 0
    for owner in set(accounts.balances) | set(accounts.wallets):
        balance = life.balance(at, owner)
        assert balance == accounts.balances[owner], "a balance"
        assert life.tokens(at, owner) == accounts.wallets[owner], "a wallet"
        total += balance
    for id, escrow in accounts.escrows.items():
        word = life.escrow(at, id)
        claimed, drawn, since, flags = word & UINT96, word >> 96 & UINT96, word >> 192 & UINT40, word >> 232
        assert (claimed, drawn) == (escrow.claimed, escrow.payee_had), "an escrow"
        assert since == escrow.since or not escrow.waiting, "its window"
        assert flags & (EXISTS | ENDED) == EXISTS | ENDED * escrow.ended, "whether it has ended"
        assert not escrow.closed or flags & {"last": LAST, "contested": CONTESTED}[escrow.closed], "why it is closed"
        assert claimed <= escrow.params.deposit
        total += escrow.held
    assert total == life.tokens(at, at.domain.contract), "conservation"


def check_course(before: Mapping[bytes, Escrow], after: Mapping[bytes, Escrow], name: str) -> None:
    """What was paid is not taken back, a claim falls by a contest or an end alone, and an end is an end."""
    for id, was in before.items():
        escrow = after[id]
        assert was.payee_had <= escrow.payee_had, "drawn fell"
        assert was.payer_had <= escrow.payer_had, "what was paid back fell"
        assert name in ("contest", "end", "end_many") or was.claimed <= escrow.claimed, "a claim fell"
        assert not was.ended or escrow == was, "an escrow that has ended changed"
        assert bool(escrow.payer_had) <= escrow.ended, "paid back before the end"


def sure(escrow: Escrow, papers: Papers, payee: bool, now: int) -> int:
    """What a party gets of an escrow in all if it acts in time, whatever others do with what the meter has signed.

    The payee files its best reading, and the payer is taken to find every contradiction. The payer is sure of what no
    reading can take, contradictions aside.
    """
    if escrow.ended:
        return escrow.payee_had if payee else escrow.payer_had
    dues = worth_of(escrow, papers)
    best = max([escrow.claimed, *dues.values()]) if escrow.takes_readings(now) else escrow.claimed
    if not payee:
        return escrow.params.deposit - best
    lies = [min(dues[one], dues[two]) for one, two in combinations(dues, 2) if one.contradicts(two)]
    if not lies:
        return best
    if escrow.contestable(now):
        return max(escrow.payee_had, min(escrow.claimed, *lies))
    return escrow.claimed


def worth_of(escrow: Escrow, papers: Papers) -> dict[MeterReading, int]:
    """What each reading is worth of those that the contract takes."""
    dues = {}
    for reading in papers.readings:
        try:
            dues[reading] = escrow.due(papers.tariff, reading)
        except Forbidden:
            continue
    return dues


def worth(law: Law, papers: Iterable[Papers], person: Address, now: int) -> int:
    """What a person has here in all: in its wallet, in its balance, and for sure in its escrows."""
    total = law.accounts.wallets[person] + law.accounts.balances[person]
    for paper in papers:
        escrow = law.accounts.escrows.get(paper.params.id)
        if escrow is not None and person in (paper.params.payer, paper.params.payee):
            payee = person == paper.params.payee
            total += sure(escrow, paper, payee, now) - (escrow.payee_had if payee else escrow.payer_had)
    return total
