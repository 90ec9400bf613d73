"""The benchmark of payments over hubs, with few ticks and few sessions: real processes, locks, ticks and folds."""

from __future__ import annotations

from bench.figures import KEYS
from bench.hops import run


def test_a_session_over_three_hubs_and_a_few_through_one_are_measured() -> None:
    found = run(rounds=1, windows={16: 300}, at_once=5)
    for key, inner in KEYS["hops"].items():
        assert set(found[key]) == (set(inner) if "per" not in key else {"w16"})
    assert all(found[f"{rail}_ticks_per_s"]["w16"] > 0 for rail in ("direct", "hop"))
    assert found["hub_messages"]["between"] == 0
    assert found["hub_messages"]["lock"] == 2 * 3  # it comes, and it is in place
    assert found["hub_at_once"]["sessions"] == 5
    assert found["hub_at_once"]["vouchers"] > 2 * 5
    assert found["hub_earned"] > 0
