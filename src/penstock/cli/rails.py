"""The rails that a command may use, by what is configured: their ledgers, tills and purses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.config import ConsumeSection, LedgerSection
from penstock.core.errors import UsageError

if TYPE_CHECKING:
    from penstock.cli.node import LateEscrows, LateLedger
    from penstock.core.identity import Address, Key
    from penstock.core.ports import EscrowLedger, Journal, Ledger, Link, TokenFacts
    from penstock.core.units import Instant
    from penstock.node.book import TokenRow
    from penstock.node.rails import Purse, Till
    from penstock.node.tell import Tell

CHANNEL, ESCROW, HOPS = "stream-channel", "escrow", "hops"
RAILS = (CHANNEL, ESCROW, HOPS)

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


def paid(section: LedgerSection, asked: str | None, hubs: Sequence[str] = ()) -> str:
    """The rail that a consumer pays over: the one asked for, over hubs where any is named, or else the first whose
    contract is configured.

    Raises:
        UsageError: no such rail, or one over hubs without any.
    """
    if hubs and asked not in (None, HOPS):
        raise UsageError(f"over --hub nothing is paid by {asked}", "leave out one of the two")
    if asked == HOPS and not hubs:
        raise UsageError("no hub is named", "give --hub HOST:PORT, or write hubs under [consume] in config.toml")
    if asked is not None:
        return _check(asked)
    if hubs:
        return HOPS
    return next((name for name in RAILS if _configured(section, name)), CHANNEL)


def _check(name: str) -> str:
    if name not in RAILS:
        raise UsageError(f"there is no rail {name[:40]!r}", f"one of {', '.join(RAILS)}")
    return name


def _configured(section: LedgerSection, name: str) -> bool:
    return bool(section.escrow if name == ESCROW else section.contract)


def late(section: LedgerSection, rail: str) -> LateLedger | LateEscrows:
    """The ledger of a rail, connected to when it is first called for.

    Raises:
        UsageError: its contract is not configured.
    """
    from penstock.cli.node import LateEscrows, LateLedger

    return LateEscrows(section) if rail == ESCROW else LateLedger(section)


class Tills:
    """The ledgers of the rails that a supplier takes."""

    def __init__(self, ledgers: dict[str, Ledger | EscrowLedger], token: TokenFacts) -> None:
        self.token = token
        self._ledgers = ledgers

    async def tokens(self, owner: Address) -> int:
        """What `owner` has in its wallet and in the contracts' balances (token units)."""
        distinct = {id(ledger): ledger for ledger in self._ledgers.values()}
        holdings = await asyncio.gather(*(ledger.holdings(owner) for ledger in distinct.values()))
        return holdings[0].wallet + sum(one.balance for one in holdings)

    def make(self, key: Key, journal: Journal, clock: Callable[[], Instant], tell: Tell, stake: int = 0) -> list[Till]:
        """A till for each; `stake` is what we put into channels that pay both ways (token units)."""
        from penstock.node.channel_till import ChannelTill
        from penstock.node.escrow_till import EscrowTill
        from penstock.node.hop_till import HopTill
        from penstock.node.incoming import Incomings

        made: list[Till] = []
        for name, ledger in self._ledgers.items():
            if name == CHANNEL:
                made.append(ChannelTill(key, journal, ledger, clock, tell, stake=stake))  # type: ignore[arg-type]  # a channel's
            elif name == HOPS:
                made.append(HopTill(Incomings(key, journal, ledger, clock, tell)))  # type: ignore[arg-type]  # the same
            else:
                made.append(EscrowTill(key, journal, ledger, clock, tell))  # type: ignore[arg-type]  # an escrow's
        return made


def ppm_of(percent: str, flag: str) -> int:
    """Millionths from a flag in percent, such as "1.5"; 0..100.

    Raises:
        UsageError: it is none, or finer than a millionth.
    """
    from penstock.core.errors import OutOfRange
    from penstock.core.units import parse_decimal

    try:
        value = parse_decimal(percent.removesuffix("%"), 4, flag)
    except OutOfRange as error:
        raise UsageError(str(error), "give it in percent, such as 1.5") from None
    if value > 10**6:
        raise UsageError(f"{flag} {percent[:20]} is above 100 percent", "give it in percent, such as 1.5")
    return int(value)


@asynccontextmanager
async def tills_at(section: LedgerSection, rails: Sequence[str]) -> AsyncIterator[Tills]:
    """The ledgers of these rails, connected. All keep the same token.

    Raises:
        UsageError: a contract or node is not named, or their tokens differ. LedgerError: no answer, or another ledger.
    """
    connections = {name: late(section, name) for name in rails}
    if CHANNEL in connections and HOPS in connections:
        connections[HOPS] = connections[CHANNEL]  # one contract keeps the channels of both
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
    hubs: Sequence[Callable[[], Awaitable[Link]]] = (),
) -> Purse:
    """What a consumer pays from over this rail; `known` says which ledger, and how its sums are written, and `hubs`
    dial those that carry our payments.

    Raises:
        UsageError: a sum is none.
    """
    from penstock.cli.money import sum_of
    from penstock.node.channel_purse import ChannelPurse
    from penstock.node.escrow_purse import EscrowPurse

    if rail == ESCROW:
        return EscrowPurse(key, journal, ledger, tell, domain=known.domain)  # type: ignore[arg-type]  # an escrow's
    deposit = sum_of(section.deposit, known.facts, "--deposit") if section.deposit else 0
    if rail == HOPS:
        from penstock.node.clock import now
        from penstock.node.hop_purse import HopPurse

        most = ppm_of(section.max_fee, "--max-fee")
        return HopPurse(key, journal, ledger, hubs, now, tell, known.domain, deposit, max_fee_ppm=most)  # type: ignore[arg-type]  # a channel's
    return ChannelPurse(key, journal, ledger, tell, deposit, domain=known.domain)  # type: ignore[arg-type]  # a channel's
