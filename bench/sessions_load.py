"""The consumers of `bench.sessions`, all in one process: real keys, channels, proposals, vouchers and preimages.

What a consumer's own session would add (its meter, its bill, its journal) is left out, so that the node is measured and
not its guests. Each pays one tick in every period, at a moment of its own, and looks for the reading that says that it
is secured. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import uvloop
from bench.plain import connect_plain
from bench.sessions_node import SPARE, TICK, room

from penstock.core.channel import ChannelParams
from penstock.core.codec import decode, encode
from penstock.core.errors import PenstockError
from penstock.core.identity import Key
from penstock.core.messages import Accepted, AskPole, Metered, Offered, Paid, Propose
from penstock.core.offer import Terms, propose_digest
from penstock.core.ports import Link
from penstock.core.units import Quantity
from penstock.node import clock
from penstock.rails.stream import NAME, StreamPayer, StreamTerms, decode_offer
from penstock.transports.tls import connect

AT_ONCE = 32  # that come together
TURN = 0.002  # seconds between two looks at whose moment it is
SETTLING = 5.0  # seconds of streaming that are not counted
HERTZ = os.sysconf("SC_CLK_TCK")


class Guest:
    """One consumer with its session."""

    __slots__ = ("acked", "answer", "link", "payer", "sent", "sent_at", "street", "total")

    def __init__(self, street: Street, link: Link) -> None:
        self.street, self.link = street, link
        self.answer: asyncio.Future[Any] | None = None
        self.payer: StreamPayer
        self.sent = self.acked = self.total = 0
        self.sent_at = 0.0
        link.attach(self._on_frame, self._on_lost)

    async def begin(self, number: int, key: Key, ticks: int) -> None:
        offer = (await self._ask(AskPole(f"pole {number}"), Offered)).offer
        details = decode_offer(offer.rails[NAME])
        params = ChannelParams(
            domain=details.domain,
            opener=key.address,
            partner=details.payee,
            opener_key=key.address,
            partner_key=details.payee_key,
            period=3_600,
            two_way=False,
            counter=0,
        )
        rail = StreamTerms(params, 0, 0, TICK)
        self.payer = StreamPayer(rail, ticks * TICK, key, os.urandom(32))
        terms = Terms(
            offer=offer,
            consumer=key.address,
            rail=NAME,
            rail_terms=encode(rail),
            quantity_limit=10**9,
            budget=10**9,
            at=clock.now(),
            nonce=os.urandom(16),
        )
        propose = Propose(terms, key.sign(propose_digest(terms.digest())), self.payer.open().data)
        await self._ask(propose, Accepted)

    def pay(self, now: float) -> None:
        """One tick more, unless the last is still on its way."""
        if self.sent != self.acked:
            self.street.missed += 1
            return
        (evidence,) = self.payer.pay((self.sent + 1) * TICK)
        self.sent += 1
        self.sent_at = now
        self.link.send(encode(Paid(Quantity(self.total), (evidence.data,))))

    async def _ask(self, message: Any, kind: type[Any]) -> Any:
        self.answer = asyncio.get_running_loop().create_future()
        self.link.send(encode(message))
        answer = await asyncio.wait_for(self.answer, 600)
        self.answer = None
        if not isinstance(answer, kind):
            fail(f"the node answered {answer}")
        return answer

    def _on_frame(self, frame: bytes) -> None:
        message = decode(frame)
        if type(message) is Metered:
            self.total = message.total
            if message.secured >= self.sent * TICK and self.acked < self.sent:
                self.acked = self.sent
                self.street.latencies.append(time.perf_counter() - self.sent_at)
        elif self.answer is not None and not self.answer.done():
            self.answer.set_result(message)
        else:
            fail(f"the node said {message}")

    def _on_lost(self, error: PenstockError) -> None:
        fail(f"the node cut us off: {error.line()}")


class Street:
    """All guests of one node."""

    def __init__(self, doors: list[tuple[str, int]], plain: bool) -> None:
        self.doors, self.plain = doors, plain
        self.guests: list[Guest] = []
        self.latencies: list[float] = []
        self.missed = 0  # ticks that were not sent, since the one before was not acknowledged yet
        self.late: list[float] = []  # how far behind its moment each look was: beyond a few ms, we are the bottleneck

    async def fill(self, count: int, ticks: int) -> None:
        """Let them all come and begin."""
        numbers = iter(range(count))

        async def come() -> None:
            for number in numbers:
                key = Key(sha256(b"bench guest %d" % number).digest())
                host, port = self.doors[number % len(self.doors)]
                link: Link = await (
                    connect_plain(host, port, key.address) if self.plain else connect(host, port, key, timeout=600)
                )
                guest = Guest(self, link)
                await guest.begin(number, key, ticks)
                self.guests.append(guest)

        await asyncio.gather(*(come() for _ in range(AT_ONCE)))

    async def stream(self, period: float, seconds: float) -> None:
        """Let each pay once in every period, evenly spread."""
        guests, began = self.guests, time.perf_counter()
        turn = done = 0
        while done < int(seconds / period * len(guests)):
            turn += 1
            await asyncio.sleep(max(0.0, began + turn * TURN - time.perf_counter()))
            now = time.perf_counter()
            self.late.append(now - began - turn * TURN)
            due = int((now - began) / period * len(guests))
            for index in range(done, due):
                guests[index % len(guests)].pay(time.perf_counter())
            done = due


def fail(what: str) -> NoReturn:
    """End at once: what is measured from here on would mean nothing."""
    print(what[:300], file=sys.stderr, flush=True)
    os._exit(1)


def cpu_of(process: int) -> float:
    """The CPU seconds that a process has used so far, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def memory_of(process: int) -> int:
    """A process's resident memory, in units of 1,024 bytes."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmRSS:")[2].split()[0])


def at(values: list[float], share: float) -> float:
    """The value that a share of them do not exceed, in ms."""
    return round(1000 * sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)], 2)


async def main(node: int, facts: dict[str, Any], count: int, period: float, seconds: float, plain: bool) -> None:
    street = Street(facts["doors"], plain)
    began = time.perf_counter()
    await street.fill(count, int((seconds + SETTLING) / period) + 10)
    ramp = time.perf_counter() - began
    gc.collect()
    gc.freeze()  # ours, so that our own pauses are not taken for the node's
    await street.stream(period, min(SETTLING, 2 * seconds))
    street.latencies, street.missed, street.late = [], 0, []
    cpu, own, wall = cpu_of(node), time.process_time(), time.perf_counter()
    await street.stream(period, seconds)
    wall = time.perf_counter() - wall
    result = {
        "count": count,
        "cpu": round((cpu_of(node) - cpu) / wall, 3),
        "kb_each": round((memory_of(node) - facts["before_kib"]) * 1.024 / count, 1),
        "p99_ms": at(street.latencies, 0.99),
        "p50_ms": at(street.latencies, 0.5),
        "ticks_per_s": round(len(street.latencies) / wall),
        "missed": street.missed,
        "load_cpu": round((time.process_time() - own) / wall, 3),
        "load_late_p99_ms": at(street.late, 0.99),
        "ramp_s": round(ramp, 1),
    }
    print(json.dumps(result), flush=True)
    os._exit(0)  # thousands of links that need not say goodbye


if __name__ == "__main__":
    facts = json.loads(sys.argv[2])
    count, period, seconds, plain = int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]), sys.argv[6] == "plain"
    room(count + SPARE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), facts, count, period, seconds, plain))
