"""A site of several poles under its grid, as a process: it sells for one account and obeys the grid's server.

Its argument is a JSON object: `url` and `contract` of the ledger, a `directory` for journal and lines, the grid's
server and the file of credentials there (`grid`, `grid_key`), the pause between two polls (`every`, s), whether it
`listens` for notifications, the `poles` (name: [W to a car, W back]), and the `speed` of their lines.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from penstock.core.identity import parse_address
from penstock.core.offer import Feed
from penstock.core.session import Session
from penstock.core.tariff import Tariff
from penstock.core.units import Quantity
from penstock.gateways.openadr import Client, Reading, load
from penstock.gateways.openadr import Site as Enrolled
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.node.clock import now
from penstock.node.gateway import Gateway
from penstock.node.grid import Operator, Tie, Tied
from penstock.node.sharing import Outlet
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole
from penstock.sim.child import Facts, main, tell
from penstock.sim.gridcar import outcome
from penstock.sim.line import LineSupply
from penstock.sim.obeying import Witness
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import serve

PRICE, BACK, PER = 400_000, 300_000, 1_000  # token units per kWh, to a car and back
PACKAGE = Quantity(10)  # Wh
TICK, BACK_TICK = 4_000, 3_000  # token units: a package
FEED = Feed(Tariff.flat(BACK, PER), BACK_TICK, PACKAGE, 3 * BACK_TICK, 50_000)
GOODS = Goods("electricity", Tariff.flat(PRICE, PER), TICK, PACKAGE, 3 * TICK)
SEED = b"a site of the demo"


async def run_site(facts: Facts, asked: asyncio.Event) -> Facts:
    """Sell until asked to end; then settle every channel that was signed off, and report."""
    directory, key = Path(facts["directory"]), dev_key(0)
    ledger = await EvmLedger.connect(facts["url"], parse_address(facts["contract"]))
    journal = SqliteJournal(directory / "site.db")
    lines = {
        name: LineSupply(directory / name, power, facts["speed"], package=PACKAGE, feed_w=back)
        for name, (power, back) in facts["poles"].items()
    }
    sessions: list[Session] = []
    try:
        witness = Witness(lines, int(PACKAGE), tell)
        site = Site.with_channels(key, journal, ledger, now, witness.hear)
        gateway = Gateway(site, [Pole(name, line, line) for name, line in lines.items()], GOODS, None, sessions.append)
        tied = []
        for name, (power, back) in facts["poles"].items():
            if back:
                gateway.poles[name].goods = GOODS._replace(feed=FEED)
            tied.append(Tied(gateway.poles[name], Outlet(name, lines[name], power, back), lines[name].power))
        tie = Tie(site, tied)
        witness.watch(tie.steering, tie.limit)
        client = Client(facts["grid"], load(Path(facts["grid_key"])))
        enrolled = Enrolled("site-1", tuple(lines), listen=("127.0.0.1", 0) if facts["listens"] else None)
        operator = Operator(client, enrolled, Reading({"EUR": 10**6}, SEED), facts["every"])
        await gateway.restore()
        server = await serve("127.0.0.1", 0, key, gateway.on_link, on_full=gateway.visits.make_room)
        looking = asyncio.ensure_future(witness.look())
        try:
            async with tie.listening(operator):
                tell("listening", port=server.port)
                await asked.wait()
        finally:
            looking.cancel()
            await gateway.close()
            await server.close()
            await site.close()
        mined = await site.settle()
    finally:
        for line in lines.values():
            line.detach()
        await journal.close()
        await ledger.disconnect()
    settled = [{"what": one.what, "hash": "0x" + one.hash.hex(), "gas": one.gas} for one in mined]
    return {"sessions": [outcome(session) for session in sessions], "transactions": settled}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_site)
