"""Payments over hubs: a car that has one channel, to a hub, buys from a pole that it shares none with.

`run_hops` plays it over one to three hubs. `run_offline` plays it on a local network of a car, a hub and a pole from
which no ledger can be reached: the channels were opened before, and all is settled afterwards.

No process is believed. In the end both journals of every channel have to say the same; then every channel is closed on
the chain, and what each party has there must be what it had by the journals, and follow from the receipts, to the last
token unit. What hubs heard between the lock and the session's end is read off their own counters: each change of a lock
that is asked for, and each word of how one stands. (The release that answers a promise is not counted, nor the question
every twenty seconds whom a neighbour reaches.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.core.channel import Voucher
from penstock.core.errors import LedgerError, LocalError
from penstock.core.ports import Holdings, Mined
from penstock.core.session import Role
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, ending
from penstock.sim.cast import STARTING, Cast, Demo, Watch, cast
from penstock.sim.charges import Charge, power_w
from penstock.sim.gate import Gate
from penstock.sim.lan import Lan, lan
from penstock.sim.processes import Child, Event
from penstock.storage.sqlite import SqliteJournal

PRICE, PER_WH = "0.40", 400
TICK, TICK_VALUE = "0.001", 1_000
CREDIT_TICKS = 2
MAX_PRICE = "0.45"
LEND = "40"
BEFORE_WH = 100  # what the car of the offline scenario bought when it opened its channel
GATE_PORT = 8_545
ABOUT_A_LOCK = "about a lock"
_NEVER = datetime.max.replace(tzinfo=UTC)


class _Count:
    """What hubs say that they have heard about locks, by their own counters, and when the session's lock was in place
    and the session over, by the ends' own words. All processes are on one machine, and so on one clock.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._heard: dict[str, list[tuple[datetime, int]]] = {}  # by hub: when, and its counter then
        self._placed = self._accepted = self._over = _NEVER
        self.stale: list[Event] = []

    def __call__(self, who: str, event: str, facts: Event) -> None:
        self._watch(who, event, facts)
        match who, event:
            case _, "about a lock":
                self._heard.setdefault(who, []).append((_time(facts), facts["messages"]))
            case "consumer", "lock in place":
                self._placed, self._over = _time(facts), _NEVER
            case "consumer", "accepted":
                self._accepted = _time(facts)
            case "consumer" | "supplier", "ended":
                self._over = min(self._over, _time(facts))
            case _, "leaning on an old view":
                self.stale.append({"who": who, **facts})

    @property
    def streamed_s(self) -> float:
        """How long the last session has lasted (seconds)."""
        return (self._over - self._accepted).total_seconds()

    def hubs(self) -> dict[str, dict[str, int]]:
        """What each hub had heard when the last session's lock was in place, when the session was over, and in all."""
        return {
            name: {
                "at_lock": max((count for at, count in heard if at <= self._placed), default=0),
                "at_end": max((count for at, count in heard if at <= self._over), default=0),
                "in_all": heard[-1][1],
            }
            for name, heard in sorted(self._heard.items())
        }


def _time(facts: Event) -> datetime:
    return datetime.fromisoformat(facts["time"])


