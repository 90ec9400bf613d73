"""`penstock demo`: the whole idea in one command."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.output import AsJson, answer, make_new
from penstock.cli.rails import CHANNEL, RAILS

if TYPE_CHECKING:
    from penstock.core.ports import TokenFacts
    from penstock.sim.charges import Charge


def demo(
    session: Annotated[str, typer.Option(help="Which real session to stream.")] = "S0004",
    speed: Annotated[float, typer.Option(help="How many times faster than it was.")] = 600.0,
    rail: Annotated[str, typer.Option(help=f"How the car pays: {' or '.join(RAILS)}.")] = CHANNEL,
    keep: Annotated[
        Path | None, typer.Option(help="Keep homes, journals and logs in this new directory.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a car buy a real charging session from a pole, on a chain of their own.

    Three processes that know nothing of each other but an address: a development chain, a pole, and a car. The car
    opens a channel, energy and ticks flow in step, and the chain settles; over an escrow it makes a deposit, and the
    meter's signed readings release it. At the end both meters, both receipts, both
    journals and the chain are compared; the exit code is 0 only if they agree to the last token unit.

    \b
    Example:
        penstock demo
        penstock demo --session S0001 --speed 2000 --json
        penstock demo --rail escrow
    """
    from penstock.cli.node import run
    from penstock.core.errors import LocalError, UsageError
    from penstock.sim.charges import read_charges

    charges = {charge.session_id: charge for charge in read_charges()}
    if session not in charges:
        raise UsageError(f"there is no session {session[:20]!r}", f"they run from S0001 to {max(charges)}")
    if not 0 < speed <= 100_000:
        raise UsageError(f"a speed of {speed} is outside 0..100000", "600 plays ten minutes in a second")
    if rail not in RAILS:
        raise UsageError(f"there is no rail {rail[:40]!r}", f"one of {', '.join(RAILS)}")
    if keep is not None:
        make_new(keep)
    result = run(lambda asked: _demo(charges[session], speed, rail, keep, asked, show=not as_json))
    document, token, disagreements = result
    agreed = [] if disagreements else ["both receipts, both journals and the chain agree to the last token unit"]
    answer(document, _summary(document, token) + agreed, as_json=as_json)
    if disagreements:
        raise LocalError("these do not agree: " + "; ".join(disagreements))


async def _demo(charge: Charge, speed: float, rail: str, keep: Path | None, asked: asyncio.Event, show: bool) -> Any:
    from penstock.cli.stage import Stage
    from penstock.sim.demo import run_demo

    room = nullcontext(str(keep)) if keep is not None else tempfile.TemporaryDirectory(prefix="penstock-")
    stage = Stage(charge, speed, live=show and sys.stdout.isatty(), silent=not show)
    with room as directory, stage:
        playing = asyncio.ensure_future(run_demo(charge, speed, Path(directory), stage.on_event, rail))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([playing, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not playing.done():
            playing.cancel()
        return await playing


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    from penstock.cli.money import shown

    energy, exposure = document["energy_wh"], document["max_exposure"]
    lines = [
        f"session {document['session']} ended: {document['reason']}",
        f"  energy    {energy['supplier']:,} Wh by the pole's meter, {energy['consumer']:,} Wh by the car's",
        f"  payment   {shown(document['paid'], token)} ({document['paid']:,} token units), "
        f"{document['ticks']:,} ticks of {shown(document['tick_value'], token)}",
        f"  at risk   at most {shown(exposure['supplier'], token)} for the pole, "
        f"{shown(exposure['consumer'], token)} for the car; the limit was {shown(document['credit_limit'], token)}",
    ]
    lines += [
        f"  on chain  {one['what']:18} {one['gas']:>7,} gas  {one['hash'][:18]}..." for one in document["transactions"]
    ]
    for side, balance in document["balances"].items():
        gain = balance["after"] - balance["before"]
        lines.append(
            f"  balance   {side:9} {shown(balance['before'], token)} -> {shown(balance['after'], token)}"
            f"  ({'+' if gain > 0 else ''}{shown(gain, token)})"
        )
    return lines
