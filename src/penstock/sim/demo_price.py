"""The price scenario: eight hours of quarter-hour prices, some below 0, and a car that follows a plan through them.

The prices are the package's day (`data/prices-day.json`), from noon to the evening peak, moved to now. The pole
sells and buys at them, and has a stake in the channel, so that it can pay where its price is below 0. The car buys in
the cheapest hours and sells in the dearest, within its battery.

No process is believed. The bill is computed anew, with fractions, from the tariff that both signed and the totals at
which each price took effect by either journal; those must be the same, and nothing was said about them.
"""

from __future__ import annotations

import asyncio
import json
import time
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

from penstock.core import series
from penstock.core.errors import LocalError
from penstock.core.ports import Holdings
from penstock.core.session import Role, SessionRow
from penstock.core.tariff import Tariff
from penstock.core.units import Instant
from penstock.ledgers.evm import EvmLedger
from penstock.sim.cast import STARTING, Cast, Demo, Watch, cast
from penstock.sim.demo_v2g import held, limits_of, logged, registers
from penstock.sim.line import wall_clock
from penstock.sim.processes import Event
from penstock.sim.recorder import Recorder, about
from penstock.sim.samples import SampleLog

FIRST, SLOTS = 44, 32  # quarter hours of the day: from eleven in the morning to seven in the evening
QUARTER = 900_000  # ms
POWER_W = 7_400
ENERGY, BATTERY = "12", "14/8/50"  # kWh
MAX_PRICE, MIN_FEED, BUDGET, STAKE = "0.40", "0.36", "12", "8"
TICK, TICK_VALUE, CREDIT_TICKS = "0.001", 1_000, 2
SAMPLES = "samples.jsonl"
_ROLES = (Role.SUPPLIER, Role.CONSUMER)


def _moved(name: str, start: Instant) -> str:
    """A part of the package's day as a series that begins at `start`; its last price lasts."""
    rows = json.loads(files("penstock").joinpath("data", name).read_text())[FIRST : FIRST + SLOTS]
    moved = []
    for number, row in enumerate(rows):
        begins = Instant(start + number * QUARTER)
        ends = Instant(begins + QUARTER * (1 if number + 1 < len(rows) else 96))
        moved.append({"start": series.written(begins), "end": series.written(ends), "value": row["value"]})
    return json.dumps(moved)


