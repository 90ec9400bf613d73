"""The node of `bench.sessions`: a gateway with its site, its journal on disk and its links, in a process of its own.

Only two things stand in for what would be there: the ledger says of every channel that it is open with a deposit, and
at each pole flows at once what the valve allows, so that a payment is what each exchange begins with. Prints one line
of JSON when it listens; ends when its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from bench.plain import serve_plain

from penstock.core.channel import ChannelParams, Domain
from penstock.core.identity import Address, Key
from penstock.core.meter import Reading
from penstock.core.ports import ChannelState, Holdings
from penstock.core.session import Patience
from penstock.core.tariff import Tariff
from penstock.core.units import Amount, Duration, Quantity
from penstock.node import clock
from penstock.node.gateway import Gateway
from penstock.node.site import Site
from penstock.node.supplier import Goods, Pole
from penstock.storage.sqlite import SqliteJournal
from penstock.transports.tls import Limits, serve

TICK = 1_000  # token units: the price of one unit of the medium
DEPOSIT = 1_000 * TICK
PLAIN_HOSTS = [f"127.0.0.{host}" for host in range(1, 5)]  # an address has some 28,000 ports for those who come
KEY = Key(b"\x51" * 32)
SPARE = 200  # descriptors for what is no link
PATIENCE = Patience(Duration(3_600_000), Duration(3_600_000))  # while the last are still coming, the first stand by


class OpenLedger:
    """A ledger on which every channel is open with the same deposit, and final."""

    domain = Domain(1, Address(b"\x11" * 20), Address(b"\x22" * 20))

    async def channel(self, params: ChannelParams) -> ChannelState:
        return ChannelState("open", Amount(DEPOSIT))

    async def holdings(self, owner: Address) -> Holdings:
        return Holdings(Amount(0), Amount(0), 10**24)

    async def gas_price(self) -> int:
        return 1


class Tap:
    """A meter and a valve: all that is allowed flows at once, and the meter tells of it."""

    __slots__ = ("_on_reading", "total")

    def __init__(self) -> None:
        self.total = 0
        self._on_reading: Callable[[Reading], None] | None = None

    def read(self) -> Reading:
        return Reading(Quantity(self.total), clock.now())

    def watch(self, on_reading: Callable[[Reading], None]) -> None:
        self._on_reading = on_reading

    def allow(self, total: Quantity) -> None:
        if total > self.total:
            self.total = total
            asyncio.get_running_loop().call_soon(self._tell)

    def close(self) -> None: ...

    def _tell(self) -> None:
        if self._on_reading is not None:
            self._on_reading(self.read())


def goods() -> Goods:
    """A tick a unit, on a credit of two."""
    return Goods("electricity", Tariff.flat(TICK, 1), TICK, 1, 2 * TICK)


def room(wanted: int) -> int:
    """Raise the limit of descriptors to `wanted` where that is allowed; returns how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def resident() -> int:
    """This process's memory, in units of 1,024 bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


async def main(count: int, plain: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        before = resident()
        journal = SqliteJournal(Path(directory) / "node.db")
        ledger: Any = OpenLedger()  # of the ledger's calls, those that a session makes
        site = Site.with_channels(KEY, journal, ledger, clock.now, lambda *_, **__: None)
        taps = [(f"pole {number}", Tap()) for number in range(count)]
        gateway = Gateway(site, [Pole(name, tap, tap) for name, tap in taps], goods(), PATIENCE)
        await gateway.restore()
        if plain:
            listening = [await serve_plain(host, KEY.address, gateway.on_link) for host in PLAIN_HOSTS]
            doors = [(host, port) for host, (_, port) in zip(PLAIN_HOSTS, listening, strict=True)]
        else:
            server = await serve("127.0.0.1", 0, KEY, gateway.on_link, limits=Limits(max_links=count + SPARE))
            doors = [("127.0.0.1", server.port)]
        print(json.dumps({"before_kib": before, "poles_kib": resident() - before, "doors": doors}), flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)
        await site.close()
        await journal.close()


if __name__ == "__main__":
    count, plain = int(sys.argv[1]), sys.argv[2] == "plain"
    room(count + SPARE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(count, plain))
