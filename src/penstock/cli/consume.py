"""`penstock consume`: buy from a supplier, within limits on price, quantity and sum."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.devices import DATA, Draw, at_loopback, drawn, need_draw, quantity_of
from penstock.cli.log import Log, LogForm, log_to
from penstock.cli.money import shown
from penstock.cli.node import ChainId, ConfigFile, Confirmations, Contract, Escrow, KeyName, Patience, Url
from penstock.cli.output import AsJson, answer
from penstock.cli.passphrase import PassphraseFile
from penstock.cli.planning import Asked, plan_of
from penstock.cli.progress import standing
from penstock.cli.rails import Paid

if TYPE_CHECKING:
    from penstock.cli.config import Config, ConsumeSection
    from penstock.cli.view import SessionView
    from penstock.core import session
    from penstock.core.ports import Link, TokenFacts
    from penstock.core.session import Session
    from penstock.node.consumer import Consumer, Wish
    from penstock.node.turns import Profile

REPORT = 0.25  # seconds between two looks
FOLLOW = 0.05  # and between two of a plan's: a simulated line may run an hour a second
_FAILURES = ("meters disagree", "peer cheated", "device failed", "supply stalled", "payment stalled")


def consume(
    supplier: Annotated[str | None, typer.Argument(help="HOST:PORT of the supplier.", show_default=False)] = None,
    config: ConfigFile = None,
    url: Url = None,
    contract: Contract = None,
    escrow: Escrow = None,
    rail: Paid = None,
    chain_id: ChainId = None,
    confirmations: Confirmations = None,
    key: KeyName = None,
    passphrase_file: PassphraseFile = None,
    medium: Annotated[str | None, typer.Option(help="What is bought.", show_default=False)] = None,
    quantity: Annotated[
        str | None, typer.Option(help="Stop at this quantity, in Wh, L, bytes (or 1.5GB), ...", show_default=False)
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(help="Most to pay per kWh, m3, ..., in whole tokens.", show_default=False)
    ] = None,
    feed: Annotated[
        str | None, typer.Option(help="Let up to so many kWh be fed in, over a two-way channel.", show_default=False)
    ] = None,
    min_feed: Annotated[
        str | None, typer.Option(help="Least to get per kWh fed in, in whole tokens.", show_default=False)
    ] = None,
    turns: Annotated[
        str | None,
        typer.Option(help="kWh that flow one after the other, below 0 back: 6,-2.5,4.", show_default=False),
    ] = None,
    energy: Annotated[
        str | None, typer.Option(help="Plan: so many kWh, in the cheapest hours.", show_default=False)
    ] = None,
    by: Annotated[str | None, typer.Option(help="Plan: be done by 07:00, or RFC 3339.", show_default=False)] = None,
    battery: Annotated[
        str | None, typer.Option(help="Plan: kWh in the battery, least and most: 12/8/60.", show_default=False)
    ] = None,
    power_w: Annotated[int, typer.Option(help="Plan: what we draw, or feed in with --feed.")] = 11_000,
    budget: Annotated[str | None, typer.Option(help="Most to pay in all, in whole tokens.", show_default=False)] = None,
    deposit: Annotated[
        str | None, typer.Option(help="Open a new channel with at least this much.", show_default=False)
    ] = None,
    hub: Annotated[
        list[str] | None,
        typer.Option("--hub", help="[ACCOUNT@]HOST:PORT of a hub to pay over; again for more.", show_default=False),
    ] = None,
    max_fee: Annotated[
        str | None, typer.Option(help="Most that hubs may take, in percent; 5 if left out.", show_default=False)
    ] = None,
    expect: Annotated[str | None, typer.Option(help="Buy from this address and no other.", show_default=False)] = None,
    line: Annotated[
        str | None, typer.Option(help="File of the simulated line that our meter is on.", show_default=False)
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Port (or HOST:PORT) where applications reach the data.", show_default=False)
    ] = None,
    meter_error: Annotated[int, typer.Option(help="Let our simulated meter be wrong by so many millionths.")] = 0,
    patience: Patience = 10.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the channel open for the next session.")] = False,
    log: LogForm = "text",
    as_json: AsJson = False,
) -> None:
    """Buy from a supplier until a limit is reached, and pay tick by tick.

    The supplier's offer is checked against the limits before any money moves. A payment channel is opened where
    there is none yet; when the session is over it is signed off, unless --keep is given. Over a channel that was kept
    no ledger is asked. The same command again takes up a session that was broken off. Ctrl-C ends it in order.
    With --feed the flow may turn round where the supplier takes back what is fed in, and the supplier pays for it;
    --feed 0 feeds nothing in, and is paid where a price falls below 0. With --turns the flow turns round by itself, and
    the session ends when all of it has flowed; --quantity and --feed are then what that is in all, unless given.
    With --hub the payment goes over hubs: one channel to a hub reaches every supplier that hubs reach.
    With --energy and --by it follows a plan over the prices in the offer: it buys in the cheapest hours, never above
    --max-price, rests in the others, and with --feed sells what its battery has to spare at --min-feed or above.

    \b
    Example:
        penstock consume 127.0.0.1:7411 --url http://127.0.0.1:8545 --contract 0x... --key car \\
            --quantity 20000 --max-price 0.45 --budget 9 --line cable
        penstock consume 127.0.0.1:7411 --url http://127.0.0.1:8545 --contract 0x... --key laptop \\
            --medium data --max-price 0.10 --budget 1 --listen 8081
        penstock consume 127.0.0.1:7411 --url http://127.0.0.1:8545 --contract 0x... --key car \\
            --turns 6,-2.5,4 --max-price 0.45 --min-feed 0.30 --budget 9 --line cable
        penstock consume 127.0.0.1:7411 --url http://127.0.0.1:8545 --contract 0x... --key car \\
            --energy 20 --by 07:00 --max-price 0.35 --feed 15 --min-feed 0.50 --battery 12/8/60 --budget 9 --line cable
    """
    from penstock.cli.config import over
    from penstock.cli.node import patient, run, settings

    told = log_to("none" if log == "text" and not as_json and _terminal() else log)
    read = settings(config, url, contract, chain_id, key, passphrase_file, confirmations, escrow)
    section = over(
        read.consume,
        supplier=supplier,
        medium=medium,
        quantity=quantity_of(quantity) if quantity else None,
        max_price=max_price,
        feed=feed,
        min_feed=min_feed,
        budget=budget,
        deposit=deposit,
        hubs=hub or None,
        max_fee=max_fee,
        line=line,
        listen=at_loopback(listen) if listen else None,
    )
    if (energy is None) is not (by is None):
        from penstock.core.errors import UsageError

        raise UsageError("a plan needs --energy and --by", "give both, or neither")
    plans = Asked(energy, by, battery, power_w, power_w) if energy is not None and by is not None else None
    waits = patient(patience)
    view = told.form == "none" and not as_json and _terminal()
    document, lines = run(
        lambda asked: _consume(read, section, rail, told, asked, expect, keep, view, meter_error, waits, turns, plans),
        told,
    )
    answer(document, lines, as_json=as_json)
    if not document["complete"]:
        from penstock.core.errors import PeerRefused

        raise PeerRefused(
            f"the session ended without a receipt: {document['reason']}{_because(document)}",
            "`penstock channel list` shows what the channel holds; ticks that no voucher has folded yet come on top",
        )
    if document["reason"] in _FAILURES:
        from penstock.core.errors import RemoteError

        raise RemoteError(f"{document['reason']}{_because(document)}", "both sides signed what was paid until then")


def _because(document: dict[str, Any]) -> str:
    return f" ({document['fault']})" if document["fault"] else ""


async def _consume(
    config: Config,
    section: ConsumeSection,
    rail: str | None,
    told: Log,
    asked: asyncio.Event,
    expect: str | None,
    keep: bool,
    view: bool,
    meter_error: int,
    waits: session.Patience,
    turns: str | None,
    plans: Asked | None,
) -> tuple[dict[str, Any], list[str]]:
    from penstock.cli.config import endpoint, home, need, node_at
    from penstock.cli.node import journal_open, open_key
    from penstock.cli.rails import CHANNEL, late, paid, purse
    from penstock.cli.supply import outcome
    from penstock.core.errors import OutOfRange, UsageError
    from penstock.core.identity import parse_address
    from penstock.core.medium import medium
    from penstock.node import book
    from penstock.node.clock import now
    from penstock.node.consumer import Consumer
    from penstock.node.follower import Follower
    from penstock.node.hop_purse import HopPurse
    from penstock.node.turns import turn
    from penstock.transports.tls import connect

    if section.supplier is None:
        raise UsageError("no supplier is named", "give its HOST:PORT, or write supplier under [consume] in config.toml")
    host, port = endpoint(section.supplier)
    need_draw(section)
    need(section.max_price, "consume", "max_price")
    need(section.budget, "consume", "budget")
    profile = _profile(turns, section) if turns is not None else None
    try:
        wanted = parse_address(expect) if expect else None
    except OutOfRange as error:
        raise UsageError(str(error), "give --expect the supplier's address") from None
    rail = paid(config.ledger, rail, section.hubs)
    ledger = late(config.ledger, rail)
    key = open_key(config.key)
    try:
        if not home().journal.exists():
            await ledger()  # where it cannot be reached, no journal is made
        async with drawn(section, meter_error, told) as draw, journal_open() as journal:
            known = await ledger.token(journal)

            def dial() -> Awaitable[Link]:
                return connect(host, port, key, expect=wanted)

            wish = _wish(section, known.facts, keep)
            if profile is not None:
                quantity, feed = wish.quantity or profile.total, wish.feed if section.feed else profile.export
                wish = wish._replace(quantity=quantity, feed=feed)
            plan = None
            if plans is not None:
                wish = wish._replace(waits=True)
                plan = plan_of(plans, wish, medium(section.medium))
            nodes = map(node_at, section.hubs)
            hubs = [partial(connect, one.host, one.port, key, expect=one.account) for one in nodes]
            pays = purse(rail, ledger, section, key, journal, told, known, hubs)
            consumer = Consumer(
                key, journal, draw.meter, dial, wish, now, told, pays, waits, carrier=draw.carrier, valve=draw.valve
            )
            look = _look(known.facts, section.supplier) if view else None
            with look or nullcontext():
                beside = [asyncio.ensure_future(_watch(consumer, draw, told, look))]
                if profile is not None:
                    beside.append(asyncio.ensure_future(turn(consumer, profile, told)))
                if plan is not None:
                    follower = Follower(consumer, plan, lambda: draw.meter.read().at, told)
                    beside.append(asyncio.ensure_future(follower.follow(FOLLOW)))
                try:
                    session = await _buy(consumer, asked)
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
                if look is not None:
                    look.show(session, 0)
            account = book.account_in(session.row)
            costs = pays.costs(session.terms, session.ticks) if isinstance(pays, HopPurse) else None
            kept = book.channel_of(journal, account) or book.escrow_of(journal, account)
    finally:
        await ledger.disconnect()
    mined = kept.mined if kept else ()
    document = {
        **outcome(session),
        "channel" if rail == CHANNEL else rail: "0x" + account.hex(),
        "transactions": [{"what": one.what, "hash": "0x" + one.hash.hex(), "gas": one.gas} for one in mined],
    }
    lines = _lines(session, known.facts)
    if costs is not None:
        document |= {"fees": costs.fees, "locked": costs.locked}
        lines.append(f"and {shown(costs.fees, known.facts)} in fees to hubs")
        if costs.locked:
            lines.append(f"{shown(costs.locked, known.facts)} still locked: `penstock consume` settles it next time")
    return document, lines


def _look(token: TokenFacts, supplier: str) -> SessionView:
    from penstock.cli.view import SessionView

    return SessionView(token, supplier)


def _wish(section: ConsumeSection, token: TokenFacts, keep: bool) -> Wish:
    from penstock.cli.goods import units
    from penstock.cli.money import sum_of
    from penstock.core.medium import medium
    from penstock.core.units import Price
    from penstock.node.consumer import Wish

    bought = medium(section.medium)
    return Wish(
        max_price=Price(sum_of(section.max_price, token, "--max-price"), bought.per),
        budget=sum_of(section.budget, token, "--budget"),
        quantity=section.quantity,
        medium=bought.name,
        keep=keep,
        feed=units(section.feed, bought, "--feed") if section.feed else None,
        min_feed=Price(sum_of(section.min_feed, token, "--min-feed"), bought.per) if section.min_feed else None,
    )


def _profile(turns: str, section: ConsumeSection) -> Profile:
    """The profile that --turns names.

    Raises:
        UsageError: it is none.
    """
    from penstock.cli.goods import units
    from penstock.core.errors import OutOfRange, UsageError
    from penstock.core.medium import medium
    from penstock.node.turns import Profile

    bought = medium(section.medium)
    if section.medium == DATA:
        raise UsageError("data is not fed back", "leave out --turns")
    parts = [part.strip() for part in turns.split(",")]
    try:
        return Profile(
            [(-1) ** part.startswith("-") * units(part.removeprefix("-"), bought, "--turns") for part in parts]
        )
    except OutOfRange as error:
        raise UsageError(f"--turns: {error}", f"give it in {bought.quoted}, such as 6,-2.5,4") from None


async def _buy(consumer: Consumer, asked: asyncio.Event) -> Session:
    """Buy, and end in order where it is asked for."""
    buying = asyncio.ensure_future(consumer.buy())
    asking = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait([buying, asking], return_when=asyncio.FIRST_COMPLETED)
        if not buying.done():
            if consumer.session is None:
                buying.cancel()
            consumer.stop()
        return await buying
    finally:
        asking.cancel()
        if not buying.done():
            buying.cancel()


async def _watch(consumer: Consumer, draw: Draw, told: Log, look: Any) -> None:
    while True:
        await asyncio.sleep(REPORT)
        session = consumer.session
        if session is None:
            continue
        if look is not None:
            look.show(session, draw.power())
        elif told.form == "json":
            told(
                "progress",
                power=draw.power(),
                supplier_total=session.claimed,
                **standing(session),
            )


def _lines(session: Session, token: TokenFacts) -> list[str]:
    from penstock.core.medium import medium

    unit = medium(session.terms.offer.medium).unit
    receipt = session.receipt
    if receipt is None:
        return [f"paid {shown(session.paid, token)} for {session.meter.total} {unit}, without a receipt"]
    back = receipt.repaid or receipt.consumer_export
    return [
        f"{receipt.reason}: {receipt.consumer_total} {unit} by our meter, {receipt.supplier_total} {unit} by theirs",
        *([f"got {shown(receipt.repaid, token)} back; fed in {receipt.consumer_export} {unit}"] if back else []),
        f"paid {shown(receipt.paid, token)} in {receipt.ticks} ticks; both sides signed the receipt"
        if session.complete
        else f"paid {shown(receipt.paid, token)} in {receipt.ticks} ticks; the supplier has not signed the receipt",
    ]


def _terminal() -> bool:
    import sys

    return sys.stdout.isatty()
