from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from random import Random

import pytest

from penstock.cli.course import course_page
from penstock.sim.samples import LATEST, About, Course, Sample

START = 1_774_742_400_000  # 2026-03-29, midnight UTC
ABOUT = About("A day of a car at a pole", "cEUR", 6, 4_000, 2_000)


def day(every: int, seed: int = 1) -> Course:
    """A made-up day, a sample `every` so many seconds: it charges where that is cheap and feeds in where it pays."""
    rng, samples = Random(seed), list[Sample]()
    total = export = paid = paid_back = 0
    reason = ""
    for second in range(0, 86_400, every):
        price = int(400_000 * math.sin(second // 900 / 96 * 4 * math.pi))
        power, why = {True: (11_000, "cheap"), False: (0, "neither pays")}[price < 100_000]
        if price > 300_000:
            power, why = -7_400, "feeding in pays"
        if 50_000 <= second < 50_600:
            power, why = 0, "grid emergency: 0 W"
        total += max(0, power) * every // 3_600
        export += max(0, -power) * every // 3_600
        paid += max(0, power * price) * every // 3_600_000
        paid_back += max(0, -power * price) * every // 3_600_000
        noise = rng.randint(-50, 50) if power else 0
        samples.append(
            Sample(
                START + second * 1_000, power + noise, price, price - 50_000, paid // 1_000, paid_back // 1_000, paid,
                paid_back, rng.randint(0, 3_000), rng.randint(0, 1_500), total, export, why if why != reason else "",
            )
        )  # fmt: skip
        reason = why
    return Course(ABOUT, tuple(samples))


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
