"""The price demo: what it looks like, and what is said in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.cli.course import course_page
from penstock.cli.money import shown
from penstock.cli.rails import CHANNEL
from penstock.cli.scenarios import Scenario, Setting
from penstock.cli.scenarios.v2g import TurningView
from penstock.cli.sheet import check_writable, write_page
from penstock.core.ports import TokenFacts
from penstock.sim.cast import Demo, Watch
from penstock.sim.demo_price import SAMPLES, run_price
from penstock.sim.samples import read_course

SPEED = 600.0  # eight hours in three quarters of a minute


class PriceView(TurningView):
    """As a flow that turns round, with prices that move."""

    def _title(self, setting: Setting) -> str:
        return f"eight hours of quarter-hour prices, {setting.speed:g} times as fast: a car buys low and sells high"


async def _play(setting: Setting, directory: Path, watch: Watch) -> Demo:
    if setting.chart is not None:
        check_writable(setting.chart)
    demo = await run_price(setting.speed, directory, watch)
    chart = setting.chart or (directory / "chart.html" if setting.kept else None)
    if chart is not None:
        write_page(chart, course_page(read_course(directory / SAMPLES)))
        demo.document["chart"] = str(chart)
    return demo


def _summary(document: dict[str, Any], token: TokenFacts) -> list[str]:
    exposure, limit, chain, prices = (document[key] for key in ("max_exposure", "limit", "chain", "prices"))
    energy = document["energy_wh"]["supplier"]
    lines = [
        f"the plan ended: {document['reason']}",
        f"  prices    {prices['steps']} took effect, {prices['below_0']} of them below 0, at the same totals",
        f"  energy    {energy['to_consumer']:,} Wh to the car and {energy['back']:,} Wh back",
        f"  payment   {shown(document['paid'], token)} by the car, {shown(document['repaid'], token)} by the pole: "
        f"net {shown(document['net'], token)} ({document['net']:,} token units)",
        *(
            f"  at risk   at most {shown(exposure[who], token)} for the {who}; its limit was {shown(limit[who], token)}"
            for who in exposure
        ),
        f"  on chain  {chain['opens']} opening, {chain['closes']} settlement, {document['gas']:,} gas",
    ]
    return lines + ([f"  chart     {document['chart']}"] if "chart" in document else [])


SCENARIO = Scenario(
    session="S0026",
    speed=SPEED,
    rails=(CHANNEL,),
    play=_play,
    view=PriceView,
    summary=_summary,
    agreed="both meters, receipts and journals, the integral of the prices, and the chain agree to the last token unit",
    charts=True,
)
