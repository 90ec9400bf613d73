"""Payments over hubs: ticks a second over three hubs and over a direct channel, and what a hub does for 500 at once.

A session over hubs and one over a direct channel take turns, with the same window: two processes, real sessions, links
and journals. Behind the one over hubs stand three more processes, each a hub with its journal; a lock goes over them
first, and is folded over them in the end. What they hear about locks in between is counted, too.

Then one hub has many sessions at once, each of somebody else's with a channel of its own, over one outgoing channel: it
locks for all, then settles all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO, Any

from bench.streams import Sample, after

DIRECT, HOPS = "direct", "hops"
HUBS = 3
ROUNDS = 7  # a session lasts a second at the widest window, and the disk is not the same every second
WINDOWS = {1: 1_500, 16: 40_000, 256: 60_000}  # ticks of a session by its window: a lock has 65,535 at most
WARM = 0.2  # of its ticks that are not counted
AT_ONCE = 500


class Child:
    """A process of `bench.hops_nodes`, to be spoken to in lines of JSON."""

    def __init__(self, stack: ExitStack, *arguments: object) -> None:
        command = [sys.executable, "-m", "bench.hops_nodes", *map(str, arguments)]
        self.process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(self.end)

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def hear(self) -> dict[str, Any]:
        """Its next line."""
        line = self._pipe(self.process.stdout).readline()
        if not line:
            raise RuntimeError(f"a process ended before its time: {self.process.args}")
        return dict(json.loads(line))

    def tell(self, **facts: object) -> None:
        """A line for it."""
        pipe = self._pipe(self.process.stdin)
        pipe.write(json.dumps(facts) + "\n")
        pipe.flush()

    def ask(self) -> dict[str, Any]:
        """What it has counted so far."""
        self.tell()
        return self.hear()

    def end(self) -> None:
        """Let it go, or end it."""
        self._pipe(self.process.stdin).close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def stream(rail: str, window: int, ticks: int) -> dict[str, Any]:
    """One session: ticks a second, CPU us a tick of both sides, round trips (s), and what hubs heard about locks.

    That is in three parts: until the lock stood, until the session was over, and until it was folded.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-"))
        supplier = Child(stack, "supply", directory)
        at = supplier.hear()
        hubs: list[Child] = []
        onward = at["door"]
        for number in range(HUBS if rail == HOPS else 0):
            hubs.append(Child(stack, "hub", directory, number, onward))
            onward = hubs[-1].hear()["port"]
        consumer = Child(stack, "consume", directory, rail, window, ticks, at["port"], onward)
        consumer.hear()
        counts = [_messages(hubs)]
        consumer.tell()
        said = consumer.hear()
        counts.append(_messages(hubs))
        consumer.tell()
        folded = consumer.hear() if rail == HOPS else {}
        served = supplier.hear()
        counts.append(_messages(hubs))
    samples = [Sample(*one) for one in said["samples"]]
    first = next(one for one in samples if one.ticks >= samples[-1].ticks * WARM)
    last, ticks = samples[-1], samples[-1].ticks - first.ticks
    seller = [Sample(*one) for one in served["samples"]]
    used = last.cpu - first.cpu + after(seller, last.at).cpu - after(seller, first.at).cpu
    return {
        "rate": ticks / (last.at - first.at),
        "cpu_us": used / ticks * 1e6,
        "trips": said["trips"],
        "lock": counts[0],
        "between": counts[1] - counts[0],
        "fold": counts[2] - counts[1],
        **folded,
    }


def _messages(hubs: list[Child]) -> int:
    return sum(int(hub.ask()["messages"]) for hub in hubs)


def crowd(count: int) -> dict[str, Any]:
    """A hub with so many sessions at once: what it used, and the vouchers that it gave and took."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-"))
        people = Child(stack, "crowd", directory, count)
        hub = Child(stack, "hub", directory, 0, people.hear()["door"])
        people.tell(pid=hub.process.pid, port=hub.hear()["port"])
        return {**people.hear(), **hub.ask()}


def run(rounds: int = ROUNDS, windows: dict[int, int] | None = None, at_once: int = AT_ONCE) -> dict[str, Any]:
    """This module's keys of `results.json`, and beside them how it went."""
    windows = windows or WINDOWS
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for turn in range(rounds):
        for window, ticks in windows.items():
            for rail in (DIRECT, HOPS)[:: -1 if turn % 2 else 1]:
                found.setdefault((rail, window), []).append(stream(rail, window, ticks))
    many = crowd(at_once)

    def rates(rail: str, what: str = "rate") -> dict[str, float]:
        return {f"w{window}": statistics.median(one[what] for one in found[rail, window]) for window in windows}

    def trip(rail: str) -> float:
        return statistics.median(
            1_000 * statistics.median(one["trips"][len(one["trips"]) // 5 :]) for one in found[rail, min(windows)]
        )

    over = [one for (rail, _), ones in found.items() if rail == HOPS for one in ones]
    return {
        "direct_ticks_per_s": rates(DIRECT),
        "hop_ticks_per_s": rates(HOPS),
        "direct_cpu_us_per_tick": rates(DIRECT, "cpu_us"),
        "hop_cpu_us_per_tick": rates(HOPS, "cpu_us"),
        "tick_ms": {DIRECT: round(trip(DIRECT), 3), HOPS: round(trip(HOPS), 3)},
        "hub_messages": {name: max(one[name] for one in over) for name in ("lock", "between", "fold")},
        "hub_at_once": {
            "sessions": at_once,
            "lock_cpu_ms": round(1_000 * many["lock_cpu_s"] / at_once, 2),
            "settle_cpu_ms": round(1_000 * many["settle_cpu_s"] / at_once, 2),
            "vouchers": many["vouchers"],
            "kb_each": round(many["kb_each"], 1),
            "seconds": round(many["lock_s"] + many["settle_s"], 2),
        },
        "fold_s": round(statistics.median(one["fold_s"] for one in over), 3),
        "hub_earned": many["hub_earned"],
    }


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:2])), indent=1))
