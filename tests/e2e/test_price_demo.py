"""`penstock demo --scenario price`: prices that fall below 0 and rise to their peak, and a plan through them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_plan_buys_below_0_sells_at_the_peak_and_both_sides_bill_it_alike(tmp_path: Path) -> None:
    chart = tmp_path / "price.html"
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "demo", "--scenario", "price", "--json", "--chart", str(chart)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["prices"]["below_0"] > 5
    assert document["repaid"] > 0
    assert document["net"] == document["paid"] - document["repaid"]
    assert document["chain"] == {"opens": 1, "closes": 1}
    for who, limit in document["limit"].items():
        assert document["max_exposure"][who] <= limit
    assert "<svg" in chart.read_text()
