"""`penstock replay`: every charging session of a real site, at full speed."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.output import AsJson, answer, make_new


def replay(
    csv: Annotated[
        Path | None,
        typer.Argument(help="CSV of sessions; left out: the month that comes along.", show_default=False),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(help="Replay only the first so many.", show_default=False, min=1)
    ] = None,
    allowed: Annotated[
        bool,
        typer.Option("--allowed", help="Let cars allow the contract their deposit first, and open from the token."),
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Keep journals and lines in this new directory.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay the charging sessions of a real site: each a car of its own, with a channel of its own.

    A development chain, the site's poles and the cars are three processes. Sessions at one station follow one another
    as they did, the stations run side by side, at full speed: every package waits for its payment to be durable. Then
    all channels are settled in batches. A car opens its channel by one signature, or with --allowed from the token.

    The exit code is 0 only if every session completed and paid = settled.

    \b
    The file has one line a session:
        session_id,station_id,plugged_in,unplugged,energy_wh
        S0004,CA-321,2019-03-01T07:35:00,2019-03-01T16:45:00,17366

    \b
    Example:
        penstock replay --sessions 50
        penstock replay month.csv --json
    """
    from penstock.cli.node import run
    from penstock.core.errors import LocalError

    if keep is not None:
        make_new(keep)
    document = run(lambda asked: _replay(csv, sessions, allowed, keep, asked, show=not as_json))
    failures = document.pop("failures")
    answer(document, _summary(document), as_json=as_json)
    if document["completed"] != document["sessions"]:
        raise LocalError(
            f"{document['sessions'] - document['completed']} of {document['sessions']} sessions did not complete"
            + (f", the first: {failures[0]}" if failures else "")
        )
    if document["paid"] != document["settled"]:
        raise LocalError(f"{document['paid']} token units were paid, but {document['settled']} settled")
    if document["max_exposure"] > document["credit_limit"]:
        raise LocalError(f"an exposure of {document['max_exposure']} exceeds {document['credit_limit']}")


async def _replay(
    csv: Path | None, sessions: int | None, allowed: bool, keep: Path | None, asked: asyncio.Event, show: bool
) -> dict[str, Any]:
    from penstock.cli.track import Track
    from penstock.sim.replay import run_replay

    room: AbstractContextManager[str]
    room = nullcontext(str(keep)) if keep is not None else tempfile.TemporaryDirectory(prefix="penstock-")
    track = Track(live=show and sys.stderr.isatty(), silent=not show)
    with room as directory, track:
        playing = asyncio.ensure_future(run_replay(csv, sessions, allowed, Path(directory), track.on_event))
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait([playing, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not playing.done():
            playing.cancel()
        return await playing


def _summary(document: dict[str, Any]) -> list[str]:
    from penstock.core.units import format_decimal

    def euro(units: int) -> str:
        return f"{format_decimal(units, 6)} cEUR"

    return [
        f"{document['completed']} of {document['sessions']} sessions completed",
        f"  energy    {document['energy_wh']:,} Wh",
        f"  payment   {euro(document['paid'])} in {document['ticks']:,} ticks; settled {euro(document['settled'])}",
        f"  at risk   at most {euro(document['max_exposure'])}; the limit was {euro(document['credit_limit'])}",
        f"  gas       {document['gas_total']:,} in all, {document['gas_per_session']:,} a session"
        + (f" (approvals, {document['gas_approvals']:,}, aside)" if document["gas_approvals"] else ""),
        f"  time      {document['wall_s']} s: opening {document['open_s']}, streaming {document['stream_s']}, "
        f"settling {document['settle_s']}",
        f"  speed     {document['ticks_per_s']:,} ticks/s, durable in rounds of 8; an fsync takes "
        f"{document['fsync_ms']} ms here",
    ]
