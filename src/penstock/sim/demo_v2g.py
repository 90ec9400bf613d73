"""The reversal scenario: a car charges, feeds in and charges again, in one session over one two-way channel.

The stay and the energy are a real session's. Its car takes 60 % of its energy, gives 40 % of that back, and then takes
what is missing, so that it leaves with what the real one left with: `profile`. The consumer turns the flow, by the two
registers (`penstock consume --turns`). Where the stay is too short for that at a station's power, the line has more.

As in the plain scenario no process is believed: the bill is computed anew from the line's registers, and receipts,
meters, both journals' vouchers, the sums on the chain and its log of openings and settlements must agree with it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import LocalError
from penstock.core.identity import to_hex
from penstock.core.ports import Holdings
from penstock.core.session import Role, SessionRow
from penstock.ledgers.abi import Interface
from penstock.ledgers.artifacts import load
from penstock.ledgers.evm import EvmLedger
from penstock.ledgers.jsonrpc import Node
from penstock.node import book
from penstock.sim.cast import STARTING, Cast, Demo, Watch, cast
from penstock.sim.charges import STATION_POWER, Charge
from penstock.sim.processes import Event
from penstock.sim.recorder import Recorder, about
from penstock.sim.register import Register
from penstock.sim.samples import SampleLog
from penstock.storage.sqlite import SqliteJournal

PRICE, FEED_PRICE = "0.40", "0.50"  # in the evening peak what is fed in is worth more than what is bought at night
PER_WH, FEED_PER_WH = 400, 500  # token units: the same prices
TICK, TICK_VALUE = "0.001", 1_000
CREDIT_TICKS = 2
MAX_PRICE, MIN_FEED = "0.45", "0.45"
SAMPLES = "samples.jsonl"
FIRST, BACK = 60, 40  # %: of the energy before the first turn, and of that what is fed in
_ROLES = (Role.SUPPLIER, Role.CONSUMER)


class Profile(NamedTuple):
    """What flows to the car, back, and to the car again (Wh)."""

    first: int
    back: int
    second: int

    @property
    def total(self) -> int:
        """What flows to the car in all."""
        return self.first + self.second

    @property
    def turns(self) -> str:
        """As `penstock consume --turns` takes it, in kWh."""
        return ",".join(f"{wh / 1_000:.3f}" for wh in (self.first, -self.back, self.second))


def profile(charge: Charge) -> Profile:
    """What the car of a real session does here; see above. The net energy is the session's."""
    first = max(1, charge.energy_wh * FIRST // 100)
    back = max(1, first * BACK // 100)
    return Profile(first, back, charge.energy_wh - first + back)


def line_w(charge: Charge) -> int:
    """The line's power (W): a station's, or what moves all of it both ways within the stay."""
    moved = profile(charge).total + profile(charge).back
    return max(STATION_POWER, -(-moved * 3_600_000 // (charge.unplugged - charge.plugged_in)))


class _Side(NamedTuple):
    """What one side's journal holds: its one session, one channel, and both directions' newest vouchers (sums)."""

    row: SessionRow
    channel: book.ChannelRow
    paid: int
    repaid: int


async def run_v2g(charge: Charge, speed: float, directory: Path, watch: Watch) -> Demo:
    """Play it at `speed` times real time; homes, chain, line and samples are kept in `directory`.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started = time.monotonic()
    limit = CREDIT_TICKS * TICK_VALUE
    title = f"Session {charge.session_id}: charge, feed in, charge again"
    with SampleLog(directory / SAMPLES, about(title, limit, limit)) as log:
        recorder = Recorder(log, charge.plugged_in)

        def heard(who: str, event: str, facts: Event) -> None:
            watch(who, event, facts)
            if (sample := recorder.take(who, event, facts)) is not None:
                watch("demo", "sample", {"sample": sample})

        async with cast(directory, heard, _ROLES) as players:
            before = await players.holdings()
            bought, sold = await _trade(charge, speed, players)
            after = await players.holdings()
            document, wrong = await _audit(charge, players, before, after, bought, sold)
            energy = document["energy_wh"]["supplier"]
            recorder.end(energy["to_consumer"], energy["back"], document["paid"], document["repaid"], document["ticks"])
            document["wall_s"] = round(time.monotonic() - started, 2)
            return Demo(document, players.token, wrong)


async def _trade(charge: Charge, speed: float, players: Cast) -> tuple[Event, Event]:
    """Both processes from their start to their answers: the consumer's and the supplier's."""
    line, moved = str(players.directory / "line"), profile(charge)
    pole = await players.start(
        "supplier", "supply", *players.common, "--once", "--listen", "127.0.0.1:0", "--name", charge.station,
        "--price", PRICE, "--tick", TICK, "--credit-ticks", str(CREDIT_TICKS), "--line", line,
        "--power-w", str(line_w(charge)), "--speed", str(speed), "--feed-price", FEED_PRICE,
    )  # fmt: skip
    listening = await asyncio.wait_for(pole.event("listening"), STARTING)
    budget = f"{max(moved.total * PER_WH * 3 // 2, 10_000) / 10**players.token.decimals:.{players.token.decimals}f}"
    car = await players.start(
        "consumer", "consume", listening["address"], *players.common, "--expect", listening["supplier"],
        "--turns", moved.turns, "--max-price", MAX_PRICE, "--min-feed", MIN_FEED, "--budget", budget, "--line", line,
    )  # fmt: skip
    bought, sold = await asyncio.gather(car.answer(), pole.answer())
    return bought, sold


async def _audit(
    charge: Charge, players: Cast, before: list[Holdings], after: list[Holdings], bought: Event, sold: Event
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and everything that must agree and does not."""
    wrong: list[str] = []

    def same(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            wrong.append(f"{what}: {', '.join(map(str, values))}")

    sides = [await held(players.home(role)) for role in _ROLES]
    pole, car = sides
    receipt = pole.row.receipt
    if receipt is None or car.row.receipt is None or not (car.row.supplier_signature and pole.row.consumer_signature):
        raise LocalError("the session ended without a receipt on both sides")
    same("the receipts", receipt, car.row.receipt)
    total, export = registers(players.directory / "line")
    moved = profile(charge)
    same("both meters, the line and the profile, to the car", receipt.supplier_total, receipt.consumer_total, total,
         moved.total)  # fmt: skip
    same("both meters, the line and the profile, back", receipt.supplier_export, receipt.consumer_export, export,
         moved.back)  # fmt: skip
    net = total * PER_WH - export * FEED_PER_WH
    same("the receipt's net, and registers times prices", receipt.paid - receipt.repaid, net)
    same("unpaid", receipt.unpaid, 0)
    same("the channel", pole.channel.params.id, car.channel.params.id)
    for role, side in zip(_ROLES, sides, strict=True):
        same(f"what the consumer promised by the {role}'s journal, and the receipt", side.paid, receipt.paid)
        same(f"what the supplier promised by the {role}'s journal, and the receipt", side.repaid, receipt.repaid)
    gains = [now.tokens - then.tokens for then, now in zip(before, after, strict=True)]
    same("what the chain paid the supplier, and the net", gains[0], net)
    same("what the chain took from the consumer, and the net", -gains[1], net)
    assert isinstance(players.ledger, EvmLedger)
    same("the channel on the chain", (await players.ledger.channel(pole.channel.params)).status, "settled")
    chain = await logged(players)
    if chain != {"opens": 1, "closes": 1}:
        wrong.append(f"the chain's log: {chain}, not one opening and one settlement")
    limits = limits_of(pole.row)
    exposure = {"supplier": pole.row.worst, "consumer": car.row.worst}
    wrong += [f"the {who}'s exposure of {exposure[who]} exceeds {limits[who]}" for who in limits
              if exposure[who] > limits[who]]  # fmt: skip
    transactions = bought["transactions"] + sold["transactions"]
    document = {
        "session": charge.session_id,
        "rail": bought["rail"],
        "energy_wh": {
            "supplier": {"to_consumer": receipt.supplier_total, "back": receipt.supplier_export},
            "consumer": {"to_consumer": receipt.consumer_total, "back": receipt.consumer_export},
        },
        "turns": moved.turns,
        "paid": receipt.paid,
        "repaid": receipt.repaid,
        "net": receipt.paid - receipt.repaid,
        "ticks": receipt.ticks,
        "tick_value": TICK_VALUE,
        "limit": limits,
        "max_exposure": exposure,
        "reason": receipt.reason,
        "chain": chain,
        "transactions": transactions,
        "gas": sum(one["gas"] for one in transactions),
        "balances": {
            str(role): {"before": then.tokens, "after": now.tokens}
            for role, then, now in zip(_ROLES, before, after, strict=True)
        },
    }
    return document, wrong


async def held(home: Path) -> _Side:
    """What the journal in a home has of its one session and channel."""
    journal = SqliteJournal.open_readonly(home / "journal.db")
    try:
        (row,), (channel,) = book.sessions(journal), book.channels(journal)
        notes = [book.last_note(journal, channel, back) for back in (False, True)]
        return _Side(row, channel, *(note.voucher.amount if note else 0 for note in notes))
    finally:
        await journal.close()


def registers(line: Path) -> tuple[int, int]:
    """What the line itself has counted: to the car, and back (Wh)."""
    register = Register.read_end(line)
    try:
        entry = register.read()
        return entry.total, entry.export
    finally:
        register.close()


def limits_of(row: SessionRow) -> dict[str, int]:
    """What each side agreed to have at stake at most (token units)."""
    assert row.terms.feed is not None
    return {"supplier": row.terms.offer.credit_limit, "consumer": row.terms.feed.credit_limit}


async def logged(players: Cast) -> dict[str, int]:
    """How many channels were opened and settled there, by the chain's own log."""
    interface, node = Interface(load("Channel")["abi"]), Node(players.url)
    try:
        counts = {}
        for name, event in (("opens", "Opened"), ("closes", "Settled")):
            wanted = {
                "address": to_hex(players.ledger.domain.contract), "fromBlock": "0x0", "toBlock": "latest",
                "topics": [to_hex(interface.topic(event))],
            }  # fmt: skip
            counts[name] = len(await node.ask("eth_getLogs", wanted))
        return counts
    finally:
        await node.close()
