"""Many sessions on one node: what it uses and how soon it acknowledges, over TLS and over bare TCP.

The node (`bench.sessions_node`) and the consumers (`bench.sessions_load`) are a process each. Latency runs from a tick
sent to the reading that says it is secured, behind its durable row, at the consumer. `cpu` is the node's CPU seconds
in a second, journal and all; `kb_each` all the memory that the node gained since before it had a pole, for each
session.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bench.sessions_node import SPARE, room

COUNT, PERIOD = 10_000, 1.0
PLAIN_COUNT, PLAIN_PERIOD = 30_000, 3.0
SECONDS = 20.0
FIGURES = ("count", "cpu", "kb_each", "p99_ms")


def run(count: int = COUNT, plain_count: int = PLAIN_COUNT, seconds: float = SECONDS) -> dict[str, Any]:
    """Both measurements: what `bench/results.json` keeps, and beside it how they went.

    As many sessions as there may be descriptors: `count` says how many there were.
    """
    found: dict[str, Any] = {}
    if count:
        found["sessions"], found["sessions_went"] = one(count, PERIOD, seconds, plain=False)
    if plain_count:
        found["sessions_plain"], found["sessions_plain_went"] = one(plain_count, PLAIN_PERIOD, seconds, plain=True)
    return found


def one(count: int, period: float, seconds: float, plain: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """`count` sessions that pay a tick in every `period` (seconds): the figures, and how the run went."""
    count = min(count, room(count + SPARE) - SPARE)
    form = "plain" if plain else "tls"
    python = [sys.executable, "-m"]
    with subprocess.Popen(
        [*python, "bench.sessions_node", str(count), form], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        facts = node.stdout.readline()
        load = [*python, "bench.sessions_load", str(node.pid), facts, str(count), str(period), str(seconds), form]
        said = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=True).stdout
        node.stdin.close()
        node.wait(60)
    result: dict[str, Any] = json.loads(said)
    figures = {name: result.pop(name) for name in FIGURES}
    return figures, result


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:3])), indent=1))
