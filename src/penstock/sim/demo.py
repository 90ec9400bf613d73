"""The main scenario: a devnet, a pole and a car as three processes stream one real charging session and settle it.

What the processes say of themselves is not believed: at the end both receipts, both journals and the chain are read
anew and must agree to the last token unit.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, NamedTuple

from penstock.core.errors import LocalError
from penstock.core.ports import Holdings, TokenFacts
from penstock.core.session import Role
from penstock.ledgers.escrow import EvmEscrows
from penstock.ledgers.evm import EvmLedger
from penstock.node import book
from penstock.sim.cast import CHANNEL, STARTING, Demo, Watch, cast
from penstock.sim.charges import Charge, power_w
from penstock.sim.processes import Event
from penstock.storage.sqlite import SqliteJournal

PRICE = "0.40"
TICK = "0.001"
CREDIT_TICKS = 2
MAX_PRICE = "0.45"
_ROLES = (Role.SUPPLIER, Role.CONSUMER)


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
    async with cast(directory, watch, _ROLES, rail) as players:
        before = await players.holdings()
        sides = [_Side(role, players.home(role), one) for role, one in zip(_ROLES, before, strict=True)]
        pole = await players.start("supplier", "supply", *players.common, *_pole(charge, speed, directory))
        listening = await asyncio.wait_for(pole.event("listening"), STARTING)
        car = await players.start(
            "consumer", "consume", listening["address"], *players.common,
            "--expect", listening["supplier"], "--quantity", str(charge.energy_wh), "--max-price", MAX_PRICE,
            "--budget", _budget(charge, players.token), "--line", str(directory / "line"),
        )  # fmt: skip
        bought, sold = await asyncio.gather(car.answer(), pole.answer())
        after = await players.holdings()
        audit = await _audit(charge, sides, after, bought, sold, players.ledger)
        document = _document(charge, sides, after, bought, sold)
        document["wall_s"] = round(time.monotonic() - started, 2)
        return Demo(document, players.token, audit)


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
