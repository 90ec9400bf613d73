from __future__ import annotations

import itertools
import re
from random import Random

import pytest

from penstock.cli.plot import DESK, PHONE, Axis, Curve, Mark, Points, Size, legend, plot, reach, stepped, thinned

PATH = re.compile(r'class="(?:line|area) [^"]*" d="M([^"]*)"')


def places(path: str) -> list[tuple[float, float]]:
    """Where a path goes through, its short pieces written out."""
    found: list[tuple[float, float]] = []
    for letter, numbers in re.findall(r"([MLHV])([^MLHV]*)", "M" + path):
        values = list(map(float, numbers.split()))
        across = values[0] if letter != "V" else found[-1][0]
        up = values[-1] if letter != "H" else found[-1][1]
        found.append((across, up))
    return found


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
    paths = PATH.findall(drawn)
    assert len(paths) == 2
    for across, up in itertools.chain(*map(places, paths)):
        assert 0 <= across <= PHONE.width
        assert 0 <= up <= PHONE.height


def test_names_cannot_add_elements() -> None:
    curve = Curve('<script>"', 0, [(0, 0), (1, 1)])
    drawn = plot('a"b', "<c>", Axis("<d>", 1), Axis("&", 1), [curve]) + legend([curve])
    assert "<script" not in drawn
    assert 'aria-label="a&quot;b. &lt;c&gt;"' in drawn


def test_a_step_keeps_its_height_until_the_next() -> None:
    assert stepped([(0, 3), (2, 1)]) == [(0, 3), (2, 3), (2, 1)]


def test_steps_are_drawn_level_and_upright() -> None:
    drawn = plot(
        "Title", "Words", Axis("x", 4), Axis("y", 5, least=-5), [Curve("one", 0, [(0, 3), (2, -1)], steps=True)]
    )
    corners = places(PATH.findall(drawn)[0])
    assert len(corners) == 3
    assert corners[0][1] == corners[1][1]
    assert corners[1][0] == corners[2][0]


def test_an_axis_that_goes_below_zero_has_a_line_there() -> None:
    y = Axis("y", 12, least=-8)
    assert 0 in y.marks(4)
    assert min(y.marks(4)) < 0 < max(y.marks(4))
    curve = Curve("one", 0, [(0, 12), (1, -8)])
    assert plot("Title", "Words", Axis("x", 1), y, [curve]).count('class="zero"') == 1
    assert 'class="zero"' not in plot("Title", "Words", Axis("x", 1), Axis("y", 12), [curve])


def test_an_area_is_closed_at_zero() -> None:
    drawn = plot(
        "Title", "Words", Axis("x", 4), Axis("y", 5, least=-5), [Curve("one", 0, [(1, -3), (3, -3)], area=True)]
    )
    corners = places(PATH.findall(drawn)[0])
    assert corners[0][1] == corners[-1][1] == (PHONE.height - 36 + 22) / 2
    assert corners[1][1] == corners[2][1] > corners[0][1]


@pytest.mark.parametrize(("heights", "span"), [([], (0, 1)), ([0, 0], (0, 1)), ([-2], (-2, 0)), ([3, -1], (-1, 3))])
def test_an_axis_reaches_every_value_and_zero(heights: list[float], span: tuple[float, float]) -> None:
    points: Points = [(0.0, height) for height in heights]
    assert reach([Curve("one", 0, points)], margin=1) == span


def day(seed: int) -> Points:
    """Something that is noisy all day, with one peak and one dip of a single sample."""
    rng = Random(seed)
    points: Points = [(float(at), rng.uniform(10, 11)) for at in range(86_400)]
    points[30_000 + seed] = (30_000.0 + seed, 99.0)
    points[60_000 + seed] = (60_000.0 + seed, -99.0)
    return points


@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thinning_loses_no_peak_and_keeps_the_order(size: Size, seed: int) -> None:
    x, curve = Axis("x", 86_399), Curve("one", 0, day(seed), steps=True)
    points = thinned(curve, x, size).points
    assert len(points) <= 4 * size.width
    assert points == sorted(set(points))
    assert set(points) <= set(curve.points)
    assert {(30_000.0 + seed, 99.0), (60_000.0 + seed, -99.0), curve.points[0], curve.points[-1]} <= set(points)


def test_of_steps_that_repeat_themselves_the_changes_are_kept() -> None:
    points: Points = [(float(at), float(at // 900)) for at in range(8_640)]
    thin = thinned(Curve("one", 0, points, steps=True), Axis("x", 8_639), DESK).points
    assert thin == [*points[::900], points[-1]]


def test_of_peaks_the_highest_is_drawn_and_a_fall_before_a_pause_is_kept() -> None:
    points: Points = [(0, 1), (1, 7), (2, 3), (3, 0), (500, 2), (1_000, 0)]
    thin = thinned(Curve("one", 0, points, steps=True, peaks=True), Axis("x", 1_000_000), PHONE)
    assert thin.points == [(1, 7), (1_000, 0)]
    wider = thinned(Curve("one", 0, points, steps=True, peaks=True), Axis("x", 1_000), PHONE)
    assert wider.points == [(1, 7), (3, 0), (500, 2), (1_000, 0)]


def test_marks_that_would_stand_upon_each_other_are_one() -> None:
    marks = [Mark(0, 1), Mark(1, 2), Mark(2, 3), Mark(50, 4), Mark(100, 5)]
    drawn = plot("Title", "Words", Axis("x", 100), Axis("y", 1), [], PHONE, marks)
    assert re.findall(r'<text class="mark"[^>]*>([^<]*)<', drawn) == ["1-3", "4", "5"]
    assert drawn.count('<path class="mark"') == 3
