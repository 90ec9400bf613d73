from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from penstock.cli.course import course_page
from penstock.sim.samples import LATEST, About, Course, Sample

from .days import ABOUT, START, day


class Page(HTMLParser):
    """A page: that each of its elements is closed, what it asks for, and its drawings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asks: list[str] = []
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asks += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        self.asks += [tag] if tag in ("script", "link", "iframe", "object") else []
        self.labels += [value or "" for name, value in attrs if tag == "svg" and name == "aria-label"]
        if tag not in ("meta", "path", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "br"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    text = course_page(day(900))
    page = Page(text)
    assert (page.open, page.asks) == ([], [])
    assert "url(" not in text
    assert "$" not in text
    assert len(page.labels) == 2 * 6  # once for a phone, once for a wide window
    assert all(len(label) > 30 for label in page.labels)


def test_what_happened_is_said_in_words() -> None:
    text = course_page(day(900))
    first, *_, last = day(900).samples
    assert f"{(last.total - first.total) / 1_000:,.3f} kWh flowed to the consumer" in text
    assert f"{(last.export - first.export) / 1_000:,.3f} kWh back" in text
    assert "2026-03-29 00:00:00 to 23:45:00, UTC" in text
    assert "The flow turned round 4 times" in text
    assert re.search(r"<time>[^<]*13:54:00</time> grid emergency: 0 W: nothing flows", course_page(day(60)))


def test_a_day_of_seconds_makes_no_larger_page_than_one_can_load() -> None:
    assert len(course_page(day(1))) < 500_000


def test_numbers_in_the_plot_are_those_of_the_reasons() -> None:
    text = course_page(day(60))
    reasons = re.findall(r"<li><time>", text)
    numbers = [int(one) for one in re.findall(r'<text class="mark"[^>]*>(?:\d+-)?(\d+)<', text)]
    assert max(numbers) == len(reasons) > 5


@pytest.mark.parametrize("count", [1, 2])
def test_a_session_that_hardly_began_has_a_page(count: int) -> None:
    course = day(900)
    text = course_page(Course(ABOUT, course.samples[:count]))
    assert Page(text).open == []
    assert "nan" not in text


def test_nothing_at_all_is_drawn_as_zero() -> None:
    nothing = Sample(START, 0, 0, None, 0, 0, 0, 0, 0, 0, 0, 0)
    text = course_page(Course(ABOUT, (nothing, Sample(START + 1, 0, 0, None, 0, 0, 0, 0, 0, 0, 0, 0))))
    assert "The flow never turned round" in text
    assert "Nothing changed it" in text
    assert Page(text).open == []


def test_words_from_outside_cannot_add_elements() -> None:
    about = About('<script>"&', "<b>", 6, 1, 1)
    sample = Sample(START, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, "<script>alert(1)</script>")
    text = course_page(Course(about, (sample,)))
    assert "<script" not in text
    assert "<b>" not in text


@pytest.mark.parametrize(("at", "decimals"), [(1, 0), (0, 18), (LATEST, 77)])
def test_whatever_can_be_read_can_be_shown(at: int, decimals: int) -> None:
    huge = 2**96 - 1
    sample = Sample(at, -(2**53), -huge, huge, 2**53, 2**53, huge, huge, huge, -huge, 2**53, 2**53, "why")
    text = course_page(
        Course(
            About("x", "y", decimals, huge, huge), tuple(sorted((day(900).samples[0], sample), key=lambda one: one.at))
        )
    )
    assert Page(text).open == []
    assert len(text) < 100_000
