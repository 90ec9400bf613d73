"""`penstock hub`: lend capacity between channels, so that one channel of a consumer reaches many suppliers."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.log import Log, LogForm, log_to
from penstock.cli.node import ChainId, ConfigFile, Confirmations, Contract, KeyName, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile

if TYPE_CHECKING:
    from penstock.cli.config import Config, HubSection
    from penstock.core.ports import TokenFacts
    from penstock.node.hub import Hub

LOOK = 0.5  # seconds between two pictures


def hub(
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    chain_id: ChainId = None,
    confirmations: Confirmations = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to take payments at.", show_default=False)] = None,
    reach: Annotated[
        list[str] | None,
        typer.Option("--reach", help="[ACCOUNT@]HOST:PORT of whom to pay; again for more.", show_default=False),
    ] = None,
    lend: Annotated[
        str | None, typer.Option(help="Open a channel to each of them with so many tokens.", show_default=False)
    ] = None,
    fee: Annotated[
        str | None, typer.Option(help="Percent of each tick that is ours; 1 if left out.", show_default=False)
    ] = None,
    holding: Annotated[
        str | None,
        typer.Option(help="Percent of what is locked, for each hour of it; 0.01 if left out.", show_default=False),
    ] = None,
    delta: Annotated[
        int | None,
        typer.Option(
            help="Seconds that an incoming lock outlives the outgoing one; 1800 if left out.", show_default=False
        ),
    ] = None,
    period: Annotated[
        int | None, typer.Option(help="Challenge period of our channels, in seconds; 3600.", show_default=False)
    ] = None,
    share: Annotated[
        int | None, typer.Option(help="Percent of a channel that one neighbour may hold; 75.", show_default=False)
    ] = None,
    view: Annotated[bool, typer.Option("--view", help="Show channels, locks and fees as they are now.")] = False,
    log: LogForm = "text",
    as_json: AsJson = False,
) -> None:
    """Carry payments between those who pay us and those whom we pay, and take a fee for it.

    A consumer locks to us, we lock to the supplier under the same root, and the ticks then go past us, straight from
    the one to the other: we hear of the session again when it has ended. What we lend stands in channels that we open
    (--reach, --lend); what we are paid comes over channels that others open to us. A lock that ends badly is claimed on
    the ledger, as long as this runs: a hub that is down for longer than --delta can lose what is proven meanwhile. It
    runs until interrupted; what is locked then is taken up at the next start.

    \b
    Example:
        penstock hub --url http://127.0.0.1:8545 --contract 0x... --key hub \\
            --listen 127.0.0.1:7421 --reach 127.0.0.1:7411 --lend 20
    """
    from penstock.cli.config import over
    from penstock.cli.node import run, settings
    from penstock.core.errors import UsageError

    if view and as_json:
        raise UsageError("--view and --json both want stdout", "give one of them")
    told = log_to("none" if view and log == "text" else log)
    read = settings(config, url, contract, chain_id, key, passphrase_file, confirmations)
    section = over(
        read.hub, listen=listen, reach=reach or None, lend=lend, fee=fee, holding=holding, delta=delta, period=period,
        share=share,
    )  # fmt: skip
    document, lines = run(lambda asked: _hub(read, section, told, asked, view), told)
    answer(document, lines, as_json=as_json)


async def _hub(
    config: Config, section: HubSection, told: Log, asked: asyncio.Event, view: bool
) -> tuple[dict[str, Any], list[str]]:
    from penstock.cli.config import endpoint, need, node_at
    from penstock.cli.money import shown, sum_of
    from penstock.cli.node import journal_open, ledger_at, open_key
    from penstock.cli.rails import ppm_of
    from penstock.node.clock import now
    from penstock.node.hub import Hub
    from penstock.node.incoming import Terms
    from penstock.node.relay import Fees
    from penstock.transports.tls import connect, serve

    address = endpoint(section.listen)
    reach = [node_at(one) for one in section.reach]
    if reach:
        need(section.lend, "hub", "lend")
    fees = Fees(ppm_of(section.fee, "--fee"), ppm_of(section.holding, "--holding"), section.delta, section.share)
    terms = Terms(margin=max(30, section.delta // 3))
    key = open_key(config.key)
    async with ledger_at(config.ledger) as (ledger, token), journal_open() as journal:
        lend = sum_of(section.lend, token, "--lend") if section.lend else 0
        dials = {one.name: partial(connect, one.host, one.port, key, expect=one.account) for one in reach}
        node = Hub(key, journal, ledger, now, told, dials, lend, fees, terms, section.period, _linger(config))
        await node.start()
        server = await serve(*address, key, node.on_link, on_full=node.visits.make_room)
        try:
            told("listening", address=f"{address[0]}:{server.port}", hub="0x" + key.address.hex())
            await _until(node, asked, told, token, view)
        finally:
            await server.close()
            await node.close()
        document = {**node.standing(), "symbol": token.symbol}
        if node.site.fault is not None:
            raise node.site.fault
    lines = [
        f"carried {document['carried']} payments for {shown(document['fees'], token)} in fees; "
        f"{document['locks']} locks still stand"
    ]
    return document, lines


def _linger(config: Config) -> int:
    """How long after an expiry a proof may still turn up before it: as long as blocks take to be final."""
    return 30 + 15 * config.ledger.confirmations


async def _until(node: Hub, asked: asyncio.Event, told: Log, token: TokenFacts, view: bool) -> None:
    """Run until asked to end, or our journal fails; show or tell meanwhile how the hub stands."""
    from penstock.cli.hub_view import HubView

    look = HubView(token) if view else None
    last: dict[str, Any] = {}
    ages = {"seen_s": 0, "good_s": 0}  # which go on by themselves
    waiting = [asyncio.ensure_future(event.wait()) for event in (asked, node.site.failed)]
    try:
        with look or nullcontext():
            while not any(one.done() for one in waiting):
                stands = node.standing()
                if look is not None:
                    look.show(stands)
                elif told.form == "json" and stands | ages != last:
                    last = stands | ages
                    told("standing", **stands)
                await asyncio.wait(waiting, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
