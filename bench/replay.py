"""A hundred recorded charging sessions, replayed by the real node over real links and a real journal."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from penstock.sim.replay import run_replay

SESSIONS = 100


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        replay = asyncio.run(run_replay(None, SESSIONS, False, Path(directory), lambda *_: None))
    return {"sessions": SESSIONS, "ticks_per_s": replay["ticks_per_s"]}
