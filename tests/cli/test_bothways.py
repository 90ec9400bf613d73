from __future__ import annotations

import io

import pytest
from rich.console import Console

from penstock.cli.bothways import COLUMNS, BothWays, Coming, Strip
from penstock.sim.samples import About, Sample

from .days import ABOUT, START, day


def seen(view: BothWays, width: int = 100) -> str:
    """What a terminal would show, without colours."""
    paper = io.StringIO()
    Console(file=paper, width=width, color_system=None).print(view)
    return paper.getvalue()


def standing(power: int, why: str = "") -> Sample:
    return Sample(
        START, power, -20_000, 390_000, 7, 12, 7_000, 12_500, 1_500, 250, 134_102, 25_901, why
    )  # fmt: skip


@pytest.mark.parametrize(
    ("power", "arrow", "words"), [(11_000, "▶", "11.00 kW"), (-7_400, "◀", "7.40 kW"), (0, "┄", "nothing flows")]
)
def test_the_view_shows_which_way_it_goes(power: int, arrow: str, words: str) -> None:
    view = BothWays(ABOUT)
    view.take(standing(power), "streaming")
    flow = next(line for line in seen(view).splitlines() if "flow" in line)
    assert arrow in flow
    assert words in flow


def test_the_view_shows_meters_prices_payments_and_what_is_at_stake() -> None:
    view = BothWays(ABOUT)
    view.take(standing(11_000), "streaming", Coming(START + 900_000, 10_000, None))
    shown = seen(view)
    for words in (
        "134.102 kWh", "25.901 kWh", "-0.02 cEUR/kWh", "0.39 cEUR/kWh", "from 00:15:00  0.01 cEUR/kWh",
        "by the consumer 0.007 cEUR", "by the supplier 0.0125 cEUR", "supplier paid 0.0055 cEUR more than it got",
        "supplier 0.0015 cEUR", "consumer 0.00025 cEUR", "0.004 cEUR", "streaming",
    ):  # fmt: skip
        assert words in shown


def test_the_last_reason_stays_until_there_is_another() -> None:
    view = BothWays(ABOUT)
    for power, why in ((11_000, "cheap"), (0, "grid emergency: 0 W"), (0, "")):
        view.take(standing(power, why), "streaming")
    assert "grid emergency: 0 W (00:00:00)" in seen(view)
    assert "cheap" not in seen(view)


def test_a_day_fits_into_the_strip() -> None:
    strip = Strip()
    samples = day(30).samples
    for sample in samples:
        strip.take(sample.at, sample.power)
        up, down = strip.rows()
        assert len(up) == len(down) <= COLUMNS
    assert len(up) > COLUMNS // 2
    for above, below in zip(up.plain, down.plain, strict=True):
        assert above == " " or below == " "
    ways = [sample.power > 0 for sample in samples if sample.power]
    assert {True, False} == set(ways)
    assert "█" in up.plain
    assert down.plain.strip()


def test_a_pause_without_samples_goes_on_as_it_was() -> None:
    strip = Strip()
    strip.take(START, 5_000)
    strip.take(START + 10_000, -5_000)
    up, down = strip.rows()
    assert up.plain == "█" * 10 + " "
    assert down.spans
    assert len(down) == 11


def test_before_the_first_sample_it_says_what_is_waited_for() -> None:
    assert "looking for an offer" in seen(BothWays(ABOUT))


def test_words_from_outside_steer_no_terminal() -> None:
    view = BothWays(About("[/] \x1b[31m", "[/b]\x07", 6, 1, 1))
    view.take(standing(1, "\x1b[2J[/why]"), "streaming")
    shown = seen(view)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[/why]" in shown
    assert "[/b]" in shown
