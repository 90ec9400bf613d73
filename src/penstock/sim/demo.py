"""The main scenario: a devnet, a pole and a car as three processes stream one real charging session and settle it.

What the processes say of themselves is not believed: at the end both receipts, both journals and the chain are read
anew and must agree to the last token unit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import LocalError
from penstock.core.identity import parse_address
from penstock.core.ports import Holdings, TokenFacts
from penstock.core.session import Role
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.sim.charges import Charge, power_w
from penstock.sim.processes import Child, Event
from penstock.storage import keystore
from penstock.storage.sqlite import SqliteJournal

PRICE = "0.40"
TICK = "0.001"
CREDIT_TICKS = 2
MAX_PRICE = "0.45"
PASSPHRASE = "demo"  # noqa: S105 -- the keys are a devnet's, which everybody knows
STARTING = 60.0  # seconds for a process to come up
CHANNEL, ESCROW = "stream-channel", "escrow"
_ROLES = (Role.SUPPLIER, Role.CONSUMER)
_LEDGERS: dict[str, tuple[str, str, Callable[..., Awaitable[EvmLedger | EvmEscrows]]]] = {
    CHANNEL: ("CryptoEuroChannel", "--contract", EvmLedger.connect),
    ESCROW: ("CryptoEuroEscrow", "--escrow", EvmEscrows.connect),
}

Watch = Callable[[str, str, Event], None]
"""Told of each event of a process: who, what, and the facts."""


class Demo(NamedTuple):
    """What came of it: the figures as JSON, the token's form, and what did not agree (nothing, if all went well)."""

    document: dict[str, Any]
    token: TokenFacts
    disagreements: list[str]


class _Side(NamedTuple):
    role: Role
    home: Path
    before: Holdings


async def run_demo(charge: Charge, speed: float, directory: Path, watch: Watch, rail: str = CHANNEL) -> Demo:
    """Stream `charge` at `speed` times real time over `rail`; homes, chain and line are kept in `directory`.

    Raises:
        PenstockError: a process failed; its last word is in the message.
    """
    started = time.monotonic()
    children: list[Child] = []

    async def start(name: str, *arguments: str) -> Child:
        child = await Child.start(
            name, list(arguments), directory / name, lambda event, facts: watch(name, event, facts)
        )
        children.append(child)
        return child

    ledger: EvmLedger | EvmEscrows | None = None
    try:
        devnet = await start("devnet", "devnet", "--port", "0", "--accounts", "2", "--json")
        common = _prepare(directory)
        manifest = await asyncio.wait_for(devnet.line(), STARTING)
        watch("devnet", "ready", manifest)
        name, flag, connect = _LEDGERS[rail]
        contract = manifest["contracts"][name]
        ledger = await connect(manifest["url"], parse_address(contract))
        token = await ledger.token()
        sides = [
            _Side(role, directory / role, await ledger.holdings(dev_key(index).address))
            for index, role in enumerate(_ROLES)
        ]
        common += ["--url", manifest["url"], flag, contract, "--rail", rail]
        pole = await start("supplier", "supply", *common, *_pole(charge, speed, directory))
        listening = await asyncio.wait_for(pole.event("listening"), STARTING)
        budget = _budget(charge, token)
        car = await start(
            "consumer", "consume", listening["address"], *common,
            "--expect", listening["supplier"], "--quantity", str(charge.energy_wh), "--max-price", MAX_PRICE,
            "--budget", budget, "--line", str(directory / "line"),
        )  # fmt: skip
        bought, sold = await asyncio.gather(car.answer(), pole.answer())
        after = [await ledger.holdings(dev_key(index).address) for index in range(2)]
        audit = await _audit(charge, sides, after, bought, sold, ledger)
        document = _document(charge, sides, after, bought, sold)
        document["wall_s"] = round(time.monotonic() - started, 2)
        return Demo(document, token, audit)
    finally:
        if ledger is not None:
            await ledger.disconnect()
        await asyncio.gather(*(child.end() for child in reversed(children)))


