"""A pole that sells by a price series, and takes back what a car feeds in, as real processes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

from .world import World


def series(path: Path, *prices: str, each: int = 7_200) -> Path:
    """A file with prices, each for so many seconds, the first of them in force now."""
    now = int(time.time()) - each // 3
    at = [datetime.fromtimestamp(now + n * each, UTC).isoformat() for n in range(len(prices) + 1)]
    rows = [{"start": at[n], "end": at[n + 1], "value": price} for n, price in enumerate(prices)]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"rates": rows}))
    new.replace(path)
    return path


def test_a_pole_sells_by_a_series_and_offers_the_next_when_the_file_changes(world: World, tmp_path: Path) -> None:
    prices = series(tmp_path / "prices.json", "0.40", "0.35")
    pole = world.start(
        "pole", "supply", *world.common("pole"), "--log", "json", "--json", "--listen", "127.0.0.1:0",
        "--prices", str(prices), "--tick", "0.001", "--line", str(world.directory / "line"),
    )  # fmt: skip
    address = pole.until("listening")["address"]
    assert world.car(address, "--keep").answer()["paid"] == 800_000
    series(prices, "0.2345678", "0.35")
    assert pole.until("prices")["per"] == 10_000
    assert world.car(address, quantity=1_001).answer()["paid"] == 1_001 * 2_345_678 // 10_000
    prices.write_text("{")
    assert "no JSON" in pole.until("prices failed")["error"]
    series(prices, "0.50")
    pole.until("prices are back")
    dear = world.car(address)
    assert "price over the limit" in dear.answer()["error"]["message"]


def test_a_negative_price_is_paid_to_a_car_that_can_be_paid(world: World, tmp_path: Path) -> None:
    prices = series(tmp_path / "prices.json", "-0.10", "0.10")
    pole = world.start(
        "pole", "supply", *world.common("pole"), "--log", "json", "--json", "--listen", "127.0.0.1:0", "--once",
        "--prices", str(prices), "--tick", "0.001", "--line", str(world.directory / "line"), "--feed-stake", "1",
        "--speed", "3600",
    )  # fmt: skip
    bought = world.car(pole.until("listening")["address"], "--feed", "0", quantity=1_000).answer()
    (sold,) = pole.answer()["sessions"]
    assert sold["receipt"] == bought["receipt"]
    assert bought["complete"]
    assert (bought["paid"], bought["repaid"], bought["total"]) == (0, 100_000, 1_000)
