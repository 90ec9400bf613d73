"""How long a supplier with 100,000 channels in its journal takes from its start to the moment when it can sell.

The journal is made by the product's own code: a channel and a session each, vouchers really signed and verified. Most
sessions have ended with an exact bill, every tenth with ticks that no voucher has folded; `UNFINISHED` have not ended,
and one in a thousand left something unpaid. Only what sessions keep of signatures, which no start looks at, is the same
in all of them. Then a fresh process, from its exec on, opens it, builds the site and a gateway of `UNFINISHED` poles,
takes up their sessions and listens. Only the ledger stands in: nothing is asked of it before that.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.channel import ChannelParams, Domain
from penstock.core.codec import encode
from penstock.core.effects import Rows
from penstock.core.identity import Address, Digest, Key
from penstock.core.messages import Reason
from penstock.core.meter import Reading, Tolerance
from penstock.core.offer import Offer, Receipt, Terms
from penstock.core.session import SESSION_ROWS, Role, SessionRow, State
from penstock.core.tariff import Tariff
from penstock.core.units import MAX_INSTANT, Amount, Instant, Quantity
from penstock.node.book import ChannelRow
from penstock.node.tasks import durable
from penstock.rails.stream import NAME, StreamOffer, StreamPayee, StreamPayer, StreamTerms
from penstock.storage.sqlite import SqliteJournal

CHANNELS = 100_000
UNFINISHED = 20
STARTS = 3
SOME = 2_000  # channels in one write
TICK = 1_000  # token units; a unit of the medium costs as much
DEPOSIT = 100 * TICK

DOMAIN = Domain(31_337, Address(b"\x03" * 20), Address(b"\x04" * 20))
POLE, CAR = Key(b"\x01" * 32), Key(b"\x02" * 32)
SIGNATURE = CAR.sign(Digest(bytes(32)))
ZERO, LAST = Reading(Quantity(0), Instant(0)), Reading(Quantity(9), Instant(1_000))


def offer(pole: str) -> Offer:
    """What a pole offered."""
    rail = encode(StreamOffer(DOMAIN, POLE.address, POLE.address, 600))
    tolerance, tariff = Tolerance(5, 20_000), Tariff.flat(TICK, 1)
    return Offer(
        POLE.address,
        pole,
        "electricity",
        tariff,
        TICK,
        1,
        8 * TICK,
        "pay-after",
        tolerance,
        {NAME: rail},
        "",
        MAX_INSTANT,
    )


def channel(number: int, pole: str, ended: bool) -> Rows:
    """What a supplier keeps of a channel and its session of nine ticks."""
    parties = (CAR.address, POLE.address)
    params = ChannelParams(DOMAIN, *parties, *parties, 3_600, False, number)
    rail = StreamTerms(params, 0, 0, TICK)
    terms = Terms(offer(pole), CAR.address, NAME, encode(rail), 1_000, DEPOSIT, Instant(0), number.to_bytes(16, "big"))
    payer, payee = StreamPayer(rail, DEPOSIT, CAR, number.to_bytes(32, "big")), StreamPayee(rail, DEPOSIT)
    rows: dict[bytes, bytes | None] = {}
    if ended and number % 10:
        rows |= payee.take(payer.square(9 * TICK).data, least=9 * TICK)
    else:
        for one in (payer.open(), *payer.pay(9 * TICK)):
            rows |= payee.take(one.data)
    digest = terms.digest()
    row = SessionRow(Role.SUPPLIER, terms, SIGNATURE, SIGNATURE, ZERO, last=LAST if ended else None)
    if ended:
        row = _ended(row, digest, number)
    rows |= ChannelRow(params, Role.SUPPLIER, Amount(DEPOSIT)).rows()
    return (*rows.items(), (SESSION_ROWS + digest, encode(row)))


def _ended(row: SessionRow, digest: Digest, number: int) -> SessionRow:
    total, paid = Quantity(9), Amount(9 * TICK)
    receipt = Receipt(digest, total, total, paid, Amount(0), 9, Reason.TARGET_REACHED, Instant(1_000))
    return msgspec.structs.replace(
        row,
        state=State.ENDED,
        reason=Reason.TARGET_REACHED,
        receipt=receipt,
        consumer_signature=SIGNATURE,
        supplier_signature=SIGNATURE,
        unpaid=Amount(TICK if number % 1_000 == 0 else 0),
    )


def _some(channels: int) -> Iterator[list[tuple[bytes, bytes | None]]]:
    rows: list[tuple[bytes, bytes | None]] = []
    for number in range(channels):
        ended = number >= UNFINISHED
        rows += channel(number, "pole" if ended else f"pole{number}", ended)
        if number % SOME == SOME - 1:
            yield rows
            rows = []
    yield rows


async def write(path: Path, channels: int) -> None:
    """Make the journal."""
    journal = SqliteJournal(path)
    for rows in _some(channels):
        await durable(journal, rows)
    await journal.close()


SUPPLIER = """
import asyncio, resource, sys
import uvloop
from penstock.core.channel import Domain
from penstock.core.identity import Address, Key
from penstock.core.tariff import Tariff
from penstock.node import clock
from penstock.node.gateway import Gateway
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import serve

class Ledger:
    domain = Domain(31_337, Address(b"\\x03" * 20), Address(b"\\x04" * 20))

class Still:
    def watch(self, on_reading): pass
    def close(self): pass

async def main():
    key = Key(b"\\x01" * 32)
    journal = SqliteJournal(sys.argv[1])
    site = Site.with_channels(key, journal, Ledger(), clock.now, lambda event, **facts: None)
    poles = [Pole(f"pole{number}", Still(), Still()) for number in range(int(sys.argv[2]))]
    gateway = Gateway(site, poles, Goods("electricity", Tariff.flat(1_000, 1), 1_000, 1, 8_000))
    await gateway.restore()
    server = await serve("127.0.0.1", 0, key, gateway.on_link)
    restored = sum(supplier.shell is not None for supplier in gateway.poles.values())
    print(site.watching, restored, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
    sys.stdin.read()

asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
"""


class Start(msgspec.Struct):
    """Seconds until a supplier was ready, and the most memory that it took until then (kB)."""

    seconds: float
    memory: int


def start(path: Path, channels: int) -> Start:
    """Start a supplier over the journal, and end it once it can sell."""
    began = time.perf_counter()
    command = [sys.executable, "-c", SUPPLIER, str(path), str(UNFINISHED)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        seconds = time.perf_counter() - began
        process.kill()
    assert said[:2] == [str(channels), str(UNFINISHED)], f"it watches and restored {said}"
    return Start(seconds, int(said[2]))


def run(channels: int = CHANNELS, starts: int = STARTS) -> dict[str, Any]:
    """Seconds from the start of a process to a supplier that listens; the median of some."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as made:
        path = Path(made) / "journal"
        asyncio.run(write(path, channels))
        size = path.stat().st_size
        found = [start(path, channels) for _ in range(starts)]
    return {
        "restart_s_100k_channels": statistics.median(one.seconds for one in found),
        "restart_memory_mb": found[-1].memory >> 10,
        "restart_journal_mb": size >> 20,
    }


if __name__ == "__main__":
    print(run())
