"""The grid's demo: a site with three poles obeys its grid's operator while three cars charge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.cli.money import shown
from penstock.cli.rails import CHANNEL
from penstock.cli.scenarios import Scenario, Setting
from penstock.cli.yard import YardView
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.gridscene import run_grid


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    return await run_grid(setting.speed, directory, watch)


def _view(setting: Setting, live: bool, silent: bool) -> YardView:
    return YardView(setting.speed, setting.chart, live=live, silent=silent)


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    lines = []
    for step in document["steps"]:
        watts = "" if step["watts"] is None else f" {step['watts']:,} W"
        lines.append(f"the grid asks: {step['asked']}{watts} (told and obeyed in {step['told_and_obeyed_ms']:.0f} ms)")
        lines += [
            f"  {one['pole']:7} {one['before']:>7,} W -> {one['after']:>7,} W in {one['ms']:g} ms, {one['wh']} Wh; "
            f"then {one['kept']:,} W on average"
            for one in step["poles"]
        ]
    for one in document["sessions"]:
        lines.append(
            f"{one['pole']:7} {one['energy_wh']:,} Wh for {shown(one['paid'], token)}, "
            f"{one['fed_in_wh']:,} Wh back for {shown(one['repaid'], token)}: {one['reason']}"
        )
    lines += [f"on chain  {one['what']:18} {one['gas']:>7,} gas" for one in document["transactions"]]
    return lines


SCENARIO = Scenario(
    session="S0004",
    speed=600.0,
    rails=(CHANNEL,),
    play=_play,
    view=_view,
    summary=_summary,
    agreed="all poles obeyed within a package, and meters, receipts, prices and the chain agree to the last token unit",
    charts=True,
)
