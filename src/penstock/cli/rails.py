"""The rails that a command may use, by what is configured: their ledgers, tills and purses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.config import ConsumeSection, LedgerSection
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.node import LateEscrows, LateLedger
    from penstock.core.identity import Address, Key
    from penstock.core.ports import EscrowLedger, Journal, Ledger, TokenFacts
    from penstock.core.units import Instant
    from penstock.node.book import TokenRow
    from penstock.node.rails import Purse, Till
    from penstock.node.tell import Tell

CHANNEL, ESCROW = "stream-channel", "escrow"
RAILS = (CHANNEL, ESCROW)

Taken = Annotated[
    list[str] | None,
    typer.Option("--rail", help=f"Take this rail alone ({', '.join(RAILS)}); again for more.", show_default=False),
]
Paid = Annotated[str | None, typer.Option("--rail", help=f"How to pay: {' or '.join(RAILS)}.", show_default=False)]


def taken(section: LedgerSection, asked: Sequence[str]) -> list[str]:
    """The rails that a supplier takes: those asked for, or else all whose contract is configured.

    Raises:
        UsageError: no such rail.
    """
    for name in asked:
        _check(name)
    return list(dict.fromkeys(asked)) or [name for name in RAILS if _configured(section, name)] or [CHANNEL]


def paid(section: LedgerSection, asked: str | None) -> str:
    """The rail that a consumer pays over: the one asked for, or else the first whose contract is configured.

    Raises:
        UsageError: no such rail.
    """
    if asked is not None:
        return _check(asked)
    return next((name for name in RAILS if _configured(section, name)), CHANNEL)


def _check(name: str) -> str:
    if name not in RAILS:
        raise UsageError(f"there is no rail {name[:40]!r}", f"one of {', '.join(RAILS)}")
    return name


def _configured(section: LedgerSection, name: str) -> bool:
    return bool(section.contract if name == CHANNEL else section.escrow)


def late(section: LedgerSection, rail: str) -> LateLedger | LateEscrows:
    """The ledger of a rail, connected to when it is first called for.

    Raises:
        UsageError: its contract is not configured.
    """
    from penstock.cli.node import LateEscrows, LateLedger

    return LateLedger(section) if rail == CHANNEL else LateEscrows(section)


class Tills:
    """The ledgers of the rails that a supplier takes."""

    def __init__(self, ledgers: dict[str, Ledger | EscrowLedger], token: TokenFacts) -> None:
        self.token = token
        self._ledgers = ledgers

    async def tokens(self, owner: Address) -> int:
        """What `owner` has in its wallet and in the contracts' balances (token units)."""
        holdings = await asyncio.gather(*(ledger.holdings(owner) for ledger in self._ledgers.values()))
        return holdings[0].wallet + sum(one.balance for one in holdings)

    def make(self, key: Key, journal: Journal, clock: Callable[[], Instant], tell: Tell, stake: int = 0) -> list[Till]:
        """A till for each; `stake` is what we put into channels that pay both ways (token units)."""
        from penstock.node.channel_till import ChannelTill
        from penstock.node.escrow_till import EscrowTill

        made: list[Till] = []
        for name, ledger in self._ledgers.items():
            if name == CHANNEL:
                made.append(ChannelTill(key, journal, ledger, clock, tell, stake=stake))  # type: ignore[arg-type]  # a channel's
            else:
                made.append(EscrowTill(key, journal, ledger, clock, tell))  # type: ignore[arg-type]  # an escrow's
        return made


@asynccontextmanager
async def tills_at(section: LedgerSection, rails: Sequence[str]) -> AsyncIterator[Tills]:
    """The ledgers of these rails, connected. All keep the same token.

    Raises:
        UsageError: a contract or node is not named, or their tokens differ. LedgerError: no answer, or another ledger.
    """
    connections = {name: late(section, name) for name in rails}
    try:
        ledgers: dict[str, Ledger | EscrowLedger] = {name: await one() for name, one in connections.items()}
        if len({ledger.domain.token for ledger in ledgers.values()}) > 1:
            raise UsageError("the contracts of these rails keep different tokens", "name contracts of one token")
        yield Tills(ledgers, await next(iter(ledgers.values())).token())
    finally:
        for connection in connections.values():
            await connection.disconnect()


def purse(
    rail: str,
    ledger: LateLedger | LateEscrows,
    section: ConsumeSection,
    key: Key,
    journal: Journal,
    tell: Tell,
    known: TokenRow,
) -> Purse:
    """What a consumer pays from over this rail; `known` says which ledger, and how its sums are written.

    Raises:
        UsageError: a sum is none.
    """
    from penstock.cli.money import sum_of
    from penstock.node.channel_purse import ChannelPurse
    from penstock.node.escrow_purse import EscrowPurse

    if rail == ESCROW:
        return EscrowPurse(key, journal, ledger, tell, domain=known.domain)  # type: ignore[arg-type]  # an escrow's
    deposit = sum_of(section.deposit, known.facts, "--deposit") if section.deposit else 0
    return ChannelPurse(key, journal, ledger, tell, deposit, domain=known.domain)  # type: ignore[arg-type]  # a channel's
