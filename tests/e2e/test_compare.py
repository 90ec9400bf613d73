"""`penstock compare`, the command itself, where it is used wrongly. `make integration` lets it run."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from .world import DEADLINE, World


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--session", "S9999"), "session"),
        (("--gas-price", "-1"), "--gas-price"),
        (("--token-rate", "nan"), "--token-rate"),
        (("--html", "/no/such/directory/page.html"), "cannot write"),
    ],
)
def test_a_wrong_flag_is_said_before_anything_runs(world: World, flags: tuple[str, str], word: str) -> None:
    done = world.command("car", "compare", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert word in line


def test_a_comparison_that_is_interrupted_leaves_no_page_and_no_process(world: World) -> None:
    page = world.directory / "page.html"
    process = world.start("car", "compare", "--session", "S0002", "--html", str(page))
    end = time.monotonic() + DEADLINE
    while not process.errors and time.monotonic() < end:  # until the first scene begins
        time.sleep(0.02)
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    assert len(children) >= 2  # a devnet and a pole
    process.signal(signal.SIGINT)
    assert process.popen.wait(DEADLINE) == 130
    assert not page.exists()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
