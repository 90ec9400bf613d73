"""`penstock sim`: worlds made up from seeds, in which everything goes wrong, and nothing may be lost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock.cli.output import AsJson, answer, say

EVERY = 100  # seeds between two words of progress


def simulate(
    seeds: Annotated[int, typer.Option(help="How many seeds to live through.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The first of them.", min=0)] = 0,
    hubs: Annotated[bool, typer.Option("--hubs", help="Worlds of hubs between payers and payees.")] = False,
    as_json: AsJson = False,
) -> None:
    """Live through made-up worlds: the real node code, under a virtual clock, with faults and cheats.

    A seed decides everything: who sells and buys, who cheats, what fails and when. What must always hold is checked
    at every step; at the end all is healed, and everything must settle to the last unit. The same seed gives the same
    trace. The first seed that fails is shown with the end of its trace.

    \b
    Example:
        penstock sim --seeds 1000
        penstock sim --seeds 1 --seed 4711
        penstock sim --hubs --seeds 200
    """
    from penstock.core.errors import LocalError

    document = _live(seed, seeds, hubs)
    tail = document.pop("tail")
    for line in tail:
        say(line)
    lines = [
        f"{document['seeds']} seeds from {seed} on, {document['sessions']} sessions, {document['events']} events, "
        f"{document['virtual_hours']} hours of virtual time",
        f"{document['seeds_per_s']} seeds/s; hash of all traces {document['hash'][:16]}",
    ]
    answer(document, lines, as_json=as_json)
    if document["failed_seed"] is not None:
        raise LocalError(
            f"seed {document['failed_seed']}: {document['violation']}",
            f"`penstock sim{' --hubs' * hubs} --seeds 1 --seed {document['failed_seed']}` shows it again",
        )


def _live(first: int, count: int, hubs: bool) -> dict[str, Any]:
    import time
    from hashlib import sha256

    from penstock.sim.hop_world import HopWorld
    from penstock.sim.hub_world import world_of

    began, hashes = time.perf_counter(), sha256()
    done = events = sessions = 0
    virtual, failed = 0.0, None
    for seed in range(first, first + count):
        outcome = HopWorld(seed).run() if hubs else world_of(seed).run()
        done, events, sessions = done + 1, events + outcome.events, sessions + outcome.sessions
        virtual += outcome.virtual_s
        hashes.update(bytes.fromhex(outcome.hash))
        if outcome.violation:
            failed = outcome
            break
        if done % EVERY == 0:
            say(f"penstock: {done} of {count} seeds, {done / (time.perf_counter() - began):.1f} a second")
    return {
        "seeds": done,
        "first": first,
        "failed_seed": failed.seed if failed else None,
        "violation": failed.violation if failed else "",
        "sessions": sessions,
        "events": events,
        "virtual_hours": round(virtual / 3600, 1),
        "seeds_per_s": round(done / (time.perf_counter() - began), 1),
        "hash": hashes.hexdigest(),
        "tail": failed.tail if failed else [],
    }
