"""A car, a hub and a pole on a local network from which no ledger can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.cli.rails import CHANNEL
from penstock.cli.scenarios import Scenario, Setting
from penstock.cli.scenarios.hops import PathView, summary
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.demo_hops import run_offline


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    return await run_offline(setting.charge, setting.speed, directory, watch)


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    offline = document["offline"]
    lines = summary(document, token)
    lines.append(f"  offline   {offline['energy_wh']:,} Wh were sold while no ledger could be reached:")
    lines += [f"              {name}: {'; '.join(routes)}" for name, routes in offline["routes"].items()]
    lines += [
        f"  leaned on {one['who']}: the ledger as it was {one['seen_s']} s before; it must be seen in time again"
        for one in offline["leaned_on"]
    ]
    return lines


SCENARIO = Scenario(
    session="S0004",
    speed=600.0,
    rails=(CHANNEL,),
    play=_play,
    view=PathView,
    summary=_summary,
    agreed="all receipts, all journals and the chain agree to the last token unit",
)
