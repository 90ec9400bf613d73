from __future__ import annotations

import re
from importlib.resources import files

import pytest

from penstock.cli.compared import money, span

STYLE = (files("penstock") / "data" / "page.css").read_text("utf-8")
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
