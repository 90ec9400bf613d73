"""A site's limit is divided fairly: to the watt, whatever the order, and nobody waits forever."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import OutOfRange
from penstock.core.share import Claim, divide, turned, waiting

LEAST = 4_140  # W: 6 A on three phases


def claims(most: int = 30, least: int = 15) -> st.SearchStrategy[list[Claim]]:
    """Claims of small numbers, so that they meet each other and the limit."""
    claim = st.builds(
        Claim, st.text("abcdefgh", max_size=3), st.integers(0, most), st.integers(0, least), st.integers(0, 3)
    )
    return st.lists(claim, max_size=8, unique_by=lambda claim: claim.name)


LIMITS = st.integers(0, 150)


def test_all_get_the_same_but_nobody_more_than_it_wants() -> None:
    wishes = [Claim("a", 3_700), Claim("b", 11_000), Claim("c", 22_000)]
    assert divide(30_000, wishes) == {"a": 3_700, "b": 11_000, "c": 15_300}
    assert divide(20_000, wishes) == {"a": 3_700, "b": 8_150, "c": 8_150}
    assert divide(9_000, wishes) == {"a": 3_000, "b": 3_000, "c": 3_000}
    assert divide(100_000, wishes) == {"a": 3_700, "b": 11_000, "c": 22_000}
    assert divide(0, wishes) == {"a": 0, "b": 0, "c": 0}


def test_what_does_not_divide_evenly_goes_to_the_first_in_the_queue() -> None:
    wishes = [Claim("c", 50), Claim("b", 50), Claim("a", 2), Claim("d", 50, place=1)]
    assert divide(14, wishes) == {"a": 2, "b": 4, "c": 4, "d": 4}
    assert divide(15, wishes) == {"a": 2, "b": 5, "c": 4, "d": 4}
    assert divide(16, wishes) == {"a": 2, "b": 5, "c": 5, "d": 4}


def test_who_cannot_get_its_least_waits_and_leaves_its_share_to_the_others() -> None:
    wishes = [Claim(name, 11_000, LEAST) for name in "abc"]
    shares = divide(10_000, wishes)
    assert shares == {"a": 5_000, "b": 5_000, "c": 0}
    assert waiting(wishes, shares) == ["c"]
    assert divide(4_139, wishes) == {"a": 0, "b": 0, "c": 0}


def test_a_smaller_one_behind_is_served_where_a_larger_one_cannot_be() -> None:
    assert divide(5_000, [Claim("a", 22_000, 6_000), Claim("b", 3_700, 1_380)]) == {"a": 0, "b": 3_700}


def test_a_least_above_the_level_is_kept_and_the_others_share_the_rest() -> None:
    assert divide(10_000, [Claim("a", 22_000, 6_000), Claim("b", 9_000), Claim("c", 9_000)]) == {
        "a": 6_000,
        "b": 2_000,
        "c": 2_000,
    }


def test_one_that_wants_less_than_it_can_work_with_waits_for_nothing() -> None:
    wishes = [Claim("a", 3_000, LEAST), Claim("b", 11_000, LEAST)]
    shares = divide(20_000, wishes)
    assert shares == {"a": 0, "b": 11_000}
    assert waiting(wishes, shares) == []


def test_absurd_claims_are_refused() -> None:
    for limit, wishes in ((-1, []), (1, [Claim("a", -1)]), (1, [Claim("a", 1, -1)]), (1, [Claim("a", 1)] * 2)):
        with pytest.raises(OutOfRange):
            divide(limit, wishes)


@given(LIMITS, claims())
def test_no_more_than_the_limit_is_given_and_no_less_than_is_wanted(limit: int, wishes: list[Claim]) -> None:
    shares = divide(limit, wishes)
    served = [claim for claim in wishes if shares[claim.name]]
    assert sum(shares.values()) <= limit
    assert set(shares) == {claim.name for claim in wishes}
    for claim in served:
        assert claim.least <= shares[claim.name] <= claim.wants
    left = limit - sum(shares.values())
    if left:
        assert all(shares[claim.name] == claim.wants for claim in served), "something is left, and somebody wants it"
        assert all(claim.least > left for claim in wishes if claim.works and not shares[claim.name])


@given(LIMITS, claims())
def test_nobody_could_get_more_without_taking_from_one_that_has_less(limit: int, wishes: list[Claim]) -> None:
    shares = divide(limit, wishes)
    served = [claim for claim in wishes if shares[claim.name]]
    for poor in served:
        for rich in served:
            if shares[poor.name] < poor.wants and shares[rich.name] > shares[poor.name] + 1:
                assert shares[rich.name] == rich.least, "it has more than another that wants it, and could do with less"


@given(LIMITS, claims(), st.randoms(use_true_random=False))
def test_the_order_of_the_claims_makes_no_difference(limit: int, wishes: list[Claim], random: object) -> None:
    shares = divide(limit, wishes)
    shuffled = list(wishes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    assert divide(limit, shuffled) == shares


@given(LIMITS, claims())
def test_a_higher_limit_gives_no_less_in_all(limit: int, wishes: list[Claim]) -> None:
    assert sum(divide(limit + 1, wishes).values()) >= sum(divide(limit, wishes).values())


@given(LIMITS, claims(least=0))
def test_a_higher_limit_gives_nobody_less_where_all_can_work_with_anything(limit: int, wishes: list[Claim]) -> None:
    lower, higher = divide(limit, wishes), divide(limit + 1, wishes)
    assert all(higher[name] >= share for name, share in lower.items())


@given(LIMITS, claims())
def test_whoever_waits_is_served_before_long_where_its_least_is_within_the_limit(
    limit: int, wishes: list[Claim]
) -> None:
    queue = [claim.name for claim in wishes]
    counts = {claim.name: 0 for claim in wishes if claim.works and 0 < claim.least <= limit}
    for _ in range(3 * len(wishes)):
        shares = divide(limit, _in(queue, wishes))
        for name in counts:
            counts[name] += shares[name] > 0
        queue = turned(queue, {name for name, share in shares.items() if share})
    assert all(count >= 3 for count in counts.values()), f"{counts} of {3 * len(wishes)} turns"


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 40))
def test_equals_are_served_equally_often(number: int, fit: int, turns: int) -> None:
    wishes = [Claim(name, LEAST, LEAST) for name in "abcdef"[:number]]
    queue, counts = [claim.name for claim in wishes], dict.fromkeys("abcdef"[:number], 0)
    for _ in range(turns):
        shares = divide(fit * LEAST, _in(queue, wishes))
        assert sum(share > 0 for share in shares.values()) == min(fit, number)
        for name, share in shares.items():
            counts[name] += share > 0
        queue = turned(queue, {name for name, share in shares.items() if share})
    assert max(counts.values()) - min(counts.values()) <= 1


def _in(queue: list[str], wishes: list[Claim]) -> list[Claim]:
    return [msgspec.structs.replace(claim, place=queue.index(claim.name)) for claim in wishes]
