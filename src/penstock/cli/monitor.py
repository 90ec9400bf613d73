"""`--metrics`: the page of a running node that machines look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from penstock.node.monitor import Check
    from penstock.node.tell import Counted

MetricsAt = Annotated[
    str | None,
    typer.Option("--metrics", help="HOST:PORT to show /metrics (Prometheus) and /health at.", show_default=False),
]


@asynccontextmanager
async def monitored(at: str | None, tell: Counted, what: Callable[[], tuple[Collector, Check]]) -> AsyncIterator[None]:
    """Show a node's figures and health at HOST:PORT, where one is given. The log says where.

    Raises:
        UsageError: the address cannot be listened on.
    """
    if at is None:
        yield
        return
    from penstock.cli.config import endpoint
    from penstock.node.metrics import EventMetrics, registry
    from penstock.node.monitor import Monitor

    host, port = endpoint(at)
    collector, check = what()
    monitor = Monitor(registry(collector, EventMetrics(tell.counts)), check)
    await monitor.listen(host, port)
    tell("metrics", address=f"{host}:{monitor.port}")
    try:
        yield
    finally:
        await monitor.close()
