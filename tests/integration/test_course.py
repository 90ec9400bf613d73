"""A session over time as a page, looked at in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.days import day

from penstock.cli.course import course_page

from .browser import DESK, PHONE, SMALL, browser, chromium, look, picture_of

PAGE = course_page(day(20))


@browser
@pytest.mark.parametrize("width", [SMALL, PHONE, DESK])
def test_each_plot_is_seen_once_and_the_page_fits_its_window(tmp_path: Path, width: int) -> None:
    seen = look(PAGE, tmp_path, width)
    assert (seen.width, seen.scrolls, seen.beyond) == (width, width, 0)
    assert seen.plots == 6


@browser
def test_the_page_is_drawn(tmp_path: Path) -> None:
    file, picture = tmp_path / "page.html", tmp_path / "page.png"
    file.write_text(PAGE, "utf-8")
    chromium(tmp_path, f"--screenshot={picture}", f"--window-size={DESK},844", file.as_uri())
    width, colours = picture_of(picture.read_bytes())
    assert width == DESK
    assert colours > 50  # text, lines and areas, not an empty sheet
