"""Many cars in one process, each with a key, a journal and a channel of its own, at the stations of one site."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from penstock.core.channel import APART, ChannelParams
from penstock.core.errors import LedgerError, PenstockError
from penstock.core.identity import Key, parse_address
from penstock.core.messages import Reason
from penstock.core.ports import Ledger, Link
from penstock.core.session import Role, Session
from penstock.core.units import Amount, Price
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger, Opening
from penstock.node.book import ChannelRow
from penstock.node.channel_purse import ChannelPurse
from penstock.node.clock import now
from penstock.node.consumer import Consumer, Wish
from penstock.node.tasks import durable
from penstock.sim.charges import Charge, read_charges
from penstock.sim.child import Facts, main, silent, tell
from penstock.sim.line import LineMeter
from penstock.sim.site import PRICE, by_station
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import connect

PERIOD = 3_600  # seconds
REPORT = 0.5  # seconds
WAVE = 200  # channels opened at once


class Car(NamedTuple):
    """One car: the charge that it wants, and its key."""

    charge: Charge
    key: Key

    @property
    def cost(self) -> Amount:
        """What its charge costs (token units)."""
        return Price(PRICE, 1_000).cost(self.charge.energy_wh)


class Fleet:
    """All cars of a replay, and what they have done so far."""

    def __init__(self, facts: Facts, ledger: EvmLedger) -> None:
        self._directory = Path(facts["directory"])
        self._ports: dict[str, int] = facts["ports"]
        self._ledger = ledger
        stations = by_station(read_charges(Path(facts["csv"]) if facts["csv"] else None), facts["number"])
        keys = iter(range(1, 2_000))
        self.stations = {name: [Car(one, dev_key(next(keys))) for one in own] for name, own in stations.items()}
        self._allowed: bool = facts["allowed"]  # whether the contract was allowed to take from the wallets before
        self.gas = self.gas_approvals = 0
        self.sessions: list[Session] = []
        self.failures: list[str] = []
        self._running: dict[str, Consumer] = {}

    async def open(self) -> None:
        """Open a channel for every car, as deep as its charge costs; many openings share a block.

        Raises:
            LedgerError: one was not opened.
        """
        site = dev_key(0).address
        cars = [car for own in self.stations.values() for car in own]
        for start in range(0, len(cars), WAVE):
            openings = []
            for car in cars[start : start + WAVE]:
                address = car.key.address
                params = ChannelParams(self._ledger.domain, address, site, address, site, PERIOD, False, APART)
                openings.append(Opening(car.key, params, Amount(max(car.cost, 1_400))))
            if self._allowed:
                approved = await asyncio.gather(*(self._ledger.approve(one.key, one.deposit) for one in openings))
                self.gas_approvals += sum(one.gas for mined in approved for one in mined)
            results = await self._ledger.open_many(openings)
            for car, opening, mined in zip(cars[start:], openings, results, strict=False):
                if isinstance(mined, PenstockError):
                    raise LedgerError(f"car {car.charge.session_id} cannot open its channel: {mined.line()}")
                self.gas += sum(one.gas for one in mined)
                row = ChannelRow(opening.params, Role.CONSUMER, opening.deposit, mined=tuple(mined))
                journal = SqliteJournal(self._journal(car))
                await durable(journal, row.rows())
                await journal.close()
            tell("opened", channels=min(start + WAVE, len(cars)), of=len(cars))

    async def stream(self) -> None:
        """Let every station's cars charge one after the other, the stations side by side."""
        await asyncio.gather(*(self._station(name, own) for name, own in self.stations.items()))

    async def _station(self, name: str, cars: list[Car]) -> None:
        for car in cars:
            try:
                self.sessions.append(await self._charge(name, car))
            except PenstockError as error:
                self.failures.append(f"{car.charge.session_id}: {error.line()}")
                tell("failed", session=car.charge.session_id, error=error.line())
            finally:
                self._running.pop(name, None)

    async def _charge(self, name: str, car: Car) -> Session:
        meter = LineMeter(self._directory / f"{name}.line")
        journal = SqliteJournal(self._journal(car))
        wish = Wish(Price(PRICE, 1_000), max(car.cost, 1_400), car.charge.energy_wh)

        async def ledger() -> Ledger:
            return self._ledger

        def dial() -> Awaitable[Link]:
            return connect("127.0.0.1", self._ports[name], car.key, expect=dev_key(0).address)

        purse = ChannelPurse(car.key, journal, ledger, silent, period=PERIOD)
        consumer = Consumer(car.key, journal, meter, dial, wish, now, silent, purse)
        self._running[name] = consumer
        try:
            return await consumer.buy()
        finally:
            meter.detach()
            await journal.close()

    def _journal(self, car: Car) -> Path:
        return self._directory / f"{car.charge.session_id}.db"

    def progress(self) -> Facts:
        """How far all cars are together."""
        live = [one.session for one in self._running.values() if one.session is not None]
        everyone = [*self.sessions, *live]
        return {
            "sessions": len(self.sessions),
            "ticks": sum(session.ticks for session in everyone),
            "energy_wh": sum(session.meter.total for session in everyone),
            "paid": sum(session.paid for session in everyone),
        }

    def completed(self) -> int:
        """Sessions that ended at their target with a receipt that both signed."""
        return sum(session.complete and session.reason is Reason.TARGET_REACHED for session in self.sessions)


async def run_fleet(facts: Facts, asked: asyncio.Event) -> Facts:
    """Open, charge, report."""
    ledger = await EvmLedger.connect(facts["url"], parse_address(facts["contract"]))
    try:
        fleet = Fleet(facts, ledger)
        began = time.monotonic()
        await fleet.open()
        opened = time.monotonic()
        tell("streaming", sessions=sum(map(len, fleet.stations.values())))
        telling = asyncio.ensure_future(_tell_progress(fleet))
        await fleet.stream()
        telling.cancel()
        streamed = time.monotonic()
    finally:
        await ledger.disconnect()
    return {
        **fleet.progress(),
        "completed": fleet.completed(),
        "failures": fleet.failures,
        "max_exposure": max((session.control.worst for session in fleet.sessions), default=0),
        "gas": fleet.gas,
        "gas_approvals": fleet.gas_approvals,
        "open_s": round(opened - began, 2),
        "stream_s": round(streamed - opened, 2),
    }


async def _tell_progress(fleet: Fleet) -> None:
    while True:
        await asyncio.sleep(REPORT)
        tell("progress", **fleet.progress())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_fleet)
