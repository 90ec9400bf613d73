"""The page of `penstock compare` in a real browser, and two comparisons beside each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SESSION = "S0002"
LONGEST = 300.0  # seconds for a comparison; a browser gets a fifth
SMALL, PHONE, DESK = 320, 390, 1280
PROBE = """<script>
const wide = [...document.querySelectorAll("main *")].filter(one => one.getBoundingClientRect().right > innerWidth + 1);
parent.document.title = [innerWidth, document.documentElement.scrollWidth, wide.length,
  document.querySelectorAll("figure svg[role=img]").length,
  getComputedStyle(document.body).backgroundColor, document.fonts.size].join("|");
</script>"""

CHROMIUM = shutil.which("chromium")
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER: the page was not looked at; as root: apt-get install chromium"
)


class Run(NamedTuple):
    document: dict[str, Any]
    page: str


def compare(home: Path) -> Run:
    page = home / "page.html"
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "compare", "--session", SESSION, "--json", "--html", str(page)],
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
    for document in (run.document, again):
        for row in document["rails"]:
            assert row.pop("time")
    assert run.document == again


class Seen(NamedTuple):
    width: int
    scrolls: int
    beyond: int
    plots: int
    paper: str


def look(page: str, directory: Path, width: int) -> Seen:
    """Load the page in a frame of that width, since a window is never narrower than 500, and ask it about itself."""
    file, probed = directory / "probed.html", page.replace("</body>", PROBE + "</body>")
    frame = f'<iframe style="width:{width}px;height:844px;border:0" srcdoc="{escape(probed)}"></iframe>'
    file.write_text(f"<!doctype html><title></title>{frame}", "utf-8")
    dumped = chromium(directory, "--dump-dom", "--window-size=1400,900", file.as_uri())
    title = re.search("<title>(.*?)</title>", dumped)
    assert title is not None
    values = title[1].split("|")
    return Seen(*map(int, values[:4]), values[4])


def chromium(directory: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={directory / 'profile'}", *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=LONGEST / 5,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


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
    width, colours = _picture(picture.read_bytes())
    assert width == PHONE
    assert colours > 50  # text and lines, not an empty sheet


def _picture(png: bytes) -> tuple[int, int]:
    """A PNG's width, and how many kinds of four bytes its rows have."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, data, at = int.from_bytes(png[16:20], "big"), b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    rows = zlib.decompress(data)
    return width, len({rows[i : i + 4] for i in range(0, len(rows), 4)})
