"""One car of a comparison, as a process: the real consumer at a simulated line, which may stop paying halfway.

Its argument is a JSON object: `url` and `contract` of the ledger, the `rail`, a `directory`, the real session's
`charge`, the car's `account` (which of the devnet's keys), the pole's `port`, the `patience` with it (ms), whether it
`pays` to the end, and whether it `leaves` alone, with the rest of its deposit, where the pole has gone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec

from penstock.core.errors import PenstockError
from penstock.core.identity import parse_address
from penstock.core.ports import Link
from penstock.core.session import Patience, Session
from penstock.core.units import Duration, Price
from penstock.ledgers.contract import Contract
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.jsonrpc import Node
from penstock.node.clock import now
from penstock.node.consumer import Consumer, Wish
from penstock.sim.charges import Charge
from penstock.sim.child import Facts, main, tell
from penstock.sim.gauge import Heard, NotedLink, Series
from penstock.sim.line import LineMeter
from penstock.sim.parts import PARTS, Parts
from penstock.sim.pole import PRICE
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import connect

LISTENING = 0.005  # s


async def run_car(facts: Facts, asked: asyncio.Event) -> Facts:
    """Buy the session's energy, and report."""
    charge, key = msgspec.convert(facts["charge"], Charge), dev_key(facts["account"])
    directory, series = Path(facts["directory"]), Series(charge)
    price: Price = PRICE.price(0)
    budget = price.cost(charge.energy_wh)
    heard = Heard(directory)
    meter = LineMeter(directory / "line")
    journal = SqliteJournal(directory / "car.db")
    parts, ledgers = PARTS[facts["rail"]], list[Contract]()

    async def ledger() -> Contract:
        if not ledgers:
            ledgers.append(await parts.ledger.connect(facts["url"], parse_address(facts["contract"])))
        return ledgers[0]

    def step() -> None:
        if consumer.session is not None:
            session = consumer.session
            series.note(session, session.meter.at, session.control.given)
            heard.tell(session.claimed)

    def silent() -> bool:
        session = consumer.session
        return not facts["pays"] and session is not None and 2 * session.claimed >= charge.energy_wh

    async def dial() -> Link:
        return NotedLink(await connect("127.0.0.1", facts["port"], key), step, silent)

    patience = Patience(Duration(facts["patience"]), Duration(facts["patience"]))
    wish = Wish(price, budget, charge.energy_wh)
    purse = parts.purse(key, journal, ledger, tell)
    consumer = Consumer(key, journal, meter, dial, wish, now, tell, purse, patience)

    async def hear() -> None:
        while True:  # what came while the session was made reaches it without another frame
            step()
            await asyncio.sleep(LISTENING)

    fault, hearing = "", asyncio.ensure_future(hear())
    try:
        await _bought(consumer, asked)
    except PenstockError as error:
        if consumer.session is None:
            raise
        fault = error.line()
    else:
        if facts["leaves"] and consumer.session is not None and not consumer.session.complete:
            await _leave(parts, journal, await ledger(), facts)
    finally:
        hearing.cancel()
        meter.detach()
        heard.close()
        await journal.close()
        for one in ledgers:
            await one.disconnect()
    return {"fault": fault, "series": series.rows(), **_outcome(consumer.session)}


async def _leave(parts: Parts, journal: SqliteJournal, ledger: Contract, facts: Facts) -> None:
    node = Node(facts["url"])
    try:
        await parts.leave(journal, ledger, dev_key(facts["account"]), node)
    finally:
        await node.close()


async def _bought(consumer: Consumer, asked: asyncio.Event) -> None:
    """Buy until the session is over or we are asked to end."""
    buying, asking = asyncio.ensure_future(consumer.buy()), asyncio.ensure_future(asked.wait())
    await asyncio.wait([buying, asking], return_when=asyncio.FIRST_COMPLETED)
    asking.cancel()
    if not buying.done():
        buying.cancel()
    with suppress(asyncio.CancelledError):
        await buying


def _outcome(session: Session | None) -> Facts:
    if session is None:
        return {"total": 0, "paid": 0, "worst": 0, "complete": False, "reason": ""}
    return {
        "total": session.meter.total,
        "paid": session.paid,
        "worst": session.control.worst,
        "complete": session.complete,
        "reason": str(session.reason or ""),
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_car)