async def run_price(speed: float, directory: Path, watch: Watch) -> Demo:
    """Play it at `speed` times real time; homes, chain, line, prices and samples are kept in `directory`.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started, limit = time.monotonic(), CREDIT_TICKS * TICK_VALUE
    with SampleLog(directory / SAMPLES, about("A day of prices, and a plan", limit, limit)) as log:
        recorder = Recorder(log, wall_clock())

        def heard(who: str, event: str, facts: Event) -> None:
            watch(who, event, facts)
            if (sample := recorder.take(who, event, facts)) is not None:
                watch("demo", "sample", {"sample": sample})

        async with cast(directory, heard, _ROLES) as players:
            before = await players.holdings()
            bought, sold = await _trade(speed, players)
            after = await players.holdings()
            document, wrong = await _audit(players, before, after, bought, sold)
            energy = document["energy_wh"]["supplier"]
            recorder.end(energy["to_consumer"], energy["back"], document["paid"], document["repaid"], document["ticks"])
            document["wall_s"] = round(time.monotonic() - started, 2)
            return Demo(document, players.token, wrong)


async def _trade(speed: float, players: Cast) -> tuple[Event, Event]:
    """Both processes from their start to their answers: the consumer's and the supplier's."""
    line, start = str(players.directory / "line"), wall_clock()
    prices, back = players.directory / "prices.json", players.directory / "feed-prices.json"
    prices.write_text(_moved("prices-day.json", start))
    back.write_text(_moved("prices-day-feed.json", start))
    pole = await players.start(
        "supplier", "supply", *players.common, "--once", "--listen", "127.0.0.1:0", "--name", "market",
        "--prices", str(prices), "--feed-prices", str(back), "--feed-stake", STAKE, "--tick", TICK,
        "--credit-ticks", str(CREDIT_TICKS), "--line", line, "--power-w", str(POWER_W), "--speed", str(speed),
    )  # fmt: skip
    listening = await asyncio.wait_for(pole.event("listening"), STARTING)
    by = series.written(Instant(start + SLOTS * QUARTER))
    car = await players.start(
        "consumer", "consume", listening["address"], *players.common, "--expect", listening["supplier"],
        "--energy", ENERGY, "--by", by, "--battery", BATTERY, "--power-w", str(POWER_W), "--max-price", MAX_PRICE,
        "--feed", "40", "--min-feed", MIN_FEED, "--budget", BUDGET, "--line", line,
    )  # fmt: skip
    bought, sold = await asyncio.gather(car.answer(), pole.answer())
    return bought, sold


def _integral(tariff: Tariff, turns: tuple[int, ...], total: int) -> tuple[Fraction, Fraction]:
    """What a total is worth at prices above 0 and at those below, a stretch at a time (token units)."""
    above, below, last = Fraction(0), Fraction(0), 0
    for step, reached in enumerate((*turns, total)):
        worth = Fraction((reached - last) * tariff.steps[step].amount, tariff.per)
        above, below, last = above + max(worth, Fraction(0)), below + max(-worth, Fraction(0)), reached
    return above, below


def bill_of(row: SessionRow, total: int, export: int) -> int:
    """The net bill by a journal's turns, each side's sum rounded down once (token units)."""
    feed = row.terms.feed
    assert feed is not None
    above, below = _integral(row.terms.offer.tariff, row.turns, total)
    back, back_below = _integral(feed.tariff, row.feed_turns, export)
    return int(above + back_below) - int(below + back)


async def _audit(
    players: Cast, before: list[Holdings], after: list[Holdings], bought: Event, sold: Event
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and everything that must agree and does not."""
    wrong: list[str] = []

    def same(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            wrong.append(f"{what}: {', '.join(map(str, values))}")

    pole, car = [await held(players.home(role)) for role in _ROLES]
    receipt = pole.row.receipt
    if receipt is None or car.row.receipt is None or not (car.row.supplier_signature and pole.row.consumer_signature):
        raise LocalError("the session ended without a receipt on both sides")
    same("the receipts", receipt, car.row.receipt)
    total, export = registers(players.directory / "line")
    same("both meters and the line, to the car", receipt.supplier_total, receipt.consumer_total, total)
    same("both meters and the line, back", receipt.supplier_export, receipt.consumer_export, export)
    same("where prices took effect", (pole.row.turns, pole.row.feed_turns), (car.row.turns, car.row.feed_turns))
    net = receipt.paid - receipt.repaid
    same("the bill, and the integral by either journal", net, *(bill_of(one.row, total, export) for one in (pole, car)))
    for who, side in (("supplier", pole), ("consumer", car)):
        same(f"what was promised by the {who}'s journal, and the receipt", (side.paid, side.repaid),
             (receipt.paid, receipt.repaid))  # fmt: skip
    gains = [now.tokens - then.tokens for then, now in zip(before, after, strict=True)]
    same("what the chain paid the supplier, and the net", gains[0], net)
    same("what the chain took from the consumer, and the net", -gains[1], net)
    assert isinstance(players.ledger, EvmLedger)
    same("the channel on the chain", (await players.ledger.channel(pole.channel.params)).status, "settled")
    chain = await logged(players)
    if chain != {"opens": 1, "closes": 1}:
        wrong.append(f"the chain's log: {chain}, not one opening and one settlement")
    limits, exposure = limits_of(pole.row), {"supplier": pole.row.worst, "consumer": car.row.worst}
    wrong += [f"the {who}'s exposure of {exposure[who]} exceeds {limits[who]}" for who in limits
              if exposure[who] > limits[who]]  # fmt: skip
    transactions, steps = bought["transactions"] + sold["transactions"], pole.row.terms.offer.tariff.steps
    document = {
        "scenario": "price",
        "energy_wh": {
            "supplier": {"to_consumer": receipt.supplier_total, "back": receipt.supplier_export},
            "consumer": {"to_consumer": receipt.consumer_total, "back": receipt.consumer_export},
        },
        "prices": {
            "steps": len(pole.row.turns) + 1,
            "below_0": sum(step.amount < 0 for step in steps[: len(pole.row.turns) + 1]),
        },
        "paid": receipt.paid,
        "repaid": receipt.repaid,
        "net": net,
        "ticks": receipt.ticks,
        "limit": limits,
        "max_exposure": exposure,
        "reason": receipt.reason,
        "chain": chain,
        "transactions": transactions,
        "gas": sum(one["gas"] for one in transactions),
    }
    return document, wrong