def _prepare(directory: Path) -> list[str]:
    """Both homes with their keys; the flags that both sides share."""
    passphrase = directory / "passphrase"
    passphrase.write_text(PASSPHRASE + "\n")
    for index, role in enumerate(_ROLES):
        home = directory / role
        home.mkdir(mode=0o700)
        keystore.create(home / "keys", "demo", PASSPHRASE, dev_key(index).secret, cost=keystore.LIGHT)
    return ["--key", "demo", "--passphrase-file", str(passphrase), "--log", "json", "--json"]


def _pole(charge: Charge, speed: float, directory: Path) -> list[str]:
    return [
        "--once", "--listen", "127.0.0.1:0", "--name", charge.station, "--price", PRICE, "--tick", TICK,
        "--credit-ticks", str(CREDIT_TICKS), "--line", str(directory / "line"),
        "--power-w", str(power_w(charge)), "--speed", str(speed),
    ]  # fmt: skip


def _budget(charge: Charge, token: TokenFacts) -> str:
    """Half more than the session costs, in whole tokens."""
    cost = charge.energy_wh * 400 * 3 // 2
    return f"{max(cost, 10_000) / 10**token.decimals:.{token.decimals}f}"


async def _audit(
    charge: Charge,
    sides: list[_Side],
    after: list[Holdings],
    bought: Event,
    sold: Event,
    ledger: EvmLedger | EvmEscrows,
) -> list[str]:
    """Everything that must agree and does not."""
    wrong: list[str] = []

    def same(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            wrong.append(f"{what}: {', '.join(map(str, values))}")

    supplier, consumer = sold["sessions"][0]["receipt"], bought["receipt"]
    if not supplier or not consumer:
        raise LocalError("the session ended without a receipt on both sides")
    same("the receipts", repr(sorted(supplier.items())), repr(sorted(consumer.items())))
    same(
        "both meters and the session's energy", consumer["supplier_total"], consumer["consumer_total"], charge.energy_wh
    )
    paid = charge.energy_wh * 400
    same("the receipt and energy times price", consumer["paid"], paid)
    for side in sides:
        journal = SqliteJournal.open_readonly(side.home / "journal.db")
        try:
            promised, stands = await _account(journal, ledger)
            same(f"what the {side.role} holds signed, and the bill", promised, paid)
            same(f"the {side.role}'s account on the chain", stands, "over")
        finally:
            await journal.close()
    gains = [now.tokens - side.before.tokens for side, now in zip(sides, after, strict=True)]
    same("what the chain paid the supplier, and the bill", gains[0], paid)
    same("what the chain took from the consumer, and the bill", -gains[1], paid)
    for side, seen in zip(sides, (sold["sessions"][0], bought), strict=True):
        if seen["max_exposure"] > seen["credit_limit"]:
            wrong.append(f"the {side.role}'s exposure of {seen['max_exposure']} exceeds {seen['credit_limit']}")
    return wrong


async def _account(journal: SqliteJournal, ledger: EvmLedger | EvmEscrows) -> tuple[int | None, str]:
    """What was promised in the one channel or escrow of a journal (token units), and how it stands on the chain."""
    if isinstance(ledger, EvmLedger):
        (channel,) = book.channels(journal)
        note = book.last_note(journal, channel)
        status: str = (await ledger.channel(channel.params)).status
        return note.voucher.amount if note else None, "over" if status == "settled" else status
    (escrow,) = book.escrows(journal)
    end = book.end_of(journal, escrow.params.id)
    status = (await ledger.escrow(escrow.params)).status
    return end.amount if end else None, "over" if status == "ended" else status


def _document(charge: Charge, sides: list[_Side], after: list[Holdings], bought: Event, sold: Event) -> dict[str, Any]:
    receipt, supplier = bought["receipt"], sold["sessions"][0]
    return {
        "session": charge.session_id,
        "rail": bought["rail"],
        "energy_wh": {"supplier": receipt["supplier_total"], "consumer": receipt["consumer_total"]},
        "tick_value": 1_000,
        "ticks": receipt["ticks"],
        "paid": receipt["paid"],
        "credit_limit": bought["credit_limit"],
        "max_exposure": {"supplier": supplier["max_exposure"], "consumer": bought["max_exposure"]},
        "reason": receipt["reason"],
        "transactions": bought["transactions"] + sold["transactions"],
        "balances": {
            str(side.role): {"before": side.before.tokens, "after": now.tokens}
            for side, now in zip(sides, after, strict=True)
        },
    }
