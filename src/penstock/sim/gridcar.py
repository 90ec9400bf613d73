"""One car at a site that its grid steers, as a process: the real consumer at a simulated line.

Its argument is a JSON object: `url` and `contract` of the ledger, a `directory`, the `pole` and its `port`, the car's
`account` (which of the devnet's keys), the `energy` that it wants (Wh), and the most that it feeds in (`feed`, Wh; null
where it cannot).
"""

from __future__ import annotations

from asyncio import FIRST_COMPLETED, Event, ensure_future, wait
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import msgspec

from penstock.core.identity import parse_address
from penstock.core.offer import Receipt
from penstock.core.ports import Link
from penstock.core.session import Session
from penstock.core.units import Price
from penstock.ledgers.devnet.manifest import dev_key
from penstock.ledgers.evm import EvmLedger
from penstock.node.channel_purse import ChannelPurse
from penstock.node.clock import now
from penstock.node.consumer import Consumer, Wish
from penstock.sim.child import Facts, main, tell
from penstock.sim.line import LineMeter
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import connect

MAX_PRICE = Price(450_000, 1_000)
BUDGET = 20_000_000  # token units


async def run_car(facts: Facts, asked: Event) -> Facts:
    """Buy until the energy is there or we are asked to end, and report."""
    key, directory, feed = dev_key(facts["account"]), Path(facts["directory"]), facts["feed"]
    ledger = await EvmLedger.connect(facts["url"], parse_address(facts["contract"]))
    meter, journal = LineMeter(directory / facts["pole"]), SqliteJournal(directory / f"car-at-{facts['pole']}.db")

    async def known() -> EvmLedger:
        return ledger

    def dial() -> Awaitable[Link]:
        return connect("127.0.0.1", facts["port"], key, expect=dev_key(0).address)

    wish = Wish(MAX_PRICE, BUDGET, facts["energy"], pole=facts["pole"], feed=feed)
    purse = ChannelPurse(key, journal, known, tell)
    valve = meter if feed is not None else None
    consumer = Consumer(key, journal, meter, dial, wish, now, tell, purse, valve=valve)
    try:
        return outcome(await _bought(consumer, asked))
    finally:
        meter.detach()
        await journal.close()
        await ledger.disconnect()


async def _bought(consumer: Consumer, asked: Event) -> Session:
    buying, asking = ensure_future(consumer.buy()), ensure_future(asked.wait())
    await wait([buying, asking], return_when=FIRST_COMPLETED)
    asking.cancel()
    if not buying.done():
        consumer.stop()
    return await buying


def outcome(session: Session) -> Facts:
    """How a session ended, as one of its sides knows it."""
    terms = session.terms
    own = terms.feed.credit_limit if terms.feed else terms.offer.credit_limit
    return {
        "pole": terms.offer.name,
        "complete": session.complete,
        "reason": str(session.reason or ""),
        "fault": session.fault,
        "worst": session.control.worst,
        "limits": {"supplier": terms.offer.credit_limit, "consumer": own},
        "receipt": None if session.receipt is None else _facts(session.receipt),
    }


def _facts(receipt: Receipt) -> Facts:
    return {**msgspec.structs.asdict(receipt), "terms": receipt.terms.hex()}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(run_car)
