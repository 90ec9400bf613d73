"""Modules in processes of their own, so that no one's imports, garbage and open files weigh on the next."""

from __future__ import annotations

import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.machine import Disturbance, Disturbed


def measure(module: str) -> dict[str, Any]:
    """The figures of one module, taken in this process."""
    figures: dict[str, Any] = importlib.import_module(f"bench.{module}").run()
    return figures


def apart(module: str) -> tuple[dict[str, Any], Disturbance]:
    """The figures of one module, taken in a process of its own, and how it was disturbed."""
    disturbed = Disturbed()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        figures = process.submit(measure, module).result()
    return figures, disturbed.since_then()
