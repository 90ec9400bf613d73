"""`penstock demo`: the whole idea in one command."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.output import AsJson, answer, make_new
from penstock.cli.rails import CHANNEL, ESCROW
from penstock.cli.scenarios import PLAIN, SCENARIOS, Setting, scenario

if TYPE_CHECKING:
    from penstock.cli.scenarios import Scenario
    from penstock.sim.cast import Demo


def demo(
    play: Annotated[str, typer.Option("--scenario", help=f"What is played: {', '.join(SCENARIOS)}.")] = PLAIN,
    session: Annotated[
        str | None, typer.Option(help="Which real session to stream; S0004, or the scenario's own.", show_default=False)
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="How many times faster than it was; 600, or the scenario's own.", show_default=False),
    ] = None,
    rail: Annotated[str, typer.Option(help=f"How the car pays: {CHANNEL} or {ESCROW}.")] = CHANNEL,
    hubs: Annotated[
        int | None, typer.Option(help="Over how many hubs: 1, 2 or 3, with --scenario hops; 3.", show_default=False)
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep homes, journals and logs in this new directory.", show_default=False)
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(help="Write power, prices, ticks and exposure over time to this HTML file.", show_default=False),
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
        penstock demo --scenario v2g --chart v2g.html
        penstock demo --scenario hops --hubs 2
    """
    from penstock.cli.node import run
    from penstock.core.errors import LocalError, UsageError
    from penstock.sim.charges import read_charges

    chosen = scenario(play)
    session = chosen.session if session is None else session
    speed = chosen.speed if speed is None else speed
    charges = {charge.session_id: charge for charge in read_charges()}
    if session not in charges:
        raise UsageError(f"there is no session {session[:20]!r}", f"they run from S0001 to {max(charges)}")
    if not 0 < speed <= 100_000:
        raise UsageError(f"a speed of {speed} is outside 0..100000", "600 plays ten minutes in a second")
    if rail not in chosen.rails:
        raise UsageError(f"there is no rail {rail[:40]!r}", f"one of {', '.join(chosen.rails)}")
    if chart is not None and not chosen.charts:
        raise UsageError(f"the scenario {play} draws nothing", "leave out --chart")
    if hubs is not None and not 1 <= hubs <= chosen.hubs:
        most = f"1..{chosen.hubs}" if chosen.hubs else "none"
        raise UsageError(f"the scenario {play} goes over {most} hubs, not {hubs}", "leave out --hubs")
    if keep is not None:
        make_new(keep)
    setting = Setting(charges[session], speed, rail, chart, keep is not None, hubs or chosen.hubs)
    document, token, disagreements = run(lambda asked: _demo(chosen, setting, keep, asked, show=not as_json))
    agreed = [] if disagreements else [chosen.agreed]
    answer(document, chosen.summary(document, token) + agreed, as_json=as_json)
    if disagreements:
        raise LocalError("these do not agree: " + "; ".join(disagreements))


async def _demo(chosen: Scenario, setting: Setting, keep: Path | None, asked: asyncio.Event, show: bool) -> Demo:
    room = nullcontext(str(keep)) if keep is not None else tempfile.TemporaryDirectory(prefix="penstock-")
    view = chosen.view(setting, show and sys.stdout.isatty(), not show)
    with room as directory, view:
        playing = asyncio.ensure_future(chosen.play(setting, Path(directory), view.on_event))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([playing, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not playing.done():
            playing.cancel()
        return await playing
