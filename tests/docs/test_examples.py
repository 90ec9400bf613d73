"""The examples, run."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path

from penstock.core.session import State

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_two_sessions_end_with_one_receipt() -> None:
    supplier, consumer = runpy.run_path(str(EXAMPLES / "two_sessions.py"))["stream"]()
    assert supplier.state is consumer.state is State.ENDED
    assert supplier.receipt == consumer.receipt
    assert supplier.receipt.paid == 500 * 400
    assert supplier.control.worst <= 2_000


def test_two_sessions_print_what_the_readme_says() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "two_sessions.py"], capture_output=True, text=True, check=True)
    assert f"```text\n{done.stdout}```" in (ROOT / "README.md").read_text()


def test_buying_and_selling_in_one_event_loop_is_settled_by_the_chain() -> None:
    session, earned = asyncio.run(runpy.run_path(str(EXAMPLES / "buy_and_sell.py"))["main"](500))
    assert session.complete
    assert session.receipt.paid == earned == 500 * 400


def test_every_example_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"(examples/{path.name})" in readme, path.name