async def run_hops(charge: Charge, speed: float, directory: Path, watch: Watch, hubs: int = 3) -> Demo:
    """Stream `charge` at `speed` times real time over so many hubs.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started, count = time.monotonic(), _Count(watch)
    names = ["supplier", "consumer", *(f"hub{number + 1}" for number in range(hubs))]
    async with cast(directory, count, names) as players:
        before = await players.holdings()
        pole = await players.start("supplier", "supply", *_common(players), *_pole(charge, speed, directory), "--once")
        at = supplier = (await _heard(pole, "listening"))["address"]
        carriers: list[Child] = []
        for name in reversed(names[2:]):
            hub = await players.start(name, "hub", *_common(players), *_hub(at, "127.0.0.1:0"))
            at = (await _heard(hub, "listening"))["address"]
            await _heard(hub, "neighbour entered")
            carriers.insert(0, hub)
        car = await players.start("consumer", "consume", supplier, *_common(players), *_car(charge, directory, at))
        bought = await car.answer()
        sold = (await pole.answer())["sessions"][0]
        stands = await _ended(carriers)
        document, wrong = await _settle(players, before, charge.energy_wh, [bought], [sold], stands)
        document |= {
            "session": charge.session_id,
            **_heard_by(count, stands, wrong),
            "ticks_per_s": round(bought["ticks"] / count.streamed_s),
            "wall_s": round(time.monotonic() - started, 2),
        }
        return Demo(document, players.token, wrong)


async def run_offline(charge: Charge, speed: float, directory: Path, watch: Watch) -> Demo:
    """The same over one hub, on a local network from which the ledger's node cannot be reached meanwhile.

    Raises:
        UsageError: this machine, or this user, cannot make a network of its own.
        PenstockError: a process failed; its last word is in the message.
    """
    started, count = time.monotonic(), _Count(watch)
    names = ["supplier", "consumer", "hub"]
    async with lan(names) as net, cast(directory, count, names) as players:
        before = await players.holdings()
        gate = Gate(directory / "gate", int(players.url.rpartition(":")[2]))
        await gate.open()
        try:
            for name in names:
                through = await players.start(
                    name, str(GATE_PORT), str(directory / "gate"), module="penstock.sim.gate", within=net.within(name)
                )
                await asyncio.wait_for(through.line(), STARTING)
            common = _common(players, f"http://127.0.0.1:{GATE_PORT}")

            async def start(name: str, *arguments: str) -> Child:
                return await players.start(name, arguments[0], *common, *arguments[1:], within=net.within(name))

            supplier, hub_at = f"{net.address('supplier')}:7411", f"{net.address('hub')}:7421"
            pole = await start("supplier", "supply", *_pole(charge, speed, directory, supplier))
            await _heard(pole, "listening")
            hub = await start("hub", "hub", *_hub(supplier, hub_at))
            await _heard(hub, "neighbour entered")
            room = str((charge.energy_wh + BEFORE_WH) * PER_WH * 12 // 10 / 10**players.token.decimals)
            flags = [*_car(charge, directory, hub_at, BEFORE_WH), "--deposit", room]
            first = await (await start("consumer", "consume", supplier, *flags)).answer()
            await gate.shut()
            unreachable = await _unreachable(net, names)
            watch("demo", "offline", {"routes": await net.routes("consumer")})
            second = await (await start("consumer", "consume", supplier, *_car(charge, directory, hub_at))).answer()
            stood = unreachable and await _unreachable(net, names)
            await gate.open()
            watch("demo", "online", {})
            pole.process.terminate()
            sold = (await pole.answer())["sessions"]
            stands = await _ended([hub])
        finally:
            await gate.shut()
        energy = charge.energy_wh + BEFORE_WH
        document, wrong = await _settle(players, before, energy, [first, second], sold, stands)
        document |= {
            "session": charge.session_id,
            **_heard_by(count, stands, wrong),
            "ticks_per_s": round(second["ticks"] / count.streamed_s),
            "offline": {
                "ledger_reached": not stood,
                "routes": {name: await net.routes(name) for name in names},
                "energy_wh": second["total"],
                "paid": second["paid"],
                "leaned_on": count.stale,
            },
            "wall_s": round(time.monotonic() - started, 2),
        }
        if not stood:
            wrong.append("the ledger's node could be reached")
        if not count.stale:
            wrong.append("nobody said that it leans on an old view of the ledger")
        return Demo(document, players.token, wrong)


def _common(players: Cast, url: str | None = None) -> list[str]:
    """The flags that all share, without a rail: the pole takes every one."""
    flags = players.common[:-2]
    if url is not None:
        flags[flags.index("--url") + 1] = url
    return flags


def _pole(charge: Charge, speed: float, directory: Path, listen: str = "127.0.0.1:0") -> list[str]:
    return [
        "--listen", listen, "--name", charge.station, "--price", PRICE, "--tick", TICK,
        "--credit-ticks", str(CREDIT_TICKS), "--line", str(directory / "line"),
        "--power-w", str(power_w(charge)), "--speed", str(speed),
    ]  # fmt: skip


def _hub(reach: str, listen: str) -> list[str]:
    return ["--listen", listen, "--reach", reach, "--lend", LEND]


def _car(charge: Charge, directory: Path, hub: str, quantity: int | None = None) -> list[str]:
    wanted = charge.energy_wh if quantity is None else quantity
    budget = max(wanted * PER_WH * 11 // 10, 10_000) / 10**6
    return [
        "--hub", hub, "--quantity", str(wanted), "--max-price", MAX_PRICE, "--budget", f"{budget:.6f}",
        "--line", str(directory / "line"),
    ]  # fmt: skip


async def _heard(child: Child, event: str) -> Event:
    return await asyncio.wait_for(child.event(event), STARTING)


async def _ended(hubs: Sequence[Child]) -> list[Event]:
    """How the hubs stand when they are asked to end."""
    for hub in hubs:
        hub.process.terminate()
    return [await hub.answer() for hub in hubs]


def _heard_by(count: _Count, stands: list[Event], wrong: list[str]) -> dict[str, Any]:
    """What the hubs have heard, for the document; what is wrong with it goes to `wrong`."""
    hubs = count.hubs()
    between = sum(one["at_end"] - one["at_lock"] for one in hubs.values())
    told = [one["in_all"] for one in hubs.values()]
    if told != [one["messages"] for one in stands]:
        wrong.append(f"the hubs' counters: {[one['messages'] for one in stands]} in the end, {told} by their log")
    if between:
        wrong.append(f"the hubs heard {between} messages between lock and fold")
    return {"hub_messages": {"between_lock_and_fold": between, "in_all": sum(told), "hubs": hubs}}


async def _unreachable(net: Lan, names: Sequence[str]) -> bool:
    """Whether nobody on the network gets an answer from the ledger's node."""
    ask = (
        "import sys, urllib.request as r\n"
        "q = r.Request(sys.argv[1], b'{\"id\":1,\"method\":\"eth_chainId\"}', {'content-type': 'application/json'})\n"
        "print(r.urlopen(q, timeout=5).status)"
    )
    url = f"http://127.0.0.1:{GATE_PORT}"
    for name in names:
        process = await asyncio.create_subprocess_exec(
            *net.within(name), "python3", "-c", ask, url,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await process.wait() == 0:
            return False
    return True


async def _settle(
    players: Cast, before: list[Holdings], energy: int, bought: list[Event], sold: list[Event], stands: list[Event]
) -> tuple[dict[str, Any], list[str]]:
    """Close every channel, as whom it pays would; the figures, and everything that must agree and does not."""
    wrong: list[str] = []

    def same(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            wrong.append(f"{what}: {', '.join(map(str, values))}")

    for ours, theirs in zip(bought, sold, strict=True):
        if not ours["receipt"] or not theirs["receipt"]:
            raise LocalError("a session ended without a receipt on both sides")
        same("the receipts", repr(sorted(ours["receipt"].items())), repr(sorted(theirs["receipt"].items())))
    paid, fees = sum(one["paid"] for one in bought), sum(one["fees"] for one in bought)
    same("what was paid, and energy times price", paid, energy * PER_WH)
    same("what is locked in the end", *(one["locked"] for one in bought), *(one["locks"] for one in stands), 0)
    liquid = await players.holdings()
    held = await _held(players, wrong)
    mined = [await _close(players, name, index) for index, name in enumerate(players.names)]
    after = await players.holdings()
    for name, had, has in zip(players.names, liquid, after, strict=True):
        same(
            f"what the {name} had in channels by the journals, and what the chain paid out",
            held[name],
            has.tokens - had.tokens,
        )
    gains = [now.tokens - had.tokens for now, had in zip(after, before, strict=True)]
    same("what the chain paid the supplier, and the bills", gains[0], paid)
    same("what the chain took from the consumer, and the bills with the fees", -gains[1], paid + fees)
    for stand, gain, name in zip(stands, gains[2:], players.names[2:], strict=True):
        same(f"what the chain paid {name}, and its fees", gain, stand["fees"])
    same("all gains", sum(gains), 0)
    last, at_pole = bought[-1], sold[-1]
    exposure = {"supplier": at_pole["max_exposure"], "consumer": last["max_exposure"]}
    if max(exposure.values()) > last["credit_limit"]:
        wrong.append(f"an exposure of {max(exposure.values())} exceeds {last['credit_limit']}")
    document = {
        "path": ["consumer", *players.names[2:], "supplier"],
        "energy_wh": {"supplier": last["receipt"]["supplier_total"], "consumer": last["receipt"]["consumer_total"]},
        "tick_value": TICK_VALUE,
        "ticks": last["ticks"],
        "paid": paid,
        "fees": {"all": fees, **{name: one["fees"] for name, one in zip(players.names[2:], stands, strict=True)}},
        "reason": last["reason"],
        "credit_limit": last["credit_limit"],
        "max_exposure": exposure,
        "transactions": [
            {"what": one.what, "hash": "0x" + one.hash.hex(), "gas": one.gas} for row in mined for one in row
        ],
        "balances": {
            name: {"before": had.tokens, "in_channels": held[name], "after": now.tokens}
            for name, had, now in zip(players.names, before, after, strict=True)
        },
    }
    return document, wrong


async def _held(players: Cast, wrong: list[str]) -> dict[str, int]:
    """What each has in channels (token units), by the payer's and the payee's journal, which have to say the same."""
    held = dict.fromkeys(players.names, 0)
    said: dict[bytes, list[tuple[str, int, Voucher]]] = {}  # by channel: who, its deposit, the voucher, by each side
    for name in players.names:
        journal = SqliteJournal.open_readonly(players.home(name) / "journal.db")
        try:
            for row in book.channels(journal):
                books = (book.hops_out if row.pays else book.hops_in)(journal, row.params.id)
                said.setdefault(row.params.id, []).append((name, row.deposit, books[0].voucher))
                held[name] += row.deposit - books[0].voucher.amount if row.pays else books[0].voucher.amount
        finally:
            await journal.close()
    for sides in said.values():
        if len(sides) != 2 or sides[0][1:] != sides[1][1:]:
            wrong.append(f"two journals of a channel: {sides}")
        elif sides[0][2].locked:
            wrong.append(
                f"{sides[0][2].locked} token units are still locked in a channel of {sides[0][0]} and {sides[1][0]}"
            )
    return held


async def _close(players: Cast, name: str, index: int) -> list[Mined]:
    """Close every channel that pays this one, with what its journal holds; what it sent, its openings among it."""
    assert isinstance(players.ledger, EvmLedger)
    journal, mined = SqliteJournal(players.home(name) / "journal.db"), list[Mined]()
    try:
        for row in book.channels(journal):
            mined += row.mined
            if row.role is Role.SUPPLIER:
                with suppress(LedgerError):
                    sent, _ = await ending.close(journal, players.ledger, dev_key(index), row)
                    mined += sent
    finally:
        await journal.close()
    return mined
