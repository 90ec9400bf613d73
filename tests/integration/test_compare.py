"""`penstock compare`: all its figures, two comparisons beside each other, and its page in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from penstock.ledgers.devnet.manifest import dev_key
from penstock.sim.compare import COMPARED

from .browser import DESK, PHONE, SMALL, browser, chromium, look, picture_of

SESSION, ENERGY, BILL = "S0002", 786, 314_400
GWEI, EURO = 10**9, 10**6
LONGEST = 300.0  # seconds for a comparison


class Run(NamedTuple):
    """What the command said, and the page that it wrote."""

    document: dict[str, Any]
    page: str

    def row(self, rail: str) -> dict[str, Any]:
        found: dict[str, Any] = next(row for row in self.document["rails"] if row["rail"] == rail)
        return found


def compare(home: Path) -> Run:
    page = home / "page.html"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "penstock",
            "compare",
            "--session",
            SESSION,
            "--gas-price",
            "2",
            "--token-rate",
            "3000",
            "--json",
            "--html",
            str(page),
        ],
        env={**os.environ, "PENSTOCK_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Run(json.loads(done.stdout), page.read_text("utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compare(tmp_path_factory.mktemp("compared"))


def test_two_comparisons_agree_but_for_time(run: Run, tmp_path: Path) -> None:
    again = compare(tmp_path).document
    differ = {name: (value, again[name]) for name, value in run.document.items() if name != "rails"}
    for row, other in zip(run.document["rails"], again["rails"], strict=True):
        assert row.keys() == other.keys()
        differ |= {f"{row['rail']}: {name}": (row[name], other[name]) for name in row if name != "time"}
    assert {name: values for name, values in differ.items() if values[0] != values[1]} == {}


def test_every_rail_between_two_has_a_row_and_pays_the_bill(run: Run) -> None:
    assert [row["rail"] for row in run.document["rails"]] == list(COMPARED)
    assert (run.document["energy_wh"], run.document["bill"]) == (ENERGY, BILL)
    for row in run.document["rails"]:
        assert (row["paid"], row["reason"]) == (BILL, "target reached")
        assert row["transactions_before_first_wh"] == 1
        assert 0 < row["time"]["first_wh_s"] < 60


def test_gas_is_the_chains_and_is_priced_as_asked(run: Run) -> None:
    for row in run.document["rails"]:
        assert row["gas"] == sum(one["gas"] for one in row["transactions"])
        for one, used in zip(row["transactions"], row["time"]["gas_used"], strict=True):
            assert abs(one["gas"] - used) <= 200  # zero bytes in signatures, and the rounding
        assert row["cost"] == -(-row["gas"] * 2 * GWEI * 3_000 * EURO // 10**18)
        assert row["share_of_bill"] == round(row["cost"] / BILL, 4)


def test_a_deposit_serves_many_sessions_over_a_channel_alone(run: Run) -> None:
    assert run.row("stream-channel")["further_sessions"]["gas"] == 0
    escrow = run.row("escrow")
    assert escrow["further_sessions"]["gas"] == escrow["gas"]


def test_no_cheat_takes_more_over_a_channel_than_was_agreed(run: Run) -> None:
    exposure = run.row("stream-channel")["exposure"]
    limit, tolerance = run.document["credit_limit"], run.document["tolerance"]
    assert 0 < exposure["supplier"]["cheated"] <= limit
    assert 0 < exposure["supplier"]["honest"] <= limit
    creeps, jumps = exposure["consumer"]["cheats"]
    assert creeps["loss"] <= (tolerance["units"] + ENERGY * tolerance["ppm"] // 10**6) * 400
    assert jumps["loss"] == 0
    assert jumps["ended"] == "meters disagree"


def test_a_meter_that_lies_takes_an_escrows_deposit(run: Run) -> None:
    exposure = run.row("escrow")["exposure"]
    assert exposure["supplier"]["cheated"] == 0  # the deposit pays, whatever the consumer does
    jumps = exposure["consumer"]["cheats"][-1]
    assert jumps["loss"] == BILL - ENERGY // 2 * 400
    assert jumps["transactions"][1:] == ["release", "settle"]


def test_an_observer_knows_the_parties_and_the_sums_of_both_rails(run: Run) -> None:
    supplier, consumer = ("0x" + dev_key(account).address.hex() for account in (0, 4))
    for row in run.document["rails"]:
        seen = row["observer"]["in order"]
        values = {name: fact["values"] for name, fact in seen["facts"].items()}
        assert (values["payer"], values["payee"]) == ([consumer], [supplier])
        assert seen["pairs"] == [[consumer, supplier]]
        assert (values["deposit"], values["paid"]) == ([row["locked"]["tokens"]], [BILL])


def test_an_observer_learns_the_energy_from_an_escrow_and_not_from_a_channel(run: Run) -> None:
    channel, escrow = (run.row(rail)["observer"] for rail in ("stream-channel", "escrow"))
    assert {"price", "energy", "meter reading"} <= set(channel["in order"]["unknown"])
    assert escrow["in order"]["facts"]["price"]["values"] == [400_000]
    assert escrow["in order"]["facts"]["energy"]["values"] == [ENERGY]
    assert "meter reading" in escrow["in order"]["unknown"]
    assert escrow["after a cheat"]["facts"]["meter reading"]["values"][-1] == ENERGY
    assert channel["after a cheat"]["facts"]["ticks proven"]["values"]


def test_streaming_outlasts_the_ledger_and_settlement_does_not(run: Run) -> None:
    for row in run.document["rails"]:
        away = row["away"]
        assert (away["streams"], away["settles"], away["begins"]) == (True, False, False)
        assert (away["reuses_later"], away["settles_later"]) == (True, True)


def test_a_supplier_that_vanishes_holds_an_escrow_for_longer_than_a_channel(run: Run) -> None:
    assert run.row("stream-channel")["locked"]["alone_s"] == 3_600  # the challenge period
    assert run.row("escrow")["locked"]["alone_s"] == 86_400  # the deadline
    for row in run.document["rails"]:
        assert row["locked"]["alone"][-1] == "settle"


def test_the_series_of_a_run_stay_within_the_limit(run: Run) -> None:
    for row in run.document["rails"]:
        for side in ("supplier", "consumer"):
            series = row["series"][side]
            assert len(series) > 50
            assert max(exposure for _, exposure, _ in series) == row["exposure"][side]["honest"]
            assert series[-1][0] <= run.document["duration_s"]
            assert [paid for *_, paid in series] == sorted(paid for *_, paid in series)


class _Page(HTMLParser):
    """A page's elements: that each is closed, and what they ask for."""

    VOID = ("meta", "path", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asks: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.asks += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag in ("script", "link", "iframe", "object"):
            self.asks.append(tag)
        if tag == "svg":
            self.pictures.append(named)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(run: Run) -> None:
    parsed = _Page()
    parsed.feed(run.page)
    assert (parsed.open, parsed.asks) == ([], [])
    assert "url(" not in run.page
    assert "$" not in run.page
    plots = [picture for picture in parsed.pictures if picture.get("role") == "img"]
    assert len(plots) == 5
    assert all(len(plot["aria-label"] or "") > 40 for plot in plots)
    assert all(rail in run.page for rail in COMPARED)


@browser
@pytest.mark.parametrize("width", [SMALL, PHONE, DESK])
def test_the_page_fits_a_window_without_scrolling_sideways(run: Run, tmp_path: Path, width: int) -> None:
    seen = look(run.page, tmp_path, width)
    assert seen.width == width
    assert (seen.scrolls, seen.beyond) == (width, 0)
    assert seen.plots == 5


@browser
def test_a_page_that_is_too_wide_is_noticed(run: Run, tmp_path: Path) -> None:
    seen = look(run.page.replace("<main>", '<main><p style="width:600px">wide</p>'), tmp_path, PHONE)
    assert seen.scrolls > PHONE
    assert seen.beyond > 0


@browser
def test_the_page_is_drawn(run: Run, tmp_path: Path) -> None:
    file, picture = tmp_path / "page.html", tmp_path / "page.png"
    file.write_text(run.page, "utf-8")
    chromium(tmp_path, f"--screenshot={picture}", f"--window-size={PHONE},844", file.as_uri())
    width, colours = picture_of(picture.read_bytes())
    assert width == PHONE
    assert colours > 50  # text and lines, not an empty sheet
