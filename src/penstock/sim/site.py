"""A charging site as one process: a pole for each station, all selling for one account, one charge after the other."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.core.identity import parse_address
from penstock.core.session import Session
from penstock.core.tariff import Tariff
from penstock.core.units import Quantity
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.node.clock import now
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.sim.charges import Charge, power_w, read_charges
from penstock.sim.child import Facts, main, silent, tell
from penstock.sim.line import LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Server, serve

PRICE = 400_000  # token units per kWh
TICK = 1_000
PACKAGE = Quantity(3)  # Wh: a tick buys 2.5
CREDIT = 8 * TICK


def by_station(charges: list[Charge], number: int | None = None) -> dict[str, list[Charge]]:
    """The charges of each station, one after the other as they were; only the first `number` of them all."""
    stations: dict[str, list[Charge]] = {}
    for charge in charges[:number]:
        stations.setdefault(charge.station, []).append(charge)
    for own in stations.values():
        own.sort(key=lambda charge: charge.plugged_in)
    return stations


class Station:
    """One pole, and the charges that its line will see."""

    def __init__(self, site: Site, name: str, charges: list[Charge], directory: Path) -> None:
        self.sessions: list[Session] = []
        self._charges = iter(charges)
        first = next(self._charges)
        self.line = LineSupply(
            directory / f"{name}.line", power_w(first), package=PACKAGE, clock=lambda: first.plugged_in
        )
        goods = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, PACKAGE, CREDIT)
        self.supplier = Supplier(site, Pole(name, self.line, self.line), goods, on_session=self._ended)
        self.server: Server | None = None

    async def open(self) -> int:
        """Listen; returns the port."""
        await self.supplier.restore()
        self.server = await serve("127.0.0.1", 0, self.supplier.site.key, self.supplier.on_link)
        return self.server.port

    async def close(self) -> None:
        """Stop selling."""
        await self.supplier.close()
        if self.server is not None:
            await self.server.close()
        self.line.detach()

    def _ended(self, session: Session) -> None:
        self.sessions.append(session)
        following = next(self._charges, None)
        if following is not None:
            self.line.plug(power_w(following), following.plugged_in)


async def run_site(facts: Facts, asked: asyncio.Event) -> Facts:
    """Sell until asked to end; then settle every channel that was signed off, and report."""
    directory = Path(facts["directory"])
    key = dev_key(0)
    ledger = await EvmLedger.connect(facts["url"], parse_address(facts["contract"]))
    journal = SqliteJournal(directory / "site.db")
    try:
        site = Site.with_channels(key, journal, ledger, now, silent)
        charges = by_station(read_charges(Path(facts["csv"]) if facts["csv"] else None), facts["number"])
        stations = {name: Station(site, name, own, directory) for name, own in charges.items()}
        ports = {name: await station.open() for name, station in stations.items()}
        tell("listening", ports=ports)
        await asked.wait()
        for station in stations.values():
            await station.close()
        await site.close()
        tell("settling", channels=site.unsettled)
        site.tell = tell
        mined = await site.settle()
    finally:
        await journal.close()
        await ledger.disconnect()
    sessions = [session for station in stations.values() for session in station.sessions]
    return _report(sessions, mined)


def _report(sessions: list[Session], mined: list[Any]) -> Facts:
    complete = [session for session in sessions if session.complete and session.receipt]
    return {
        "sessions": len(sessions),
        "complete": len(complete),
        "energy_wh": sum(session.meter.total for session in sessions),
        "paid": sum(session.receipt.paid for session in complete if session.receipt),
        "max_exposure": max((session.control.worst for session in sessions), default=0),
        "gas": sum(one.gas for one in mined),
        "transactions": len(mined),
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_site)
