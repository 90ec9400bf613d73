"""The replay of a whole site: a devnet, its poles and its cars as three processes, every real session of a file."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.core.errors import UsageError
from penstock.core.identity import parse_address
from penstock.ledgers.devnet.manifest import MAX_ACCOUNTS, dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.sim.charges import read_charges
from penstock.sim.processes import Child, Event
from penstock.sim.site import CREDIT

STARTING = 60.0  # seconds for a process to come up

Watch = Callable[[str, str, Event], None]


async def run_replay(
    csv: Path | None, number: int | None, allowed: bool, directory: Path, watch: Watch
) -> dict[str, Any]:
    """Replay the first `number` sessions of `csv` (all; the packaged month) with homes and chain in `directory`.

    Every car opens its channel by one signature (EIP-3009), or, where the contract is `allowed` to take from its wallet
    beforehand, from the token.

    Raises:
        UsageError: the file is wrong, or has more sessions than a devnet has keys. PenstockError: a process failed.
    """
    csv = csv.absolute() if csv else None  # noqa: ASYNC240 -- no disk is touched
    charges = read_charges(csv)[:number]
    if len(charges) >= MAX_ACCOUNTS:
        raise UsageError(
            f"{len(charges)} sessions are more than a devnet has funded keys for", f"take at most {MAX_ACCOUNTS - 1}"
        )
    started = time.monotonic()
    children: list[Child] = []

    async def start(name: str, module: str, *arguments: str) -> Child:
        child = await Child.start(
            name, list(arguments), directory / name, lambda event, facts: watch(name, event, facts), module
        )
        children.append(child)
        return child

    ledger: EvmLedger | None = None
    try:
        accounts = str(len(charges) + 1)
        devnet = await start("devnet", "penstock", "devnet", "--port", "0", "--accounts", accounts, "--json")
        fsync_ms = _fsync_ms(directory)
        manifest = await asyncio.wait_for(devnet.line(), STARTING)
        contract = manifest["contracts"]["CryptoEuroChannel"]
        watch("devnet", "ready", {"url": manifest["url"], "fsync_ms": fsync_ms})
        ledger = await EvmLedger.connect(manifest["url"], parse_address(contract))
        before = await ledger.holdings(dev_key(0).address)
        facts = {
            "url": manifest["url"],
            "contract": contract,
            "directory": str(directory),
            "csv": str(csv) if csv else None,
            "number": number,
            "allowed": allowed,
        }
        site = await start("site", "penstock.sim.site", json.dumps(facts))
        listening = await asyncio.wait_for(site.event("listening"), STARTING)
        fleet = await start("fleet", "penstock.sim.fleet", json.dumps({**facts, "ports": listening["ports"]}))
        bought = await _while_alive(fleet, site)
        settling = time.monotonic()
        site.process.terminate()
        sold = await site.answer()
        after = await ledger.holdings(dev_key(0).address)
        return {
            "sessions": len(charges),
            "completed": min(bought["completed"], sold["complete"]),
            "energy_wh": min(bought["energy_wh"], sold["energy_wh"]),
            "ticks": bought["ticks"],
            "paid": bought["paid"],
            "settled": after.tokens - before.tokens,
            "credit_limit": CREDIT,
            "max_exposure": max(bought["max_exposure"], sold["max_exposure"]),
            "gas_total": bought["gas"] + sold["gas"],
            "gas_per_session": round((bought["gas"] + sold["gas"]) / len(charges)),
            "gas_approvals": bought["gas_approvals"],
            "wall_s": round(time.monotonic() - started, 2),
            "open_s": bought["open_s"],
            "stream_s": bought["stream_s"],
            "settle_s": round(time.monotonic() - settling, 2),
            "ticks_per_s": round(bought["ticks"] / bought["stream_s"]),
            "fsync_ms": fsync_ms,
            "failures": bought["failures"],
        }
    finally:
        if ledger is not None:
            await ledger.disconnect()
        await asyncio.gather(*(child.end() for child in reversed(children)))


async def _while_alive(fleet: Child, site: Child) -> Event:
    """The fleet's answer, or the site's failure where that comes first."""
    answering = asyncio.ensure_future(fleet.answer())
    dying = asyncio.ensure_future(site.process.wait())
    await asyncio.wait([answering, dying], return_when=asyncio.FIRST_COMPLETED)
    if not answering.done():
        answering.cancel()
        await site.answer()
    dying.cancel()
    return await answering


def _fsync_ms(directory: Path) -> float:
    """What making 4 KiB durable takes on this disk: the median of 100, in milliseconds."""
    path = directory / "fsync"
    times = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(100):
            os.write(file, bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file)
            times.append(time.perf_counter() - began)
    finally:
        os.close(file)
        path.unlink()
    return round(statistics.median(times) * 1000, 3)
