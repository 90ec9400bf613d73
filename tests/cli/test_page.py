from __future__ import annotations

import itertools
import re
from importlib.resources import files

import pytest

from penstock.cli.compared import money, span
from penstock.cli.plot import HEIGHT, WIDTH, Axis, Curve, legend, plot, stepped

STYLE = (files("penstock") / "data" / "compare.html").read_text("utf-8")
LEAST = 4.5  # WCAG 2.2, success criterion 1.4.3: contrast of text
SCHEMES = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)


def colours(scheme: str) -> dict[str, str]:
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", scheme))
    return {
        name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
        for name, value in found.items()
    }


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["light", "dark"])
def test_every_text_stands_out_from_its_paper(scheme: str) -> None:
    named = colours(scheme)
    texts = set(named) - {"paper", "card", "rule"}
    assert {"ink", "soft", "rail-0", "rail-1", "good", "bad"} <= texts
    for text in texts:
        for paper in ("paper", "card"):
            lighter, darker = sorted((luminance(named[text]), luminance(named[paper])), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= LEAST, (text, paper)


@pytest.mark.parametrize("most", [0.002, 0.0022, 1.0, 7.64, 26.6, 30.0, 157.9, 10_790.0])
def test_an_axis_has_a_few_round_marks(most: float) -> None:
    marks = Axis("x", most).marks(4)
    assert marks[0] == 0
    assert 3 <= len(marks) <= 6
    assert marks[-1] <= most * 1.000001
    steps = {round((later - earlier) / marks[1], 6) for earlier, later in itertools.pairwise(marks)}
    assert steps == {1.0}


def test_an_axis_of_nothing_has_its_zero() -> None:
    assert Axis("x", 0).marks(4) == [0.0]


def test_every_point_of_a_plot_is_inside_it() -> None:
    curves = [Curve("one", 0, [(0, 0), (30, 10)]), Curve("two", 1, [(15, 5)], dashed=True)]
    drawn = plot("Title", "Words", Axis("x", 30), Axis("y", 10), curves)
    paths = re.findall(r'class="line [^"]*" d="M([^"]*)"', drawn)
    assert len(paths) == 2
    for path in paths:
        for point in path.split("L"):
            across, up = map(float, point.split())
            assert 0 <= across <= WIDTH
            assert 0 <= up <= HEIGHT


def test_names_cannot_add_elements() -> None:
    curve = Curve('<script>"', 0, [(0, 0), (1, 1)])
    drawn = plot('a"b', "<c>", Axis("<d>", 1), Axis("&", 1), [curve]) + legend([curve])
    assert "<script" not in drawn
    assert 'aria-label="a&quot;b. &lt;c&gt;"' in drawn


def test_a_step_keeps_its_height_until_the_next() -> None:
    assert stepped([(0, 3), (2, 1)]) == [(0, 3), (2, 3), (2, 1)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (428, "7 min 8 s"), (3_600, "1 h"), (9_472, "2 h 37 min")],
)
def test_lengths_of_time_have_two_units(seconds: int, words: str) -> None:
    assert span(seconds) == words


def test_what_something_costs_is_rounded_up() -> None:
    assert money({"decimals": 6}, 1) == "0.0001 cEUR"
    assert money({"decimals": 6}, 6_946_400) == "6.9464 cEUR"
    assert money({"decimals": 6}, 0) == "0 cEUR"
