"""The frame of a replay's own processes: one JSON argument in, events on stderr, one JSON answer on stdout."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.core.errors import PenstockError

Facts = dict[str, Any]


def tell(event: str, **facts: Any) -> None:
    """An event for whoever started us."""
    print(json.dumps({"event": event, **facts}), file=sys.stderr, flush=True)


def silent(event: str, **facts: Any) -> None:
    """For parts whose single events nobody reads."""


def main(work: Callable[[Facts, asyncio.Event], Awaitable[Facts]]) -> None:
    """Run `work` on the argument until it is done; its event is set by SIGTERM. An error is one line on stderr."""
    import uvloop

    sys.setswitchinterval(0.0005)

    async def run() -> Facts:
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        return await work(json.loads(sys.argv[1]), asked)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answer = runner.run(run())
    except PenstockError as error:
        print(f"penstock: {error.line()}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    print(json.dumps(answer), flush=True)
