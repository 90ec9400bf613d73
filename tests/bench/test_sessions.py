"""The benchmark of many sessions, with few: real processes, real links, and every tick acknowledged."""

from __future__ import annotations

from bench.sessions import run


def test_a_few_sessions_are_measured_over_tls_and_over_bare_tcp() -> None:
    found = run(count=30, plain_count=20, seconds=1.0)
    tls, plain = found["sessions"], found["sessions_plain"]
    assert (tls["count"], plain["count"]) == (30, 20)
    for figures in (tls, plain):
        assert set(figures) == {"count", "cpu", "kb_each", "p99_ms"}
        assert 0 <= figures["cpu"] < 2  # the kernel counts it in hundredths of a second
        assert 0 < figures["p99_ms"] < 60_000
        assert figures["kb_each"] > 1
    assert found["sessions_went"]["ticks_per_s"] > 0
