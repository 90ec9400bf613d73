from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.control import Control


def test_trust_doubles_with_each_success_up_to_the_limit() -> None:
    control = Control(limit=10, first=3)
    trusts = []
    for worth in (1, 2, 2, 1, 3):
        control.get(worth)
        trusts.append(control.trust)
    assert trusts == [6, 10, 10, 10, 10]
    assert control.got == 3


def test_whoever_goes_second_trusts_nobody() -> None:
    control = Control(limit=0, first=5)
    assert (control.trust, control.may_give) == (0, 0)
    control.get(7)
    assert (control.trust, control.may_give) == (0, 7)


def test_what_was_let_go_is_recorded_even_beyond_the_bound() -> None:
    control = Control(limit=5, first=5)
    control.give(9)
    control.give(4)
    assert (control.given, control.exposure, control.worst) == (9, 9, 9)
    control.get(20)
    assert (control.exposure, control.worst) == (0, 9)


@given(st.integers(0, 100), st.integers(1, 100), st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=40))
def test_whoever_gives_no_more_than_it_may_is_never_exposed_beyond_its_limit(
    limit: int, first: int, moves: list[tuple[bool, int]]
) -> None:
    control = Control(limit, first)
    for gives, much in moves:
        if gives:
            control.give(min(much, control.may_give))
        else:
            control.get(much)
    assert control.worst <= limit
    assert control.exposure <= control.trust <= limit
