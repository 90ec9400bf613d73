"""A devnet, a supplier and a consumer in one event loop: real links, journals, meters and transactions.

    python examples/buy_and_sell.py

What `penstock demo` does with three processes; here the parts are put together by hand.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from penstock.core.identity import parse_address
from penstock.core.ports import Ledger, Link
from penstock.core.session import Session
from penstock.core.tariff import Tariff
from penstock.core.units import Price, Quantity
from penstock.ledgers.devnet.manifest import Manifest, dev_key
from penstock.ledgers.devnet.server import serve as serve_devnet
from penstock.ledgers.evm import EvmLedger
from penstock.node.channel_purse import ChannelPurse
from penstock.node.channel_till import ChannelTill
from penstock.node.clock import now
from penstock.node.consumer import Consumer, Wish
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole, Supplier
from penstock.sim.line import LineMeter, LineSupply
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import connect, serve

POLE, CAR = dev_key(0), dev_key(1)  # funded on every devnet, and known to everybody
PRICE, TICK = 400_000, 1_000  # token units a kWh, and a tick


def say(event: str, **facts: object) -> None:
    """What supplier and consumer tell of themselves."""
    print(event, *(f"{name}={value}" for name, value in facts.items()))


async def trade(directory: Path, ledger: EvmLedger, energy: int) -> Session:
    """Sell and buy `energy` Wh, settle the channel, and return the consumer's session."""
    sold, bought = SqliteJournal(directory / "pole.db"), SqliteJournal(directory / "car.db")
    cable = LineSupply(directory / "line", 11_000, package=Quantity(3))  # no speed: what is allowed flows at once
    meter = LineMeter(directory / "line")
    site = Site(POLE, sold, now, say, [ChannelTill(POLE, sold, ledger, now, say)])
    goods = Goods("electricity", Tariff.flat(PRICE, 1_000), TICK, package=3, credit_limit=2 * TICK)
    supplier = Supplier(site, Pole("pole", cable, cable), goods)
    await supplier.restore()  # nothing to take up here; after a crash there would be
    server = await serve("127.0.0.1", 0, POLE, supplier.on_link)

    async def the_ledger() -> Ledger:
        return ledger

    def dial() -> Awaitable[Link]:
        return connect("127.0.0.1", server.port, CAR, expect=POLE.address)

    purse = ChannelPurse(CAR, bought, the_ledger, say)
    wish = Wish(max_price=Price(450_000, 1_000), budget=1_000_000, quantity=energy)
    try:
        session = await Consumer(CAR, bought, meter, dial, wish, now, say, purse).buy()
        await site.settle()
    finally:
        await supplier.close()
        await server.close()
        meter.detach()
        cable.detach()
        await sold.close()
        await bought.close()
    return session


async def main(energy: int = 1_000) -> tuple[Session, int]:
    """Trade on a devnet of our own; returns the session, and by how much the pole's tokens have grown."""
    ready: asyncio.Future[Manifest] = asyncio.get_running_loop().create_future()
    devnet = asyncio.ensure_future(serve_devnet(ready=ready.set_result, accounts=2))
    starting: list[asyncio.Future[Any]] = [ready, devnet]
    await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
    if devnet.done():
        devnet.result()  # why it could not start
    manifest = ready.result()
    ledger = await EvmLedger.connect(manifest.url, parse_address(manifest.contracts["CryptoEuroChannel"]))
    try:
        before = await ledger.holdings(POLE.address)
        with tempfile.TemporaryDirectory() as directory:
            session = await trade(Path(directory), ledger, energy)
        after = await ledger.holdings(POLE.address)
    finally:
        await ledger.disconnect()
        devnet.cancel()
        await asyncio.gather(devnet, return_exceptions=True)
    return session, after.tokens - before.tokens


if __name__ == "__main__":
    finished, earned = asyncio.run(main())
    print(f"{finished.reason}: {finished.meter.total} Wh for {finished.paid} token units; the chain paid {earned}")
