"""kill -9 at random instants, round after round: `python -m tests.faults.rounds --rounds 200 --seed 1`.

In each round (`round.py`) processes are killed at random instants of a session's opening, stream and end, of the
settlement, of their own restarts and resumptions, as its plan has it (`plan.py`). Channels that one side had to close
alone wait for their challenge period, which passes for all of them at once after the last round. Then the chain must
have paid, to the token unit, what both signed, and know every transaction that any node was told is mined.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from penstock.core.identity import parse_address
from penstock.ledgers.evm import EvmLedger
from penstock.node import book, ending
from penstock.storage.sqlite import SqliteJournal

from .plan import plan
from .round import Lost, Round, Tally
from .scene import Scene, Side, held


def run(rounds: int, seed: int, directory: Path, only: list[int] | None = None) -> dict[str, Any]:
    """Play rounds; `only` plays just those numbers. The figures, as they are printed."""
    tally, scene = Tally(), Scene(directory)
    tally.credit_limit = scene.credit_limit
    plans = [plan(seed, number) for number in (only if only is not None else range(rounds))]
    mode = plans[0].mode
    try:
        sides = [scene.pole_side, *(scene.side(f"car{at}") for at in range(len(plans)))]
        before = asyncio.run(_tokens(scene, sides))
        scene.start_pole(mode)
        for played, side in zip(plans, sides[1:], strict=True):
            if played.mode != mode:
                mode = played.mode
                scene.end_pole()
                scene.start_pole(mode)
            began = time.monotonic()
            try:
                Round(scene, tally, played, side).run()
            except Lost as lost:
                tally.problem(f"round {played.seed}: {lost}")
                scene.nursery.quiet()
                scene.start_devnet()
                scene.start_pole(mode)
            tally.rounds += 1
            strikes = " ".join(
                f"{one.phase}:{'+'.join(one.victims)}{'~' * (one.asked is not None)}" for one in played.strikes
            )
            print(
                f"round {played.seed} {played.mode} {played.quantity} Wh {strikes}: {time.monotonic() - began:.1f} s; "
                f"{tally.ticks_acknowledged} ticks acknowledged, {tally.ticks_lost} lost",
                file=sys.stderr,
                flush=True,
            )
        scene.end_pole()
        asyncio.run(_finish(scene, sides))
        _audit(scene, tally, sides, before)
    finally:
        scene.close()
    return tally.document()


async def _tokens(scene: Scene, sides: list[Side]) -> list[int]:
    """What each side owns outside channels (token units)."""
    ledger = await EvmLedger.connect(scene.manifest["url"], parse_address(scene.contract))
    try:
        return [(await ledger.holdings(side.key.address)).tokens for side in sides]
    finally:
        await ledger.disconnect()


async def _finish(scene: Scene, sides: list[Side]) -> None:
    """End every channel that is not settled with what is in the journals, the pole's first; time passes once."""
    ledger = await EvmLedger.connect(scene.manifest["url"], parse_address(scene.contract))
    journals = [SqliteJournal(side.home / "journal.db") for side in sides]
    left: list[tuple[SqliteJournal, Side, book.ChannelRow]] = []
    latest = 0
    try:
        for side, journal in zip(sides, journals, strict=True):
            for row in book.channels(journal):
                state = await ledger.channel(row.params)
                filing = book.filing_of(journal, row)
                if state.status == "open" or (state.status == "closing" and filing is not None):
                    _, state = await ending.close(journal, ledger, side.key, row)
                if state.status == "closing":
                    latest = max(latest, state.closes_at)
                    left.append((journal, side, row))
        now = int(scene.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        scene.rpc("evm_increaseTime", max(0, latest - now) + 1)
        scene.rpc("evm_mine")
        for journal, side, row in left:
            if (await ledger.channel(row.params)).status == "closing":
                await ending.settle(journal, ledger, side.key, row)
    finally:
        for journal in journals:
            await journal.close()
        await ledger.disconnect()


def _audit(scene: Scene, tally: Tally, sides: list[Side], before: list[int]) -> None:
    """The chain against both books: what each car paid is what it signed, and what the pole got is their sum."""
    after = asyncio.run(_tokens(scene, sides))
    sold = SqliteJournal.open_readonly(scene.pole_side.home / "journal.db")
    hashes = {one.hash for row in book.channels(sold) for one in row.mined}
    spent_by_all = 0
    for side, now, then in zip(sides[1:], after[1:], before[1:], strict=True):
        own = SqliteJournal.open_readonly(side.home / "journal.db")
        receipts = [row.receipt for row in book.sessions(own) if row.receipt and row.supplier_signature]
        hashes |= {one.hash for row in book.channels(own) for one in row.mined}
        spent, signed = then - now, sum(receipt.paid for receipt in receipts)
        worth = sum(held(sold, row.params.id) for row in book.channels(own))
        own._reader.close()
        spent_by_all += spent
        if not spent == signed == worth:
            tally.units_of_difference += max(abs(spent - signed), abs(spent - worth))
            tally.problem(f"{side.home.name}: {spent} spent, {signed} signed, the pole holds vouchers for {worth}")
    sold._reader.close()
    tally.units_of_difference += abs(after[0] - before[0] - spent_by_all)
    for one in hashes:
        receipt = scene.rpc("eth_getTransactionReceipt", "0x" + one.hex())
        if receipt is None or receipt["status"] != "0x1":
            tally.problem(f"transaction 0x{one.hex()} was mined, and is gone")
    tally.transactions = len(hashes)


def main() -> None:
    """Play, and print the figures as JSON. Exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", type=int, nargs="*", help="play these rounds of the run alone")
    parser.add_argument("--keep", type=Path, help="keep homes, tapes and chain in this new directory")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as directory:
        where = asked.keep or Path(directory)
        where.mkdir(parents=True, exist_ok=asked.keep is None)
        document = run(asked.rounds, asked.seed, where, asked.only)
    print(json.dumps({"seed": asked.seed, **document}, indent=2))
    worst = max(document["worst_loss_supplier"], document["worst_loss_consumer"])
    lost = document["ticks_lost"] or document["units_of_difference"] or document["problems"]
    sys.exit(bool(lost) or worst > document["credit_limit"])


if __name__ == "__main__":
    main()
