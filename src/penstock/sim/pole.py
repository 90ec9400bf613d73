"""One pole of a comparison, as a process: the real supplier on a simulated line, with a meter that may lie.

Its argument is a JSON object: `url` and `contract` of the ledger, the `rail`, a `directory`, the real session's
`charge`, the `patience` with a consumer (ms), and what its `meter` is: "true", "creeps" or "jumps" (`sim.gauge`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec

from penstock.core.identity import parse_address
from penstock.core.meter import Reading, Tolerance
from penstock.core.session import Patience, Session
from penstock.core.tariff import Tariff
from penstock.core.units import Duration, Quantity
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.jsonrpc import Node
from penstock.node.clock import now
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.sim.charges import Charge, power_w
from penstock.sim.child import Facts, main, tell
from penstock.sim.gauge import Creep, Gauge, Heard, Jump, Lie, Series, Truth
from penstock.sim.line import LineSupply
from penstock.sim.parts import PARTS
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import serve

PRICE = Tariff.flat(400_000, 1_000)  # token units a kWh
TICK = 1_000
CREDIT = 2 * TICK
PACKAGE = Quantity(3)  # Wh: a tick buys 2.5
TOLERANCE = Tolerance(5, 20_000)
LEAVING = 10.0  # seconds that a consumer gets to sign off after its session
LOOK = 0.02


def lie_of(meter: str, charge: Charge) -> Lie:
    """What a meter of that kind makes of what flows."""
    if meter == "creeps":
        return Creep(TOLERANCE)
    return Jump(charge.energy_wh) if meter == "jumps" else Truth()


class _Stand:
    """The pole, its line, and the one session that it sells."""

    def __init__(self, facts: Facts, site: Site, charge: Charge) -> None:
        self.line = LineSupply(
            Path(facts["directory"]) / "line", power_w(charge), package=PACKAGE, clock=lambda: charge.plugged_in
        )
        self.series = Series(charge)
        self.session: Session | None = None
        self.ended = asyncio.Event()
        self.heard = Heard(Path(facts["directory"]))
        gauge = Gauge(self.line, lie_of(facts["meter"], charge), self.heard, self._announced, self._note)
        goods = Goods("electricity", PRICE, TICK, PACKAGE, CREDIT, tolerance=TOLERANCE)
        # It looks once a second. Were the time to come back no longer than that, a consumer that has stopped paying
        # would be a stalled one or one that is gone, as the seconds fall.
        patience = Patience(Duration(facts["patience"]), Duration(3 * facts["patience"]))
        self.supplier = Supplier(site, Pole(charge.station, gauge, gauge), goods, patience, self._over)

    def _announced(self) -> int:
        shell = self.supplier.shell
        return shell.session.meter.total if shell is not None else 0

    def _note(self, reading: Reading) -> None:
        if self.supplier.shell is not None:
            session = self.supplier.shell.session
            self.series.note(session, reading.at, session.bill.due(reading.total - session.row.base.total))

    def _over(self, session: Session) -> None:
        self.session = session
        self.ended.set()


async def run_pole(facts: Facts, asked: asyncio.Event) -> Facts:
    """Sell one session, see to being paid for it, and report."""
    charge, key = msgspec.convert(facts["charge"], Charge), dev_key(0)
    parts, node = PARTS[facts["rail"]], Node(facts["url"])
    ledger = await parts.ledger.connect(facts["url"], parse_address(facts["contract"]))
    directory = Path(facts["directory"])
    journal = SqliteJournal(directory / "pole.db")
    entropy = Random(directory.name).randbytes  # noqa: S311 - the chain shows its key, and two runs have to agree
    try:
        site = Site(key, journal, now, tell, [parts.till(key, journal, ledger, now, tell, entropy)])
        stand = _Stand(facts, site, charge)
        await stand.supplier.restore()
        server = await serve("127.0.0.1", 0, key, stand.supplier.on_link)
        tell("listening", port=server.port)
        await _either(stand.ended, asked)
        session = stand.session
        if session is not None and session.complete:
            await _signed_off(site, stand.supplier)
        await stand.supplier.close()
        await server.close()
        await site.close()
        stand.line.detach()
        stand.heard.close()
        mined = await site.settle()
        if session is not None and not session.complete:
            mined += await parts.collect(journal, ledger, key, node)
    finally:
        await journal.close()
        await ledger.disconnect()
        await node.close()
    return {
        "flowed": stand.line.read().total,
        "total": session.meter.total if session else 0,
        "paid": session.paid if session else 0,
        "ticks": session.ticks if session else 0,
        "complete": session is not None and session.complete,
        "reason": str(session.reason or "") if session else "",
        "worst": session.control.worst if session else 0,
        "series": stand.series.rows(),
        "steps": stand.series.steps,
        "transactions": ["0x" + one.hash.hex() for one in mined],
    }


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _signed_off(site: Site, supplier: Supplier) -> None:
    """Wait for the consumer to sign its channel off, or to leave without."""
    for _ in range(int(LEAVING / LOOK)):
        if site.unsettled or (supplier.parted and not supplier.visits):
            return
        await asyncio.sleep(LOOK)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_pole)
