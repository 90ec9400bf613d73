"""A real browser, which a page is loaded into and asked how it looks."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from html import escape
from pathlib import Path
from typing import NamedTuple

import pytest

SMALL, PHONE, DESK = 320, 390, 1280
LONGEST = 60.0  # seconds for a page
PROBE = """<script>
const wide = [...document.querySelectorAll("main *")].filter(one => one.getBoundingClientRect().right > innerWidth + 1);
parent.document.title = [innerWidth, document.documentElement.scrollWidth, wide.length,
  [...document.querySelectorAll("figure svg[role=img]")].filter(one => one.getClientRects().length).length,
  getComputedStyle(document.body).backgroundColor, document.fonts.size].join("|");
</script>"""

CHROMIUM = shutil.which("chromium")
browser = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER: the page was not looked at; as root: apt-get install chromium"
)


class Seen(NamedTuple):
    width: int
    scrolls: int
    beyond: int
    plots: int
    paper: str


def look(page: str, directory: Path, width: int) -> Seen:
    """Ask a page about itself: `scrolls` is how wide it is, `beyond` how many elements leave the window, `plots` how
    many are to be seen. It is loaded in a frame of that width, since a window is never narrower than 500.
    """
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
        timeout=LONGEST,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def picture_of(png: bytes) -> tuple[int, int]:
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
