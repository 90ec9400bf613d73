"""The plain demo: a car buys a real charging session from a pole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.cli.money import shown
from penstock.cli.rails import CHANNEL, ESCROW
from penstock.cli.scenarios import Scenario, Setting
from penstock.cli.stage import Stage
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.demo import run_demo


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    return await run_demo(setting.charge, setting.speed, directory, watch, setting.rail)


def _view(setting: Setting, live: bool, silent: bool) -> Stage:
    return Stage(setting.charge, setting.speed, live=live, silent=silent)


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
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


SCENARIO = Scenario(
    session="S0004",
    speed=600.0,
    rails=(CHANNEL, ESCROW),
    play=_play,
    view=_view,
    summary=_summary,
    agreed="both receipts, both journals and the chain agree to the last token unit",
)
