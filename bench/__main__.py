"""`make bench`: the replay's speed against what this machine can do at all, as ratios measured in one run.

Machines are noisy: quote the ratios, not the rates.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import coincurve

from penstock.core.identity import Digest, Key, keccak, recover
from penstock.sim.replay import run_replay

SESSIONS = 100
ROUND = 8  # ticks that a credit limit of 8 ticks lets flow between two durable commits
RESULTS = Path(__file__).parent / "results.json"


def rate(count: int, work: Any) -> float:
    """How often a second `work()` can be done, over `count` times."""
    began = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - began)


def bare() -> dict[str, float]:
    """What the parts can do alone, one after the other on one core (each a second)."""
    seed, key = bytes(32), Key(b"\x01" * 32)
    digest = Digest(keccak(b"bench"))
    signature = key.sign(digest)
    raw = signature[:64] + bytes((signature[64] - 27,))
    return {
        "sha256_per_s": rate(200_000, lambda: sha256(seed).digest()),
        "secp256k1_recover_per_s": rate(
            2_000, lambda: coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None)
        ),
        "signature_check_per_s": rate(2_000, lambda: recover(digest, signature)),
        "fsync_per_s": _fsyncs(),
    }


def _fsyncs() -> float:
    with tempfile.NamedTemporaryFile() as file:

        def once() -> None:
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())

        return rate(300, once)


def main() -> None:
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    alone = bare()
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        replay = asyncio.run(run_replay(None, SESSIONS, False, Path(directory), lambda *_: None))
    rounds = replay["ticks_per_s"] / ROUND
    results = {
        "machine": machine,
        **{name: round(value) for name, value in alone.items()},
        "replay_sessions": SESSIONS,
        "ticks_per_s": replay["ticks_per_s"],
        "durable_rounds_per_s": round(rounds),
        "ticks_per_sha256": round(replay["ticks_per_s"] / alone["sha256_per_s"], 4),
        "checks_per_recover": round(alone["signature_check_per_s"] / alone["secp256k1_recover_per_s"], 3),
        "rounds_per_fsync": round(rounds / alone["fsync_per_s"], 3),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name, value in results.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
