"""`penstock compare`: what the same session takes, risks and shows over every rail."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.output import AsJson, answer, say

if TYPE_CHECKING:
    from penstock.sim.charges import Charge
    from penstock.sim.compare import Rates

SCENES = {  # what is under way when a pole of that name opens
    "stops-pole": "a consumer that stops paying halfway",
    "creeps-pole": "a meter that runs too fast",
    "jumps-pole": "a meter that lies",
    "honest-pole": "an honest session",
    "pole": "the ledger goes away",
    "vanishes-pole": "a supplier that vanishes",
}


def compare(
    session: Annotated[str, typer.Option(help="Which real session to stream.")] = "S0004",
    gas_price: Annotated[float, typer.Option(help="What gas costs, in gwei.")] = 1.0,
    token_rate: Annotated[float, typer.Option(help="Whole tokens that an ether costs.")] = 2_500.0,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Stream the same real session over every rail, and compare what it takes, risks and shows.

    Each rail gets a development chain of its own. On it, a consumer stops paying, two meters lie, an honest session
    runs, the ledger goes away in mid-session, and a supplier vanishes. What is lost is what the chain moved against
    what the line's register counted; what strangers learn is read from blocks, transactions and logs. It takes some
    two minutes.

    Two runs agree, but for what stands under "time" in the JSON.

    \b
    Example:
        penstock compare
        penstock compare --gas-price 0.05 --html comparison.html
        penstock compare --session S0002 --json
    """
    from penstock.cli.compared import table
    from penstock.cli.node import run
    from penstock.cli.page import page
    from penstock.cli.sheet import check_writable, write_page
    from penstock.core.errors import UsageError
    from penstock.sim.charges import read_charges

    charges = {charge.session_id: charge for charge in read_charges()}
    if session not in charges:
        raise UsageError(f"there is no session {session[:20]!r}", f"they run from S0001 to {max(charges)}")
    rates = _rates(gas_price, token_rate)
    if html is not None:
        check_writable(html)
    document = run(lambda asked: _compare(charges[session], rates, asked, silent=as_json))
    if html is not None:
        write_page(html, page(document))
    answer(document, table(document), as_json=as_json)


def _rates(gwei: float, rate: float) -> Rates:
    from penstock.core.errors import UsageError
    from penstock.sim.compare import DECIMALS, GWEI, Rates

    if not 0 <= gwei <= 1_000_000:
        raise UsageError(f"--gas-price {gwei} is outside 0..1000000", "it is in gwei: 1 is usual on Ethereum")
    if not 0 <= rate <= 10**12:
        raise UsageError(f"--token-rate {rate} is outside 0..10**12", "it is in whole tokens an ether: 2500")
    return Rates(round(gwei * GWEI), round(rate * 10**DECIMALS))


async def _compare(charge: Charge, rates: Rates, asked: asyncio.Event, *, silent: bool) -> dict[str, Any]:
    from penstock.sim.compare import run_comparison

    def watch(who: str, event: str, _facts: dict[str, Any]) -> None:
        rail, _, process = who.partition(": ")
        if event == "listening" and process in SCENES and not silent:
            say(f"{rail}: {SCENES[process]}")

    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        playing = asyncio.ensure_future(run_comparison(charge, rates, Path(directory), watch))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([playing, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not playing.done():
            playing.cancel()
        return await playing
